// What a run is made of: drawn from the seed, so that each seed stresses something else (swarm
// testing, Groce et al. 2012: leaving features out finds more than having all of them always).

import Base
import MirrorEngine
import MirrorFormat

/// What may happen in a run; each seed draws a subset.
public struct Features: OptionSet, Sendable, Hashable {
  /// One bit per feature, in the order of `names`.
  public var rawValue: UInt32

  /// Wraps the bits.
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Legs fail reads, writes and flushes.
  public static let errors = Features(rawValue: 1 << 0)
  /// Legs run out of space.
  public static let noSpace = Features(rawValue: 1 << 1)
  /// Legs hang, until the timeout or for ever.
  public static let hangs = Features(rawValue: 1 << 2)
  /// Legs disappear, lose their cache and come back.
  public static let losses = Features(rawValue: 1 << 3)
  /// The server is killed.
  public static let crashes = Features(rawValue: 1 << 4)
  /// The power fails.
  public static let powerLosses = Features(rawValue: 1 << 5)
  /// Restarts without some of the legs.
  public static let degradedStarts = Features(rawValue: 1 << 6)
  /// An administrator fails, removes, adds, replaces and readds legs.
  public static let commands = Features(rawValue: 1 << 7)
  /// Clean stops and starts.
  public static let stops = Features(rawValue: 1 << 8)
  /// Clients pause long enough for intent to be cleared.
  public static let pauses = Features(rawValue: 1 << 9)
  /// Zeroes and trims among the writes.
  public static let zeroes = Features(rawValue: 1 << 10)
  /// No region was ever written; the legs hold garbage there, each another one.
  public static let unwritten = Features(rawValue: 1 << 11)
  /// The legs start with garbage, all but one stale.
  public static let staleStart = Features(rawValue: 1 << 12)
  /// Scrubs run among everything else.
  public static let scrubs = Features(rawValue: 1 << 13)
  /// Two parts of the mirror are started separately; one is chosen.
  public static let splitBrains = Features(rawValue: 1 << 14)
  /// Legs become slow.
  public static let slowness = Features(rawValue: 1 << 15)
  /// One leg of three or more corrupts, misdirects and drops writes, and lies about flushes; a
  /// scrub has to find all of it. Excludes what spreads it: crashes, errors, resync.
  public static let liar = Features(rawValue: 1 << 16)
  /// A sector of a leg's labels or region map rots while nobody runs.
  public static let rot = Features(rawValue: 1 << 17)

  /// Their names, by bit.
  public static let names = [
    "errors", "no-space", "hangs", "losses", "crashes", "power-losses", "degraded-starts",
    "commands", "stops", "pauses", "zeroes", "unwritten", "stale-start", "scrubs",
    "split-brains", "slowness", "liar", "rot",
  ]

  /// The feature of that name; nil if there is none.
  public init?(named name: String) {
    guard let bit = Features.names.firstIndex(of: name) else { return nil }
    self.init(rawValue: 1 << UInt32(bit))
  }

  /// The names of the set, separated by commas.
  public var list: String {
    Features.names.indices.filter { rawValue & (1 << UInt32($0)) != 0 }
      .map { Features.names[$0] }.joined(separator: ",")
  }
}

/// What is taken out of a scenario, or put in, by hand or while a violation is made smaller.
public struct Reduction: Sendable, Equatable {
  /// Features that every scenario has.
  public var with: Features = []
  /// The log that every scenario has; nil: as drawn.
  public var logKind: LogKind?
  /// Features that are left out.
  public var without: Features = []
  /// Client operations at most.
  public var operationsMax: Int?
  /// Legs at most.
  public var legsMax: Int?
  /// Connections, and reactors, at most.
  public var connectionsMax: Int?
  /// Requests in flight per connection at most.
  public var depthMax: Int?
  /// Regions at most.
  public var regionsMax: Int?

  /// Nothing is taken out.
  public init() {}

  /// Puts features in and takes others out.
  public init(
    with: Features, without: Features = [], logKind: LogKind? = nil, legsMax: Int? = nil,
    operationsMax: Int? = nil
  ) {
    self.with = with
    self.legsMax = legsMax
    self.operationsMax = operationsMax
    self.without = without
    self.logKind = logKind
  }

  /// The options of `nbdmirror-sim` that do the same.
  public var arguments: String {
    var text = ""
    if !with.isEmpty { text += " --with \(with.list)" }
    if let logKind { text += " --log \(logKind == .core ? "core" : "disk")" }
    if !without.isEmpty { text += " --without \(without.list)" }
    if let operationsMax { text += " --operations \(operationsMax)" }
    if let legsMax { text += " --legs \(legsMax)" }
    if let connectionsMax { text += " --connections \(connectionsMax)" }
    if let depthMax { text += " --depth \(depthMax)" }
    if let regionsMax { text += " --regions \(regionsMax)" }
    return text
  }
}

/// The options of one simulated run.
public struct Scenario: Sendable {
  /// The seed that everything comes from.
  public var seed: UInt64
  /// What may happen.
  public var features: Features
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
  /// Reactors; connections are spread over them.
  public var reactors: Int
  /// Client connections.
  public var connections: Int
  /// Requests in flight per connection.
  public var depth: Int
  /// Client operations before the liveness phase.
  public var operations: Int
  /// Most inputs of a reactor's turn.
  public var batchMax: Int
  /// Clients mostly meet in this many cells.
  public var hotCells: Int
  /// Clients write whole blocks only.
  public var isAligned: Bool
  /// Mean time between two commands or faults, in nanoseconds.
  public var unrestNanoseconds: UInt64
  /// An I/O takes up to so long, in nanoseconds.
  public var ioNanoseconds: UInt64
  /// One in so many writes of metadata, and acked flushes, is soon followed by a crash.
  public var crashOdds: UInt64

