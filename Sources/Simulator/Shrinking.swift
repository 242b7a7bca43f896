// A violation made smaller: features, operations, legs and connections are taken out as long as some
// seed near the one that was found still shows one.
//
// Taking something out changes what the generator is asked for, so the rest of the run is another
// one; a handful of seeds is tried for each step.

import MirrorEngine

/// Makes the scenario of a violation smaller.
public enum Shrinking {
  /// A seed and what is taken out of its scenario.
  public struct Case: Sendable {
    /// The seed.
    public var seed: UInt64
    /// What is taken out.
    public var reduction: Reduction

    /// Describes a case.
    public init(seed: UInt64, reduction: Reduction) {
      self.seed = seed
      self.reduction = reduction
    }
  }

  /// Seeds that are tried for each step.
  static let tries: UInt64 = 24

  /// The smallest case that was found; `found` hears of each one on the way.
  public static func shrink(
    _ first: Case, removed: Barrier? = nil, found: (String) -> Void = { _ in }
  ) -> Case {
    var smallest = first
    var isSmaller = true
    while isSmaller {
      isSmaller = false
      for reduction in candidates(smallest) {
        guard let next = attempt(reduction, near: smallest.seed, removed) else { continue }
        smallest = next
        isSmaller = true
        found("--seed \(next.seed)\(next.reduction.arguments)")
        break
      }
    }
    return smallest
  }

  private static func attempt(
    _ reduction: Reduction, near seed: UInt64, _ removed: Barrier?
  ) -> Case? {
    for offset in 0..<tries {
      let candidate = seed &+ offset
      var world = World(
        scenario: Scenario(seed: candidate, reduction: reduction), removed: removed, keptEvents: 1)
      world.run()
      if world.violation != nil { return Case(seed: candidate, reduction: reduction) }
    }
    return nil
  }

  /// Reductions that take more out than `from` does, what helps most first.
  private static func candidates(_ from: Case) -> [Reduction] {
    let scenario = Scenario(seed: from.seed, reduction: from.reduction)
    var list: [Reduction] = []
    func add(_ change: (inout Reduction) -> Void) {
      var reduction = from.reduction
      change(&reduction)
      if reduction != from.reduction { list.append(reduction) }
    }
    if scenario.operations > 10 { add { $0.operationsMax = scenario.operations / 2 } }
    for bit in Features.names.indices {
      let feature = Features(rawValue: 1 << UInt32(bit))
      if scenario.has(feature) { add { $0.without.insert(feature) } }
    }
    if scenario.legCount > 1 { add { $0.legsMax = scenario.legCount - 1 } }
    if scenario.connections > 1 { add { $0.connectionsMax = 1 } }
    if scenario.depth > 1 { add { $0.depthMax = scenario.depth / 2 } }
    if scenario.regionCount > 1 { add { $0.regionsMax = scenario.regionCount / 2 } }
    return list
  }
}
