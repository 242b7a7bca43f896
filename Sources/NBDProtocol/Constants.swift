// The numbers of the protocol. Every one carries the name that proto.md gives it.
//
// Everything on the wire is big-endian. What is listed but not served keeps its number and its place
// here, so that it is refused by name and not by accident.
//
// Source: NetworkBlockDevice/nbd, doc/proto.md, "Values"; for extended headers the same file on the
// branch extension-ext-header.

/// The magic numbers that open frames.
public enum Magic {
  /// `NBDMAGIC`, the ASCII bytes: the first eight bytes of a connection.
  @inlinable public static var greeting: UInt64 { 0x4e42_444d_4147_4943 }
  /// `IHAVEOPT`, the ASCII bytes: ends the greeting, opens every option.
  @inlinable public static var option: UInt64 { 0x4948_4156_454f_5054 }
  /// Opens every option reply.
  @inlinable public static var optionReply: UInt64 { 0x0003_e889_0455_65a9 }
  /// `NBD_REQUEST_MAGIC`: opens a compact request.
  @inlinable public static var request: UInt32 { 0x2560_9513 }
  /// `NBD_EXTENDED_REQUEST_MAGIC`: opens a request on connections with extended headers.
  @inlinable public static var extendedRequest: UInt32 { 0x21e4_1c71 }
  /// `NBD_SIMPLE_REPLY_MAGIC`.
  @inlinable public static var simpleReply: UInt32 { 0x6744_6698 }
  /// `NBD_STRUCTURED_REPLY_MAGIC`: opens every chunk of a structured reply.
  @inlinable public static var structuredReply: UInt32 { 0x668e_33ef }
  /// `NBD_EXTENDED_REPLY_MAGIC`: opens every chunk on connections with extended headers.
  @inlinable public static var extendedReply: UInt32 { 0x6e8a_278c }
}

/// Sizes of frames and the limits of this server, in bytes unless the name says otherwise.
public enum Limits {
  /// A compact request header.
  @inlinable public static var requestHeaderBytes: Int { 28 }
  /// An extended request header.
  @inlinable public static var extendedRequestHeaderBytes: Int { 32 }
  /// A simple reply, without the data of a read.
  @inlinable public static var simpleReplyBytes: Int { 16 }
  /// The header of a structured reply chunk.
  @inlinable public static var chunkHeaderBytes: Int { 20 }
  /// The header of a chunk with extended headers.
  @inlinable public static var extendedChunkHeaderBytes: Int { 32 }
  /// Longest string that the protocol allows (name, description, query).
  @inlinable public static var stringBytesMax: Int { 4096 }
  /// Options a client may send before it enters transmission; the next one drops it.
  @inlinable public static var optionCountMax: Int { 64 }
  /// Longest option that is read to its end (and mostly thrown away); a longer one drops the client.
  @inlinable public static var optionBytesMax: Int { 1 << 20 }
  /// What a handshake buffers at most: a name, its length and a number after it.
  @inlinable public static var optionBufferBytesMax: Int { 4 + stringBytesMax + 4 }
  /// Maximum payload as advertised by `NBD_INFO_BLOCK_SIZE`: what every client may rely on.
  @inlinable public static var advertisedPayloadBytes: UInt32 { 32 << 20 }
  /// Largest read or write that is served.
  @inlinable public static var servedPayloadBytesMax: UInt32 { 64 << 20 }
  /// Largest write payload that is read and thrown away to keep the connection; a longer one drops.
  @inlinable public static var drainedPayloadBytesMax: UInt32 { 128 << 20 }
}

/// Handshake flags, server to client.
public struct HandshakeFlags: OptionSet, Sendable {
  /// The bits on the wire.
  public let rawValue: UInt16
  /// Wraps the bits.
  public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// `NBD_FLAG_FIXED_NEWSTYLE`.
  public static let fixedNewstyle = HandshakeFlags(rawValue: 1 << 0)
  /// `NBD_FLAG_NO_ZEROES`.
  public static let noZeroes = HandshakeFlags(rawValue: 1 << 1)
}

/// Client flags, the answer to `HandshakeFlags`.
public struct ClientFlags: OptionSet, Sendable {
  /// The bits on the wire.
  public let rawValue: UInt32
  /// Wraps the bits.
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// `NBD_FLAG_C_FIXED_NEWSTYLE`.
  public static let fixedNewstyle = ClientFlags(rawValue: 1 << 0)
  /// `NBD_FLAG_C_NO_ZEROES`.
  public static let noZeroes = ClientFlags(rawValue: 1 << 1)
}

