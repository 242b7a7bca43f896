// Goal: a fault of each kind does to a leg what it says, seen from outside, and the mirror answers
// as it has to: errors and losses of one leg never reach a client, lies are found by a scrub.
//
// Method: the server with one fault, libnbd as the client, `status`, `scrub` and `fault list` as the
// judges; at last the PVs are compared past the server. Slow legs are judged by lower bounds and by
// the delays that the fault itself counted, never by how fast the machine is.
import Fixtures
import Foundation
import Testing

/// What the tests read of `nbdmirror fault list --json`.
struct FaultReport: Decodable {
  let name: String
  let leg: Int
  let kind: String
  let state: String
  let matched: UInt64
  let fired: UInt64
  let badBytes: UInt64
}

/// What the tests read of `nbdmirror scrub status --json`.
struct ScrubRanges: Decodable {
  struct Range: Decodable {
    let offset: UInt64
    let bytes: UInt64
    let legs: [Int]
  }
  let mismatches: UInt64
  let ranges: [Range]
}

extension MirrorUnderTest {
  /// `fault add` with these words.
  func arm(_ words: String) async throws {
    try await mustAdmin(["fault", "add"] + words.split(separator: " ").map(String.init))
  }

  /// `fault list --json`.
  func faults() async throws -> [FaultReport] {
    let result = try await admin(["fault", "list", "--json"])
    guard result.status == 0 else { throw FixtureError("\(result)") }
    return try JSONDecoder().decode([FaultReport].self, from: Data(result.output.utf8))
  }

  /// The fault of a name.
  func fault(_ name: String) async throws -> FaultReport {
    guard let found = try await faults().first(where: { $0.name == name }) else {
      throw FixtureError("no fault named \(name)")
    }
    return found
  }

  /// The ranges that a `scrub check` finds.
  func mismatches() async throws -> [ScrubRanges.Range] {
    try await mustAdmin(["scrub", "check"])
    _ = try await admin(["scrub", "wait"])
    let result = try await admin(["scrub", "status", "--json"])
    guard result.status == 0 else { throw FixtureError("\(result)") }
    let found = try JSONDecoder().decode(ScrubRanges.self, from: Data(result.output.utf8))
    #expect(Int(found.mismatches) == found.ranges.count)
    return found.ranges
  }

  /// Mends a leg that failed: no faults, back in, in sync, equal.
  func mendAndCompare(_ leg: Int) async throws {
    try await mustAdmin(["fault", "clear"])
    try await mustAdmin(["leg", "readd", "\(leg)"])
    try await mustAdmin(["resync", "wait"])
    #expect(try await status().state == "healthy")
    try await expectEqualLegsAfterStop()
  }
}

/// 64 KiB of `byte` at 0, flushed.
private func fill(_ mirror: MirrorUnderTest, _ byte: String) async throws {
  try await libnbd(
    mirror.uri, "h = connect()\nh.pwrite(b'\(byte)' * 65536, 0)\nh.flush()\nh.shutdown()")
}

extension Interop {
  struct Faults {
    @Test("error: a read is answered by another leg and repaired; a write takes the leg offline")
    func error() async throws {
      try await withMirror { mirror in
        try await mirror.serve(["--read-policy", "prefer=1"])
        try await fill(mirror, "a")
        try await mirror.arm("1 error --op read --range 0-4K --count 2 --name bad")
        try await libnbd(
          mirror.uri, "h = connect()\nassert h.pread(8192, 0) == b'a' * 8192\nh.shutdown()")
        let bad = try await mirror.fault("bad")
        #expect(bad.fired == 2 || bad.fired == 1)
        #expect(try await mirror.status().leg(1).readErrors > 0)
        #expect(try await mirror.status().state == "healthy")
        try await mirror.arm("1 error --op write --area data --errno EIO")
        try await fill(mirror, "b")
        #expect(try await mirror.status().leg(1).state == "failed")
        #expect(try await mirror.status().state == "degraded")
        #expect(try await mirror.fault("error-1").fired > 0)
        try await mirror.mendAndCompare(1)
      }
    }

