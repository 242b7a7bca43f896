// Goal: PVs that are not alike (512 and 4096 byte sectors, other sizes, other old contents) make one
// device that clients use at any alignment; what was never written reads as zeros, also after a
// crash; eight legs are as good as two.
//
// Method: loop devices over files of noise, so that whatever shows through is seen. A model of the
// device is kept in a plain file by the client's own script and compared whole. Needs root; without
// it these tests fail, they don't pass by doing nothing.
import Fixtures
import Foundation
import Testing

/// Loop devices, attached for one test.
private struct Loops {
  private(set) var paths: [String] = []

  /// A device of `megabytes` MiB of noise with sectors of `sector` bytes.
  mutating func attach(_ directory: String, megabytes: Int, sector: Int) async throws {
    let file = "\(directory)/disk\(paths.count)"
    try await must(["dd", "if=/dev/urandom", "of=\(file)", "bs=1M", "count=\(megabytes)"])
    let device = try await must([
      "losetup", "--find", "--show", "--sector-size", "\(sector)", file,
    ])
    paths.append(device.output.trimmingCharacters(in: .whitespacesAndNewlines))
  }

  func detach() async throws {
    for path in paths { try await must(["losetup", "--detach", path]) }
  }
}

/// Runs `body` on a mirror of a device with 512-byte sectors and a larger one with 4096-byte ones.
private func withMixedDevices(
  options: [String] = [], _ body: (MirrorUnderTest) async throws -> Void
) async throws {
  let directory = try TemporaryDirectory()
  defer { directory.remove() }
  var loops = Loops()
  do {
    try await loops.attach(directory.path, megabytes: 34, sector: 512)
    try await loops.attach(directory.path, megabytes: 40, sector: 4096)
    try await withMirror(
      on: loops.paths, size: nil, options: options, directory: directory.path, body)
  } catch {
    try await loops.detach()
    throw error
  }
  try await loops.detach()
}

/// Writes, zeroes and trims of any alignment; the model goes to the file `MODEL`.
private func differential(_ path: String, seed: Int, rounds: Int) -> String {
  """
  h = connect(block_size=False)
  size = h.get_size()
  rng = random.Random(\(seed))
  try:
      model = bytearray(open("\(path)", "rb").read())
  except FileNotFoundError:
      model = bytearray(size)
  assert len(model) == size
  def place(most):
      count = rng.choice((1, 512, 512, 513, 1024, 4095, 4096, 5120, rng.randrange(1, most)))
      at = rng.randrange(0, size - count + 1)
      return (at if rng.random() < 0.3 else at & ~511), count
  for round in range(\(rounds)):
      at, count = place(200000)
      what = rng.random()
      if what < 0.55:
          piece = rng.randbytes(count)
          h.pwrite(piece, at, rng.choice((0, 0, 0, nbd.CMD_FLAG_FUA)))
          model[at:at + count] = piece
      elif what < 0.65:
          h.zero(count, at, rng.choice((0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA)))
          model[at:at + count] = bytes(count)
      elif what < 0.7:
          h.trim(count, at)
          after = h.pread(count, at)
          assert all(now in (0, was) for now, was in zip(after, model[at:at + count]))
          model[at:at + count] = after
      else:
          assert h.pread(count, at) == bytes(model[at:at + count]), f"{count} bytes at {at}"
  h.flush()
  with open("\(path)", "wb") as file:
      file.write(model)

  """
}

