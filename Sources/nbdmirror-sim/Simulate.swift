// nbdmirror-sim: runs the simulator over seeds and tells about the first broken promise.
//
// Exit status: 0 no violation, 1 a violation, 2 the call is wrong.

import ArgumentParser
import Glibc
import Simulator

@main
struct Simulate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nbdmirror-sim",
    abstract: "Simulates a mirror with faults and crashes and checks every promise.")

  @Option(help: "First seed; without it a random one.")
  var seed: UInt64?

  @Option(help: "How many seeds.")
  var seeds: Int = 1

  @Option(help: "Run seeds for so many minutes instead.")
  var minutes: Double?

  @Flag(help: "Go on after a violation and list all seeds that have one.")
  var all = false

  @Option(help: "How many of the last events are printed with a violation.")
  var events: Int = 50

  @Option(help: "Run this exhaustive scenario instead, or `all`.")
  var exhaustive: String?

  @Option(help: "Only this crash of the scenario, as a violation names it.")
  var at: String?

  func run() throws {
    if let exhaustive {
      try ExhaustiveCommand.run(exhaustive, at: at)
      return
    }
    let first = seed ?? UInt64.random(in: 0..<1 << 32)
    print("seeds from \(first) on")
    let begin = Simulate.seconds()
    var counts = RunCounts()
    var failed: [UInt64] = []
    var done = 0
    while true {
      if let minutes {
        if Simulate.seconds() - begin >= minutes * 60 { break }
      } else if done >= seeds {
        break
      }
      let current = first &+ UInt64(done)
      Trap.note(seed: current)
      let world = World(scenario: Scenario(seed: current), keptEvents: max(1, events))
      world.run()
      done += 1
      counts.add(world.counts)
      guard let violation = world.violation else { continue }
      failed.append(current)
      if all {
        print("seed \(current): \(violation.text)")
        continue
      }
      print(world.trace.table)
      print("\n\(world.scenario)")
      print("\nseed \(current), step \(violation.step): \(violation.text)")
      print("again: nbdmirror-sim --seed \(current)")
      break
    }
    let elapsed = Simulate.seconds() - begin
    print(
      "\(done) seeds in \(Int(elapsed)) s: \(counts.operations) operations "
        + "(\(counts.errors) failed), \(counts.legIO) leg I/O, \(counts.crashes) crashes, "
        + "\(counts.powerLosses) power losses, \(counts.starts) starts, "
        + "\(counts.commands) commands, \(counts.faults) faults; \(failed.count) violations")
    if !failed.isEmpty { throw ExitCode(1) }
  }

  static func seconds() -> Double {
    var time = timespec()
    // The kernel fills the structure; it cannot fail for this clock.
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
