// Goal: the promises of KillTests where several things are true at once: 2 or 3 legs, the log on the
// disks or in memory, legs that fail and return meanwhile, a resync that runs at the moment of the
// kill, and a restart without some of the legs.
//
// Method: every corner of {2, 3 legs} x {disk, core log} x {quiet, legs come and go, kill in a resync}
// gets some rounds. A round: serve, load, SIGKILL at a random moment; start again with all legs, or
// with a subset that holds a leg which the newest label calls complete; let the load check every
// block (half of the time while recovery copies); bring the others back, by command or by the next
// start; check again, stop, compare all data areas byte by byte. One seed decides all but the
// kernel's part in it.
import Fixtures
import Foundation
import Testing

/// A corner of the matrix.
struct Corner: Sendable, CustomTestStringConvertible {
  /// What happens besides the load.
  enum Unrest: String, CaseIterable { case quiet, unrest, resync }

  let legs: Int
  let log: String
  let unrest: Unrest

  static let all = [2, 3].flatMap { legs in
    ["disk", "core"].flatMap { log in
      Unrest.allCases.map { Corner(legs: legs, log: log, unrest: $0) }
    }
  }

  var testDescription: String { "\(legs) legs, \(log) log, \(unrest.rawValue)" }
}

/// What the rounds of a corner came to.
private struct Tally: CustomStringConvertible {
  var requests = 0
  var commands = 0
  var killsInResync = 0
  var subsets = 0
  var recoveries = 0
  var differences = 0

  var description: String {
    "\(requests) requests, \(commands) leg commands, \(killsInResync) kills in a resync, "
      + "\(subsets) starts of a subset, \(differences) kills left different legs, "
      + "\(recoveries) recoveries"
  }
}

extension Crash {
  struct KillMatrix {
    @Test(
      "kills lose nothing and leave equal legs, whatever goes on",
      .timeLimit(.minutes(5)), arguments: Corner.all)
    func kills(_ corner: Corner) async throws {
      let seed = seedOfThisRun()
      let began = ContinuousClock.now
      var tally = Tally()
      try await withUnequalLegs(corner.legs, log: corner.log) { mirror in
        let load = try VerifyingLoad(mirror, seed: seed, blocks: 8192, connections: 4)
        defer { load.end() }
        var run = MatrixRun(mirror, load, corner, seed: seed)
        for round in 1...roundsOfThisRun(2) {
          do {
            try await run.round()
          } catch {
            throw FixtureError("round \(round) of NBDMIRROR_SEED=\(seed), \(corner): \(error)")
          }
        }
        tally = run.tally
      }
      print(
        "kill matrix: \(corner.testDescription), NBDMIRROR_SEED=\(seed): \(tally), "
          + "\(ContinuousClock.now - began)")
      #expect(tally.requests > 100, "the load did too little to prove anything")
      if corner.unrest == .resync {
        #expect(tally.killsInResync > 0, "no kill hit a resync")
      }
    }
  }
}

/// The rounds of one corner.
private struct MatrixRun {
  let mirror: MirrorUnderTest
  let load: VerifyingLoad
  let corner: Corner
  var random: SplitMix
  var unrest: LegUnrest
  var tally = Tally()

  init(_ mirror: MirrorUnderTest, _ load: VerifyingLoad, _ corner: Corner, seed: UInt32) {
    self.mirror = mirror
    self.load = load
    self.corner = corner
    random = SplitMix(seed: UInt64(seed))
    unrest = LegUnrest(seed: UInt64(seed) + 1)
  }

  mutating func round() async throws {
    try await mirror.serve(options())
    try await workAndKill()
    if corner.unrest == .quiet, try await mirror.firstDifference() != nil {
      tally.differences += 1
    }
    // Some kills come again before anything is whole.
    for _ in 0..<(random.chance(30) ? random.next(in: 1...2) : 0) {
      try await mirror.serve(options())
      try await Task.sleep(for: .milliseconds(random.next(in: 0...60)))
      mirror.crash()
    }
    if random.chance(40), let subset = try await subset() {
      try await goOnWithout(subset)
    } else {
      try await mirror.serve(options())
      let status = try await mirror.status()
      if status.unresolvedRegions > 0 { tally.recoveries += 1 }
    }
    if random.chance(50) { try await mirror.waitForRecovery() }
    try await verify("after the kill")
    try await mirror.bringAllBack()
    try await mirror.waitForRecovery()
    try await verify("with all legs")
    if let difference = try await mirror.stopAndCompare() { throw FixtureError(difference) }
  }

  private func verify(_ moment: String) async throws {
    if let wrong = try await load.verify() { throw FixtureError("\(moment): \(wrong)") }
  }

