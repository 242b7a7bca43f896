// The bytes of the protocol, written down once more from its specification: a prober that shared the
// server's constants would share its mistakes.
//
// Source: proto.md, "Newstyle negotiation", "Option types", "Request message", "Values".

extension Array where Element == UInt8 {
  /// Appends a number, most significant byte first.
  mutating func append(big value: some FixedWidthInteger) {
    for shift in stride(from: value.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: value >> shift))
    }
  }

  /// A number, most significant byte first.
  init(big value: some FixedWidthInteger) {
    self = []
    append(big: value)
  }

  /// Reads `bytes` bytes as a number.
  func big(at offset: Int, bytes: Int) -> UInt64 {
    self[offset..<(offset + bytes)].reduce(0) { $0 << 8 | UInt64($1) }
  }
}

enum Frames {
  static let greetingMagic: UInt64 = 0x4e42_444d_4147_4943
  static let optionMagic: UInt64 = 0x4948_4156_454f_5054
  static let optionReplyMagic: UInt64 = 0x0003_e889_0455_65a9
  static let requestMagic: UInt32 = 0x2560_9513
  static let extendedRequestMagic: UInt32 = 0x21e4_1c71
  static let simpleReplyMagic: UInt32 = 0x6744_6698
  static let chunkMagic: UInt32 = 0x668e_33ef
  static let extendedChunkMagic: UInt32 = 0x6e8a_278c

  /// An option; `length` differs from the data's where the option lies.
  static func option(
    _ code: UInt32, _ data: [UInt8] = [], length: UInt32? = nil, magic: UInt64 = optionMagic
  ) -> [UInt8] {
    [UInt8](big: magic) + [UInt8](big: code) + [UInt8](big: length ?? UInt32(data.count)) + data
  }

  /// The data of INFO and GO; `nameLength` and `infoCount` differ from the truth where they lie.
  static func goData(
    _ name: [UInt8], infos: [UInt16] = [], nameLength: UInt32? = nil, infoCount: UInt16? = nil
  ) -> [UInt8] {
    [UInt8](big: nameLength ?? UInt32(name.count)) + name
      + [UInt8](big: infoCount ?? UInt16(infos.count)) + infos.flatMap { [UInt8](big: $0) }
  }

  /// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
  static func metaData(
    _ export: String, _ queries: [[UInt8]], queryCount: UInt32? = nil
  ) -> [UInt8] {
    [UInt8](big: UInt32(export.utf8.count)) + export.utf8
      + [UInt8](big: queryCount ?? UInt32(queries.count))
      + queries.flatMap { [UInt8](big: UInt32($0.count)) + $0 }
  }

  /// A compact request header.
  static func request(
    _ command: UInt16, offset: UInt64 = 0, count: UInt32 = 0, flags: UInt16 = 0,
    cookie: UInt64 = 1, magic: UInt32 = requestMagic
  ) -> [UInt8] {
    [UInt8](big: magic) + [UInt8](big: flags) + [UInt8](big: command) + [UInt8](big: cookie)
      + [UInt8](big: offset) + [UInt8](big: count)
  }

  /// An extended request header.
  static func extendedRequest(
    _ command: UInt16, offset: UInt64 = 0, count: UInt64 = 0, flags: UInt16 = 0,
    cookie: UInt64 = 1
  ) -> [UInt8] {
    [UInt8](big: extendedRequestMagic) + [UInt8](big: flags) + [UInt8](big: command)
      + [UInt8](big: cookie) + [UInt8](big: offset) + [UInt8](big: count)
  }
}

/// Options (`NBD_OPT_...`).
enum Opt {
  static let exportName: UInt32 = 1
  static let abort: UInt32 = 2
  static let list: UInt32 = 3
  static let startTLS: UInt32 = 5
  static let info: UInt32 = 6
  static let go: UInt32 = 7
  static let structuredReply: UInt32 = 8
  static let listMeta: UInt32 = 9
  static let setMeta: UInt32 = 10
  static let extendedHeaders: UInt32 = 11
}

/// Replies to options (`NBD_REP_...`).
enum Rep {
  static let ack: UInt32 = 1
  static let server: UInt32 = 2
  static let info: UInt32 = 3
  static let meta: UInt32 = 4
  static let unsupported: UInt32 = 0x8000_0001
  static let policy: UInt32 = 0x8000_0002
  static let invalid: UInt32 = 0x8000_0003
  static let tlsRequired: UInt32 = 0x8000_0005
  static let unknown: UInt32 = 0x8000_0006
  static let extendedRequired: UInt32 = 0x8000_000a
}

/// Infos of INFO and GO (`NBD_INFO_...`).
enum Info {
  static let export: UInt16 = 0
  static let name: UInt16 = 1
  static let description: UInt16 = 2
  static let blockSize: UInt16 = 3
}

/// Commands (`NBD_CMD_...`).
enum Cmd {
  static let read: UInt16 = 0
  static let write: UInt16 = 1
  static let disconnect: UInt16 = 2
  static let flush: UInt16 = 3
  static let trim: UInt16 = 4
  static let cache: UInt16 = 5
  static let zeroes: UInt16 = 6
  static let blockStatus: UInt16 = 7
}

/// Flags of commands (`NBD_CMD_FLAG_...`).
enum Flag {
  static let fua: UInt16 = 1 << 0
  static let noHole: UInt16 = 1 << 1
  static let df: UInt16 = 1 << 2
  static let reqOne: UInt16 = 1 << 3
  static let fastZero: UInt16 = 1 << 4
  static let payloadLength: UInt16 = 1 << 5
  static let unknown: UInt16 = 1 << 15
}

/// Transmission flags (`NBD_FLAG_...`).
enum ExportFlag {
  static let readOnly: UInt16 = 1 << 1
  static let fastZero: UInt16 = 1 << 11
}

/// Errors (`NBD_E...`).
enum Err {
  static let permission: UInt32 = 1
  static let io: UInt32 = 5
  static let invalid: UInt32 = 22
  static let noSpace: UInt32 = 28
  static let overflow: UInt32 = 75
  static let notSupported: UInt32 = 95
  static let shutdown: UInt32 = 108
}
