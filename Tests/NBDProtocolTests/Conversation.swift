// What the tests of this room share: bytes by hand, and a server that lives in memory.
//
// Frames are built here a second time and from the specification, not with the room's own encoders,
// so that a wrong number on both sides cannot hide.
import Base
import NBDProtocol

/// Bytes from hexadecimal text; blanks are for the eye.
func hex(_ text: String) -> [UInt8] {
  let digits = text.filter { !$0.isWhitespace }.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count - 1, by: 2).map {
    UInt8(digits[$0] * 16 + digits[$0 + 1])
  }
}

/// A big-endian number of `bytes` bytes.
func big(_ value: UInt64, _ bytes: Int) -> [UInt8] {
  (0..<bytes).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (bytes - 1 - $0))) }
}

/// An option as a client sends it.
func option(_ code: UInt32, _ payload: [UInt8] = [], claiming length: UInt32? = nil) -> [UInt8] {
  Array("IHAVEOPT".utf8) + big(UInt64(code), 4)
    + big(UInt64(length ?? UInt32(payload.count)), 4) + payload
}

/// INFO's and GO's data.
func infoData(_ name: String, _ infos: [UInt16] = []) -> [UInt8] {
  let bytes = Array(name.utf8)
  return big(UInt64(bytes.count), 4) + bytes + big(UInt64(infos.count), 2)
    + infos.flatMap { big(UInt64($0), 2) }
}

/// An option reply as the specification draws it.
func optionReply(_ code: UInt32, _ type: UInt32, _ payload: [UInt8] = []) -> [UInt8] {
  hex("0003e889045565a9") + big(UInt64(code), 4) + big(UInt64(type), 4)
    + big(UInt64(payload.count), 4) + payload
}

/// An error reply with its text.
func optionError(_ code: UInt32, _ type: UInt32, _ text: String) -> [UInt8] {
  optionReply(code, 0x8000_0000 + type, Array(text.utf8))
}

func unsupported(_ code: UInt32) -> [UInt8] {
  optionError(code, 1, "this option is not supported")
}

func invalid(_ code: UInt32) -> [UInt8] { optionError(code, 3, "malformed option") }

func unknownExport(_ code: UInt32) -> [UInt8] { optionError(code, 6, "no such export") }

/// A request header as the specification draws it.
func request(
  _ type: UInt16, flags: UInt16 = 0, cookie: UInt64 = 0x1122_3344_5566_7788, at offset: UInt64,
  count: UInt32
) -> [UInt8] {
  hex("25609513") + big(UInt64(flags), 2) + big(UInt64(type), 2) + big(cookie, 8) + big(offset, 8)
    + big(UInt64(count), 4)
}

/// An extended request header as the specification draws it.
func extendedRequest(
  _ type: UInt16, flags: UInt16 = 0, cookie: UInt64 = 0x1122_3344_5566_7788, at offset: UInt64,
  count: UInt64
) -> [UInt8] {
  hex("21e41c71") + big(UInt64(flags), 2) + big(UInt64(type), 2) + big(cookie, 8) + big(offset, 8)
    + big(count, 8)
}

/// The client flags of a modern client: fixed newstyle, no zeroes.
let modern = hex("00000003")

/// The export most tests use.
let disk = ExportInfo(
  name: "disk", description: "a mirror", sizeBytes: 1 << 20, minimumBlockBytes: 512)

/// What INFO and GO say about `disk` without structured replies.
let diskInfo = hex("0000 0000000000100000 0d6d")

/// A session that was fed, and what it said.
struct Conversation {
  var session: ServerSession
  var output: [UInt8] = []
  var last = HandshakeStep.needMore

  init(_ export: ExportInfo = disk) { session = ServerSession(export: export) }

  /// Feeds bytes in pieces of `piece` bytes until the session ends.
  mutating func send(_ bytes: [UInt8], piece: Int = .max) {
    var position = 0
    while position < bytes.count {
      let end = position + min(piece, bytes.count - position)
      let part = Array(bytes[position..<end])
      last = part.withRawSpan { session.receive($0, output: &output) }
      switch last {
      case .needMore: position = end
      case .close: return
      case .startTLS(let consumed):
        last = .startTLS(consumed: position + consumed)
        return
      case .enteredTransmission(let terms, let consumed):
        last = .enteredTransmission(terms, consumed: position + consumed)
        return
      }
    }
  }

  /// A conversation in which a modern client said all this.
  static func modernClient(
    _ export: ExportInfo = disk, sends options: [UInt8]..., piece: Int = .max
  ) -> Conversation {
    var conversation = Conversation(export)
    conversation.send(modern + options.flatMap { $0 }, piece: piece)
    return conversation
  }
}

/// The agreement of a connection to an export of `sizeBytes` bytes.
func terms(
  sizeBytes: UInt64 = 1 << 30, isReadOnly: Bool = false, alignmentBytes: UInt32 = 1,
  isStructured: Bool = false, isExtended: Bool = false, contexts: MetaContexts = []
) -> Transmission {
  Transmission(
    sizeBytes: sizeBytes,
    flags: ExportInfo(name: "x", sizeBytes: sizeBytes, isReadOnly: isReadOnly)
      .flags(
        structuredReplies: isStructured || isExtended,
        statusPayload: isExtended && !contexts.isEmpty),
    alignmentBytes: alignmentBytes, isStructured: isStructured || isExtended,
    isExtended: isExtended, contexts: contexts)
}

extension TransmissionStep {
  /// An answer without where its request began, which only extended headers repeat.
  var withoutOffset: TransmissionStep {
    guard case .answer(var answer) = self else { return self }
    answer.offset = 0
    return .answer(answer)
  }
}

/// The reply to `answer` as bytes.
func encoded(_ answer: Answer, isStructured: Bool) -> [UInt8] {
  encoded(isStructured: isStructured) { encoder, bytes in encoder.answer(answer, into: &bytes) }
}

/// What an encoder writes.
func encoded(
  isStructured: Bool, isExtended: Bool = false, _ body: (ReplyEncoder, inout MutableRawSpan) -> Int
) -> [UInt8] {
  var room = [UInt8](repeating: 0xee, count: ReplyEncoder.replyBytesMax)
  let count = room.withMutableRawSpan {
    body(ReplyEncoder(isStructured: isStructured, isExtended: isExtended), &$0)
  }
  return Array(room[..<count])
}
