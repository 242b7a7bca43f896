// Replies: bytes written into memory the caller owns, nothing allocated.
//
//   simple reply        u32 magic, u32 error, u64 cookie                          16 bytes
//   chunk               u32 magic, u16 flags, u16 type, u64 cookie, u32 length    20 bytes
//   OFFSET_DATA chunk   chunk, u64 offset; the data follows                       28 bytes
//   ERROR chunk         chunk, u32 error, u16 length, text                        26 bytes + text
//
// Invariants
// 1. A read is answered by one content chunk or by one error, never by both: DF is honoured without
//    looking at it, and no data needs padding after a late error.
// 2. With structured replies every reply to a read is a chunk, also an error. For other commands a
//    success is simple (16 bytes), an error is a chunk, because it carries a text.

import Base

/// Encodes the replies of one connection.
public struct ReplyEncoder: Equatable, Sendable, BitwiseCopyable {
  /// Whether structured replies were negotiated.
  public let isStructured: Bool

  /// An encoder for a connection with or without structured replies.
  @inlinable public init(isStructured: Bool) { self.isStructured = isStructured }

  /// Room that any of the functions below needs at most, in bytes: header, and text of an error.
  @inlinable public static var replyBytesMax: Int { 96 }

  /// Writes what precedes the data of a successful read and returns its length (16 or 28 bytes).
  /// - Precondition: `bytes` has room for `replyBytesMax`; `count` is not 0.
  public func readHeader(
    into bytes: inout MutableRawSpan, cookie: UInt64, offset: UInt64, count: UInt32
  ) -> Int {
    precondition(count > 0, "a read of no bytes has no data chunk")
    guard isStructured else { return simple(into: &bytes, cookie: cookie, error: 0) }
    chunk(into: &bytes, type: .offsetData, cookie: cookie, payloadBytes: count + 8)
    bytes.store(bigEndian: offset, at: 20)
    return 28
  }

  /// Writes the reply to a successful request other than a read and returns its length.
  /// - Precondition: `bytes` has room for `replyBytesMax`.
  public func success(into bytes: inout MutableRawSpan, cookie: UInt64) -> Int {
    simple(into: &bytes, cookie: cookie, error: 0)
  }

  /// Writes the reply to a failed request, read or not, and returns its length.
  /// - Precondition: `bytes` has room for `replyBytesMax`.
  public func failure(
    into bytes: inout MutableRawSpan, cookie: UInt64, error: NBDError
  ) -> Int {
    failure(into: &bytes, cookie: cookie, error: error, text: error.text)
  }

  /// Writes an answer that the validation gave and returns its length.
  /// - Precondition: `bytes` has room for `replyBytesMax`.
  public func answer(_ answer: Answer, into bytes: inout MutableRawSpan) -> Int {
    if let refusal = answer.refusal {
      return failure(
        into: &bytes, cookie: answer.cookie, error: refusal.error, text: refusal.text)
    }
    if isStructured && answer.isRead {
      chunk(into: &bytes, type: .none, cookie: answer.cookie, payloadBytes: 0)
      return Limits.chunkHeaderBytes
    }
    return simple(into: &bytes, cookie: answer.cookie, error: 0)
  }

  private func failure(
    into bytes: inout MutableRawSpan, cookie: UInt64, error: NBDError, text: StaticString
  ) -> Int {
    guard isStructured else { return simple(into: &bytes, cookie: cookie, error: error.rawValue) }
    let count = text.utf8CodeUnitCount
    chunk(into: &bytes, type: .error, cookie: cookie, payloadBytes: UInt32(6 + count))
    bytes.store(bigEndian: error.rawValue, at: 20)
    bytes.store(bigEndian: UInt16(count), at: 24)
    // A static string's bytes live for ever and there are `count` of them.
    for index in 0..<count { bytes.store(unsafe text.utf8Start[index], at: 26 + index) }
    return 26 + count
  }

  private func simple(
    into bytes: inout MutableRawSpan, cookie: UInt64, error: UInt32
  ) -> Int {
    bytes.store(bigEndian: Magic.simpleReply, at: 0)
    bytes.store(bigEndian: error, at: 4)
    bytes.store(bigEndian: cookie, at: 8)
    return Limits.simpleReplyBytes
  }

  /// Every reply here is one chunk, so each is also the last.
  private func chunk(
    into bytes: inout MutableRawSpan, type: ChunkType, cookie: UInt64, payloadBytes: UInt32
  ) {
    bytes.store(bigEndian: Magic.structuredReply, at: 0)
    bytes.store(bigEndian: ChunkFlags.done.rawValue, at: 4)
    bytes.store(bigEndian: type.rawValue, at: 6)
    bytes.store(bigEndian: cookie, at: 8)
    bytes.store(bigEndian: payloadBytes, at: 16)
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