/// Option codes. A number that is not here is answered `NBD_REP_ERR_UNSUP`.
public enum OptionCode: UInt32, Sendable, CaseIterable {
  /// `NBD_OPT_EXPORT_NAME`.
  case exportName = 1
  /// `NBD_OPT_ABORT`.
  case abort = 2
  /// `NBD_OPT_LIST`.
  case list = 3
  /// `NBD_OPT_STARTTLS`.
  case startTLS = 5
  /// `NBD_OPT_INFO`.
  case info = 6
  /// `NBD_OPT_GO`.
  case go = 7
  /// `NBD_OPT_STRUCTURED_REPLY`.
  case structuredReply = 8
  /// `NBD_OPT_LIST_META_CONTEXT`.
  case listMetaContext = 9
  /// `NBD_OPT_SET_META_CONTEXT`.
  case setMetaContext = 10
  /// `NBD_OPT_EXTENDED_HEADERS`.
  case extendedHeaders = 11
}

/// Option reply types. Bit 31 marks an error.
public enum OptionReplyType: UInt32, Sendable, CaseIterable {
  /// `NBD_REP_ACK`.
  case ack = 1
  /// `NBD_REP_SERVER`.
  case server = 2
  /// `NBD_REP_INFO`.
  case info = 3
  /// `NBD_REP_META_CONTEXT`.
  case metaContext = 4
  /// `NBD_REP_ERR_UNSUP`.
  case unsupported = 0x8000_0001
  /// `NBD_REP_ERR_POLICY`.
  case policy = 0x8000_0002
  /// `NBD_REP_ERR_INVALID`.
  case invalid = 0x8000_0003
  /// `NBD_REP_ERR_PLATFORM`: not sent.
  case platform = 0x8000_0004
  /// `NBD_REP_ERR_TLS_REQD`.
  case tlsRequired = 0x8000_0005
  /// `NBD_REP_ERR_UNKNOWN`.
  case unknownExport = 0x8000_0006
  /// `NBD_REP_ERR_SHUTDOWN`.
  case shuttingDown = 0x8000_0007
  /// `NBD_REP_ERR_BLOCK_SIZE_REQD`: never sent, any alignment is served to who does not ask.
  case blockSizeRequired = 0x8000_0008
  /// `NBD_REP_ERR_TOO_BIG`: not sent; what is too long to be legal is `invalid`.
  case tooBig = 0x8000_0009
  /// `NBD_REP_ERR_EXT_HEADER_REQD`.
  case extendedHeadersRequired = 0x8000_000a
}

/// Information types of INFO and GO.
public enum InfoType: UInt16, Sendable, CaseIterable {
  /// `NBD_INFO_EXPORT`.
  case export = 0
  /// `NBD_INFO_NAME`.
  case name = 1
  /// `NBD_INFO_DESCRIPTION`.
  case description = 2
  /// `NBD_INFO_BLOCK_SIZE`.
  case blockSize = 3
}

/// Transmission flags: what the export can do.
public struct TransmissionFlags: OptionSet, Sendable, BitwiseCopyable {
  /// The bits on the wire.
  public let rawValue: UInt16
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// `NBD_FLAG_HAS_FLAGS`: always set.
  @inlinable public static var hasFlags: Self { Self(rawValue: 1 << 0) }
  /// `NBD_FLAG_READ_ONLY`.
  @inlinable public static var readOnly: Self { Self(rawValue: 1 << 1) }
  /// `NBD_FLAG_SEND_FLUSH`.
  @inlinable public static var sendFlush: Self { Self(rawValue: 1 << 2) }
  /// `NBD_FLAG_SEND_FUA`.
  @inlinable public static var sendFUA: Self { Self(rawValue: 1 << 3) }
  /// `NBD_FLAG_ROTATIONAL`.
  @inlinable public static var rotational: Self { Self(rawValue: 1 << 4) }
  /// `NBD_FLAG_SEND_TRIM`.
  @inlinable public static var sendTrim: Self { Self(rawValue: 1 << 5) }
  /// `NBD_FLAG_SEND_WRITE_ZEROES`.
  @inlinable public static var sendWriteZeroes: Self { Self(rawValue: 1 << 6) }
  /// `NBD_FLAG_SEND_DF`: set if and only if structured replies were negotiated.
  @inlinable public static var sendDF: Self { Self(rawValue: 1 << 7) }
  /// `NBD_FLAG_CAN_MULTI_CONN`: flush and FUA hold across connections.
  @inlinable public static var canMultiConn: Self { Self(rawValue: 1 << 8) }
  /// `NBD_FLAG_SEND_RESIZE`: an extension that is not served.
  @inlinable public static var sendResize: Self { Self(rawValue: 1 << 9) }
  /// `NBD_FLAG_SEND_CACHE`.
  @inlinable public static var sendCache: Self { Self(rawValue: 1 << 10) }
  /// `NBD_FLAG_SEND_FAST_ZERO`.
  @inlinable public static var sendFastZero: Self { Self(rawValue: 1 << 11) }
  /// `NBD_FLAG_BLOCK_STATUS_PAYLOAD`: a block status may name the contexts it asks for; with
  /// extended headers only.
  @inlinable public static var blockStatusPayload: Self { Self(rawValue: 1 << 12) }
}

