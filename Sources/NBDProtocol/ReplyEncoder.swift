// Replies: bytes written into memory the caller owns, nothing allocated.
//
//   simple reply        u32 magic, u32 error, u64 cookie                          16 bytes
//   chunk               u32 magic, u16 flags, u16 type, u64 cookie, u32 length    20 bytes
//   extended chunk      u32 magic, u16 flags, u16 type, u64 cookie, u64 offset of the request,
//                       u64 length                                                32 bytes
//   OFFSET_DATA         chunk, u64 offset; the data follows
//   OFFSET_HOLE         chunk, u64 offset, u32 length
//   ERROR               chunk, u32 error, u16 length, text
//
// Invariants
// 1. A read is answered by one content chunk or by one error, never by both: DF is honoured without
//    looking at it, and no data needs padding after a late error.
// 2. With structured replies every reply to a read is a chunk, also an error. For other commands a
//    success is simple (16 bytes), an error is a chunk, because it carries a text.
// 3. With extended headers every reply is a chunk.

import Base

/// Which request a reply is for.
public struct ReplyTag: Equatable, Sendable, BitwiseCopyable {
  /// The client's name for the request.
  public var cookie: UInt64
  /// Where the request began.
  public var offset: UInt64

  /// Names a request.
  @inlinable public init(cookie: UInt64, offset: UInt64) {
    self.cookie = cookie
    self.offset = offset
  }
}

/// Encodes the replies of one connection.
public struct ReplyEncoder: Equatable, Sendable, BitwiseCopyable {
  /// Whether structured replies were negotiated.
  public let isStructured: Bool
  /// Whether extended headers were negotiated.
  public let isExtended: Bool

  /// An encoder for what a connection has negotiated.
  @inlinable public init(isStructured: Bool, isExtended: Bool = false) {
    self.isStructured = isStructured
    self.isExtended = isExtended
  }

  /// Room that any of the functions below needs at most, in bytes: header, and text of an error.
  @inlinable public static var replyBytesMax: Int { 112 }

  /// Writes what precedes the data of a successful read and returns its length (16, 28 or 40 bytes).
  /// - Precondition: `bytes` has room for `replyBytesMax`; `count` is not 0.
  public func readHeader(
    into bytes: inout MutableRawSpan, _ tag: ReplyTag, count: UInt32
  ) -> Int {
    precondition(count > 0, "a read of no bytes has no data chunk")
    guard isStructured else { return simple(into: &bytes, tag, error: 0) }
    let start = chunk(into: &bytes, type: .offsetData, tag, payloadBytes: count + 8)
    bytes.store(bigEndian: tag.offset, at: start)
    return start + 8
  }

  /// Writes the whole reply to a read that found `count` zeros, and returns its length.
  /// - Precondition: structured replies were negotiated; `bytes` has room for `replyBytesMax`;
  ///   `count` is not 0.
  public func hole(into bytes: inout MutableRawSpan, _ tag: ReplyTag, count: UInt32) -> Int {
    precondition(isStructured && count > 0, "a hole is a chunk of some bytes")
    let start = chunk(into: &bytes, type: .offsetHole, tag, payloadBytes: 12)
    bytes.store(bigEndian: tag.offset, at: start)
    bytes.store(bigEndian: count, at: start + 8)
    return start + 12
  }

  /// Writes the reply to a successful request other than a read and returns its length.
  /// - Precondition: `bytes` has room for `replyBytesMax`.
  public func success(into bytes: inout MutableRawSpan, _ tag: ReplyTag) -> Int {
    isExtended
      ? chunk(into: &bytes, type: .none, tag, payloadBytes: 0)
      : simple(into: &bytes, tag, error: 0)
  }

  /// Writes the reply to a failed request, read or not, and returns its length.
  /// - Precondition: `bytes` has room for `replyBytesMax`.
  public func failure(into bytes: inout MutableRawSpan, _ tag: ReplyTag, error: NBDError) -> Int {
    failure(into: &bytes, tag, error: error, text: error.text)
  }

  /// Writes an answer that the validation gave and returns its length.
  /// - Precondition: `bytes` has room for `replyBytesMax`.
  public func answer(_ answer: Answer, into bytes: inout MutableRawSpan) -> Int {
    let tag = ReplyTag(cookie: answer.cookie, offset: answer.offset)
    if let refusal = answer.refusal {
      return failure(into: &bytes, tag, error: refusal.error, text: refusal.text)
    }
    if isStructured && answer.isRead {
      return chunk(into: &bytes, type: .none, tag, payloadBytes: 0)
    }
    return success(into: &bytes, tag)
  }

  private func failure(
    into bytes: inout MutableRawSpan, _ tag: ReplyTag, error: NBDError, text: StaticString
  ) -> Int {
    guard isStructured else { return simple(into: &bytes, tag, error: error.rawValue) }
    let count = text.utf8CodeUnitCount
    let start = chunk(into: &bytes, type: .error, tag, payloadBytes: UInt32(6 + count))
    bytes.store(bigEndian: error.rawValue, at: start)
    bytes.store(bigEndian: UInt16(count), at: start + 4)
    // A static string's bytes live for ever and there are `count` of them.
    for index in 0..<count { bytes.store(unsafe text.utf8Start[index], at: start + 6 + index) }
    return start + 6 + count
  }

  private func simple(into bytes: inout MutableRawSpan, _ tag: ReplyTag, error: UInt32) -> Int {
    bytes.store(bigEndian: Magic.simpleReply, at: 0)
    bytes.store(bigEndian: error, at: 4)
    bytes.store(bigEndian: tag.cookie, at: 8)
    return Limits.simpleReplyBytes
  }

  /// Every reply here is one chunk, so each is also the last. Returns where its payload begins.
  private func chunk(
    into bytes: inout MutableRawSpan, type: ChunkType, _ tag: ReplyTag, payloadBytes: UInt32
  ) -> Int {
    ChunkHeader(type: type, flags: .done, tag: tag, payloadBytes: payloadBytes)
      .store(into: &bytes, at: 0, isExtended: isExtended)
  }
}

/// What stands before a chunk's payload.
struct ChunkHeader {
  var type: ChunkType
  var flags: ChunkFlags
  var tag: ReplyTag
  var payloadBytes: UInt32

  /// Writes it at `start` and returns where the payload begins.
  func store(into bytes: inout MutableRawSpan, at start: Int, isExtended: Bool) -> Int {
    let magic = isExtended ? Magic.extendedReply : Magic.structuredReply
    bytes.store(bigEndian: magic, at: start)
    bytes.store(bigEndian: flags.rawValue, at: start + 4)
    bytes.store(bigEndian: type.rawValue, at: start + 6)
    bytes.store(bigEndian: tag.cookie, at: start + 8)
    guard isExtended else {
      bytes.store(bigEndian: payloadBytes, at: start + 16)
      return start + Limits.chunkHeaderBytes
    }
    bytes.store(bigEndian: tag.offset, at: start + 16)
    bytes.store(bigEndian: UInt64(payloadBytes), at: start + 24)
    return start + Limits.extendedChunkHeaderBytes
  }
}

extension NBDError {
  /// The text of a structured error that the engine gave.
  var text: StaticString {
    switch self {
    case .notPermitted: "the device does not permit it"
    case .inputOutput: "no leg of the mirror could do it"
    case .outOfMemory: "the server is out of memory"
    case .invalid: "invalid request"
    case .noSpace: "no space left on the legs"
    case .overflow: "the request is too large"
    case .notSupported: "not supported"
    case .shuttingDown: "the server is shutting down"
    }
  }
}
