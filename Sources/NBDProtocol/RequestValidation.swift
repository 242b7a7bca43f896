// The one switch: command, range, flags and what was negotiated -> request or refusal.
//
// A pure function. The order of the checks decides which error a request with several mistakes
// gets, and is fixed:
//
//   1. payload beyond what is drained: drop (without extended headers only a write has a payload)
//   2. command known, permitted (read-only -> EPERM)
//   3. size limit of reads and writes
//   4. bounds, without an addition: `offset > size || count > size - offset`
//   5. flags: known, negotiated, meaningful for the command
//   6. alignment, for clients that asked for block sizes
//   7. no bytes: success, nothing to do
//
// A refused write still has its payload in the stream: `Answer.drainBytes`. With extended headers
// any command may say that it has one (PAYLOAD_LEN); a write has one even if it does not say so, as
// QEMU reads it.

import Base

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
  public var count: UInt64

  /// Describes a header.
  public init(flags: CommandFlags, type: UInt16, cookie: UInt64, offset: UInt64, count: UInt64) {
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
    if command == .write && header.count > UInt64(Limits.drainedPayloadBytesMax) {
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
      let allowed: CommandFlags =
        terms.flags.contains(.sendFastZero) ? [.noHole, .fastZero] : .noHole
      (kind, refusal) = (.writeZeroes, checkChange(header, terms, allowed, beyond: .noSpace))
    case .cache: (kind, refusal) = (.cache, checkRange(header, terms, [], beyond: .beyondEnd))
    case .blockStatus: (kind, refusal) = (.blockStatus, checkStatus(header, terms))
    case .disconnect, nil: (kind, refusal) = (.flush, .unknownCommand)
    }
    if refusal != nil || (header.count == 0 && kind != .flush) {
      return .answer(
        Answer(
          cookie: header.cookie, offset: header.offset, refusal: refusal, isRead: command == .read,
          drainBytes: command == .write ? Int(header.count) : 0, headerBytes: terms.headerBytes))
    }
    return .request(
      Request(
        kind: kind, flags: header.flags, cookie: header.cookie, offset: header.offset,
        count: header.count, headerBytes: terms.headerBytes, contexts: terms.contexts))
  }

  // MARK: Payloads of extended headers

  /// An id for each context, each once: what a block status that names contexts can have.
  private static var statusPayloadBytesMax: UInt64 { UInt64(8 + 4 * MetaContexts.each.count) }

  /// Whether the payload is the ids of contexts and can be read with the header.
  static func namesContexts(_ header: RequestHeader, under terms: Transmission) -> Bool {
    CommandType(rawValue: header.type) == .blockStatus && terms.flags.contains(.blockStatusPayload)
      && header.count >= 8 && header.count <= statusPayloadBytesMax && header.count % 4 == 0
  }

  /// Judges a header that says that a payload follows. Never `.needMore`.
  static func checkPayload(
    _ header: RequestHeader, under terms: Transmission
  ) -> TransmissionStep {
    var header = header
    switch CommandType(rawValue: header.type) {
    case .write:
      header.flags.remove(.payloadLength)
      return check(header, under: terms)
    case .disconnect: return .disconnect
    case .blockStatus, .read, .flush, .trim, .cache, .writeZeroes, nil: break
    }
    guard header.count <= UInt64(Limits.drainedPayloadBytesMax) else {
      return .drop(.payloadTooLarge)
    }
    let isStatus = CommandType(rawValue: header.type) == .blockStatus
    return .answer(
      Answer(
        cookie: header.cookie, offset: header.offset,
        refusal: isStatus ? .badContexts : .unexpectedPayload,
        isRead: CommandType(rawValue: header.type) == .read, drainBytes: Int(header.count),
        headerBytes: terms.headerBytes))
  }

  /// Judges a block status that names its contexts: a length, then their ids.
  static func checkStatus(
    _ header: RequestHeader, naming payload: RawSpan, under terms: Transmission
  ) -> TransmissionStep {
    var header = header
    header.flags.remove(.payloadLength)
    header.count = payload.bigEndianUInt64(at: 0)
    var named: MetaContexts = []
    var isGood = true
    for position in stride(from: 8, to: payload.byteCount, by: 4) {
      let id = payload.bigEndianUInt32(at: position)
      let context = MetaContexts.each.first { $0.id == id } ?? []
      isGood =
        isGood && !context.isEmpty && terms.contexts.contains(context)
        && named.isDisjoint(with: context)
      named.formUnion(context)
    }
    var narrowed = terms
    narrowed.contexts = named
    let headerBytes = terms.headerBytes + payload.byteCount
    switch check(header, under: narrowed) {
    case .request(var request) where isGood:
      request.headerBytes = headerBytes
      return .request(request)
    case .answer(var answer) where isGood:
      answer.headerBytes = headerBytes
      return .answer(answer)
    case .request, .answer, .needMore, .disconnect, .drop:
      return .answer(
        Answer(
          cookie: header.cookie, offset: header.offset, refusal: .badContexts, isRead: false,
          headerBytes: headerBytes))
    }
  }

  private static func checkRead(_ header: RequestHeader, _ terms: Transmission) -> Refusal? {
    if header.count > UInt64(Limits.servedPayloadBytesMax) {
      return terms.isStructured ? .readOverflow : .readTooLarge
    }
    return checkRange(header, terms, terms.isStructured ? .df : [], beyond: .beyondEnd)
  }

  private static func checkWrite(_ header: RequestHeader, _ terms: Transmission) -> Refusal? {
    if terms.flags.contains(.readOnly) { return .readOnly }
    if header.count > UInt64(Limits.servedPayloadBytesMax) { return .payloadTooLarge }
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
    if header.offset > size || header.count > size - header.offset { return beyond }
    if let refusal = checkFlags(header, terms, allowed) { return refusal }
    let mask = UInt64(terms.alignmentBytes) - 1
    return (header.offset | header.count) & mask == 0 ? nil : .unaligned
  }

  /// FUA is valid on every command once it is advertised; everything else by command.
  private static func checkFlags(
    _ header: RequestHeader, _ terms: Transmission, _ allowed: CommandFlags
  ) -> Refusal? {
    let known = terms.flags.contains(.sendFUA) ? allowed.union(.fua) : allowed
    return header.flags.subtracting(known).isEmpty ? nil : .invalidFlags
  }
}
