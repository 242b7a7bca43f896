// What the control socket says about a mirror: the schema of `GET /v1/mirror`, `/v1/legs`,
// `/v1/resync` and of the `--json` outputs.
//
// Plain values; whoever serves the mirror fills them, whoever asks decodes them. Three rules:
// 1. Keys are stable and never absent: what is not known is `null`, so scripts need no existence
//    tests. New keys may be added; none is renamed.
// 2. Sizes and rates are bytes (per second), durations carry their unit in the key.
// 3. Enumerations are the words of the project's documents, spelled with hyphens.

/// One served mirror: `GET /v1/mirror`, `nbdmirror status --json`.
public struct MirrorStatus: Codable, Equatable, Sendable {
  /// How the mirror is, the worst that applies.
  public enum State: String, Codable, CaseIterable, Sendable {
    /// Every configured leg is in sync.
    case healthy
    /// Every configured leg is online, some have stale regions.
    case syncing
    /// At least one configured leg is offline.
    case degraded
    /// Some data cannot be served or written any more.
    case failed
  }

  /// Name of the mirror and of its export.
  public var name: String
  /// Id of the set of PVs, as in their labels.
  public var setId: String
  /// Size of the exported device in bytes.
  public var size: UInt64
  /// How the mirror is.
  public var state: State
  /// Share of the bytes that every configured leg has in sync, 0...100.
  public var syncPercent: Double
  /// Another number whenever legs, states or options are others; what a server gives out is larger
  /// than what an earlier one did. Counters and progress do not count.
  public var revision: UInt64
  /// Counter of the generation that the labels record now.
  public var generation: UInt64
  /// Size of a region in bytes.
  public var regionSize: UInt64
  /// Regions that carry an intent: written recently, or not yet known equal.
  public var dirtyRegions: UInt64
  /// Regions with an intent left by an unclean stop that recovery has not yet made equal.
  public var unresolvedRegions: UInt64
  /// Bytes of regions that were never written: they read as zeros whatever the legs hold.
  public var unwrittenBytes: UInt64
  /// How reads choose a leg.
  public var readPolicy: String
  /// Seconds since the server accepts clients.
  public var uptimeSeconds: UInt64
  /// The configured legs, by slot.
  public var legs: [LegStatus]
  /// The running resync, else the last one.
  public var resync: ResyncStatus
  /// The running scrub, else the last one.
  public var scrub: ScrubStatus

  /// Describes a mirror.
  public init(
    name: String, setId: String, size: UInt64, state: State, syncPercent: Double,
    generation: UInt64, regionSize: UInt64, dirtyRegions: UInt64, unresolvedRegions: UInt64,
    unwrittenBytes: UInt64 = 0, readPolicy: String, uptimeSeconds: UInt64, legs: [LegStatus],
    resync: ResyncStatus = ResyncStatus(), scrub: ScrubStatus = ScrubStatus(), revision: UInt64 = 0
  ) {
    self.name = name
    self.setId = setId
    self.size = size
    self.state = state
    self.syncPercent = syncPercent
    self.revision = revision
    self.generation = generation
    self.regionSize = regionSize
    self.dirtyRegions = dirtyRegions
    self.unresolvedRegions = unresolvedRegions
    self.unwrittenBytes = unwrittenBytes
    self.readPolicy = readPolicy
    self.uptimeSeconds = uptimeSeconds
    self.legs = legs
    self.resync = resync
    self.scrub = scrub
  }
}

/// Copying stale regions: `GET /v1/resync`.
public struct ResyncStatus: Codable, Equatable, Sendable {
  /// Whether regions are being copied, or would be if it were not paused.
  public var running: Bool
  /// Whether it was paused by command.
  public var paused: Bool
  /// Bytes copied so far by the running resync, else by the last one; 0 if none ran.
  public var bytesDone: UInt64
  /// Bytes that the running resync (else the last one) has to copy in all.
  public var bytesTotal: UInt64
  /// Present rate; 0 when nothing runs.
  public var bytesPerSecond: UInt64
  /// Seconds until it is done at the present rate; nil when unknown or nothing runs.
  public var etaSeconds: UInt64?
  /// Rate it does not fall below while clients work.
  public var minBytesPerSecond: UInt64
  /// Rate it does not exceed; nil: unlimited.
  public var maxBytesPerSecond: UInt64?

  /// Describes a resync; by default none that ever ran.
  public init(
    running: Bool = false, paused: Bool = false, bytesDone: UInt64 = 0, bytesTotal: UInt64 = 0,
    bytesPerSecond: UInt64 = 0, etaSeconds: UInt64? = nil, minBytesPerSecond: UInt64 = 1 << 20,
    maxBytesPerSecond: UInt64? = nil
  ) {
    self.running = running
    self.paused = paused
    self.bytesDone = bytesDone
    self.bytesTotal = bytesTotal
    self.bytesPerSecond = bytesPerSecond
    self.etaSeconds = etaSeconds
    self.minBytesPerSecond = minBytesPerSecond
    self.maxBytesPerSecond = maxBytesPerSecond
  }

  /// Writes every key, `null` where a value is unknown.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(running, forKey: .running)
    try container.encode(paused, forKey: .paused)
    try container.encode(bytesDone, forKey: .bytesDone)
    try container.encode(bytesTotal, forKey: .bytesTotal)
    try container.encode(bytesPerSecond, forKey: .bytesPerSecond)
    try container.encode(etaSeconds, forKey: .etaSeconds)
    try container.encode(minBytesPerSecond, forKey: .minBytesPerSecond)
    try container.encode(maxBytesPerSecond, forKey: .maxBytesPerSecond)
  }
}

/// Comparing legs.
public struct ScrubStatus: Codable, Equatable, Sendable {
  /// What a scrub does about a mismatch.
  public enum Mode: String, Codable, CaseIterable, Sendable {
    /// Reports it.
    case check
    /// Reports and repairs it.
    case repair
  }

  /// Mode of the running scrub, else of the last one; nil if none ran.
  public var mode: Mode?
  /// Whether a scrub runs.
  public var running: Bool
  /// Bytes compared.
  public var bytesDone: UInt64
  /// Ranges found different.
  public var mismatches: UInt64

  /// Describes a scrub; by default none that ever ran.
  public init(
    mode: Mode? = nil, running: Bool = false, bytesDone: UInt64 = 0, mismatches: UInt64 = 0
  ) {
    self.mode = mode
    self.running = running
    self.bytesDone = bytesDone
    self.mismatches = mismatches
  }

  /// Writes every key, `null` where a value is unknown.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(mode, forKey: .mode)
    try container.encode(running, forKey: .running)
    try container.encode(bytesDone, forKey: .bytesDone)
    try container.encode(mismatches, forKey: .mismatches)
  }
}
