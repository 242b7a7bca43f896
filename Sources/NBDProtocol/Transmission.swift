// The transmission phase of one connection, sans-I/O: a plain value that turns a header into a
// decision.
//
// Invariants
// 1. Nothing here allocates, holds a reference or waits; the value may be copied freely.
// 2. A frame is judged from its header alone. Payload bytes never come in here: the caller receives
//    them where they belong (write) or throws them away (answer). The one exception are the ids of a
//    block status that names contexts, at most 16 bytes, which count as part of its header.
// 3. Whatever the bytes are, the result is one of five steps; no input traps.
//
// A header has 28 bytes, or 32 where extended headers were negotiated. The caller's walk for each
// frame at the start of what it received:
//
//   .needMore          the header is not all there
//   .request(r)        consume r.headerBytes, then take r.payloadBytes of payload (writes), then do it
//   .answer(a)         consume a.headerBytes, throw a.drainBytes away, then send the answer
//   .disconnect        finish what is in flight, send the replies, close; ignore further bytes
//   .drop(reason)      close; the stream cannot be understood any more

import Base

/// What one look at the received bytes gives.
public enum TransmissionStep: Equatable, Sendable, BitwiseCopyable {
  /// The header is not all there.
  case needMore
  /// A valid request.
  case request(Request)
  /// The reply is already known.
  case answer(Answer)
  /// `NBD_CMD_DISC`.
  case disconnect
  /// Close at once.
  case drop(DropReason)
}

/// Why a client in transmission is dropped.
public enum DropReason: UInt8, Sendable, BitwiseCopyable {
  /// Not a request's magic: the stream is out of step.
  case badMagic
  /// A payload of more than `Limits.drainedPayloadBytesMax` bytes.
  case payloadTooLarge
}

/// What the handshake agreed on, and the decoder of requests under that agreement.
public struct Transmission: Equatable, Sendable, BitwiseCopyable {
  /// Size of the export in bytes.
  public var sizeBytes: UInt64
  /// The flags that were advertised.
  public var flags: TransmissionFlags
  /// Alignment that this client promised in bytes, a power of two; 1 if it asked for no block size.
  public var alignmentBytes: UInt32
  /// Whether structured replies were negotiated.
  public var isStructured: Bool
  /// Whether extended headers were negotiated; then replies are structured, too.
  public var isExtended: Bool
  /// The metadata contexts that this client selected.
  public var contexts: MetaContexts

  /// Describes an agreement.
  /// - Precondition: `alignmentBytes` is a power of two; extended headers are structured.
  public init(
    sizeBytes: UInt64, flags: TransmissionFlags, alignmentBytes: UInt32, isStructured: Bool,
    isExtended: Bool = false, contexts: MetaContexts = []
  ) {
    precondition(isStructured || !isExtended, "extended headers are structured")
    precondition(alignmentBytes.nonzeroBitCount == 1, "an alignment is a power of two")
    self.sizeBytes = sizeBytes
    self.flags = flags
    self.alignmentBytes = alignmentBytes
    self.isStructured = isStructured
    self.isExtended = isExtended
    self.contexts = contexts
  }

  /// The encoder of this connection's replies.
  @inlinable public var replies: ReplyEncoder {
    ReplyEncoder(isStructured: isStructured, isExtended: isExtended)
  }

  /// Judges the frame at the start of `bytes`; consumes nothing by itself (see above).
  public func nextRequest(_ bytes: RawSpan) -> TransmissionStep {
    guard bytes.byteCount >= headerBytes else { return .needMore }
    let magic = isExtended ? Magic.extendedRequest : Magic.request
    guard bytes.bigEndianUInt32(at: 0) == magic else { return .drop(.badMagic) }
    let header = RequestHeader(
      flags: CommandFlags(rawValue: bytes.bigEndianUInt16(at: 4)),
      type: bytes.bigEndianUInt16(at: 6),
      cookie: bytes.bigEndianUInt64(at: 8),
      offset: bytes.bigEndianUInt64(at: 16),
      count: isExtended
        ? bytes.bigEndianUInt64(at: 24) : UInt64(bytes.bigEndianUInt32(at: 24)))
    guard isExtended, header.flags.contains(.payloadLength) else {
      return RequestValidation.check(header, under: self)
    }
    guard RequestValidation.namesContexts(header, under: self) else {
      return RequestValidation.checkPayload(header, under: self)
    }
    let payloadBytes = Int(header.count)
    guard bytes.byteCount >= headerBytes + payloadBytes else { return .needMore }
    return RequestValidation.checkStatus(
      header, naming: bytes.extracting(headerBytes..<(headerBytes + payloadBytes)), under: self)
  }

  /// Bytes of a request's header.
  @inlinable public var headerBytes: Int {
    isExtended ? Limits.extendedRequestHeaderBytes : Limits.requestHeaderBytes
  }
}
