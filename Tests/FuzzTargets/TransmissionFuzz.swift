// Requests under any agreement: what is accepted lies inside the export, is permitted and aligned;
// what is refused has a reply; replies are read back by the client's side as they were meant; where
// the stream is cut changes nothing.
//
//   input: the agreement, seed of the cuts, then the client's bytes

import Base
import NBDProtocol

enum TransmissionFuzz {
  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    var input = FuzzInput(input)
    let settings = input.byte()
    let alignment: UInt32 = 1 << UInt32(input.below(17))
    let size = input.number(8) >> 1
    let isExtended = settings & 0x10 != 0
    let isStructured = settings & 1 != 0 || isExtended
    let contexts = isStructured ? MetaContexts(rawValue: settings >> 2 & 3) : []
    let export = ExportInfo(
      name: "x", sizeBytes: size & ~(UInt64(alignment) - 1), isReadOnly: settings & 2 != 0)
    let terms = Transmission(
      sizeBytes: export.sizeBytes,
      flags: export.flags(
        structuredReplies: isStructured, statusPayload: isExtended && !contexts.isEmpty),
      alignmentBytes: alignment, isStructured: isStructured, isExtended: isExtended,
      contexts: contexts)
    let seed = input.byte()
    var outcomes: [RequestWalk.Outcome] = []
    for pieces in Cuts.ways(input.rest, seed: seed) {
      var walk = RequestWalk(terms)
      for piece in pieces { try walk.receive(piece) }
      outcomes.append(walk.outcome)
    }
    try require(outcomes[0] == outcomes[1], "single bytes have another outcome than the whole")
    try require(outcomes[0] == outcomes[2], "pieces have another outcome than the whole")
  }
}

/// What a reactor makes of the bytes of a client in transmission.
struct RequestWalk {
  /// What came of them.
  struct Outcome: Equatable {
    var steps: [TransmissionStep] = []
    /// The payload of the writes.
    var payload: [UInt8] = []
    /// All replies.
    var replies: [UInt8] = []
    var isOver = false
  }

  private(set) var outcome = Outcome()
  private let terms: Transmission
  private var pending: [UInt8] = []
  private var payloadLeft = 0
  private var isKept = false

  init(_ terms: Transmission) { self.terms = terms }

  mutating func receive(_ bytes: [UInt8]) throws(FuzzProblem) {
    guard !outcome.isOver else { return }
    pending += bytes
    while true {
      let taken = min(payloadLeft, pending.count)
      if isKept { outcome.payload += pending[..<taken] }
      pending.removeFirst(taken)
      payloadLeft -= taken
      if payloadLeft > 0 { return }
      let step = pending.withRawSpan { terms.nextRequest($0) }
      if step == .needMore {
        // With the ids of contexts behind it.
        try require(pending.count < terms.headerBytes + 16, "a whole header is not looked at")
        return
      }
      outcome.steps.append(step)
      let headerBytes: Int
      switch step {
      case .request(let request):
        try check(request)
        (payloadLeft, isKept, headerBytes) = (request.payloadBytes, true, request.headerBytes)
        try reply(to: request)
      case .answer(let answer):
        try check(answer)
        (payloadLeft, isKept, headerBytes) = (answer.drainBytes, false, answer.headerBytes)
        try reply(answer)
      default:
        outcome.isOver = true
        return
      }
      try require(
        headerBytes >= terms.headerBytes && headerBytes <= pending.count, "not the header's bytes")
      pending.removeFirst(headerBytes)
    }
  }

  private func check(_ request: Request) throws(FuzzProblem) {
    let count = request.count
    try require(
      request.offset <= terms.sizeBytes && count <= terms.sizeBytes - request.offset,
      "a request beyond the end is accepted")
    try require(request.range.count == count, "the range is not the request's")
    let mask = UInt64(terms.alignmentBytes) - 1
    try require((request.offset | count) & mask == 0, "an unaligned request is accepted")
    try require((count == 0) == (request.kind == .flush), "only a flush is of no bytes")
    var allowed: CommandFlags = [.fua]
    switch request.kind {
    case .read:
      if terms.isStructured { allowed.insert(.df) }
      try require(count <= UInt64(Limits.servedPayloadBytesMax), "a read that is too large")
    case .write:
      try require(count <= UInt64(Limits.servedPayloadBytesMax), "a write that is too large")
    case .flush: try require(request.offset == 0, "a flush has no place")
    case .writeZeroes: allowed.formUnion([.noHole, .fastZero])
    case .blockStatus:
      allowed.insert(.reqOne)
      try require(
        !request.contexts.isEmpty && request.contexts.isSubset(of: terms.contexts),
        "block status of a context that was not selected is accepted")
    case .trim, .cache: break
    }
    try require(request.flags.isSubset(of: allowed), "a flag that means nothing is accepted")
    switch request.kind {
    case .write, .trim, .writeZeroes:
      try require(!terms.flags.contains(.readOnly), "a read-only export is changed")
    case .read, .flush, .cache, .blockStatus: break
    }
    try require(
      request.payloadBytes == (request.kind == .write ? Int(count) : 0),
      "the payload is not the request's")
  }

