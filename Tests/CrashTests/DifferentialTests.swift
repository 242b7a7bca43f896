// Goal: for its clients the mirror is a plain file: after any trace of requests, whatever its legs do
// meanwhile, it reads as the file reads to which the same was done, and so does every leg in sync.
//
// Method: a Python client (Fixtures/differential.py) does a seeded trace to the export and to a file,
// many requests at once over several connections, and rounds of overlapping requests that an order
// has to explain. Between and meanwhile legs fail, return, leave for good and are replaced by empty
// ones, and at quiet moments the server stops, starts without a leg, or is killed. Each read is
// compared, at many points the whole export, after the stop the data area of every leg in sync.
import Fixtures
import Foundation
import Testing

/// A mirror to be compared with a file.
struct Setting: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let legs: Int
  var options: [String] = []
  var serving: [String] = []
  var hasBigBlocks = false

  static let all = [
    Setting(testDescription: "2 legs", legs: 2, serving: ["--threads", "2"]),
    Setting(
      testDescription: "3 legs, small regions", legs: 3, options: ["--region-size", "64K"],
      serving: ["--threads", "2", "--read-policy", "round-robin"]),
    Setting(
      testDescription: "log in memory", legs: 2, options: ["--log", "core"],
      serving: ["--threads", "1"]),
    Setting(
      testDescription: "through the page cache", legs: 3,
      serving: ["--threads", "2", "--cache", "buffered"]),
    Setting(
      testDescription: "a file and a device of 4096-byte blocks", legs: 2,
      serving: ["--threads", "2"], hasBigBlocks: true),
  ]
}

extension Crash {
  struct Differential {
    @Test(
      "a mirror holds what a plain file holds after the same trace",
      .timeLimit(.minutes(5)), arguments: Setting.all)
    func sameAsAFile(_ setting: Setting) async throws {
      let seed = seedOfThisRun()
      let began = ContinuousClock.now
      try await withSetting(setting) { mirror in
        let trace = try await DifferentialTrace(mirror, seed: seed, connections: 3)
        defer { trace.end() }
        var run = DifferentialRun(mirror, trace, setting, seed: seed)
        do {
          try await run.all()
        } catch {
          throw FixtureError("NBDMIRROR_SEED=\(seed), \(setting.testDescription): \(error)")
        }
        print(
          "differential: \(setting.testDescription), NBDMIRROR_SEED=\(seed): "
            + "\(trace.count >> 20) MiB compared, \(run.unrest.done) leg commands, "
            + "\(run.restarts) restarts, \(ContinuousClock.now - began)")
        #expect(run.unrest.done > 0)
      }
    }

    @Test("the comparison sees one flipped byte on one leg", .timeLimit(.minutes(2)))
    func flippedByte() async throws {
      let seed = seedOfThisRun()
      try await withMirror(legs: 2, size: "16M") { mirror in
        let trace = try await DifferentialTrace(mirror, seed: seed, connections: 2)
        defer { trace.end() }
        try await mirror.serve(["--read-policy", "round-robin"])
        #expect(try await trace.run("selftest") == nil)
        #expect(try await trace.run("trace 400") == nil)
        #expect(try await trace.run("compare") == nil)
        let offset: UInt64 = 9_999_999
        try await flip(mirror, leg: 1, offset)
        let seen = try #require(try await trace.run("compare"))
        #expect(seen.contains("byte \(offset) is"), "\(seen)")
        try await mirror.stop()
        let fromFile = try await mirror.firstDifference(from: trace.path)
        #expect(fromFile?.hasSuffix("first at \(offset)") == true)
        let ofLegs = try await mirror.firstDifference()
        #expect(ofLegs?.hasSuffix("first at \(offset)") == true)
        try await flip(mirror, leg: 1, offset)
        #expect(try await mirror.firstDifference(from: trace.path) == nil)
      }
    }

    /// Turns all bits of one byte of the data, behind the server's back.
    private func flip(_ mirror: MirrorUnderTest, leg: Int, _ offset: UInt64) async throws {
      let path = mirror.paths[leg]
      let at = try await mirror.examine(path).dataOffset + offset
      let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
      try file.seek(toOffset: at)
      let byte = try #require(try file.read(upToCount: 1)?.first)
      try file.seek(toOffset: at)
      try file.write(contentsOf: Data([~byte]))
      try file.synchronize()
      try file.close()
    }

