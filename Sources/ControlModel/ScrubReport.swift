// What the control socket says about a scrub and a resync in full: the schema of `GET /v1/scrub` and
// `GET /v1/resync`. `GET /v1/mirror` has the short forms `ScrubStatus` and `ResyncStatus`.

/// A range of the exported device, and the legs that it is about.
public struct RangeReport: Codable, Equatable, Sendable {
  /// First byte.
  public var offset: UInt64
  /// Number of bytes.
  public var bytes: UInt64
  /// Slots; none where it is about the mirror as a whole.
  public var legs: [Int]

  /// Describes a range.
  public init(offset: UInt64, bytes: UInt64, legs: [Int]) {
    self.offset = offset
    self.bytes = bytes
    self.legs = legs
  }
}

/// The running scrub, else the last one: `GET /v1/scrub`.
public struct ScrubReport: Codable, Equatable, Sendable {
  /// Mode of the running scrub, else of the last one; nil if none ran.
  public var mode: ScrubStatus.Mode?
  /// Whether it compares, or waits until its repairs are copied.
  public var running: Bool
  /// Whether it came to its end; a stopped one did not.
  public var complete: Bool
  /// Bytes compared or left out.
  public var bytesDone: UInt64
  /// Bytes of the range.
  public var bytesTotal: UInt64
  /// Bytes of `bytesDone` that could not be compared.
  public var bytesSkipped: UInt64
  /// Present rate, or the mean of one that is over.
  public var bytesPerSecond: UInt64
  /// Seconds until all is compared at the present rate; nil when unknown or nothing runs.
  public var etaSeconds: UInt64?
  /// Ranges found different.
  public var mismatches: UInt64
  /// Bytes of the blocks that differ.
  public var mismatchBytes: UInt64
  /// Bytes of `mismatchBytes` that were left as they are.
  public var unrepairedBytes: UInt64
  /// Reads that failed.
  public var readErrors: UInt64
  /// The first 64 ranges that differ, with the legs that differ from the majority (all of them
  /// where there is none).
  public var ranges: [RangeReport]

  /// Describes a scrub; by default none that ever ran.
  public init(
    mode: ScrubStatus.Mode? = nil, running: Bool = false, complete: Bool = false,
    bytesDone: UInt64 = 0, bytesTotal: UInt64 = 0, bytesSkipped: UInt64 = 0,
    bytesPerSecond: UInt64 = 0, etaSeconds: UInt64? = nil, mismatches: UInt64 = 0,
    mismatchBytes: UInt64 = 0, unrepairedBytes: UInt64 = 0, readErrors: UInt64 = 0,
    ranges: [RangeReport] = []
  ) {
    self.mode = mode
    self.running = running
    self.complete = complete
    self.bytesDone = bytesDone
    self.bytesTotal = bytesTotal
    self.bytesSkipped = bytesSkipped
    self.bytesPerSecond = bytesPerSecond
    self.etaSeconds = etaSeconds
    self.mismatches = mismatches
    self.mismatchBytes = mismatchBytes
    self.unrepairedBytes = unrepairedBytes
    self.readErrors = readErrors
    self.ranges = ranges
  }

  /// Writes every key, `null` where a value is unknown.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(mode, forKey: .mode)
    try container.encode(running, forKey: .running)
    try container.encode(complete, forKey: .complete)
    try container.encode(bytesDone, forKey: .bytesDone)
    try container.encode(bytesTotal, forKey: .bytesTotal)
    try container.encode(bytesSkipped, forKey: .bytesSkipped)
    try container.encode(bytesPerSecond, forKey: .bytesPerSecond)
    try container.encode(etaSeconds, forKey: .etaSeconds)
    try container.encode(mismatches, forKey: .mismatches)
    try container.encode(mismatchBytes, forKey: .mismatchBytes)
    try container.encode(unrepairedBytes, forKey: .unrepairedBytes)
    try container.encode(readErrors, forKey: .readErrors)
    try container.encode(ranges, forKey: .ranges)
  }
}

/// The running resync, else the last one, in full: `GET /v1/resync`.
public struct ResyncReport: Codable, Equatable, Sendable {
  /// What `GET /v1/mirror` says, too; its keys stand beside those below.
  public var status: ResyncStatus
  /// Bytes of `bytesDone` that were zeros: the targets got holes.
  public var zeroBytes: UInt64
  /// Ranges that no leg that has them could read.
  public var unreadable: UInt64
  /// The first 64 of them.
  public var unreadableRanges: [RangeReport]

  /// Describes a resync; by default none that ever ran.
  public init(
    status: ResyncStatus = ResyncStatus(), zeroBytes: UInt64 = 0, unreadable: UInt64 = 0,
    unreadableRanges: [RangeReport] = []
  ) {
    self.status = status
    self.zeroBytes = zeroBytes
    self.unreadable = unreadable
    self.unreadableRanges = unreadableRanges
  }

  private enum CodingKeys: String, CodingKey {
    case zeroBytes, unreadable, unreadableRanges
  }

  /// Decodes what `encode` wrote.
  public init(from decoder: any Decoder) throws {
    status = try ResyncStatus(from: decoder)
    let container = try decoder.container(keyedBy: CodingKeys.self)
    zeroBytes = try container.decode(UInt64.self, forKey: .zeroBytes)
    unreadable = try container.decode(UInt64.self, forKey: .unreadable)
    unreadableRanges = try container.decode([RangeReport].self, forKey: .unreadableRanges)
  }

  /// Writes the keys of the status and its own into one object.
  public func encode(to encoder: any Encoder) throws {
    try status.encode(to: encoder)
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(zeroBytes, forKey: .zeroBytes)
    try container.encode(unreadable, forKey: .unreadable)
    try container.encode(unreadableRanges, forKey: .unreadableRanges)
  }
}
