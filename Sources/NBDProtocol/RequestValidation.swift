// The one switch: command, range, flags and what was negotiated -> request or refusal.
//
// A pure function. The order of the checks decides which error a request with several mistakes
// gets, and is fixed:
//
//   1. payload beyond what is drained: drop (only a write has a payload)
//   2. command known, permitted (read-only -> EPERM)
//   3. size limit of reads and writes
//   4. bounds, without an addition: `offset > size || count > size - offset`
//   5. flags: known, negotiated, meaningful for the command
//   6. alignment, for clients that asked for block sizes
//   7. no bytes: success, nothing to do
//
// A refused write still has its payload in the stream: `Answer.drainBytes`.

/// A request header as it came, unjudged.
public struct RequestHeader: Equatable, Sendable, BitwiseCopyable {
  /// Command flags.
  public var flags: CommandFlags
  /// Command number.
  public var type: UInt16
  /// The client's name for the request.
  public var cookie: UInt64
  /// First byte.
  public var offset: UInt64
  /// Bytes.
  public var count: UInt32

  /// Describes a header.
  public init(flags: CommandFlags, type: UInt16, cookie: UInt64, offset: UInt64, count: UInt32) {
    self.flags = flags
    self.type = type
    self.cookie = cookie
    self.offset = offset
    self.count = count
  }
}

/// The validation of requests.
public enum RequestValidation {
  /// Judges a header. Never `.needMore`.
  public static func check(
    _ header: RequestHeader, under terms: Transmission
  ) -> TransmissionStep {
    let command = CommandType(rawValue: header.type)
    if command == .disconnect { return .disconnect }
    if command == .write && header.count > Limits.drainedPayloadBytesMax {
      return .drop(.payloadTooLarge)
    }
    let refusal: Refusal?
    let kind: Request.Kind
    switch command {
    case .read: (kind, refusal) = (.read, checkRead(header, terms))
    case .write: (kind, refusal) = (.write, checkWrite(header, terms))
    case .flush: (kind, refusal) = (.flush, checkFlush(header, terms))
    case .trim: (kind, refusal) = (.trim, checkChange(header, terms, [], beyond: .beyondEnd))
    case .writeZeroes:
      (kind, refusal) = (.writeZeroes, checkChange(header, terms, .noHole, beyond: .noSpace))
    case .cache: (kind, refusal) = (.cache, checkRange(header, terms, [], beyond: .beyondEnd))
    case .blockStatus: (kind, refusal) = (.blockStatus, checkStatus(header, terms))
    case .disconnect, nil: (kind, refusal) = (.flush, .unknownCommand)
    }
    if refusal != nil || (header.count == 0 && kind != .flush) {
      return .answer(
        Answer(
          cookie: header.cookie, refusal: refusal, isRead: command == .read,
          drainBytes: command == .write ? Int(header.count) : 0))
    }
    return .request(
      Request(
        kind: kind, flags: header.flags, cookie: header.cookie, offset: header.offset,
        count: header.count))
  }

  private static func checkRead(_ header: RequestHeader, _ terms: Transmission) -> Refusal? {
    if header.count > Limits.servedPayloadBytesMax {
      return terms.isStructured ? .readOverflow : .readTooLarge
    }
    return checkRange(header, terms, terms.isStructured ? .df : [], beyond: .beyondEnd)
  }

  private static func checkWrite(_ header: RequestHeader, _ terms: Transmission) -> Refusal? {
    if terms.flags.contains(.readOnly) { return .readOnly }
    if header.count > Limits.servedPayloadBytesMax { return .payloadTooLarge }
    return checkRange(header, terms, [], beyond: .noSpace)
  }

  private static func checkFlush(_ header: RequestHeader, _ terms: Transmission) -> Refusal? {
    if header.offset != 0 || header.count != 0 { return .flushWithRange }
    return checkFlags(header, terms, [])
  }

  private static func checkStatus(_ header: RequestHeader, _ terms: Transmission) -> Refusal? {
    if terms.contexts.isEmpty { return .noMetaContext }
    return checkRange(header, terms, .reqOne, beyond: .beyondEnd)
      ?? (header.count == 0 ? .emptyStatus : nil)
  }

  private static func checkChange(
    _ header: RequestHeader, _ terms: Transmission, _ allowed: CommandFlags, beyond: Refusal
  ) -> Refusal? {
    if terms.flags.contains(.readOnly) { return .readOnly }
    return checkRange(header, terms, allowed, beyond: beyond)
  }

  private static func checkRange(
    _ header: RequestHeader, _ terms: Transmission, _ allowed: CommandFlags, beyond: Refusal
  ) -> Refusal? {
    let size = terms.sizeBytes
    if header.offset > size || UInt64(header.count) > size - header.offset { return beyond }
    if let refusal = checkFlags(header, terms, allowed) { return refusal }
    let mask = UInt64(terms.alignmentBytes) - 1
    return (header.offset | UInt64(header.count)) & mask == 0 ? nil : .unaligned
  }

  /// FUA is valid on every command once it is advertised; everything else by command.
  private static func checkFlags(
    _ header: RequestHeader, _ terms: Transmission, _ allowed: CommandFlags
  ) -> Refusal? {
    let known = terms.flags.contains(.sendFUA) ? allowed.union(.fua) : allowed
    return header.flags.subtracting(known).isEmpty ? nil : .invalidFlags
  }
}
