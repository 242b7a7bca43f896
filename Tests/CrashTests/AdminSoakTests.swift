// Goal: whatever administrators do, alone and at once, no client sees an error while a good leg is
// left, nothing leaks, and the labels say what the server said. Method: three administrators draw
// commands, valid and senseless ones, beside a load that verifies what it reads. NBDMIRROR_SOAK
// says how many seconds (by default 15), NBDMIRROR_SEED repeats the draws.
import Fixtures
import Foundation
import Testing

private func pick<Item>(_ draws: inout SplitMix, _ items: [Item]) -> Item {
  items[Int(draws.next(in: 0...UInt64(items.count - 1)))]
}

/// What administrators draw from.
private struct Repertoire {
  /// Files that are, were or may become PVs.
  let paths: [String]
  let directory: String
  /// Names of faults are per administrator, so that nobody releases another's.
  let who: Int
  private var faults = 0

  init(paths: [String], directory: String, who: Int) {
    self.paths = paths
    self.directory = directory
    self.who = who
  }

  /// The next command, and the status it may end with.
  mutating func next(_ draws: inout SplitMix) -> (words: [[String]], allowed: Set<Int32>) {
    let leg = pick(&draws, ["0", "1", "2", "3", "4", "7"] + paths)
    let path = pick(&draws, paths)
    // A leg may be what it is to become, or the mirror forbids it: 1 is an answer, too.
    let done: Set<Int32> = [0, 1]
    switch draws.next(in: 0...23) {
    case 0, 1: return ([["leg", "fail", leg]], done)
    case 2, 3: return ([["leg", "readd", leg]], done)
    case 4: return ([["leg", "readd", leg, "--force"]], done)
    case 5: return ([["leg", "remove", leg]], done)
    case 6, 7: return ([["leg", "add", path]], done)
    case 8: return ([["leg", "add", path, "--spare"]], done)
    case 9: return ([["leg", "replace", leg, path]], done)
    case 10: return ([["leg", "refresh", leg] + pick(&draws, [[], ["--whole"]])], done)
    case 11: return ([["leg", "set", leg, "--write-mostly", pick(&draws, ["on", "off"])]], done)
    case 12: return ([["resync", pick(&draws, ["pause", "resume"])]], [0])
    case 13:
      let minimum = pick(&draws, ["0", "1M", "100M"])
      return ([["resync", "limit", "--min", minimum, "--max", pick(&draws, ["0", "200M"])]], [0])
    case 14: return ([["resync", "wait", "--timeout", "0.2"]], done)
    case 15: return ([["scrub", pick(&draws, ["check", "repair"])]], done)
    case 16:
      return ([["scrub", "check", "--range", pick(&draws, ["0-1M", "8M-9M", "63M-99G"])]], done)
    case 17: return ([["scrub", pick(&draws, ["stop", "status"])]], done)
    case 18: return ([["scrub", "wait", "--timeout", "0.2"]], done)
    case 19, 20: return (fault(on: leg, &draws), done)
    case 21: return ([look(&draws)], [0])
    case 22: return ([senseless(leg, &draws)], [1, 2])
    default: return ([look(&draws)], [0])
    }
  }

  /// Slow legs and hung ones, not failing ones: one may be the last good one.
  private mutating func fault(on leg: String, _ draws: inout SplitMix) -> [[String]] {
    faults += 1
    let name = "by\(who)-\(faults)"
    let kind = pick(
      &draws,
      [
        ["delay", "--delay", "5ms", "--count", "50"],
        ["delay", "--delay", "exp:2ms", "--for", "2"],
        ["throttle", "--iops", "500", "--for", "1"], ["hang", "--nth", "3", "--count", "1"],
      ])
    let last = kind[0] == "hang" ? ["fault", "release", name] : ["fault", "remove", name]
    return [["fault", "add", leg] + kind + ["--name", name], ["fault", "list"], last]
  }

  private func look(_ draws: inout SplitMix) -> [String] {
    pick(
      &draws,
      [
        ["status"], ["status", "--json"], ["legs"], ["connections", "--json"], ["metrics"],
        ["events"], ["events", "--after", "10", "--json"], ["watch", "--count", "1"], ["resync"],
        ["scrub", "--json"], ["fault", "list"],
      ])
  }

  private func senseless(_ leg: String, _ draws: inout SplitMix) -> [String] {
    pick(
      &draws,
      [
        ["leg", "fail", "8"], ["leg", "fail", ""], ["leg", "fail"], ["leg", "add", "/dev/null"],
        ["leg", "add", directory], ["leg", "add", "/proc/none/pv"], ["leg", "replace", "9", "x"],
        ["leg", "set", leg], ["leg", "set", leg, "--write-mostly", "maybe"],
        ["resync", "limit", "--min", "-1"], ["resync", "limit", "--min", "2M", "--max", "1M"],
        ["scrub", "check", "--range", "5M-1M"], ["scrub", "repair", "--prefer", "9"],
        ["fault", "add", "0", "melt"], ["fault", "add", "0", "delay"],
        ["fault", "add", "0", "error", "--probability", "7"], ["fault", "remove", "nobody"],
        ["fault", "release", "nobody"], ["events", "--after", "-1"], ["nothing"], ["leg", "dance"],
      ])
  }
}

/// One administrator.
private struct Administrator: Sendable {
  let binary: String
  let control: String
  let directory: String
  let paths: [String]
  let who: Int
  let seed: UInt64

