// Goal: the server's memory stays bounded: small when nobody asks for anything, however large the
// mirror, and limited by its own bounds when many clients ask for much.
import Fixtures
import Foundation
import Testing

/// A field of /proc/PID/status in MiB, such as VmRSS or VmHWM (the highest VmRSS so far).
private func memoryMebibytes(_ field: String, of mirror: MirrorUnderTest) throws -> Int {
  let pid = try #require(mirror.server).pid
  let text = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
  let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("\(field):") })
  return try #require(Int(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1])) / 1024
}

extension Interop {
  struct Memory {
    @Test("16 idle connections to a sparse mirror of 1 TiB: below 64 MiB")
    func idle() async throws {
      try await withMirror(size: "1T") { mirror in
        try await mirror.serve()
        let clients = try BackgroundProcess(
          [
            "/usr/bin/python3", "-uc",
            """
            import nbd, signal, sys
            handles = [nbd.NBD() for _ in range(16)]
            for i, handle in enumerate(handles):
                handle.connect_uri(sys.argv[1])
                handle.pread(4096, i << 30)
            print("connected")
            signal.pause()
            """, mirror.uri,
          ], directory: mirror.directory)
        defer { clients.end() }
        #expect(try await clients.answer(seconds: 30) == "connected")
        let used = try memoryMebibytes("VmRSS", of: mirror)
        #expect(used < 64, "\(used) MiB resident")
        clients.end()
        try await mirror.stop()
      }
    }

    @Test("16 connections at depth 64 with 128 KiB each: below 256 MiB at the peak")
    func busy() async throws {
      try await withMirror(size: "256M") { mirror in
        try await mirror.serve()
        try await must([
          "fio", "--name=busy", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw",
          "--bs=128k", "--iodepth=64", "--numjobs=16", "--size=256m", "--time_based",
          "--runtime=4", "--group_reporting",
        ])
        let used = try memoryMebibytes("VmHWM", of: mirror)
        #expect(used < 256, "\(used) MiB resident at the peak")
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
