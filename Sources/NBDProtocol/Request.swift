// One request as the transmission phase hands it out: plain values, no references.
//
// The bytes of a request are judged once, by `RequestValidation`. What comes out as a `Request` is
// permitted, inside the export, aligned as negotiated and has only flags that mean something for
// its kind; nobody behind it checks again. What does not pass is an `Answer`: the reply is already
// known and the engine never hears of it.

import Base

/// A request that passed validation.
public struct Request: Equatable, Sendable, BitwiseCopyable {
  /// What the client wants.
  public enum Kind: UInt8, Sendable, BitwiseCopyable {
    /// `NBD_CMD_READ`.
    case read
    /// `NBD_CMD_WRITE`; `payloadBytes` bytes follow the header.
    case write
    /// `NBD_CMD_FLUSH`; the range is empty.
    case flush
    /// `NBD_CMD_TRIM`.
    case trim
    /// `NBD_CMD_WRITE_ZEROES`.
    case writeZeroes
    /// `NBD_CMD_CACHE`: a hint; answering success without doing anything is correct.
    case cache
    /// `NBD_CMD_BLOCK_STATUS`: answered by `BlockStatusReply`.
    case blockStatus
  }

  /// What the client wants.
  public var kind: Kind
  /// Flags of the request; only those that are valid for `kind`.
  public var flags: CommandFlags
  /// The client's name for the request; opaque, may repeat.
  public var cookie: UInt64
  /// First byte on the export.
  public var offset: UInt64
  /// Bytes on the export; 0 only for a flush. Reads and writes: at most
  /// `Limits.servedPayloadBytesMax`; the others up to the whole export, so never allocate by it.
  public var count: UInt64
  /// Bytes of its header in the stream.
  public var headerBytes: Int
  /// Of a block status: the contexts that it asks for.
  public var contexts: MetaContexts

  /// Describes a request.
  @inlinable
  public init(
    kind: Kind, flags: CommandFlags = [], cookie: UInt64, offset: UInt64, count: UInt64,
    headerBytes: Int = Limits.requestHeaderBytes, contexts: MetaContexts = []
  ) {
    self.kind = kind
    self.flags = flags
    self.cookie = cookie
    self.offset = offset
    self.count = count
    self.headerBytes = headerBytes
    self.contexts = contexts
  }

  /// The range on the export.
  @inlinable public var range: ByteRange { ByteRange(offset: offset, count: count) }
  /// Whether the reply waits until the change is durable (`NBD_CMD_FLAG_FUA`; reads ignore it).
  @inlinable public var isFUA: Bool { flags.contains(.fua) }
  /// Whether storage may be given back: a trim, or zeroes without `NBD_CMD_FLAG_NO_HOLE`.
  @inlinable public var mayPunchHoles: Bool { kind == .trim || !flags.contains(.noHole) }
  /// Whether zeroes are refused that would take as long as a write.
  @inlinable public var mustBeFast: Bool { flags.contains(.fastZero) }
  /// Bytes that follow the header in the stream.
  @inlinable public var payloadBytes: Int { kind == .write ? Int(count) : 0 }
}

/// A reply that is known without the engine: a refusal, or a success of a request for no bytes.
///
/// Read and throw away `drainBytes` bytes of payload first, then send `ReplyEncoder.answer`.
public struct Answer: Equatable, Sendable, BitwiseCopyable {
  /// The client's name for the request.
  public var cookie: UInt64
  /// Where the request began; extended replies repeat it.
  public var offset: UInt64
  /// Why it is refused; nil: success, there was nothing to do.
  public var refusal: Refusal?
  /// Whether the request is a read (its success is a chunk where structured replies are on).
  public var isRead: Bool
  /// Payload bytes that follow the header, 0...`Limits.drainedPayloadBytesMax`.
  public var drainBytes: Int
  /// Bytes of the header in the stream.
  public var headerBytes: Int

  /// Describes an answer.
  @inlinable
  public init(
    cookie: UInt64, offset: UInt64 = 0, refusal: Refusal?, isRead: Bool, drainBytes: Int = 0,
    headerBytes: Int = Limits.requestHeaderBytes
  ) {
    self.cookie = cookie
    self.offset = offset
    self.headerBytes = headerBytes
    self.refusal = refusal
    self.isRead = isRead
    self.drainBytes = drainBytes
  }
}

/// Why a request is refused.
public enum Refusal: UInt8, Sendable, BitwiseCopyable, CaseIterable {
  /// A command number that nobody gave us.
  case unknownCommand
  /// A change of a read-only export.
  case readOnly
  /// Reads, trims and caches of bytes beyond the end.
  case beyondEnd
  /// Writes and zeroes of bytes beyond the end.
  case noSpace
  /// A write larger than is served.
  case payloadTooLarge
  /// A read larger than is served, to a client with simple replies.
  case readTooLarge
  /// A read larger than is served, to a client with structured replies.
  case readOverflow
  /// A flag that is unknown, not negotiated, or means nothing for the command.
  case invalidFlags
  /// Not aligned to the minimum block that the client asked for.
  case unaligned
  /// A flush with a range.
  case flushWithRange
  /// Block status without a negotiated context.
  case noMetaContext
  /// Block status of no bytes: there is no extent that could be told.
  case emptyStatus
  /// Block status that names a context twice, or one that was not selected.
  case badContexts
  /// A payload where none belongs.
  case unexpectedPayload
  /// Zeroes that have to be fast, where a leg is not.
  case notFast

  /// The error value of the reply.
  public var error: NBDError {
    switch self {
    case .readOnly: .notPermitted
    case .noSpace: .noSpace
    case .readOverflow: .overflow
    case .notFast: .notSupported
    case .unknownCommand, .beyondEnd, .payloadTooLarge, .readTooLarge, .invalidFlags, .unaligned,
      .flushWithRange, .noMetaContext, .emptyStatus, .badContexts, .unexpectedPayload:
      .invalid
    }
  }

  /// The text of a structured error; short, without anything the client sent.
  public var text: StaticString {
    switch self {
    case .unknownCommand: "unknown command"
    case .readOnly: "the export is read-only"
    case .beyondEnd, .noSpace: "the range ends beyond the export"
    case .payloadTooLarge, .readTooLarge, .readOverflow: "the request is larger than 64 MiB"
    case .invalidFlags: "a flag is unknown or not valid for this command"
    case .unaligned: "the request is not aligned to the minimum block size"
    case .flushWithRange: "a flush takes no range"
    case .noMetaContext: "no metadata context is negotiated"
    case .emptyStatus: "block status of no bytes"
    case .badContexts: "the contexts asked for are not those selected"
    case .unexpectedPayload: "this command has no payload"
    case .notFast: "zeroing is not faster than writing here"
    }
  }
}
