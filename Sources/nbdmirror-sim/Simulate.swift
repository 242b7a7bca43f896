// nbdmirror-sim: runs the simulator over seeds and tells about the first broken promise.
//
// Exit status: 0 no violation, 1 a violation, 2 the call is wrong.

import ArgumentParser
import Glibc
import MirrorEngine
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

  @Flag(help: "Make the scenario of a violation smaller before it is told.")
  var shrink = false

  @Option(help: "How many of the last events are printed with a violation.")
  var events: Int = 50

  @Option(help: "Take this barrier of the engine away, or list them with `list`.")
  var remove: String?

  @Flag(help: "Take each barrier away in turn, until a seed shows that it is missing.")
  var barriers = false

  @OptionGroup var reduced: ReductionOptions

  @Option(help: "Run this exhaustive scenario instead, or `all`.")
  var exhaustive: String?

  @Option(help: "Only this crash of the scenario, as a violation names it.")
  var at: String?

  func run() throws {
    if let exhaustive {
      try ExhaustiveCommand.run(exhaustive, at: at, removing: try barrier())
      return
    }
    if remove == "list" {
      for barrier in Barrier.allCases { print(barrier) }
      return
    }
    if barriers {
      let survivors = BarrierCommand.run()
      if survivors > 0 { throw ExitCode(1) }
      return
    }
    let campaign = Campaign(
      reduction: try reduced.reduction(), removed: try barrier(), keptEvents: max(1, events),
      goesOn: all, shrinks: shrink)
    let first = seed ?? UInt64.random(in: 0..<1 << 32)
    print("seeds from \(first) on")
    let failed = campaign.run(from: first, seeds: seeds, minutes: minutes)
    if failed > 0 { throw ExitCode(1) }
  }

  private func barrier() throws -> Barrier? {
    guard let remove else { return nil }
    guard let barrier = Barrier.allCases.first(where: { "\($0)" == remove }) else {
      throw ValidationError("no barrier is called \"\(remove)\"; see --remove list")
    }
    return barrier
  }

  static func seconds() -> Double {
    var time = timespec()
    // The kernel fills the structure; it cannot fail for this clock.
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

/// What is taken out of each scenario.
struct ReductionOptions: ParsableArguments {
  @Option(help: "Every scenario has these features, separated by commas.")
  var with: String?

  @Option(help: "Leave these features out of every scenario, separated by commas.")
  var without: String?

  @Option(help: "Every scenario has this log: disk or core.")
  var log: String?

  @Option(help: "At most so many client operations per seed.")
  var operations: Int?

  @Option(help: "At most so many legs.")
  var legs: Int?

  @Option(help: "At most so many connections.")
  var connections: Int?

  @Option(help: "At most so many requests in flight per connection.")
  var depth: Int?

  @Option(help: "At most so many regions.")
  var regions: Int?

  func reduction() throws -> Reduction {
    var reduction = Reduction()
    reduction.with = try features(with)
    reduction.without = try features(without)
    switch log {
    case nil: break
    case "disk": reduction.logKind = .disk
    case "core": reduction.logKind = .core
    default: throw ValidationError("--log is disk or core")
    }
    reduction.operationsMax = operations
    reduction.legsMax = legs
    reduction.connectionsMax = connections
    reduction.depthMax = depth
    reduction.regionsMax = regions
    return reduction
  }

  private func features(_ list: String?) throws -> Features {
    var features: Features = []
    for name in (list ?? "").split(separator: ",") {
      guard let feature = Features(named: String(name)) else {
        throw ValidationError(
          "no feature is called \"\(name)\"; there are: "
            + Features.names.joined(separator: ", "))
      }
      features.insert(feature)
    }
    return features
  }
}
