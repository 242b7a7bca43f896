// The server's frames, decoded: for tests, the prober and the benchmark.
//
// Each `decode` looks at the start of what was received and consumes nothing: nil or `.needMore`
// means that the frame is not complete yet. Lengths that a server claims are compared with a bound
// before anything waits for them.

import Base

/// One option reply.
public struct OptionReply: Equatable, Sendable {
  /// The option that it answers.
  public let option: UInt32
  /// The type as on the wire (`OptionReplyType` where known).
  public let type: UInt32
  /// The data.
  public let payload: [UInt8]

  /// Bytes of the header.
  public static let headerBytes = 20
  /// Longest data that is waited for.
  public static let payloadBytesMax = 64 << 10

  /// Describes a reply.
  public init(option: UInt32, type: UInt32, payload: [UInt8]) {
    self.option = option
    self.type = type
    self.payload = payload
  }

  /// Bytes of the whole frame.
  public var frameBytes: Int { Self.headerBytes + payload.count }

  /// What a look at the received bytes gives.
  public enum Step: Equatable, Sendable {
    /// The frame is not complete.
    case needMore
    /// A reply of `frameBytes` bytes.
    case reply(OptionReply)
    /// Not an option reply, or one that is too long.
    case malformed
  }

  /// Looks at the start of `bytes`.
  public static func decode(_ bytes: RawSpan) -> Step {
    guard bytes.byteCount >= headerBytes else { return .needMore }
    let count = Int(bytes.bigEndianUInt32(at: 16))
    guard bytes.bigEndianUInt64(at: 0) == Magic.optionReply, count <= payloadBytesMax else {
      return .malformed
    }
    guard bytes.byteCount - headerBytes >= count else { return .needMore }
    return .reply(
      OptionReply(
        option: bytes.bigEndianUInt32(at: 8), type: bytes.bigEndianUInt32(at: 12),
        payload: bytes.copied(headerBytes..<(headerBytes + count))))
  }
}

/// The header of a reply in transmission; what follows depends on it.
public enum ReplyHeader: Equatable, Sendable, BitwiseCopyable {
  /// 16 bytes were a simple reply; the data of a successful read follows.
  case simple(cookie: UInt64, error: UInt32)
  /// 20 bytes were a chunk's header; `payloadBytes` bytes follow.
  case chunk(cookie: UInt64, type: UInt16, isDone: Bool, payloadBytes: UInt32)

  /// What a look at the received bytes gives.
  public enum Step: Equatable, Sendable, BitwiseCopyable {
    /// The header is not complete.
    case needMore
    /// A header.
    case header(ReplyHeader)
    /// Not a reply.
    case malformed
  }

  /// Bytes of the header itself.
  public var headerBytes: Int {
    switch self {
    case .simple: Limits.simpleReplyBytes
    case .chunk: Limits.chunkHeaderBytes
    }
  }

  /// The request that it answers.
  public var cookie: UInt64 {
    switch self {
    case .simple(let cookie, _), .chunk(let cookie, _, _, _): cookie
    }
  }

  /// Looks at the start of `bytes`; allocates nothing.
  public static func decode(_ bytes: RawSpan) -> Step {
    guard bytes.byteCount >= Limits.simpleReplyBytes else { return .needMore }
    let magic = bytes.bigEndianUInt32(at: 0)
    if magic == Magic.simpleReply {
      return .header(
        .simple(cookie: bytes.bigEndianUInt64(at: 8), error: bytes.bigEndianUInt32(at: 4)))
    }
    guard magic == Magic.structuredReply else { return .malformed }
    guard bytes.byteCount >= Limits.chunkHeaderBytes else { return .needMore }
    return .header(
      .chunk(
        cookie: bytes.bigEndianUInt64(at: 8), type: bytes.bigEndianUInt16(at: 6),
        isDone: ChunkFlags(rawValue: bytes.bigEndianUInt16(at: 4)).contains(.done),
        payloadBytes: bytes.bigEndianUInt32(at: 16)))
  }
}

/// What the payload of a chunk says.
public enum ChunkContent: Equatable, Sendable {
  /// `NBD_REPLY_TYPE_NONE`.
  case none
  /// `NBD_REPLY_TYPE_OFFSET_DATA`: the data follows the first 8 bytes of the payload.
  case data(offset: UInt64, bytes: Int)
  /// `NBD_REPLY_TYPE_OFFSET_HOLE`.
  case hole(offset: UInt64, bytes: UInt32)
  /// `NBD_REPLY_TYPE_ERROR` and `NBD_REPLY_TYPE_ERROR_OFFSET`.
  case error(UInt32, text: String, offset: UInt64?)

  /// Understands a whole payload; nil: the server broke the protocol.
  public static func decode(type: UInt16, payload: RawSpan) -> ChunkContent? {
    let count = payload.byteCount
    switch ChunkType(rawValue: type) {
    case .some(.none): return count == 0 ? ChunkContent.none : nil
    case .offsetData:
      guard count > 8 else { return nil }
      return .data(offset: payload.bigEndianUInt64(at: 0), bytes: count - 8)
    case .offsetHole:
      guard count == 12, payload.bigEndianUInt32(at: 8) > 0 else { return nil }
      return .hole(offset: payload.bigEndianUInt64(at: 0), bytes: payload.bigEndianUInt32(at: 8))
    case .error, .errorOffset:
      let tail = type == ChunkType.errorOffset.rawValue ? 8 : 0
      guard count >= 6 + tail else { return nil }
      let textBytes = Int(payload.bigEndianUInt16(at: 4))
      let error = payload.bigEndianUInt32(at: 0)
      guard error != 0, textBytes == count - 6 - tail else { return nil }
      return .error(
        error, text: String(decoding: payload.copied(6..<(6 + textBytes)), as: UTF8.self),
        offset: tail == 0 ? nil : payload.bigEndianUInt64(at: count - 8))
    case .blockStatus, .blockStatusExtended, nil: return nil
    }
  }
}
