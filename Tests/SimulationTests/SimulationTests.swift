// Goal: the production engine keeps its promises in a simulated world of failing legs and crashes,
// and the oracle that says so can tell when it does not. Method: seeds that once found a defect,
// fresh seeds (printed), the same seed twice, and the engine's barriers taken away one at a time.
import MirrorEngine
import Simulator
import Testing

@Suite("The simulated mirror")
struct SimulationTests {
  /// Seeds that showed a defect of the engine, of assembly or of a start; each is told in the commit
  /// that fixed it. What a seed draws changes with the simulator; that the fixes stay is also the
  /// business of the barriers and of unit tests.
  static let kept: [UInt64] = [
    657, 1610, 2307, 4_162_134_842, 4_162_135_037, 4_162_137_086, 4_162_139_063,
    1_000_034_292, 20_000_002_995, 40_000_008_850,
    70_000_032_870, 70_000_056_328, 70_000_121_696, 80_000_018_091, 80_000_030_306,
    80_000_006_527, 210_000_009_694,
    120_000_064_879, 130_000_027_567, 240_000_005_092, 3_520_743_744,
  ]

  private func report(_ world: borrowing World) -> Comment {
    """
    seed \(world.scenario.seed): \(world.violation?.text ?? "no violation")
    again: nbdmirror-sim --seed \(world.scenario.seed)
    \(world.scenario.description)
    \(world.trace.table)
    """
  }

  @Test("keeps its promises with every seed that once broke one", arguments: kept)
  func keptSeeds(seed: UInt64) {
    var world = World(scenario: Scenario(seed: seed))
    world.run()
    let told = report(world)
    let violation = world.violation
    #expect(violation == nil, told)
  }

  /// Seeds that were found with some features put in or left out.
  static let keptMixes: [(seed: UInt64, reduction: Reduction)] = [
    (
      980_005_004_824,
      Reduction(
        with: [.losses, .crashes, .degradedStarts, .commands, .splitBrains],
        without: [.hangs, .slowness, .liar], operationsMax: 75)
    )
  ]

  @Test("keeps its promises with every seed and mix that once broke one", arguments: keptMixes)
  func keptSeedsOfMixes(seed: UInt64, reduction: Reduction) {
    var world = World(scenario: Scenario(seed: seed, reduction: reduction))
    world.run()
    let told = report(world)
    let violation = world.violation
    #expect(violation == nil, told)
  }

  /// A sample; `nbdmirror-sim --minutes N` is the campaign.
  @Test("keeps its promises with fresh seeds")
  func freshSeeds() {
    let first = UInt64.random(in: 0..<1 << 40)
    print("fresh seeds from \(first) on")
    var counts = RunCounts()
    let clock = ContinuousClock()
    let end = clock.now + .seconds(12)
    var seed = first
    while seed < first + 60, clock.now < end {
      var world = World(scenario: Scenario(seed: seed))
      world.run()
      counts.add(world.counts)
      let told = report(world)
      let violation = world.violation
      #expect(violation == nil, told)
      if violation != nil { break }
      seed += 1
    }
    print("\(seed - first) seeds, \(counts.operations) operations, \(counts.starts) starts")
    // A run that does nothing proves nothing.
    #expect(counts.operations > 30 * (seed - first))
    #expect(counts.legIO > counts.operations)
  }

  @Test("runs the same way twice with the same seed", arguments: [3, 49, 116, 1508] as [UInt64])
  func determinism(seed: UInt64) {
    func trace(_ seed: UInt64) -> (UInt64, UInt64) {
      var world = World(scenario: Scenario(seed: seed))
      world.run()
      return (world.trace.hash, world.trace.count)
    }
    let first = trace(seed)
    #expect(first == trace(seed))
    #expect(first != trace(seed + 1))
  }

  /// Barriers that are missed at once; `nbdmirror-sim --barriers` hunts all of them.
  static let needed: [Barrier] = [
    .intentBeforeData, .staleBitsOfAbsentLegs, .alternatePageCopies, .alternateLabelCopies,
    .newestPageWins, .newGeneration, .rangeLock, .copyUnderLock, .failedFlushFailsLeg,
    .failedWriteFailsLeg, .lastGoodCopyStays, .readsAskGoodLegs, .intentAtStart,
    .unresolvedWriteBack, .durableFUA, .mapBeforeLabel, .releaseAfterIO,
    .zeroesBeforeFirstWrite,
  ]

  @Test("finds out within 60 seeds that a barrier is missing", arguments: needed)
  func barriers(barrier: Barrier) {
    let finding = Hunt(barrier, seedsMax: 60).run()
    print("\(barrier): \(finding.map { "seed \($0.seeds): \($0.text)" } ?? "not found")")
    #expect(finding != nil, "60 seeds do not show that \(barrier) is missing")
  }

  @Test("makes a violation smaller, and the smaller one is a violation, too")
  func shrinking() throws {
    let finding = try #require(Hunt(.intentBeforeData).run())
    let first = Shrinking.Case(seed: finding.seeds, reduction: Reduction())
    let smallest = Shrinking.shrink(first, removed: .intentBeforeData)
    let scenario = Scenario(seed: smallest.seed, reduction: smallest.reduction)
    #expect(scenario.operations <= 10)
    #expect(scenario.features.isEmpty)
    var world = World(scenario: scenario, removed: .intentBeforeData)
    world.run()
    let isViolation = world.violation != nil
    #expect(isViolation)
  }
}
