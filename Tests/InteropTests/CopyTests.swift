// Goal: whole images go in and come out unchanged through nbdcopy and qemu-img, with holes, over
// many connections; qemu-io's patterns, zeroes, discards and FUA writes read back as they must.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct Copy {
    @Test("nbdcopy in, nbdcopy out: the same image, and equal legs")
    func nbdcopyBothWays() async throws {
      try await withMirror { mirror in
        let (image, copy) = ("\(mirror.directory)/in.img", "\(mirror.directory)/out.img")
        try await makeSparseNoise(image, bytes: 64 << 20, seed: 11)
        try await mirror.serve()
        try await must([
          "nbdcopy", "--connections=4", "--requests=64", "--flush", image, mirror.uri,
        ])
        try await must(["nbdcopy", "--connections=4", "--requests=64", mirror.uri, copy])
        try await must(["cmp", image, copy])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("an image is still there after a clean stop and a new start")
    func survivesRestart() async throws {
      try await withMirror { mirror in
        let (image, copy) = ("\(mirror.directory)/in.img", "\(mirror.directory)/out.img")
        try await makeSparseNoise(image, bytes: 64 << 20, seed: 12)
        try await mirror.serve()
        try await must(["nbdcopy", image, mirror.uri])
        try await mirror.stop()
        try await mirror.serve()
        let status = try await mirror.status()
        #expect(status.state == "healthy")
        #expect(status.unresolvedRegions == 0)
        try await must(["nbdcopy", mirror.uri, copy])
        try await must(["cmp", image, copy])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("qemu-img converts into the mirror and finds no difference")
    func qemuImage() async throws {
      try await withMirror { mirror in
        let image = "\(mirror.directory)/in.img"
        try await makeSparseNoise(image, bytes: 64 << 20, seed: 13)
        try await mirror.serve()
        try await must([
          "qemu-img", "convert", "-f", "raw", "-O", "raw", "-n", "-W", "-m", "8", image, mirror.uri,
        ])
        try await must(["qemu-img", "compare", "-f", "raw", "-F", "raw", image, mirror.uri])
        let info = try await must(["qemu-img", "info", "--output=json", mirror.uri])
        #expect(info.output.contains("\"virtual-size\": 67108864"))
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("qemu-io reads back its patterns, zeroes, discards and FUA writes")
    func qemuIO() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        let commands = [
          "write -P 0xaa 0 1m", "write -f -P 0xbb 64k 64k", "write -z 256k 64k",
          "write -z -u 384k 64k", "write -z -f 512k 64k", "discard 640k 64k", "flush",
          "write -P 0xcc 1m 4m", "write -z 2m 1m", "write -P 0xdd 2097664 512",
          "read -P 0xaa 0 64k", "read -P 0xbb 64k 64k", "read -P 0xaa 128k 128k",
          "read -P 0 256k 64k", "read -P 0xaa 320k 64k", "read -P 0 384k 64k",
          "read -P 0 512k 64k", "read -P 0 640k 64k", "read -P 0xcc 1m 1m",
          "read -P 0 2m 512", "read -P 0xdd 2097664 512", "read -P 0 2098176 1047552",
          "read -P 0xcc 3m 2m", "read -P 0 5m 59m",
        ]
        let result = try await must(
          ["qemu-io", "-f", "raw"] + commands.flatMap { ["-c", $0] } + [mirror.uri])
        #expect(!result.output.contains("Pattern verification failed"), "\(result)")
        #expect(!result.output.contains("failed:"), "\(result)")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("qemu-img bench writes at depth 64 without an error")
    func qemuBench() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await must([
          "qemu-img", "bench", "-f", "raw", "-t", "none", "-c", "4000", "-d", "64", "-s", "4k",
          "-w", "--flush-interval=64", mirror.uri,
        ])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test(
      "the kernel's client attaches, a file system on it holds",
      .enabled(if: FileManager.default.fileExists(atPath: "/dev/nbd0"), "no /dev/nbd0 here"))
    func kernelClient() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await must(["nbd-client", "-unix", mirror.socket, "/dev/nbd0", "-C", "2"])
        do {
          try await must(["mke2fs", "-q", "-F", "-t", "ext4", "/dev/nbd0"])
          try await must([
            "fio", "--name=v", "--filename=/dev/nbd0", "--rw=randrw", "--bs=4k", "--size=32m",
            "--ioengine=libaio", "--direct=1", "--iodepth=16", "--verify=crc32c",
            "--verify_state_save=0",
          ])
          try await must(["nbd-client", "-d", "/dev/nbd0"])
        } catch {
          _ = try await run(["nbd-client", "-d", "/dev/nbd0"])
          throw error
        }
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
