// Goal: what an administrator orders holds as the documents say: a pause and the limits over a stop and
// a kill, a whole refresh, the unused end of a larger PV, the warning of a read-only start.
import Fixtures
import Foundation
import Testing

/// What the tests read of `resync status --json`.
private struct ResyncJSON: Decodable {
  let running: Bool
  let paused: Bool
  let bytesDone: UInt64
  let bytesTotal: UInt64
  let minBytesPerSecond: UInt64
  let maxBytesPerSecond: UInt64?
}

/// What the tests read of `legs --json`.
private struct LegJSON: Decodable {
  let path: String
  let unusedBytes: UInt64?
}

extension MirrorUnderTest {
  fileprivate func json<Value: Decodable>(
    _ type: Value.Type, _ arguments: [String]
  ) async throws -> Value {
    let result = try await admin(arguments + ["--json"])
    guard result.status == 0 else { throw FixtureError("\(result)") }
    return try JSONDecoder().decode(type, from: Data(result.output.utf8))
  }
}

extension Interop {
  struct Admin {
    @Test("a pause and the limits hold over a clean stop and a kill, until resume")
    func pauseIsKept() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await libnbd(
          mirror.uri, "connect().pwrite(random.Random(41).randbytes(8 * MiB), 16 * MiB)")
        try await mirror.mustAdmin(["resync", "limit", "--min", "3M", "--max", "200M"])
        try await mirror.mustAdmin(["resync", "pause"])
        try await mirror.mustAdmin(["leg", "readd", "1"])
        for isKilled in [false, true] {
          if isKilled { mirror.crash() } else { try await mirror.stop() }
          let examined = try await run([mirror.binary, "examine", mirror.paths[0]])
          #expect(examined.output.contains("paused"), "\(examined)")
          try await mirror.serve()
          let held = try await mirror.json(ResyncJSON.self, ["resync", "status"])
          #expect(held.paused && held.running && held.bytesDone == 0)
          #expect(held.bytesTotal == 8 << 20)
          #expect(held.minBytesPerSecond == 3 << 20 && held.maxBytesPerSecond == 200 << 20)
          #expect(try await mirror.status().leg(1).staleBytes == 8 << 20)
          let waited = try await mirror.admin(["resync", "wait", "--timeout", "0"])
          #expect(waited.status == 1 && waited.errors.contains("paused"), "\(waited)")
        }
        try await mirror.mustAdmin(["resync", "resume"])
        try await mirror.mustAdmin(["resync", "wait"])
        let done = try await mirror.json(ResyncJSON.self, ["resync", "status"])
        #expect(!done.paused && !done.running && done.bytesDone == 8 << 20)
        try await mirror.stop()
        try await mirror.serve()
        #expect(try await mirror.json(ResyncJSON.self, ["resync", "status"]).paused == false)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a whole refresh writes a leg anew from the others, whatever its disk holds")
    func wholeRefresh() async throws {
      try await withMirror(size: "32M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri, "connect().pwrite(random.Random(42).randbytes(32 * MiB), 0)")
        let start = try await mirror.examine(mirror.paths[1]).dataOffset
        try await must([
          "dd", "if=/dev/urandom", "of=\(mirror.paths[1])", "bs=1M", "count=8",
          "seek=\((start >> 20) + 4)", "conv=notrunc", "oflag=direct", "iflag=fullblock",
          "status=none",
        ])
        try await mirror.mustAdmin(["leg", "refresh", "1", "--whole"])
        try await mirror.mustAdmin(["resync", "wait"])
        let status = try await mirror.status()
        #expect(status.state == "healthy" && status.resync.bytesDone == 32 << 20)
        try await mirror.expectEqualLegsAfterStop()
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          "assert connect().pread(32 * MiB, 0) == random.Random(42).randbytes(32 * MiB)")
      }
    }

    @Test("leg add and leg replace say what of a larger PV stays unused")
    func unusedBytes() async throws {
      try await withMirror(size: "32M") { mirror in
        try await mirror.serve()
        let (first, second) = ("\(mirror.directory)/large.pv", "\(mirror.directory)/larger.pv")
        let data = Int(try await mirror.examine(mirror.paths[0]).dataOffset)
        let used = data + (32 << 20)
        try await must(["truncate", "-s", "\(used + 12345 * 512)", first])
        try await must(["truncate", "-s", "\(used + 54321 * 512)", second])
        let added = try await mirror.admin(["leg", "add", first])
        #expect(added.status == 0)
        #expect(added.output.contains("\(12345 * 512) bytes at the end of"), "\(added)")
        let replaced = try await mirror.admin(["leg", "replace", "0", second])
        #expect(replaced.status == 0)
        #expect(replaced.output.contains("\(54321 * 512) bytes at the end of"), "\(replaced)")
        let legs = try await mirror.json([LegJSON].self, ["legs"])
        #expect(legs.first { $0.path == first }?.unusedBytes == 12345 * 512)
        #expect(legs.first { $0.path == second }?.unusedBytes == 54321 * 512)
        #expect(legs.first { $0.path == mirror.paths[1] }?.unusedBytes == 0)
        try await mirror.stop()
      }
    }