  /// Commands until the end; says what went wrong.
  func work(until end: ContinuousClock.Instant) async throws -> (
    commands: Int, problems: [String]
  ) {
    var draws = SplitMix(seed: seed &+ UInt64(who))
    var repertoire = Repertoire(paths: paths, directory: directory, who: who)
    var commands = 0
    var problems: [String] = []
    while ContinuousClock.now < end, problems.isEmpty {
      let (list, allowed) = repertoire.next(&draws)
      for words in list {
        let result = try await run([binary] + words + ["--control", control], seconds: 120)
        commands += 1
        if !allowed.contains(result.status) { problems.append("\(result)") }
        // A refusal is a sentence.
        let mayReport = words.contains("wait") || words.contains("status")
        if result.status == 1, result.errorLines.count != 1, !mayReport {
          problems.append("not one sentence: \(result)")
        }
      }
    }
    return (commands, problems)
  }
}

extension Crash {
  struct AdminSoak {
    private func descriptors(_ mirror: MirrorUnderTest) throws -> Int {
      let pid = try #require(mirror.server).pid
      return try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count
    }

    private func residentMebibytes(_ mirror: MirrorUnderTest) throws -> Int {
      let pid = try #require(mirror.server).pid
      let text = try String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8)
      return try #require(Int(text.split(separator: " ")[1])) * 4096 / (1 << 20)
    }

    /// Everything that was done is undone as far as it goes: the mirror has to come to rest.
    private func calmDown(_ mirror: MirrorUnderTest) async throws {
      try await mirror.mustAdmin(["fault", "clear"])
      try await mirror.mustAdmin(["resync", "limit", "--min", "1M", "--max", "0"])
      try await mirror.mustAdmin(["resync", "resume"])
      _ = try await mirror.admin(["scrub", "stop"])
      for leg in try await mirror.status().legs where ["failed", "missing"].contains(leg.state) {
        _ = try await mirror.admin(["leg", "readd", "\(leg.slot)"])
      }
      try await eventually("the mirror comes to rest", within: 120) {
        let status = try await mirror.status()
        return !status.resync.running && status.legs.allSatisfy { $0.state != "syncing" }
      }
    }

    /// The labels say what the server said last, and legs in sync hold the same.
    private func expectConsistent(_ mirror: MirrorUnderTest, _ last: StatusReport) async throws {
      let inSync = last.legs.filter { $0.state == "in-sync" }
      #expect(!inSync.isEmpty)
      for leg in inSync {
        let report = try await mirror.examine(leg.path)
        #expect(report.legId == leg.id)
        #expect(report.slot == leg.slot)
        for other in last.legs {
          let member = try #require(report.members.first { $0.slot == other.slot })
          let told = other.state == "in-sync" ? "online" : other.state
          #expect(member.state == told, "slot \(other.slot) in the label of slot \(leg.slot)")
          #expect(!member.syncing)
        }
      }
      #expect(try await mirror.firstDifference(among: inSync.map(\.path)) == nil)
    }

    @Test("three administrators at random beside a verifying load", .timeLimit(.minutes(30)))
    func soak() async throws {
      let seed = UInt64(seedOfThisRun())
      let text = ProcessInfo.processInfo.environment["NBDMIRROR_SOAK"] ?? ""
      let seconds = Int(text) ?? 15
      print("administrators: seed \(seed), \(seconds) s")
      try await withMirror(legs: 3, size: "64M") { mirror in
        let paths = mirror.paths + (3..<6).map { "\(mirror.directory)/leg\($0).pv" }
        try await mirror.serve()
        let load = try BackgroundProcess(
          [
            "fio", "--name=verify", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw",
            "--bs=4k", "--size=64M", "--iodepth=8", "--verify=crc32c", "--verify_backlog=64",
            "--time_based", "--runtime=\(seconds + 300)", "--verify_fatal=1",
            "--verify_state_save=0",
          ], directory: mirror.directory)
        try await eventually("the load has begun", within: 60) {
          try await mirror.admin(["connections"]).output.contains("transmission")
        }
        let before = (try descriptors(mirror), try residentMebibytes(mirror))
        let end = ContinuousClock.now + .seconds(seconds)
        var commands = 0
        try await withThrowingTaskGroup(of: (commands: Int, problems: [String]).self) { group in
          for who in 0..<3 {
            let administrator = Administrator(
              binary: mirror.binary, control: mirror.control, directory: mirror.directory,
              paths: paths, who: who, seed: seed)
            group.addTask { try await administrator.work(until: end) }
          }
          for try await done in group {
            commands += done.commands
            #expect(done.problems.isEmpty, "seed \(seed): \(done.problems)")
          }
        }
        #expect(load.isRunning, "seed \(seed): the load has ended: \(load.output) \(load.errors)")
        load.signal(SIGINT)
        let verified = try await load.wait(seconds: 120)
        #expect(verified.output.contains("err= 0"), "seed \(seed): \(verified)")
        try await calmDown(mirror)
        let after = (try descriptors(mirror), try residentMebibytes(mirror))
        print(
          "\(commands) commands; descriptors \(before.0) -> \(after.0), MiB \(before.1) -> \(after.1)"
        )
        #expect(commands > seconds)
        // Six PVs may be open now, and the load's connection is gone.
        #expect(after.0 <= before.0 + 3)
        #expect(after.1 < before.1 + 48)
        let last = try await mirror.status()
        let journal = try #require(mirror.server).errors
        #expect(!journal.contains(": 500\n"), "seed \(seed): a command ended with 500")
        try await mirror.stop()
        try await expectConsistent(mirror, last)
      }
    }
  }
}
