// Goal: promises P1, P2 and P4 against the real thing: a server that is killed at any moment loses
// nothing it answered, takes nothing back that it let a client read, and has equal legs after
// recovery.
//
// Method: SIGKILL at a random moment under a load of overlapping writes, zeroes, trims, FUA writes,
// flushes and verified reads over four connections; start again, wait for recovery, let the load
// check every block, stop, compare the PVs' data areas byte by byte; again with the same contents.
import Fixtures
import Foundation
import Testing

@Suite(.serialized)
enum Crash {}

/// Makes a mirror of 64 MiB whose first leg lies in memory: it has a write at once, the others some
/// time later, so that kills leave legs that differ (served with `--cache buffered`: a third of them).
func withUnequalLegs(
  _ legs: Int, log: String = "disk", _ body: (MirrorUnderTest) async throws -> Void
) async throws {
  try await withTmpfs(megabytes: 90) { directory, tmpfs in
    let others = (1..<legs).map { "\(directory)/leg\($0).pv" }
    try await withMirror(
      on: ["\(tmpfs.path)/leg0.pv"] + others, size: "64M", options: ["--log", log],
      directory: directory, body)
  }
}

extension Crash {
  struct Kill {
    @Test(
      "20 kills under load lose no answered write and leave equal legs", .timeLimit(.minutes(10)))
    func twentyKills() async throws {
      let seed = seedOfThisRun()
      print("crash rounds: NBDMIRROR_SEED=\(seed)")
      var requests = 0
      var flushes = 0
      var recoveries = 0
      var differences = 0
      try await withUnequalLegs(2) { mirror in
        var moments = SplitMix(seed: UInt64(seed))
        let load = try VerifyingLoad(mirror, seed: seed, blocks: 8192, connections: 4)
        defer { load.end() }
        for round in 1...20 {
          let hint: Comment = "round \(round) of NBDMIRROR_SEED=\(seed)"
          // A disk finishes what it was given whatever becomes of the server, so that legs rarely
          // differ; writes that the page cache has not taken yet die with it.
          try await mirror.serve(["--cache", round % 2 == 0 ? "direct" : "buffered"])
          try await load.begin()
          // The moment of the kill is what this test varies: a time, not a condition.
          try await Task.sleep(for: .milliseconds(moments.next(in: 50...1200)))
          mirror.crash()
          let done = try await load.serverGone()
          requests += done.requests
          flushes += done.flushes
          if try await mirror.firstDifference() != nil { differences += 1 }
          try await mirror.serve()
          let status = try await mirror.status()
          if status.unresolvedRegions > 0 || status.resync.bytesTotal > 0 { recoveries += 1 }
          // Every other round the blocks are read while recovery still copies.
          if round % 2 == 0 { try await mirror.waitForRecovery() }
          let wrong = try await load.verify()
          try #require(wrong == nil, hint)
          try await mirror.waitForRecovery()
          let difference = try await mirror.stopAndCompare()
          try #require(difference == nil, hint)
          try await mirror.serve()
          let wrongAfterStop = try await load.verify()
          try #require(wrongAfterStop == nil, hint)
          try await mirror.stop()
        }
      }
      print(
        "crash rounds: \(requests) requests, \(flushes) flushes, \(recoveries) recoveries, "
          + "\(differences) kills left different legs")
      #expect(recoveries >= 10, "the kills hit too few writes in flight")
      #expect(requests > 2000, "the load did too little to prove anything")
      #expect(flushes > 20, "the load did too little to prove anything")
    }

    @Test("a kill during recovery, and again, loses nothing", .timeLimit(.minutes(5)))
    func killedInRecovery() async throws {
      let seed = seedOfThisRun()
      print("kills in recovery: NBDMIRROR_SEED=\(seed)")
      try await withUnequalLegs(2) { mirror in
        var moments = SplitMix(seed: UInt64(seed))
        let load = try VerifyingLoad(mirror, seed: seed, blocks: 8192, connections: 4)
        defer { load.end() }
        for round in 1...4 {
          let hint: Comment = "round \(round) of NBDMIRROR_SEED=\(seed)"
          try await mirror.serve()
          try await load.begin()
          try await Task.sleep(for: .milliseconds(moments.next(in: 200...600)))
          mirror.crash()
          _ = try await load.serverGone()
          for _ in 1...3 {
            try await mirror.serve()
            try await Task.sleep(for: .milliseconds(moments.next(in: 0...60)))
            mirror.crash()
          }
          try await mirror.serve()
          let wrong = try await load.verify()
          try #require(wrong == nil, hint)
          try await mirror.waitForRecovery()
          let difference = try await mirror.stopAndCompare()
          try #require(difference == nil, hint)
        }
      }
    }

    @Test(
      "a kill while degraded: the failed leg stays out, and returns with what it missed",
      .timeLimit(.minutes(5)))
    func killedWhileDegraded() async throws {
      let seed = seedOfThisRun()
      print("kills while degraded: NBDMIRROR_SEED=\(seed)")
      try await withMirror(size: "64M") { mirror in
        var moments = SplitMix(seed: UInt64(seed))
        let load = try VerifyingLoad(mirror, seed: seed, blocks: 8192, connections: 4)
        defer { load.end() }
        for round in 1...4 {
          let hint: Comment = "round \(round) of NBDMIRROR_SEED=\(seed)"
          let victim = round % 2
          try await mirror.serve()
          try await load.begin()
          try await eventually("the load writes", within: 20) {
            try await mirror.status().dirtyRegions > 0
          }
          try await mirror.mustAdmin(["leg", "fail", "\(victim)"])
          try await Task.sleep(for: .milliseconds(moments.next(in: 100...600)))
          mirror.crash()
          _ = try await load.serverGone()
          try await mirror.serve(["--degraded"])
          let wrong = try await load.verify()
          try #require(wrong == nil, hint)
          #expect(try await mirror.status().state == "degraded", hint)
          try await mirror.mustAdmin(["leg", "readd", "\(victim)"])
          try await mirror.mustAdmin(["resync", "wait"])
          try await mirror.waitForRecovery()
          let wrongAfterResync = try await load.verify()
          try #require(wrongAfterResync == nil, hint)
          let difference = try await mirror.stopAndCompare()
          try #require(difference == nil, hint)
        }
      }
    }
  }
}