  /// How the server runs is a matter of chance, too.
  private mutating func options() -> [String] {
    [
      "--threads", random.chance(50) ? "1" : "2", "--cache",
      random.chance(50) ? "direct" : "buffered",
    ]
      + ["--read-policy", random.chance(50) ? "least-pending" : "round-robin"]
  }

  private mutating func workAndKill() async throws {
    try await load.begin()
    var command: BackgroundProcess?
    switch corner.unrest {
    case .quiet: try await Task.sleep(for: .milliseconds(random.next(in: 50...700)))
    case .unrest: command = try await comeAndGo()
    case .resync: try await waitInResync()
    }
    mirror.crash()
    // The command that the kill hit: it may have done its work or not.
    _ = try await command?.wait(seconds: 30)
    tally.requests += try await load.serverGone().requests
    tally.commands = unrest.done
  }

  /// Leg commands until the moment of the kill; the one that is at work then.
  private mutating func comeAndGo() async throws -> BackgroundProcess? {
    let moment = ContinuousClock.now + .milliseconds(random.next(in: 100...1200))
    while ContinuousClock.now < moment {
      guard let arguments = unrest.next(try await mirror.status()) else { continue }
      let command = try mirror.beginAdmin(arguments)
      while command.isRunning {
        guard ContinuousClock.now < moment else { return command }
        try await Task.sleep(for: .milliseconds(2))
      }
      try unrest.judge(try await command.wait(seconds: 1))
      try await Task.sleep(for: .milliseconds(random.next(in: 0...150)))
    }
    return nil
  }

  /// Fails a leg, lets it miss something, brings it back and returns while it is copied to.
  private mutating func waitInResync() async throws {
    let victim = Int(random.next(in: 0...UInt64(corner.legs - 1)))
    try await eventually("the load writes", within: 20) {
      try await mirror.status().dirtyRegions > 8
    }
    // A resync may be done before anybody looks: then once more.
    for _ in 1...5 {
      try await mirror.mustAdmin(["leg", "fail", "\(victim)"])
      try await Task.sleep(for: .milliseconds(random.next(in: 100...300)))
      if try await seesResync(ofReturning: victim) {
        tally.killsInResync += 1
        break
      }
    }
    try await Task.sleep(for: .milliseconds(random.next(in: 0...20)))
  }

  /// Brings a leg back; whether it was seen to be copied to.
  private func seesResync(ofReturning victim: Int) async throws -> Bool {
    let command = try mirror.beginAdmin(["leg", "readd", "\(victim)"])
    var isSyncing = false
    try await eventually("a resync runs, or is done", within: 20, every: 0.001) {
      if !command.isRunning {
        let result = try await command.wait(seconds: 1)
        guard result.status == 0 else { throw FixtureError("\(result)") }
      }
      let leg = try await mirror.status().leg(victim)
      isSyncing = leg.state == "syncing" && leg.staleBytes > 0
      return isSyncing || leg.state == "in-sync"
    }
    if !isSyncing { _ = try await command.wait(seconds: 30) }
    return isSyncing
  }

  /// PVs that make a mirror without the others: one that carries the newest label and is complete by
  /// it, and not all others.
  private mutating func subset() async throws -> [String]? {
    var reports: [(path: String, report: ExamineReport)] = []
    for path in mirror.paths { reports.append((path, try await mirror.examine(path))) }
    guard let head = reports.max(by: { $0.report.generation < $1.report.generation })?.report
    else { return nil }
    let complete = head.members.filter { $0.state == "online" && !$0.syncing }.map(\.slot)
    let keepers = reports.filter {
      $0.report.generationId == head.generationId && complete.contains($0.report.slot)
    }
    guard let keeper = random.pick(keepers.map(\.path)),
      let dropped = random.pick(mirror.paths.filter { $0 != keeper })
    else { return nil }
    let dropsAll = random.chance(30)
    return mirror.paths.filter { $0 == keeper || $0 != dropped && !dropsAll }
  }

  /// Starts with a subset, writes what the others miss; then they return, by command or because the
  /// next start has them, after a stop or after one more kill.
  private mutating func goOnWithout(_ subset: [String]) async throws {
    tally.subsets += 1
    try await mirror.serve(options() + ["--degraded"], pvs: subset)
    if random.chance(50) { try await verify("with \(subset.count) of the legs") }
    try await load.work(requests: Int(random.next(in: 50...600)))
    if random.chance(40) { return }
    if random.chance(50) {
      mirror.crash()
    } else {
      try await mirror.stop()
    }
    try await mirror.serve(options())
  }
}
