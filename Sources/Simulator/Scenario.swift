// What a run is made of: drawn from the seed, so that each seed stresses something else (swarm
// testing, Groce et al. 2012: leaving features out finds more than having all of them always).

import Base
import MirrorEngine
import MirrorFormat

/// The options of one simulated run.
public struct Scenario: Sendable {
  /// The seed that everything comes from.
  public var seed: UInt64
  /// Legs at the start.
  public var legCount: Int
  /// Block size of the mirror.
  public var blockBytes: UInt32
  /// Region size.
  public var regionBytes: UInt64
  /// Number of regions; the last may be shorter.
  public var regionCount: Int
  /// Bytes cut off the last region.
  public var cutBytes: UInt64
  /// Unit of client writes; at most a sector, so that no unit can be torn.
  public var grain: Int
  /// Where the region map lives.
  public var logKind: LogKind
  /// How legs are chosen for reads.
  public var readPolicy: ReadPolicy
  /// The legs start with garbage, all but one stale.
  public var startsStale: Bool
  /// Client connections.
  public var connections: Int
  /// Requests in flight per connection.
  public var depth: Int
  /// Client operations before the liveness phase.
  public var operations: Int
  /// Most inputs between two `settle`.
  public var batchMax: Int
  /// Clients mostly meet in this many cells.
  public var hotCells: Int
  /// Legs fail reads, writes and flushes.
  public var hasErrors: Bool
  /// Legs run out of space.
  public var hasNoSpace: Bool
  /// Legs hang, until the timeout or for ever.
  public var hasHangs: Bool
  /// Legs disappear, lose their cache and come back.
  public var hasLosses: Bool
  /// The server is killed.
  public var hasCrashes: Bool
  /// The power fails.
  public var hasPowerLosses: Bool
  /// Restarts without some of the legs.
  public var hasDegradedStarts: Bool
  /// An administrator fails, removes, adds and readds legs.
  public var hasCommands: Bool
  /// Clean stops and starts.
  public var hasStops: Bool
  /// Clients pause long enough for intent to be cleared.
  public var hasPauses: Bool
  /// Zeroes and trims among the writes.
  public var hasZeroes: Bool
  /// No region was ever written; the legs hold garbage there, each another one.
  public var hasUnwritten: Bool
  /// Mean time between two commands or faults, in nanoseconds.
  public var unrestNanoseconds: UInt64

  /// Draws a scenario.
  public init(seed: UInt64) {
    var random = PRNG(seed: seed &* 0x2545_f491_4f6c_dd1d &+ 1)
    self.seed = seed
    legCount = [1, 2, 2, 2, 2, 3, 3, 4][Int(random.below(8))]
    blockBytes = random.chance(1, in: 3) ? 4096 : 512
    let kind = random.below(16)
    regionBytes = kind == 0 ? 2 * Bytes.mebi : kind == 1 ? Bytes.mebi : 64 * Bytes.kibi
    regionCount = kind == 0 ? 3 : kind == 1 ? 8 : random.int(in: 1...12)
    cutBytes = random.chance(1, in: 3) ? UInt64(blockBytes) * (1 + random.below(8)) : 0
    grain = random.chance(1, in: 2) ? 128 : 512
    logKind = random.chance(1, in: 6) ? .core : .disk
    readPolicy =
      [.roundRobin, .leastPending, .adaptive, .prefer(LegSlot(0))][Int(random.below(4))]
    startsStale = legCount > 1 && random.chance(1, in: 6)
    connections = random.int(in: 1...4)
    depth = [1, 2, 4, 8][Int(random.below(4))]
    operations = random.int(in: 50...500)
    batchMax = [1, 2, 4, 16][Int(random.below(4))]
    hotCells = random.chance(1, in: 2) ? random.int(in: 8...64) : Int.max
    hasErrors = random.chance(1, in: 2)
    hasNoSpace = random.chance(1, in: 6)
    hasHangs = random.chance(1, in: 3)
    hasLosses = random.chance(1, in: 3)
    hasCrashes = random.chance(1, in: 2)
    hasPowerLosses = random.chance(1, in: 3)
    hasDegradedStarts = random.chance(1, in: 3)
    hasCommands = random.chance(1, in: 2)
    hasStops = random.chance(1, in: 4)
    hasPauses = random.chance(1, in: 2)
    hasZeroes = random.chance(2, in: 3)
    // From a generator of its own: what older seeds draw stays what it was.
    var lazy = PRNG(seed: seed ^ 0x6c61_7a79)
    hasUnwritten = !startsStale && lazy.chance(1, in: 4)
    unrestNanoseconds = [5, 50, 500, 3000][Int(random.below(4))] * Nanoseconds.millisecond
  }

  /// Size of the exported device.
  public var sizeBytes: UInt64 { regionBytes * UInt64(regionCount) - cutBytes }

  /// No leg fails anything by itself and none is missing: every request must succeed.
  public var mustSucceed: Bool {
    !hasErrors && !hasNoSpace && !hasLosses && !hasDegradedStarts
  }

  /// Where things stand on the PVs: close together, so that images are small.
  public var layout: Layout {
    Layout(
      sizeBytes: sizeBytes, regionBytes: regionBytes, blockBytes: blockBytes,
      mapOffset: 520 * Bytes.kibi, dataOffset: Bytes.mebi)
  }
}
