// Goal: the production engine keeps its promises in a simulated world of failing legs and crashes,
// and the oracle that says so can tell when it does not. Method: seeds that once found a defect,
// fresh seeds (printed), the same seed twice, and barriers taken away one at a time.
import Simulator
import Testing

@Suite("The simulated mirror")
struct SimulationTests {
  /// Seeds that showed a defect of the engine, of assembly or of a start; each is told in the commit
  /// that fixed it.
  static let kept: [UInt64] = [
    20, 49, 78, 87, 96, 116, 124, 198, 204, 232, 278, 293, 309, 361, 377, 488, 547, 1089, 1201,
    1251, 1508, 2056, 2181, 2495, 1_002_257, 1_003_638, 1_005_702, 1_005_745,
    2_000_176, 2_002_870, 2_003_973,
  ]

  private func report(_ world: World) -> Comment {
    """
    seed \(world.scenario.seed): \(world.violation?.text ?? "no violation")
    again: nbdmirror-sim --seed \(world.scenario.seed)
    \(world.scenario)
    \(world.trace.table)
    """
  }

  @Test("keeps its promises with every seed that once broke one", arguments: kept)
  func keptSeeds(seed: UInt64) {
    let world = World(scenario: Scenario(seed: seed))
    world.run()
    #expect(world.violation == nil, report(world))
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
      let world = World(scenario: Scenario(seed: seed))
      world.run()
      counts.add(world.counts)
      #expect(world.violation == nil, report(world))
      if world.violation != nil { break }
      seed += 1
    }
    print("\(seed - first) seeds, \(counts.operations) operations, \(counts.starts) starts")
    // A run that does nothing proves nothing.
    #expect(counts.operations > 30 * (seed - first))
    #expect(counts.legIO > counts.operations)
  }

  @Test("runs the same way twice with the same seed", arguments: [3, 49, 116, 1508] as [UInt64])
  func determinism(seed: UInt64) {
    let first = World(scenario: Scenario(seed: seed))
    first.run()
    let second = World(scenario: Scenario(seed: seed))
    second.run()
    #expect(first.trace.hash == second.trace.hash)
    #expect(first.trace.count == second.trace.count)
    let other = World(scenario: Scenario(seed: seed + 1))
    other.run()
    #expect(first.trace.hash != other.trace.hash)
  }

  @Test("is found out within 60 seeds when a barrier is missing", arguments: Mutation.allCases)
  func mutations(mutation: Mutation) {
    var found: Violation?
    var tried = 0
    while found == nil, tried < 60 {
      let world = World(scenario: Scenario(seed: UInt64(tried)), mutation: mutation)
      world.run()
      found = world.violation
      tried += 1
    }
    print("\(mutation): \(found.map { "seed \(tried - 1): \($0.text)" } ?? "not found")")
    #expect(found != nil, "60 seeds do not show that \(mutation) is missing")
  }
}