    private func withSetting(
      _ setting: Setting, _ body: (MirrorUnderTest) async throws -> Void
    ) async throws {
      guard setting.hasBigBlocks else {
        try await withMirror(legs: setting.legs, size: "48M", options: setting.options, body)
        return
      }
      let directory = try TemporaryDirectory()
      defer { directory.remove() }
      let backing = "\(directory.path)/backing"
      try await mustRun(["truncate", "-s", "64M", backing])
      try await LoopDevice.with(over: backing, sectorBytes: 4096) { device in
        try await withMirror(
          on: ["\(directory.path)/leg0.pv", device.path], size: "48M", options: setting.options,
          directory: directory.path
        ) { mirror in
          #expect(try await mirror.examine(device.path).blockSize == 4096)
          try await body(mirror)
        }
      }
    }
  }
}

/// One trace on one mirror.
private struct DifferentialRun {
  let mirror: MirrorUnderTest
  let trace: DifferentialTrace
  let setting: Setting
  var random: SplitMix
  var unrest: LegUnrest
  var restarts = 0

  init(_ mirror: MirrorUnderTest, _ trace: DifferentialTrace, _ setting: Setting, seed: UInt32) {
    self.mirror = mirror
    self.trace = trace
    self.setting = setting
    random = SplitMix(seed: UInt64(seed))
    unrest = LegUnrest(seed: UInt64(seed) + 1)
  }

  mutating func all() async throws {
    try await mirror.serve(setting.serving)
    try await must("trace 300")
    for _ in 1...(3 * roundsOfThisRun(2)) {
      try await meanwhile("trace \(random.next(in: 300...1500))")
      if random.chance(60) { try await meanwhile("race \(random.next(in: 20...80))") }
      if random.chance(50) { try await must("compare") }
      if random.chance(60) { try await restart() }
      if random.chance(20), !setting.hasBigBlocks { try await exchange() }
    }
    try await mirror.bringAllBack()
    try await must("compare")
    if random.chance(50) {
      // A leg that misses something to the end is not compared.
      try await mirror.mustAdmin(["leg", "fail", mirror.paths[0]])
      try await must("trace 100")
    }
    let inSync = try await mirror.status().legs.filter { $0.state == "in-sync" }.map(\.path)
    try await mirror.stop()
    if let difference = try await mirror.firstDifference(from: trace.path, among: inSync) {
      throw FixtureError(difference)
    }
  }

  private func must(_ command: String) async throws {
    if let wrong = try await trace.run(command) { throw FixtureError("\(command): \(wrong)") }
  }

  /// A command of the client while legs come and go.
  private mutating func meanwhile(_ command: String) async throws {
    try trace.begin(command)
    for _ in 0..<random.next(in: 0...3) {
      try await Task.sleep(for: .milliseconds(random.next(in: 0...60)))
      try await unrest.act(on: mirror)
    }
    if let wrong = try await trace.result() { throw FixtureError("\(command): \(wrong)") }
  }

  /// The server ends, cleanly or not, while nobody asks it; it starts again, perhaps first without
  /// one of the legs that were in sync.
  private mutating func restart() async throws {
    restarts += 1
    let inSync = try await mirror.status().legs.filter { $0.state == "in-sync" }.map(\.path)
    if random.chance(50) { try await mirror.stop() } else { mirror.crash() }
    if inSync.count > 1, random.chance(50), let absent = random.pick(inSync) {
      try await mirror.serve(
        setting.serving + ["--degraded"], pvs: mirror.paths.filter { $0 != absent })
      try await must("trace 200")
      if random.chance(50) { try await must("compare") }
      if random.chance(50) { try await mirror.stop() } else { mirror.crash() }
    }
    try await mirror.serve(setting.serving)
  }

  /// A leg leaves for good, and an empty PV takes its place.
  private mutating func exchange() async throws {
    try await mirror.bringAllBack()
    guard let path = random.pick(mirror.paths),
      let leg = try await mirror.status().legs.first(where: {
        $0.path == path && $0.state == "in-sync"
      })
    else { return }
    try await mirror.mustAdmin(["leg", "remove", "\(leg.slot)"])
    try FileManager.default.removeItem(atPath: path)
    try trace.begin("trace 300")
    try await mirror.mustAdmin(["leg", "add", path])
    if let wrong = try await trace.result() { throw FixtureError("trace meanwhile: \(wrong)") }
    try await mirror.bringAllBack()
  }
}