    @Test("delay: a write waits for the slow leg, which stays in sync")
    func delay() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await mirror.arm("1 delay --op write --area data --delay 300ms-400ms --count 1")
        try await libnbd(
          mirror.uri,
          """
          import time
          h = connect()
          begin = time.monotonic()
          h.pwrite(b'd' * 4096, 0)
          assert time.monotonic() - begin >= 0.3
          h.shutdown()
          """)
        let fault = try await mirror.fault("delay-1")
        #expect(fault.fired == 1)
        #expect(fault.state == "spent")
        #expect(try await mirror.status().state == "healthy")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("bad-sector: the mirror rewrites it from another leg, and it is good again")
    func badSector() async throws {
      try await withMirror { mirror in
        try await mirror.serve(["--read-policy", "prefer=1"])
        try await fill(mirror, "a")
        try await mirror.arm("1 bad-sector --range 5000-9000 --name spot")
        #expect(try await mirror.fault("spot").badBytes == 4608)
        try await libnbd(
          mirror.uri, "h = connect()\nassert h.pread(65536, 0) == b'a' * 65536\nh.shutdown()")
        try await eventually("the sectors are rewritten", within: 20) {
          try await mirror.fault("spot").badBytes == 0
        }
        let spot = try await mirror.fault("spot")
        #expect(spot.state == "spent")
        #expect(spot.fired > 0)
        #expect(try await mirror.status().state == "healthy")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("corrupt: a read lies once; a corrupted write is found by a scrub and outvoted")
    func corrupt() async throws {
      try await withMirror(legs: 3) { mirror in
        try await mirror.serve(["--read-policy", "prefer=1"])
        try await fill(mirror, "a")
        try await mirror.arm("1 corrupt --op read --bits 3 --count 1")
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          data = h.pread(4096, 0)
          assert sum(bin(byte ^ ord('a')).count('1') for byte in data) == 3
          assert h.pread(4096, 0) == b'a' * 4096
          h.shutdown()
          """)
        try await mirror.arm("1 corrupt --op write --range 4096-4608 --count 1 --name rot")
        try await fill(mirror, "b")
        #expect(try await mirror.fault("rot").fired == 1)
        let found = try await mirror.mismatches()
        try #require(found.count == 1)
        #expect(found[0].offset == 4096)
        #expect(found[0].legs == [1])
        try await mirror.mustAdmin(["scrub", "repair"])
        try await mirror.mustAdmin(["scrub", "wait"])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("torn: acked it is found by a scrub; failed it takes the leg offline")
    func torn() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await fill(mirror, "a")
        try await mirror.arm("1 torn --area data --sectors 3 --count 1")
        try await libnbd(mirror.uri, "h = connect()\nh.pwrite(b'b' * 8192, 8192)\nh.shutdown()")
        let found = try await mirror.mismatches()
        try #require(found.count == 1)
        // Three sectors reached the leg; ranges are told in whole blocks.
        #expect(found[0].offset <= 8192 + 1536)
        #expect(found[0].offset + found[0].bytes == 16384)
        try await mirror.mustAdmin(["scrub", "repair", "--prefer", "0"])
        try await mirror.mustAdmin(["scrub", "wait"])
        try await mirror.arm("1 torn --area data --errno EIO --count 1 --seed 3")
        try await fill(mirror, "c")
        #expect(try await mirror.status().leg(1).state == "failed")
        try await mirror.mendAndCompare(1)
      }
    }

    @Test("drop: a write that a leg only says it did is found by a scrub; a dropped flush is acked")
    func drop() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await fill(mirror, "a")
        try await mirror.arm("1 drop --op flush --name liar")
        try await mirror.arm("1 drop --op write --range 0-64K --count 1 --name lost")
        try await fill(mirror, "b")
        #expect(try await mirror.fault("liar").fired > 0)
        #expect(try await mirror.fault("lost").fired == 1)
        #expect(try await mirror.status().state == "healthy")
        let found = try await mirror.mismatches()
        #expect(found.map(\.offset).first == 0)
        #expect(found.reduce(0) { $0 + $1.bytes } == 65536)
        try await mirror.mustAdmin(["scrub", "repair", "--prefer", "0"])
        try await mirror.mustAdmin(["scrub", "wait"])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("misdirect: both places differ, the one that was meant and the one that was hit")
    func misdirect() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        // Both places have been written: what never was reads as zeros without a look at the legs.
        try await libnbd(
          mirror.uri,
          "h = connect()\nh.pwrite(b'a' * 4096, 0)\nh.pwrite(b'a' * 4096, MiB)\nh.shutdown()")
        try await mirror.arm("1 misdirect --op write --to 1M --count 1")
        try await libnbd(mirror.uri, "h = connect()\nh.pwrite(b'b' * 4096, 0)\nh.shutdown()")
        let found = try await mirror.mismatches()
        #expect(found.map(\.offset) == [0, 1 << 20])
        try await mirror.mustAdmin(["scrub", "repair", "--prefer", "0"])
        try await mirror.mustAdmin(["scrub", "wait"])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("stale-read: a leg returns what was there before the last write, until it is mended")
    func staleRead() async throws {
      try await withMirror { mirror in
        try await mirror.serve(["--read-policy", "prefer=1"])
        try await mirror.arm("1 stale-read --range 4096-8192")
        try await fill(mirror, "a")
        try await fill(mirror, "b")
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          assert h.pread(16384, 0) == b'b' * 4096 + b'a' * 4096 + b'b' * 8192
          h.shutdown()
          """)
        #expect(try await mirror.mismatches().map(\.offset) == [4096])
        try await mirror.mustAdmin(["fault", "remove", "stale-read-1"])
        try await libnbd(
          mirror.uri, "h = connect()\nassert h.pread(16384, 0) == b'b' * 16384\nh.shutdown()")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("full: one full leg fails alone; when all are full the client is told")
    func full() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await fill(mirror, "a")
        try await mirror.arm("1 full --range 0-1M")
        try await fill(mirror, "b")
        #expect(try await mirror.status().leg(1).state == "failed")
        try await mirror.arm("0 full --range 0-1M")
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          refused("ENOSPC", lambda: h.pwrite(b'c' * 4096, 0))
          assert h.pread(4096, 8192) == b'b' * 4096
          h.shutdown()
          """)
        try await mirror.mendAndCompare(1)
      }
    }

    @Test("throttle: writes come no faster than the slow leg takes them")
    func throttle() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await fill(mirror, "a")
        try await mirror.arm("1 throttle --op write --area data --iops 20 --rate 64K")
        try await libnbd(
          mirror.uri,
          """
          import time
          h = connect()
          begin = time.monotonic()
          for index in range(4):
              h.pwrite(b't' * 4096, index * 4096)
          assert time.monotonic() - begin >= 0.24
          h.shutdown()
          """)
        #expect(try await mirror.status().state == "healthy")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("offline: the leg fails at the next I/O and copies what it missed when it is back")
    func offline() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await fill(mirror, "a")
        try await mirror.arm("1 offline")
        try await fill(mirror, "b")
        let degraded = try await mirror.status()
        #expect(try degraded.leg(1).state == "failed")
        #expect(degraded.state == "degraded")
        #expect(try await mirror.admin(["leg", "readd", "1"]).status == 1)
        try await mirror.mendAndCompare(1)
      }
    }
  }
}