  private func check(_ answer: Answer) throws(FuzzProblem) {
    try require(
      answer.drainBytes >= 0 && answer.drainBytes <= Int(Limits.drainedPayloadBytesMax),
      "\(answer.drainBytes) bytes are thrown away")
  }

  // MARK: Replies

  private mutating func reply(_ answer: Answer) throws(FuzzProblem) {
    var room = [UInt8](repeating: 0xee, count: ReplyEncoder.replyBytesMax)
    let count = room.withMutableRawSpan { terms.replies.answer(answer, into: &$0) }
    let tag = ReplyTag(cookie: answer.cookie, offset: answer.offset)
    try take(Array(room[..<count]), tag, error: answer.refusal?.error)
  }

  private mutating func reply(to request: Request) throws(FuzzProblem) {
    var room = [UInt8](repeating: 0xee, count: ReplyEncoder.replyBytesMax)
    let tag = ReplyTag(cookie: request.cookie, offset: request.offset)
    let errors = NBDError.allCases
    let error = errors[Int(request.cookie % UInt64(errors.count))]
    let failed = room.withMutableRawSpan { terms.replies.failure(into: &$0, tag, error: error) }
    try take(Array(room[..<failed]), tag, error: error)
    switch request.kind {
    case .read:
      let bytes = UInt32(request.count)
      let count = room.withMutableRawSpan {
        terms.replies.readHeader(into: &$0, tag, count: bytes)
      }
      try checkRead(Array(room[..<count]), request)
      guard terms.isStructured else { return }
      let hole = room.withMutableRawSpan { terms.replies.hole(into: &$0, tag, count: bytes) }
      try checkHole(Array(room[..<hole]), request)
    case .blockStatus: try StatusFuzz.run(request, terms, &outcome.replies)
    case .write, .flush, .trim, .writeZeroes, .cache:
      let count = room.withMutableRawSpan { terms.replies.success(into: &$0, tag) }
      try take(Array(room[..<count]), tag, error: nil)
    }
  }

  /// A whole reply without data, as the client reads it.
  private mutating func take(
    _ bytes: [UInt8], _ tag: ReplyTag, error: NBDError?
  ) throws(FuzzProblem) {
    outcome.replies += bytes
    let frame = try ReplyFrame(bytes, terms, tag)
    guard let type = frame.chunkType else {
      try require(bytes.count == frame.headerBytes, "a simple reply with something behind it")
      return try require(frame.error == error?.rawValue ?? 0, "another error than was meant")
    }
    try require(frame.isDone, "a chunk without an end")
    try require(bytes.count == frame.headerBytes + frame.payloadBytes, "another length")
    let payload = Array(bytes[frame.headerBytes...])
    switch payload.withRawSpan({ ChunkContent.decode(type: type, payload: $0) }) {
    case .error(let code, _, _): try require(code == error?.rawValue, "another error")
    case .some(.none): try require(error == nil, "a failure without an error")
    default: throw FuzzProblem("a chunk of an unexpected kind")
    }
  }

  /// What precedes the data of a read.
  private mutating func checkRead(_ bytes: [UInt8], _ request: Request) throws(FuzzProblem) {
    outcome.replies += bytes
    let tag = ReplyTag(cookie: request.cookie, offset: request.offset)
    let frame = try ReplyFrame(bytes, terms, tag)
    guard let type = frame.chunkType else {
      return try require(frame.error == 0 && bytes.count == frame.headerBytes, "not a read's reply")
    }
    try require(type == ChunkType.offsetData.rawValue && frame.isDone, "no data")
    try require(UInt64(frame.payloadBytes) == request.count + 8, "another amount of data")
    let offset = bytes.withRawSpan { $0.bigEndianUInt64(at: frame.headerBytes) }
    try require(offset == request.offset, "data of another place")
  }

  /// The whole reply to a read of zeros.
  private mutating func checkHole(_ bytes: [UInt8], _ request: Request) throws(FuzzProblem) {
    outcome.replies += bytes
    let tag = ReplyTag(cookie: request.cookie, offset: request.offset)
    let frame = try ReplyFrame(bytes, terms, tag)
    let payload = Array(bytes[frame.headerBytes...])
    let content = payload.withRawSpan {
      ChunkContent.decode(type: frame.chunkType ?? 0, payload: $0)
    }
    try require(
      content == .hole(offset: request.offset, bytes: UInt32(request.count)) && frame.isDone,
      "a hole of another place")
  }
}

/// The header of a reply, read by its table and not by the encoder's.
private struct ReplyFrame {
  var headerBytes: Int
  /// Of a chunk; nil: a simple reply.
  var chunkType: UInt16?
  var isDone = true
  var payloadBytes = 0
  /// Of a simple reply.
  var error: UInt32 = 0