    @Test("a read-only start after a kill warns of the regions that it cannot make equal")
    func readOnlyWarning() async throws {
      try await withMirror(size: "32M") { mirror in
        try await mirror.serve()
        try await libnbd(mirror.uri, "connect().pwrite(b'data' * 1024, 5 * MiB)")
        mirror.crash()
        try await mirror.serve(["--read-only"])
        let warned = try #require(mirror.server).errors
        #expect(warned.contains("warning: 1 region was not made equal"), "\(warned)")
        #expect(try await mirror.status().unresolvedRegions == 1)
        try await mirror.stop()
        try await mirror.serve()
        try await mirror.waitForRecovery()
        try await mirror.stop()
        try await mirror.serve(["--read-only"])
        let silent = try #require(mirror.server).errors
        #expect(!silent.contains("warning"), "\(silent)")
        try await mirror.stop()
      }
    }

    @Test("a PV that cannot be used is a conflict, not a failure of the server")
    func unusablePVs() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        let small = "\(mirror.directory)/small.pv"
        try await must(["truncate", "-s", "1M", small])
        for path in [mirror.paths[1], small, "/dev/null", "\(mirror.directory)/no/such.pv"] {
          let answer = try await must([
            "curl", "-s", "--unix-socket", mirror.control, "-X", "POST",
            "-H", "Content-Type: application/json", "-d", "{\"path\": \"\(path)\"}",
            "-w", " %{http_code}", "http://localhost/v1/legs",
          ])
          #expect(answer.output.hasSuffix(" 409"), "\(path): \(answer.output)")
        }
        #expect(try await mirror.status().legs.count == 2)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("what is there already can be asked for again, and events tell what was changed")
    func again() async throws {
      try await withMirror(legs: 3, size: "16M") { mirror in
        try await mirror.serve()
        for _ in 0..<2 { try await mirror.mustAdmin(["leg", "fail", "1"]) }
        let generation = try await mirror.examine(mirror.paths[0]).generation
        try await mirror.mustAdmin(["leg", "fail", "1"])
        #expect(try await mirror.examine(mirror.paths[0]).generation == generation)
        for _ in 0..<2 { try await mirror.mustAdmin(["leg", "readd", "1"]) }
        for _ in 0..<2 { try await mirror.mustAdmin(["resync", "pause"]) }
        #expect(try await mirror.admin(["resync"]).output.contains("paused"))
        try await mirror.mustAdmin(["resync", "resume"])
        try await mirror.mustAdmin(["leg", "set", "2", "--write-mostly", "on"])
        try await mirror.mustAdmin(["leg", "refresh", "0"])
        try await mirror.mustAdmin(["resync", "limit", "--max", "1M"])
        try await mirror.mustAdmin(["scrub", "check"])
        try await mirror.mustAdmin(["scrub", "stop"])
        let events = try await mirror.admin(["events"]).output
        for words in [
          " leg-changed: leg 2 is write-mostly", " leg-changed: leg 0 is refreshed",
          " scrub-stopped: ",
        ] {
          #expect(events.contains(words), "\(events)")
        }
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test(
      "after a flush of the last leg failed, refresh lets flushes succeed and says what may be lost"
    )
    func latched() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await mirror.mustAdmin(["fault", "add", "0", "error", "--op", "flush", "--count", "1"])
        let write = [
          "/usr/bin/python3", "-c",
          """
          import nbd, sys
          h = nbd.NBD(); h.connect_uri(sys.argv[1])
          h.pwrite(b"x" * 4096, 0); h.flush()
          """, mirror.uri,
        ]
        #expect(try await run(write).status != 0)
        #expect(try await mirror.status().state == "failed")
        #expect(try await run(write).status != 0, "no flush succeeds meanwhile")
        let refreshed = try await mirror.admin(["leg", "refresh", "0"])
        #expect(refreshed.status == 0, "\(refreshed)")
        #expect(refreshed.errors.contains("may be lost"), "\(refreshed)")
        try await must(write)
        try await mirror.mustAdmin(["leg", "readd", "1"])
        try await mirror.mustAdmin(["resync", "wait"])
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
