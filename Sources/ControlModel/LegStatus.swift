// What the control socket says about one leg, and how a caller names a leg.

/// One configured leg of a mirror.
public struct LegStatus: Codable, Equatable, Sendable {
  /// How the leg is.
  public enum State: String, Codable, CaseIterable, Sendable {
    /// Online, no stale region.
    case inSync = "in-sync"
    /// Online, some regions are stale.
    case syncing
    /// Offline by errors or a timeout.
    case failed
    /// Offline: it was not there at start.
    case missing
    /// Offline by command.
    case removed
    /// Labelled, waiting to replace a failed leg.
    case spare
  }

  /// How the leg's PV is opened.
  public enum Cache: String, Codable, CaseIterable, Sendable {
    /// Past the page cache (`O_DIRECT`).
    case direct
    /// Through the page cache.
    case buffered
  }

  /// Quantiles of the time one kind of I/O took on the leg lately.
  public struct Quantiles: Codable, Equatable, Sendable {
    /// Median in microseconds; nil when there was no such I/O.
    public var p50Microseconds: Double?
    /// 99th percentile in microseconds; nil when there was no such I/O.
    public var p99Microseconds: Double?

    /// Quantiles in microseconds; by default unknown.
    public init(p50Microseconds: Double? = nil, p99Microseconds: Double? = nil) {
      self.p50Microseconds = p50Microseconds
      self.p99Microseconds = p99Microseconds
    }

    /// Writes every key, `null` where a value is unknown.
    public func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(p50Microseconds, forKey: .p50Microseconds)
      try container.encode(p99Microseconds, forKey: .p99Microseconds)
    }
  }

  /// Latency of the leg by kind of I/O.
  public struct Latency: Codable, Equatable, Sendable {
    /// Reads.
    public var read: Quantiles
    /// Writes.
    public var write: Quantiles

    /// Quantiles by kind; by default unknown.
    public init(read: Quantiles = Quantiles(), write: Quantiles = Quantiles()) {
      self.read = read
      self.write = write
    }
  }

  /// Place of the leg in the mirror, 0...7.
  public var slot: Int
  /// Id of the leg, as in its label.
  public var id: String
  /// Where the PV is: absolute, as the server opened it; empty if a missing leg's is not known.
  public var path: String
  /// How the leg is.
  public var state: State
  /// Bytes in regions that are stale on this leg.
  public var staleBytes: UInt64
  /// Reads that failed on the leg since the server started.
  public var readErrors: UInt64
  /// Writes and flushes that failed on the leg since the server started.
  public var writeErrors: UInt64
  /// Blocks rewritten from another leg after a read error.
  public var repairedBlocks: UInt64
  /// Slot of the leg in whose place it is: that one is removed when this one is in sync.
  public var replaces: Int?
  /// Read only if nothing else can.
  public var writeMostly: Bool
  /// How the PV is opened; nil when it is not.
  public var cache: Cache?
  /// Bytes at the end of the PV that the mirror has no use for, since the smallest PV decided its
  /// size; nil when the PV is not open.
  public var unusedBytes: UInt64?
  /// How long I/O takes on the leg.
  public var latency: Latency

  /// Describes a leg.
  public init(
    slot: Int, id: String, path: String, state: State, staleBytes: UInt64 = 0,
    readErrors: UInt64 = 0, writeErrors: UInt64 = 0, repairedBlocks: UInt64 = 0,
    replaces: Int? = nil, writeMostly: Bool = false, cache: Cache? = nil,
    unusedBytes: UInt64? = nil, latency: Latency = Latency()
  ) {
    self.slot = slot
    self.id = id
    self.path = path
    self.state = state
    self.staleBytes = staleBytes
    self.readErrors = readErrors
    self.writeErrors = writeErrors
    self.repairedBlocks = repairedBlocks
    self.replaces = replaces
    self.writeMostly = writeMostly
    self.cache = cache
    self.unusedBytes = unusedBytes
    self.latency = latency
  }

  /// Writes every key, `null` where a value is unknown.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(slot, forKey: .slot)
    try container.encode(id, forKey: .id)
    try container.encode(path, forKey: .path)
    try container.encode(state, forKey: .state)
    try container.encode(staleBytes, forKey: .staleBytes)
    try container.encode(readErrors, forKey: .readErrors)
    try container.encode(writeErrors, forKey: .writeErrors)
    try container.encode(repairedBlocks, forKey: .repairedBlocks)
    try container.encode(replaces, forKey: .replaces)
    try container.encode(writeMostly, forKey: .writeMostly)
    try container.encode(cache, forKey: .cache)
    try container.encode(unusedBytes, forKey: .unusedBytes)
    try container.encode(latency, forKey: .latency)
  }

  /// The leg that `reference` names: a slot number, a leg id (any case), or a path.
  ///
  /// In this order, so a file called `1` in the server's folder is named by its full path.
  /// - Returns: nil if no leg, or more than one, goes by that name.
  public static func find(_ reference: String, in legs: [LegStatus]) -> LegStatus? {
    let isNumber = !reference.isEmpty && reference.utf8.allSatisfy { $0 >= 48 && $0 <= 57 }
    let named =
      if isNumber {
        legs.filter { $0.slot == Int(reference) }
      } else {
        legs.filter {
          $0.id.lowercased() == reference.lowercased()
            || (!$0.path.isEmpty && $0.path == reference)
        }
      }
    // A PV that was removed and added again is the path of two slots; the live one is meant.
    let live = named.filter { $0.state != .removed }
    let candidates = live.isEmpty ? named : live
    return candidates.count == 1 ? candidates[0] : nil
  }
}
