// Exhaustive runs: short scenarios, crashed at every event in every way that matters.
//
// Random simulation (World) finds what nobody thought of; this finds what happens at exactly one
// event with exactly one torn sector, and says how many disks were tried. The parts:
//
//   ExhaustiveScenario, ExhaustiveCatalog   what is run
//   ExhaustiveScript, ExhaustiveRun         running it on the production engine
//   ExhaustiveLeg, ExhaustiveOracle         disks, and what clients may see
//   ExhaustiveStates, ExhaustiveExplorer    which disks a crash leaves, and what must hold then
//
// Nothing is random and nothing depends on time: a violation's path (order, event, state...)
// repeats it.

import Base
import MirrorEngine

/// What came of one scenario.
public struct ExhaustiveResult: Sendable {
  /// The scenario's name.
  public var name: String
  /// How much was tried.
  public var counts: ExhaustiveCounts
  /// The first broken promise, with its trace.
  public var violation: ExhaustiveViolation?
}

/// The exhaustive runs.
public enum Exhaustive {
  /// The names of all scenarios, in their order.
  public static var names: [String] { ExhaustiveCatalog.all.map(\.name) }

  /// Runs a scenario in every completion order; after a violation once more, with a trace.
  ///
  /// - Parameters:
  ///   - name: One of `names`; nil is returned for others.
  ///   - bounds: How much is enumerated.
  ///   - mutation: A barrier outside of the engine to take away.
  ///   - barrier: A barrier of the engine to take away.
  ///   - path: Only this crash: the `path` of a violation under the same bounds.
  /// - Returns: How much was tried, and the first broken promise.
  public static func run(
    _ name: String, bounds: ExhaustiveBounds = .fine, mutation: ExhaustiveMutation? = nil,
    removing barrier: Barrier? = nil, path: [Int]? = nil
  ) -> ExhaustiveResult? {
    guard let scenario = ExhaustiveCatalog.all.first(where: { $0.name == name }) else { return nil }
    var result = ExhaustiveResult(name: name, counts: ExhaustiveCounts(), violation: nil)
    var visited: Set<UInt64> = []
    for order in ExhaustiveOrder.allCases where result.violation == nil {
      if let path, path.first != Int(order.rawValue) { continue }
      let context = ExhaustiveContext(
        scenario, order: order, mutation: mutation, removed: barrier, isTracing: path != nil)
      let explorer = ExhaustiveExplorer(context, bounds, only: path, visited: visited)
      visited = explorer.explore()
      result.counts.add(explorer.counts)
      result.violation = explorer.violation
    }
    if path == nil, let found = result.violation {
      // Equal states were left out on the way; the path leads to the first of them.
      let again = run(
        name, bounds: bounds, mutation: mutation, removing: barrier, path: found.path)
      if let traced = again?.violation { result.violation = traced }
    }
    return result
  }
}

extension ExhaustiveViolation {
  /// The path as the command line takes it.
  public var place: String { path.map(String.init).joined(separator: ".") }

  /// Everything that is known, for people.
  public var report: String {
    """
    \(trace.joined(separator: "\n"))

    scenario "\(scenario)", order \(path.first ?? 0), event and state \(place): \(text)
    again: nbdmirror-sim --exhaustive "\(scenario)" --at \(place)
    """
  }
}