  /// Draws a scenario and takes some of it out again.
  public init(seed: UInt64, reduction: Reduction = Reduction()) {
    var random = PRNG(seed: seed &* 0x2545_f491_4f6c_dd1d &+ 1)
    self.seed = seed
    legCount = [1, 2, 2, 2, 2, 3, 3, 3, 4, 5][Int(random.below(10))]
    blockBytes = random.chance(1, in: 3) ? 4096 : 512
    let kind = random.below(24)
    regionBytes = kind == 0 ? 2 * Bytes.mebi : kind == 1 ? Bytes.mebi : 64 * Bytes.kibi
    regionCount = kind == 0 ? 2 : kind == 1 ? 3 : random.int(in: 1...8)
    cutBytes = random.chance(1, in: 3) ? UInt64(blockBytes) * (1 + random.below(8)) : 0
    grain = random.chance(1, in: 4) ? 128 : 512
    logKind = random.chance(1, in: 6) ? .core : .disk
    readPolicy =
      [.roundRobin, .leastPending, .adaptive, .prefer(LegSlot(0))][Int(random.below(4))]
    connections = random.int(in: 1...4)
    reactors = random.int(in: 1...min(3, connections))
    depth = [1, 2, 4, 8, 16][Int(random.below(5))]
    operations = [100, 300, 600, 1000, 2000][Int(random.below(5))]
    batchMax = [1, 2, 4, 16][Int(random.below(4))]
    hotCells = random.chance(1, in: 2) ? random.int(in: 8...64) : Int.max
    isAligned = random.chance(1, in: 3)
    unrestNanoseconds = [5, 50, 500, 3000][Int(random.below(4))] * Nanoseconds.millisecond
    ioNanoseconds = [50, 400, 4000][Int(random.below(3))] * Nanoseconds.microsecond
    crashOdds = [12, 48, 200, 1000][Int(random.below(4))]
    features = Scenario.drawFeatures(&random, legCount: legCount)
    if features.contains(.liar) {
      isAligned = true
      logKind = .disk
    }
    reduce(reduction)
  }

  private static func drawFeatures(_ random: inout PRNG, legCount: Int) -> Features {
    var features: Features = []
    let odds: [(Features, UInt64)] = [
      (.errors, 8), (.noSpace, 3), (.hangs, 5), (.losses, 5), (.crashes, 8), (.powerLosses, 5),
      (.degradedStarts, 5), (.commands, 8), (.stops, 4), (.pauses, 8), (.zeroes, 11),
      (.unwritten, 4), (.staleStart, 3), (.scrubs, 5), (.splitBrains, 4), (.slowness, 4),
      (.rot, 5),
    ]
    for (feature, of16) in odds where random.chance(of16, in: 16) { features.insert(feature) }
    if legCount == 1 { features.remove(.staleStart) }
    if features.contains(.unwritten) { features.remove(.staleStart) }
    if legCount >= 3, random.chance(1, in: 6) {
      features = features.intersection([.pauses, .zeroes, .scrubs, .slowness, .stops])
      features.insert(.liar)
    }
    return features
  }

  private mutating func reduce(_ reduction: Reduction) {
    if let kind = reduction.logKind, !features.contains(.liar) || kind == .disk { logKind = kind }
    if !reduction.with.isEmpty, !reduction.with.contains(.liar) { features.remove(.liar) }
    if reduction.with.contains(.unwritten) { features.remove(.staleStart) }
    if reduction.with.contains(.staleStart) { features.remove(.unwritten) }
    features.formUnion(reduction.with)
    features.subtract(reduction.without)
    if let most = reduction.operationsMax { operations = min(operations, most) }
    if let most = reduction.legsMax, most >= 1 { legCount = min(legCount, most) }
    if let most = reduction.connectionsMax, most >= 1 {
      connections = min(connections, most)
      reactors = min(reactors, connections)
    }
    if let most = reduction.depthMax, most >= 1 { depth = min(depth, most) }
    if let most = reduction.regionsMax, most >= 1 { regionCount = min(regionCount, most) }
    if legCount < 3 { features.remove(.liar) }
    if legCount < 2 { features.remove(.staleStart) }
  }

  /// Whether the run has a feature.
  public func has(_ feature: Features) -> Bool { features.contains(feature) }

  /// Size of the exported device.
  public var sizeBytes: UInt64 { regionBytes * UInt64(regionCount) - cutBytes }

  /// No leg fails anything by itself and none is missing: every request must succeed.
  public var mustSucceed: Bool {
    features.isDisjoint(with: [.errors, .noSpace, .losses, .degradedStarts, .splitBrains, .rot])
  }

  /// Where things stand on the PVs: close together, so that images are small.
  public var layout: Layout {
    Layout(
      sizeBytes: sizeBytes, regionBytes: regionBytes, blockBytes: blockBytes,
      mapOffset: 520 * Bytes.kibi, dataOffset: Bytes.mebi)
  }

  /// One line for people.
  public var description: String {
    "\(legCount) legs, blocks of \(blockBytes), \(regionCount) regions of \(regionBytes), log "
      + "\(logKind), policy \(readPolicy), \(connections) connections on \(reactors) reactors, "
      + "depth \(depth), \(operations) operations, batches of \(batchMax), grain \(grain)"
      + "\(isAligned ? ", whole blocks" : ""), with: \(features.list)"
  }
}