  /// - Throws: unless it is a reply to `tag` of the kind that was negotiated.
  init(_ bytes: [UInt8], _ terms: Transmission, _ tag: ReplyTag) throws(FuzzProblem) {
    if terms.isExtended {
      headerBytes = 32
      try require(bytes.count >= 32, "a header that is not whole")
      let fields = bytes.withRawSpan {
        (
          magic: $0.bigEndianUInt32(at: 0), flags: $0.bigEndianUInt16(at: 4),
          type: $0.bigEndianUInt16(at: 6), cookie: $0.bigEndianUInt64(at: 8),
          offset: $0.bigEndianUInt64(at: 16), count: $0.bigEndianUInt64(at: 24)
        )
      }
      try require(fields.magic == 0x6e8a_278c, "not an extended reply")
      try require(
        fields.cookie == tag.cookie && fields.offset == tag.offset, "a reply to another request")
      (chunkType, isDone) = (fields.type, fields.flags & 1 != 0)
      try require(fields.count < 1 << 32, "a chunk that is too long")
      payloadBytes = Int(fields.count)
      return
    }
    guard case .header(let header) = bytes.withRawSpan({ ReplyHeader.decode($0) }) else {
      throw FuzzProblem("a reply that is none")
    }
    try require(header.cookie == tag.cookie, "a reply to another request")
    headerBytes = header.headerBytes
    switch header {
    case .simple(_, let code): error = code
    case .chunk(_, let type, let isLast, let count):
      try require(terms.isStructured, "a chunk that nobody asked for")
      (chunkType, isDone, payloadBytes) = (type, isLast, Int(count))
    }
  }
}

/// Block status: the chunks for extents that are drawn from the request itself.
private enum StatusFuzz {
  static func run(
    _ request: Request, _ terms: Transmission, _ replies: inout [UInt8]
  ) throws(FuzzProblem) {
    let contexts = [MetaContexts.allocation, .state].filter(request.contexts.contains)
    var random = PRNG(seed: request.cookie ^ request.offset)
    var room = [UInt8](repeating: 0xee, count: BlockStatusReply.bytesMax)
    var reply = BlockStatusReply(request, isExtended: terms.isExtended)
    let largest = UInt64(1) << UInt64(random.int(in: 1...40))
    for (index, context) in contexts.enumerated() {
      room.withMutableRawSpan { bytes in
        reply.begin(context, into: &bytes)
        repeat {
          let count = 1 + random.below(largest)
          reply.append(count: count, flags: UInt32(random.below(3)), into: &bytes)
        } while reply.takesMore
        reply.end(isLast: index + 1 == contexts.count, into: &bytes)
      }
    }
    let bytes = Array(room[..<reply.byteCount])
    replies += bytes
    var position = 0
    for (index, context) in contexts.enumerated() {
      let isLast = index + 1 == contexts.count
      let chunk = try takeChunk(Array(bytes[position...]), terms, request, isLast: isLast)
      position += chunk.count
      try check(Array(chunk[(terms.isExtended ? 32 : 20)...]), context, request, terms)
    }
    try require(position == bytes.count, "bytes behind the last chunk")
  }

  private static func takeChunk(
    _ rest: [UInt8], _ terms: Transmission, _ request: Request, isLast: Bool
  ) throws(FuzzProblem) -> [UInt8] {
    let tag = ReplyTag(cookie: request.cookie, offset: request.offset)
    let frame = try ReplyFrame(rest, terms, tag)
    let type = terms.isExtended ? ChunkType.blockStatusExtended : .blockStatus
    try require(frame.chunkType == type.rawValue, "block status is another chunk")
    try require(frame.isDone == isLast, "the last chunk is marked, and no other")
    let end = frame.headerBytes + frame.payloadBytes
    try require(end <= rest.count, "a chunk that is longer than the reply")
    return Array(rest[..<end])
  }

  private static func check(
    _ payload: [UInt8], _ context: MetaContexts, _ request: Request, _ terms: Transmission
  ) throws(FuzzProblem) {
    let (head, size) = terms.isExtended ? (8, 16) : (4, 8)
    try require(payload.count >= head + size && payload.count % size == head, "no whole extents")
    let extents = payload.withRawSpan { bytes in
      stride(from: head, to: bytes.byteCount, by: size).map { position in
        terms.isExtended
          ? (bytes.bigEndianUInt64(at: position), bytes.bigEndianUInt64(at: position + 8))
          : (
            UInt64(bytes.bigEndianUInt32(at: position)),
            UInt64(bytes.bigEndianUInt32(at: position + 4))
          )
      }
    }
    let numbers = payload.withRawSpan { ($0.bigEndianUInt32(at: 0), $0.bigEndianUInt32(at: 4)) }
    try require(numbers.0 == context.id, "another context")
    if terms.isExtended { try require(Int(numbers.1) == extents.count, "another count") }
    try require(extents.count <= BlockStatusReply.extentsMax, "too many extents")
    if request.flags.contains(.reqOne) { try require(extents.count == 1, "one was asked for") }
    var sum: UInt64 = 0
    for (index, extent) in extents.enumerated() {
      try require(extent.0 > 0, "an extent of no bytes")
      if index > 0 { try require(extent.1 != extents[index - 1].1, "neighbours are alike") }
      sum += extent.0
    }
    try require(sum <= request.count, "extents beyond the request")
  }
}
