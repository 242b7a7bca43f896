// Goal: what differs behind the server's back is found with its exact offset, and repaired. Method:
// a block of one leg's file is overwritten while the server runs, past its page cache too (both
// sides use direct I/O), then the commands and the PVs are looked at.
import Fixtures
import Foundation
import Testing

/// What the tests read of `scrub status --json`.
private struct ScrubJSON: Decodable {
  struct Range: Decodable, Equatable {
    let offset: UInt64
    let bytes: UInt64
    let legs: [Int]
  }
  let mode: String?
  let running: Bool
  let complete: Bool
  let bytesDone: UInt64
  let bytesTotal: UInt64
  let mismatches: UInt64
  let mismatchBytes: UInt64
  let unrepairedBytes: UInt64
  let ranges: [Range]
}

extension MirrorUnderTest {
  /// Overwrites 4 KiB of a leg's data at `offset` of the exported device, past the server.
  fileprivate func corrupt(leg: Int, at offset: UInt64) async throws {
    let place = try await examine(paths[leg]).dataOffset + offset
    try await must([
      "dd", "if=/dev/urandom", "of=\(paths[leg])", "bs=4096", "count=1", "seek=\(place / 4096)",
      "conv=notrunc", "oflag=direct", "iflag=fullblock", "status=none",
    ])
  }

  /// Starts a scrub, waits for it; the status of `scrub wait` and the report.
  fileprivate func scrub(_ arguments: [String]) async throws -> (status: Int32, report: ScrubJSON) {
    try await mustAdmin(["scrub"] + arguments)
    let waited = try await admin(["scrub", "wait"])
    let shown = try await admin(["scrub", "status", "--json"])
    let report = try JSONDecoder().decode(ScrubJSON.self, from: Data(shown.output.utf8))
    #expect(!report.running && report.complete)
    return (waited.status, report)
  }
}

extension Interop {
  struct Scrub {
    static let fill = "connect().pwrite(random.Random(7).randbytes(16 * MiB), 8 * MiB)"

    @Test("of three legs the one that differs is named with its range, and repaired")
    func threeLegs() async throws {
      try await withMirror(legs: 3, size: "64M") { mirror in
        try await mirror.serve()
        try await libnbd(mirror.uri, Scrub.fill)
        let clean = try await mirror.scrub(["check"])
        #expect(clean.status == 0 && clean.report.mismatches == 0)
        #expect(clean.report.bytesDone == 64 << 20)
        try await mirror.corrupt(leg: 1, at: 12 << 20)
        let found = try await mirror.scrub(["check"])
        #expect(found.status == 1)
        #expect(found.report.ranges == [.init(offset: 12 << 20, bytes: 4096, legs: [1])])
        #expect(found.report.mismatchBytes == 4096 && found.report.unrepairedBytes == 4096)
        let elsewhere = try await mirror.scrub(["check", "--range", "16M-24M"])
        #expect(elsewhere.status == 0 && elsewhere.report.bytesTotal == 8 << 20)
        let repaired = try await mirror.scrub(["repair"])
        #expect(repaired.status == 0 && repaired.report.unrepairedBytes == 0)
        #expect(repaired.report.mismatchBytes == 4096)
        let again = try await mirror.scrub(["check"])
        #expect(again.status == 0 && again.report.mismatches == 0)
        #expect(try await mirror.status().state == "healthy")
        try await libnbd(
          mirror.uri,
          "assert connect().pread(16 * MiB, 8 * MiB) == random.Random(7).randbytes(16 * MiB)")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("of two legs the preferred one is copied; without one nothing is touched")
    func twoLegs() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        try await libnbd(mirror.uri, Scrub.fill)
        try await mirror.corrupt(leg: 0, at: 9 << 20)
        let undecided = try await mirror.scrub(["repair"])
        #expect(undecided.status == 1 && undecided.report.unrepairedBytes == 4096)
        #expect(undecided.report.ranges == [.init(offset: 9 << 20, bytes: 4096, legs: [0, 1])])
        let decided = try await mirror.scrub(["repair", "--prefer", mirror.paths[1]])
        #expect(decided.status == 0)
        #expect(try await mirror.scrub(["check"]).status == 0)
        try await libnbd(
          mirror.uri,
          "assert connect().pread(16 * MiB, 8 * MiB) == random.Random(7).randbytes(16 * MiB)")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a scrub under a writing load finds nothing, and the load goes on")
    func underLoad() async throws {
      try await withMirror(legs: 3, size: "64M") { mirror in
        try await mirror.serve()
        let load = try BackgroundProcess(
          [
            "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw",
            "--bs=4k", "--iodepth=16", "--size=32m", "--time_based", "--runtime=4",
            "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
          ], directory: mirror.directory)
        defer { load.end() }
        try await eventually("the load writes", within: 20) {
          try await mirror.status().dirtyRegions > 0
        }
        let checked = try await mirror.scrub(["check"])
        #expect(checked.status == 0 && checked.report.mismatches == 0)
        let result = try await load.wait(seconds: 60)
        #expect(result.status == 0, "\(result)")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a resync keeps its maximum, which survives a restart")
    func limits() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        try await mirror.mustAdmin(["resync", "limit", "--max", "4M"])
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await libnbd(
          mirror.uri, "connect().pwrite(random.Random(8).randbytes(16 * MiB), 8 * MiB)")
        let begin = ContinuousClock.now
        try await mirror.mustAdmin(["leg", "readd", "1"])
        try await mirror.mustAdmin(["resync", "wait"])
        let seconds = (ContinuousClock.now - begin) / .seconds(1)
        #expect(seconds >= 3.5, "16 MiB at 4 MiB/s in \(seconds) s")
        try await mirror.stop()
        try await mirror.serve()
        let shown = try await mirror.admin(["resync", "limit"])
        #expect(shown.output.contains("at most 4.00 MiB/s"))
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("connections and watch show who is there and what goes on")
    func watching() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        #expect(try await mirror.admin(["connections"]).output == "no client is connected\n")
        let load = try BackgroundProcess(
          [
            "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randwrite",
            "--bs=4k", "--size=8m", "--time_based", "--runtime=6",
          ], directory: mirror.directory)
        defer { load.end() }
        try await eventually("the client writes", within: 20) {
          let shown = try await mirror.admin(["connections", "--json"])
          return shown.output.contains("\"phase\" : \"transmission\"")
            && !shown.output.contains("\"writtenBytes\" : 0")
        }
        let watched = try await mirror.admin(["watch", "--count", "2", "--interval", "0.5"])
        #expect(watched.status == 0, "\(watched)")
        let lines = watched.output.split(separator: "\n")
        #expect(lines.count == 2)
        #expect(lines.allSatisfy { $0.hasPrefix("lab  healthy  100.00%  0:in-sync 1:in-sync") })
        #expect(!watched.output.contains("\u{1b}"), "no terminal, no escapes")
        let map = try await must([
          "curl", "-s", "--unix-socket", mirror.control, "http://localhost/v1/regions",
        ])
        #expect(map.output.contains("w"), "\(map.output)")
        _ = try await load.wait(seconds: 60)
      }
    }
  }
}