/// Command types. A number that is not here is answered `NBD_EINVAL`.
public enum CommandType: UInt16, Sendable, BitwiseCopyable, CaseIterable {
  /// `NBD_CMD_READ`.
  case read = 0
  /// `NBD_CMD_WRITE`: the only one whose payload follows the header.
  case write = 1
  /// `NBD_CMD_DISC`.
  case disconnect = 2
  /// `NBD_CMD_FLUSH`.
  case flush = 3
  /// `NBD_CMD_TRIM`.
  case trim = 4
  /// `NBD_CMD_CACHE`.
  case cache = 5
  /// `NBD_CMD_WRITE_ZEROES`.
  case writeZeroes = 6
  /// `NBD_CMD_BLOCK_STATUS`: for connections that selected a metadata context.
  case blockStatus = 7
}

/// Command flags.
public struct CommandFlags: OptionSet, Sendable, BitwiseCopyable {
  /// The bits on the wire.
  public let rawValue: UInt16
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// `NBD_CMD_FLAG_FUA`.
  @inlinable public static var fua: Self { Self(rawValue: 1 << 0) }
  /// `NBD_CMD_FLAG_NO_HOLE`.
  @inlinable public static var noHole: Self { Self(rawValue: 1 << 1) }
  /// `NBD_CMD_FLAG_DF`.
  @inlinable public static var df: Self { Self(rawValue: 1 << 2) }
  /// `NBD_CMD_FLAG_REQ_ONE`: of BLOCK_STATUS only: one extent is enough.
  @inlinable public static var reqOne: Self { Self(rawValue: 1 << 3) }
  /// `NBD_CMD_FLAG_FAST_ZERO`: zeroes that are refused if they would take as long as a write.
  @inlinable public static var fastZero: Self { Self(rawValue: 1 << 4) }
  /// `NBD_CMD_FLAG_PAYLOAD_LEN`: of extended headers only: the length is that of a payload.
  @inlinable public static var payloadLength: Self { Self(rawValue: 1 << 5) }
}

/// Flags of a structured reply chunk.
public struct ChunkFlags: OptionSet, Sendable, BitwiseCopyable {
  /// The bits on the wire.
  public let rawValue: UInt16
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// `NBD_REPLY_FLAG_DONE`: the last chunk of the reply.
  @inlinable public static var done: Self { Self(rawValue: 1 << 0) }
}

/// Chunk types of structured replies. Bit 15 marks an error.
public enum ChunkType: UInt16, Sendable, BitwiseCopyable, CaseIterable {
  /// `NBD_REPLY_TYPE_NONE`.
  case none = 0
  /// `NBD_REPLY_TYPE_OFFSET_DATA`.
  case offsetData = 1
  /// `NBD_REPLY_TYPE_OFFSET_HOLE`: a read that found zeros only.
  case offsetHole = 2
  /// `NBD_REPLY_TYPE_BLOCK_STATUS`.
  case blockStatus = 5
  /// `NBD_REPLY_TYPE_BLOCK_STATUS_EXT`: with extended headers, instead.
  case blockStatusExtended = 6
  /// `NBD_REPLY_TYPE_ERROR`.
  case error = 0x8001
  /// `NBD_REPLY_TYPE_ERROR_OFFSET`: not sent; a read is answered whole or not at all.
  case errorOffset = 0x8002
}
