// The reply to block status: one chunk for each selected context, in the order of their ids.
//
//   BLOCK_STATUS chunk       chunk (20 bytes), u32 context id, then n times u32 length, u32 flags
//   BLOCK_STATUS_EXT chunk   extended chunk (32 bytes), u32 context id, u32 n, then n times
//                            u64 length, u64 flags
//
// Invariants
// 1. The extents of a chunk begin at the request's offset and follow each other without a gap; none
//    is empty, and neighbours differ.
// 2. They never reach beyond the request; they may end before it, after one extent or more.
// 3. All of it goes into memory of `bytesMax` bytes that the caller owns; nothing is allocated.

import Base

/// Writes the reply to one block status request, extent after extent.
public struct BlockStatusReply: Sendable, BitwiseCopyable {
  /// Extents of one chunk; whoever wants more asks again from where they end.
  @inlinable public static var extentsMax: Int { 500 }
  /// Room for the chunks of all contexts.
  @inlinable public static var bytesMax: Int { 16_384 }

  private let tag: ReplyTag
  private let isExtended: Bool
  private let count: UInt64
  private let limit: Int
  /// Bytes written so far.
  public private(set) var byteCount = 0
  private var chunkStart = 0
  private var extents = 0
  private var covered: UInt64 = 0
  private var last: (count: UInt64, flags: UInt32) = (0, 0)

  /// Begins the reply to `request`.
  public init(_ request: Request, isExtended: Bool) {
    tag = ReplyTag(cookie: request.cookie, offset: request.offset)
    self.isExtended = isExtended
    count = request.count
    limit = request.flags.contains(.reqOne) ? 1 : BlockStatusReply.extentsMax
  }

  /// Begins the chunk of `context`.
  /// - Precondition: each context has one chunk.
  public mutating func begin(_ context: MetaContexts, into bytes: inout MutableRawSpan) {
    chunkStart = byteCount
    // The header follows when its length is known.
    byteCount += chunkHeaderBytes
    bytes.store(bigEndian: context.id, at: byteCount)
    byteCount += isExtended ? 8 : 4
    extents = 0
    covered = 0
    last = (0, 0)
  }

  /// Whether the chunk takes more.
  public var takesMore: Bool { extents < limit && covered < count }

  /// Adds `added` bytes with these flags behind what is there; what lies beyond the request is left
  /// out, and so is what begins an extent too many.
  public mutating func append(
    count added: UInt64, flags: UInt32, into bytes: inout MutableRawSpan
  ) {
    guard takesMore, added > 0 else { return }
    let part = min(added, count - covered)
    if last.count > 0, last.flags != flags {
      store(into: &bytes)
      guard takesMore else { return }
      last.count = 0
    }
    last = (last.count + part, flags)
    covered += part
  }

  /// Ends the chunk; `isLast`: of the reply.
  /// - Precondition: something was appended.
  public mutating func end(isLast: Bool, into bytes: inout MutableRawSpan) {
    if last.count > 0, extents < limit { store(into: &bytes) }
    precondition(extents > 0, "a block status says something")
    if isExtended {
      bytes.store(bigEndian: UInt32(extents), at: chunkStart + chunkHeaderBytes + 4)
    }
    _ = ChunkHeader(
      type: isExtended ? .blockStatusExtended : .blockStatus, flags: isLast ? .done : [], tag: tag,
      payloadBytes: UInt32(byteCount - chunkStart - chunkHeaderBytes)
    ).store(into: &bytes, at: chunkStart, isExtended: isExtended)
  }

  private var chunkHeaderBytes: Int {
    isExtended ? Limits.extendedChunkHeaderBytes : Limits.chunkHeaderBytes
  }

  /// A compact request has a 32-bit length: no extent is longer.
  private mutating func store(into bytes: inout MutableRawSpan) {
    extents += 1
    guard !isExtended else {
      bytes.store(bigEndian: last.count, at: byteCount)
      bytes.store(bigEndian: UInt64(last.flags), at: byteCount + 8)
      byteCount += 16
      return
    }
    bytes.store(bigEndian: UInt32(last.count), at: byteCount)
    bytes.store(bigEndian: last.flags, at: byteCount + 4)
    byteCount += 8
  }
}
