// A barrier of the engine is taken away; seeds are run until one shows it.
//
// Most barriers are missed at once. Some are needed only when several things come together: for
// those the scenarios have the features that bring them, so that the hunt ends in a minute. What a
// hundred thousand seeds bring once is left to the exhaustive scenario that brings it always.

import MirrorEngine

/// The hunt for one barrier.
public struct Hunt: Sendable {
  /// The seed, or the crash of a scenario, that shows it.
  public struct Finding: Sendable {
    /// How many seeds it took, from 1 on; 0: it was an exhaustive scenario.
    public var seeds: UInt64
    /// What was seen.
    public var text: String
  }

  /// What is taken away.
  public let barrier: Barrier
  /// What the scenarios have and have not.
  public let reduction: Reduction
  /// The exhaustive scenario that is run instead of seeds.
  public let exhaustive: String?
  /// A barrier that is not missed by then is useless, or the simulator has a hole.
  public let seedsMax: UInt64

  /// The hunt for `barrier`, over so many seeds at most.
  public init(_ barrier: Barrier, seedsMax: UInt64 = 6000) {
    self.barrier = barrier
    reduction = Hunt.reduction(barrier)
    exhaustive =
      switch barrier {
      case .pagesBeforeGeneration:
        "degraded start without the good leg, dies after 1 of its writes"
      case .resolvedOnListedLegs: "unresolved: a leg fails the copy, reads"
      default: nil
      }
    self.seedsMax = seedsMax
  }

  private static func reduction(_ barrier: Barrier) -> Reduction {
    let quiet: Features = [.liar, .unwritten, .scrubs, .splitBrains]
    switch barrier {
    case .bitsInBothImages: return Reduction(with: [.pauses, .slowness], without: quiet)
    case .doubtUncertainPages:
      return Reduction(
        with: [.rot, .crashes, .commands, .pauses], without: quiet.union([.hangs, .slowness]),
        logKind: .disk, legsMax: 2)
    case .bothLabelCopies:
      return Reduction(with: [.rot, .losses, .crashes], without: quiet)
    case .newestLabelWins: return Reduction(with: [.errors, .crashes, .losses], without: quiet)
    case .openLabelBeforeData:
      // Short lives: it is missed between a start and its label.
      return Reduction(with: [.degradedStarts, .powerLosses], operationsMax: 100)
    case .ackAfterLabel: return Reduction(with: [.errors, .crashes], without: quiet)
    case .staleBeforeAck:
      return Reduction(
        with: [.errors, .crashes, .staleStart, .commands], without: quiet, logKind: .disk)
    case .copyVoidedByMiss:
      return Reduction(with: [.errors, .staleStart, .commands], without: quiet)
    case .quietBeforeIntentIsCleared:
      return Reduction(with: [.pauses, .slowness], without: quiet, logKind: .disk)
    case .absentLegsAreStaleAtStart:
      return Reduction(with: [.degradedStarts, .crashes], without: quiet)
    case .freshBuffer: return Reduction(with: [.hangs], without: quiet)
    case .labelsThatListTheSpare:
      return Reduction(with: [.commands, .crashes], without: quiet)
    default: return Reduction()
    }
  }

  /// Runs the scenario, or seeds from 1 on; nil if the barrier is not missed. `next` hears of each
  /// seed.
  public func run(next: (UInt64) -> Void = { _ in }) -> Finding? {
    if let exhaustive {
      let result = Exhaustive.run(exhaustive, removing: barrier)
      return result?.violation.map { Finding(seeds: 0, text: $0.text) }
    }
    var seed: UInt64 = 1
    while seed <= seedsMax {
      next(seed)
      var world = World(
        scenario: Scenario(seed: seed, reduction: reduction), removed: barrier, keptEvents: 1)
      world.run()
      if let violation = world.violation { return Finding(seeds: seed, text: violation.text) }
      seed += 1
    }
    return nil
  }
}