extension Interop {
  struct MixedLegs {
    @Test("sectors of 512 and 4096 bytes, sizes that differ: any alignment, against a plain file")
    func mixedSectors() async throws {
      try await withMixedDevices { mirror in
        let (model, copy) = ("\(mirror.directory)/model", "\(mirror.directory)/copy")
        try await mirror.serve()
        let status = try await mirror.status()
        #expect(status.size == 32 << 20 && status.unwrittenBytes == 32 << 20)
        #expect(status.state == "healthy", "nothing is to be copied")
        let zeros = try await must(["qemu-io", "-f", "raw", "-c", "read -P 0 0 32m", mirror.uri])
        #expect(!zeros.output.contains("Pattern verification failed"), "\(zeros)")

        for (seed, isKilled) in [(71, false), (72, true), (73, true)] {
          try await libnbd(mirror.uri, differential(model, seed: seed, rounds: 400))
          if isKilled {
            mirror.crash()
            try await mirror.serve()
          }
          try await must(["nbdcopy", mirror.uri, copy])
          try await must(["cmp", model, copy])
        }
        try await mirror.waitForRecovery()
        // What was never written may still differ between the legs: now everything is.
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          data = open("\(model)", "rb").read()
          for at in range(0, len(data), MiB):
              h.pwrite(data[at:at + MiB], at)
          """)
        #expect(try await mirror.status().unwrittenBytes == 0)
        try await must(["nbdcopy", mirror.uri, copy])
        try await must(["cmp", model, copy])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("fio at 512 bytes verifies what it wrote on devices of both kinds")
    func fioSmallBlocks() async throws {
      try await withMixedDevices(options: ["--init", "lazy"]) { mirror in
        try await mirror.serve()
        try await must([
          "fio", "--name=small", "--ioengine=nbd", "--uri=\(mirror.uri)", "--size=32m",
          "--io_size=4m", "--rw=randrw", "--bs=512", "--iodepth=32", "--verify=crc32c",
          "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0",
        ])
        try await must([
          "fio", "--name=all", "--ioengine=nbd", "--uri=\(mirror.uri)", "--size=32m",
          "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--iodepth=16",
          "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0",
        ])
        #expect(try await mirror.status().unwrittenBytes == 0)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a mirror that copies: the first device's old content is kept and goes to the other")
    func syncKeepsContent() async throws {
      try await withMixedDevices(options: ["--init", "sync"]) { mirror in
        let expected = "\(mirror.directory)/expected"
        let offset = try await mirror.examine(mirror.paths[0]).dataOffset
        try await must([
          "dd", "if=\(mirror.paths[0])", "of=\(expected)", "bs=1M", "skip=\(offset >> 20)",
        ])
        try await mirror.serve()
        #expect(try await mirror.status().unwrittenBytes == 0)
        try await mirror.mustAdmin(["resync", "wait"])
        try await must(["nbdcopy", mirror.uri, "\(mirror.directory)/copy"])
        try await must(["cmp", expected, "\(mirror.directory)/copy"])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("eight legs: three fail under load and come back, and all eight are equal")
    func eightLegs() async throws {
      try await withMirror(legs: 8, size: "32M") { mirror in
        func verified(_ name: String, _ options: [String]) async throws {
          try await must(
            [
              "fio", "--name=\(name)", "--ioengine=nbd", "--uri=\(mirror.uri)", "--size=32m",
              "--iodepth=16", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
              "--verify_state_save=0",
            ] + options)
        }
        try await mirror.serve()
        try await verified("healthy", ["--rw=randwrite", "--bs=16k"])
        let load = try BackgroundProcess(
          [
            "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--size=32m",
            "--iodepth=8", "--rw=randwrite", "--bs=8k", "--time_based", "--runtime=4",
          ], directory: mirror.directory)
        for slot in ["1", "4", "7"] { try await mirror.mustAdmin(["leg", "fail", slot]) }
        #expect(try await mirror.status().state == "degraded")
        let result = try await load.wait(seconds: 60)
        #expect(result.status == 0, "\(result)")
        try await verified("degraded", ["--rw=randwrite", "--bs=4k", "--io_size=8m"])
        for slot in ["1", "4", "7"] { try await mirror.mustAdmin(["leg", "readd", slot]) }
        try await mirror.mustAdmin(["resync", "wait"])
        #expect(try await mirror.status().state == "healthy")
        try await verified("back", ["--rw=randrw", "--bsrange=512-32k", "--bs_unaligned=1"])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a kill right after a FUA write to a lazy mirror: the write, and zeros around it")
    func killedAfterFirstWrites() async throws {
      for log in ["disk", "core"] {
        try await withMixedDevices(options: ["--init", "lazy", "--log", log]) { mirror in
          try await mirror.serve()
          for round in 0..<3 {
            let at = (round * 9 << 20) + 5 * 512
            try await libnbd(
              mirror.uri, "h = connect()\nh.pwrite(b'\\x5a' * 512, \(at), nbd.CMD_FLAG_FUA)\n")
            mirror.crash()
            try await mirror.serve()
            try await libnbd(
              mirror.uri,
              """
              h = connect()
              model = bytearray(32 * MiB)
              for round in range(\(round + 1)):
                  at = round * 9 * MiB + 5 * 512
                  model[at:at + 512] = b'\\x5a' * 512
              for at in range(0, len(model), MiB):
                  assert h.pread(MiB, at) == bytes(model[at:at + MiB]), f"\(log), MiB {at >> 20}"
              """)
          }
          #expect(try await mirror.status().unwrittenBytes == 29 << 20)
          try await mirror.stop()
        }
      }
    }
  }
}
