// `nbdmirror-sim --barriers`: one line per barrier, with the seed that shows that it is missing.

import Glibc
import MirrorEngine
import Simulator

enum BarrierCommand {
  /// Hunts every barrier; how many survived.
  static func run() -> Int {
    var survivors = 0
    print("  seeds   of at most  barrier (exh.: by an exhaustive scenario)")
    for barrier in Barrier.allCases {
      let hunt = Hunt(barrier)
      let found = hunt.run { Trap.note(seed: $0) }
      if found == nil { survivors += 1 }
      print(line(found, hunt))
      // All streams: a trap would lose what is buffered.
      _ = fflush(nil)
    }
    print("\(Barrier.allCases.count) barriers, \(survivors) not missed")
    return survivors
  }

  private static func line(_ found: Hunt.Finding?, _ hunt: Hunt) -> String {
    let isExhaustive = hunt.exhaustive != nil
    let seeds = isExhaustive ? "exh." : found.map { "\($0.seeds)" } ?? "-"
    let story = found.map { ": " + String($0.text.prefix(90)) } ?? " SURVIVES"
    return pad(seeds, 7) + pad(isExhaustive ? "" : "\(hunt.seedsMax)", 13) + "  \(hunt.barrier)"
      + story
  }

  private static func pad(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }
}
