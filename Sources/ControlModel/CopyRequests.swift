// Bodies of the requests about resync and scrub; strict, as in ControlRequests.

/// `PATCH /v1/resync`: what is not named stays as it is.
public struct ResyncRequest: Codable, Equatable, Sendable {
  /// Stop copying, or go on.
  public var paused: Bool?
  /// Rate that copying does not fall below while clients work.
  public var minBytesPerSecond: UInt64?
  /// Rate that it does not exceed; 0 (or `null`): unlimited.
  public var maxBytesPerSecond: UInt64?

  /// Asks for changes.
  public init(
    paused: Bool? = nil, minBytesPerSecond: UInt64? = nil, maxBytesPerSecond: UInt64? = nil
  ) {
    self.paused = paused
    self.minBytesPerSecond = minBytesPerSecond
    self.maxBytesPerSecond = maxBytesPerSecond
  }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(
      otherThan: ["paused", "minBytesPerSecond", "maxBytesPerSecond"])
    let container = try decoder.container(keyedBy: CodingKeys.self)
    paused = try container.decodeIfPresent(Bool.self, forKey: .paused)
    minBytesPerSecond = try container.decodeIfPresent(UInt64.self, forKey: .minBytesPerSecond)
    maxBytesPerSecond = try container.decodeIfPresent(UInt64.self, forKey: .maxBytesPerSecond)
    if maxBytesPerSecond == nil, container.contains(.maxBytesPerSecond) { maxBytesPerSecond = 0 }
  }
}

/// `POST /v1/scrub`.
public struct ScrubRequest: Codable, Equatable, Sendable {
  /// What to do about a mismatch.
  public var mode: ScrubStatus.Mode
  /// Slot number, id or path of the leg that is right where there is no majority.
  public var prefer: String?
  /// First byte of the exported device to compare; 0 if it is not named.
  public var offset: UInt64?
  /// Number of bytes to compare; up to the end if it is not named.
  public var bytes: UInt64?

  /// Asks for a scrub.
  public init(
    mode: ScrubStatus.Mode, prefer: String? = nil, offset: UInt64? = nil, bytes: UInt64? = nil
  ) {
    self.mode = mode
    self.prefer = prefer
    self.offset = offset
    self.bytes = bytes
  }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: ["mode", "prefer", "offset", "bytes"])
    let container = try decoder.container(keyedBy: CodingKeys.self)
    mode = try container.decode(ScrubStatus.Mode.self, forKey: .mode)
    prefer = try container.decodeIfPresent(String.self, forKey: .prefer)
    offset = try container.decodeIfPresent(UInt64.self, forKey: .offset)
    bytes = try container.decodeIfPresent(UInt64.self, forKey: .bytes)
  }
}
