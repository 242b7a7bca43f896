// `nbdmirror-sim --exhaustive`: one line per scenario, the whole story of the first violation.

import ArgumentParser
import Glibc
import MirrorEngine
import Simulator

enum ExhaustiveCommand {
  /// Runs one scenario, or `all`.
  static func run(_ name: String, at place: String?, removing barrier: Barrier?) throws {
    let names = name == "all" ? Exhaustive.names : Exhaustive.names.filter { $0 == name }
    guard !names.isEmpty else {
      throw ValidationError(
        "no exhaustive scenario is called \"\(name)\"; there are:\n  "
          + Exhaustive.names.joined(separator: "\n  "))
    }
    let path = place?.split(separator: ".").compactMap { Int($0) }
    let begin = Simulate.seconds()
    var total = ExhaustiveCounts()
    var failed = 0
    print("     I/O   events   states   starts  refused  scenario")
    for name in names {
      // Should the engine trap, the line after the last one is this scenario's.
      guard let result = Exhaustive.run(name, removing: barrier, path: path) else { continue }
      total.add(result.counts)
      print(line(result.counts, name))
      // All streams: a trap would lose what is buffered.
      _ = fflush(nil)
      guard let violation = result.violation else { continue }
      failed += 1
      print(violation.report)
    }
    print(line(total, "all \(names.count) scenarios"))
    print("\(Int(Simulate.seconds() - begin)) s, \(failed) scenarios with violations")
    if failed > 0 { throw ExitCode(1) }
  }

  private static func line(_ counts: ExhaustiveCounts, _ name: String) -> String {
    let numbers = [counts.io, counts.points, counts.states, counts.starts, counts.refusals]
    return numbers.map { number in
      let text = String(number)
      return String(repeating: " ", count: max(0, 8 - text.count)) + text
    }.joined(separator: " ") + "  " + name
  }
}
