// Many seeds, one after the other; the story of the first violation.

import Glibc
import MirrorEngine
import Simulator

struct Campaign {
  var reduction: Reduction
  var removed: Barrier?
  var keptEvents: Int
  /// After a violation too.
  var goesOn: Bool
  var shrinks: Bool

  /// Runs seeds from `first` on, so many or for so long; the number of seeds with a violation.
  func run(from first: UInt64, seeds: Int, minutes: Double?) -> Int {
    Campaign.keepFreedMemory()
    let begin = Simulate.seconds()
    var counts = RunCounts()
    var failed = 0
    var done = 0
    var told = begin
    while true {
      let elapsed = Simulate.seconds() - begin
      if let minutes {
        if elapsed >= minutes * 60 { break }
      } else if done >= seeds {
        break
      }
      if begin + elapsed - told > 60 {
        told = begin + elapsed
        print("\(Int(elapsed)) s: \(done) seeds, \(counts.operations) operations")
        _ = fflush(nil)
      }
      let seed = first &+ UInt64(done)
      Trap.note(seed: seed)
      done += 1
      var world = World(
        scenario: Scenario(seed: seed, reduction: reduction), removed: removed,
        keptEvents: keptEvents)
      world.run()
      counts.add(world.counts)
      guard let violation = world.violation else { continue }
      failed += 1
      if goesOn {
        print("seed \(seed): \(violation.text)")
      } else {
        tell(seed)
        break
      }
    }
    report(done, counts, failed, seconds: Simulate.seconds() - begin)
    return failed
  }

  /// Each world frees its disks. Given back to the system and taken again they cost a twentieth of the
  /// time in page faults; glibc keeps blocks up to the size of the largest that it has once given back
  /// (mallopt(3), M_MMAP_THRESHOLD; 32 MiB at most).
  private static func keepFreedMemory() {
    var block: UnsafeMutableRawPointer?
    // Nobody else knows the block.
    if unsafe posix_memalign(&block, 4096, 31 << 20) == 0 { unsafe free(block) }
  }

  private func report(_ done: Int, _ counts: RunCounts, _ failed: Int, seconds: Double) {
    let speed = Int(Double(counts.operations) / max(seconds, 0.001))
    print("\(done) seeds in \(Int(seconds)) s, \(speed) operations/s: \(counts.description)")
    print("\(failed) violations")
  }

  /// The whole story of a seed that has a violation.
  private func tell(_ seed: UInt64) {
    var smallest = Shrinking.Case(seed: seed, reduction: reduction)
    if shrinks {
      smallest = Shrinking.shrink(smallest, removed: removed) { print("  smaller: \($0)") }
    }
    let scenario = Scenario(seed: smallest.seed, reduction: smallest.reduction)
    var world = World(scenario: scenario, removed: removed, keptEvents: keptEvents)
    world.run()
    print(world.trace.table)
    print("\n\(scenario.description)")
    if let violation = world.violation {
      print("\nseed \(smallest.seed), step \(violation.step): \(violation.text)")
    }
    let barrier = removed.map { " --remove \($0)" } ?? ""
    print("again: nbdmirror-sim --seed \(smallest.seed)\(smallest.reduction.arguments)\(barrier)")
  }
}
