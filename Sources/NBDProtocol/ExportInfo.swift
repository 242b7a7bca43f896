// What is served, as the handshake describes it.
//
// Invariants: the size is below 2^63 and a multiple of the minimum block; block sizes are powers of
// two with minimum <= preferred <= maximum payload; the name and the description are at most 4096
// bytes without NUL. A violation is our own mistake and traps: nothing here comes from a client.

/// The export of a mirror: name, size, abilities, block sizes.
public struct ExportInfo: Equatable, Sendable {
  /// The name clients ask for; "" selects the export as well.
  public let name: String
  /// For people; may be empty.
  public let description: String
  /// Size in bytes, a multiple of `minimumBlockBytes`.
  public let sizeBytes: UInt64
  /// Whether changes are refused with `NBD_EPERM`.
  public let isReadOnly: Bool
  /// Whether seeks cost time (`NBD_FLAG_ROTATIONAL`).
  public let isRotational: Bool
  /// Smallest block, as clients that ask for block sizes are told; 1...65536. They are held to it;
  /// a mirror merges partial blocks under its range lock, so it says 1.
  public let minimumBlockBytes: UInt32
  /// Alignment and size that avoid read-modify-write; at least 512.
  public let preferredBlockBytes: UInt32
  /// Largest payload that clients may rely on.
  public let maximumPayloadBytes: UInt32

  /// Describes an export. `sizeBytes` is rounded down to whole minimum blocks.
  public init(
    name: String, description: String = "", sizeBytes: UInt64, isReadOnly: Bool = false,
    isRotational: Bool = false, minimumBlockBytes: UInt32 = 1,
    preferredBlockBytes: UInt32 = 4096, maximumPayloadBytes: UInt32 = Limits.advertisedPayloadBytes
  ) {
    for text in [name, description] {
      precondition(text.utf8.count <= Limits.stringBytesMax, "an export's text is too long")
      precondition(!text.utf8.contains(0), "an export's text holds a NUL")
    }
    precondition(sizeBytes < 1 << 63, "an export of 2^63 bytes or more")
    precondition(
      minimumBlockBytes.nonzeroBitCount == 1 && minimumBlockBytes <= 65536,
      "the minimum block is a power of two up to 65536")
    precondition(
      preferredBlockBytes.nonzeroBitCount == 1
        && preferredBlockBytes >= max(512, minimumBlockBytes),
      "the preferred block is a power of two, at least 512 and the minimum block")
    precondition(
      maximumPayloadBytes >= preferredBlockBytes && maximumPayloadBytes % minimumBlockBytes == 0,
      "the maximum payload is whole minimum blocks, and at least one preferred block")
    precondition(
      maximumPayloadBytes <= Limits.servedPayloadBytesMax, "more is advertised than is served")
    self.name = name
    self.description = description
    self.sizeBytes = sizeBytes & ~(UInt64(minimumBlockBytes) - 1)
    self.isReadOnly = isReadOnly
    self.isRotational = isRotational
    self.minimumBlockBytes = minimumBlockBytes
    self.preferredBlockBytes = preferredBlockBytes
    self.maximumPayloadBytes = maximumPayloadBytes
  }

  /// The transmission flags of this export for a connection.
  public func flags(
    structuredReplies: Bool, statusPayload: Bool = false
  ) -> TransmissionFlags {
    var flags: TransmissionFlags = [.hasFlags, .sendFlush, .sendFUA, .canMultiConn, .sendCache]
    if isReadOnly {
      flags.insert(.readOnly)
    } else {
      flags.formUnion([.sendTrim, .sendWriteZeroes, .sendFastZero])
    }
    if isRotational { flags.insert(.rotational) }
    if structuredReplies { flags.insert(.sendDF) }
    if statusPayload { flags.insert(.blockStatusPayload) }
    return flags
  }
}
