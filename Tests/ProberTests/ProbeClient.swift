// A client that says what it is told: frames by hand, right or wrong, and a deadline on every wait.

import Fixtures
import Foundation
import TLS
import Testing

/// A reply to an option.
struct OptionReply: Equatable {
  var option: UInt32
  var type: UInt32
  var data: [UInt8]
}

/// What GO (or EXPORT_NAME) said.
struct ExportTerms {
  var size: UInt64 = 0
  var flags: UInt16 = 0
  /// Minimum, preferred, maximum, if they were asked for.
  var blockSizes: [UInt32] = []
  /// Types of the infos in their order.
  var infos: [UInt16] = []
}

/// A reply to a request, all its chunks together.
struct Reply {
  var cookie: UInt64
  var error: UInt32 = 0
  var data: [UInt8] = []
  /// Chunks but the last empty one, in their order; none: a simple reply.
  var chunkTypes: [UInt16] = []
  /// Payload of the block status chunks.
  var status: [[UInt8]] = []
}

/// One connection.
final class ProbeClient {
  /// How long the server may take for anything that it is not asked to be slow with.
  static let patienceSeconds = 20.0

  let kind: WireKind
  private(set) var wire: any Wire
  private(set) var terms = ExportTerms()
  private(set) var isStructured = false
  private(set) var isExtended = false
  /// Received and not yet looked at, from `position` on.
  private var inbox: [UInt8] = []
  private var position = 0
  /// Sizes of reads that were sent, by cookie: simple replies don't tell.
  private var readCounts: [UInt64: Int] = [:]
  private var nextCookie: UInt64 = 1 << 32

  /// Connects; nothing is said.
  init(_ kind: WireKind, _ target: Target) throws {
    self.kind = kind
    switch kind {
    case .unix, .unixTLS: wire = try SocketWire(unix: target.socket)
    case .tcp, .tcpTLS: wire = try SocketWire(port: target.port)
    }
  }

  /// Connects, takes the greeting and answers it: the next thing is an option.
  static func negotiating(
    _ kind: WireKind, _ target: Target, flags: UInt32 = 3
  ) throws -> ProbeClient {
    let client = try ProbeClient(kind, target)
    try client.greeting()
    try client.send([UInt8](big: flags))
    if WireKind.encrypted.contains(kind) {
      try client.expectAck(Opt.startTLS)
      try client.encrypt(target)
    }
    return client
  }

  /// Encrypts from here on: the server has said that it may.
  func encrypt(_ target: Target) throws {
    guard let socket = wire as? SocketWire, inbox.count == position else {
      throw FixtureError("there is no plain socket to encrypt")
    }
    let credentials = try Credentials.client(psk: target.keys["users.psk"], user: "alice")
    wire = try TLSWire(socket, credentials, within: Self.patienceSeconds)
  }

  /// What was negotiated in plaintext holds no more.
  func forgetNegotiation() { (isStructured, isExtended) = (false, false) }

  /// Connects and negotiates up to transmission.
  static func transmitting(
    _ kind: WireKind, _ target: Target, structured: Bool = false, infos: [UInt16] = [],
    contexts: [String] = []
  ) throws -> ProbeClient {
    let client = try negotiating(kind, target)
    if structured { try client.expectAck(Opt.structuredReply) }
    if !contexts.isEmpty { try client.setContexts(contexts) }
    try client.go(infos: infos)
    return client
  }

  // MARK: Bytes

  /// Sends all bytes.
  func send(_ bytes: [UInt8]) throws { try wire.send(bytes, within: Self.patienceSeconds) }

  /// Sends byte by byte.
  func sendSlowly(_ bytes: [UInt8]) throws {
    for byte in bytes { try send([byte]) }
  }

  /// Sends, and does not mind if the server hangs up meanwhile.
  func sendIfTaken(_ bytes: [UInt8]) throws {
    do { try send(bytes) } catch is WireClosed {}
  }

  /// Receives exactly `count` bytes.
  func receive(_ count: Int, within seconds: Double = patienceSeconds) throws -> [UInt8] {
    while inbox.count - position < count {
      if position > 0 {
        inbox.removeFirst(position)
        position = 0
      }
      let missing = count - inbox.count
      switch try wire.receive(upTo: max(missing, 1 << 16), within: seconds) {
      case .bytes(let bytes): inbox += bytes
      case .end: throw FixtureError("the server hung up, \(missing) of \(count) bytes before")
      case .silence: throw FixtureError("no answer in \(seconds) s, \(missing) bytes are missing")
      }
    }
    position += count
    return Array(inbox[(position - count)..<position])
  }

  /// Expects that the server closes the connection now and says nothing before.
  func expectEnd(
    within seconds: Double = patienceSeconds, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let left = inbox.count - position
    #expect(left == 0, "\(left) bytes came before the end", sourceLocation: sourceLocation)
    let received = try wire.receive(upTo: 4096, within: seconds)
    #expect(received == .end, "no hangup", sourceLocation: sourceLocation)
  }

  /// Expects that nothing comes for a while.
  func expectSilence(
    for seconds: Double, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    #expect(inbox.count == position, sourceLocation: sourceLocation)
    let received = try wire.receive(upTo: 4096, within: seconds)
    #expect(received == .silence, sourceLocation: sourceLocation)
  }

  // MARK: Handshake

  /// Takes the greeting.
  func greeting(sourceLocation: SourceLocation = #_sourceLocation) throws {
    let bytes = try receive(18)
    try #require(bytes.big(at: 0, bytes: 8) == Frames.greetingMagic, sourceLocation: sourceLocation)
    try #require(bytes.big(at: 8, bytes: 8) == Frames.optionMagic, sourceLocation: sourceLocation)
    // FIXED_NEWSTYLE and NO_ZEROES, nothing else.
    #expect(bytes.big(at: 16, bytes: 2) == 3, sourceLocation: sourceLocation)
  }

  /// The next reply to an option.
  func optionReply(within seconds: Double = patienceSeconds) throws -> OptionReply {
    let head = try receive(20, within: seconds)
    guard head.big(at: 0, bytes: 8) == Frames.optionReplyMagic else {
      throw FixtureError("no reply to an option: \(head)")
    }
    let count = Int(head.big(at: 16, bytes: 4))
    guard count <= 8192 else { throw FixtureError("a reply of \(count) bytes to an option") }
    return OptionReply(
      option: UInt32(head.big(at: 8, bytes: 4)), type: UInt32(head.big(at: 12, bytes: 4)),
      data: try receive(count))
  }

  /// Sends an option and gives its replies; the last one is the final one.
  func option(_ code: UInt32, _ data: [UInt8] = []) throws -> [OptionReply] {
    try send(Frames.option(code, data))
    return try optionReplies(code)
  }

  /// The replies to an option that was sent.
  func optionReplies(
    _ code: UInt32, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> [OptionReply] {
    var replies: [OptionReply] = []
    repeat {
      replies.append(try optionReply())
      try #require(replies.last?.option == code, sourceLocation: sourceLocation)
    } while replies.last.map { [Rep.server, Rep.info, Rep.meta].contains($0.type) } ?? false
    if let last = replies.last, last.type >= 1 << 31 { expectSentence(last, sourceLocation) }
    return replies
  }

  /// Text of an error: short, UTF-8, no NUL.
  private func expectSentence(_ reply: OptionReply, _ location: SourceLocation) {
    #expect(reply.data.count < 256 && !reply.data.contains(0), sourceLocation: location)
    #expect(String(validating: reply.data, as: UTF8.self) != nil, sourceLocation: location)
  }

  /// Sends an option that gets one reply and gives its type.
  func answer(_ code: UInt32, _ data: [UInt8] = []) throws -> UInt32 {
    let replies = try option(code, data)
    guard replies.count == 1 else { throw FixtureError("not one reply: \(replies)") }
    return replies[0].type
  }

  /// Sends an option that has to be accepted.
  func expectAck(
    _ code: UInt32, _ data: [UInt8] = [], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let type = try option(code, data).last?.type
    try #require(type == Rep.ack, sourceLocation: sourceLocation)
    if code == Opt.structuredReply { isStructured = true }
  }

  /// Extended headers were agreed upon.
  func noteExtended() { (isStructured, isExtended) = (true, true) }

  /// Selects contexts and gives their ids.
  @discardableResult
  func setContexts(_ names: [String], export: String = "") throws -> [UInt32] {
    let replies = try option(
      Opt.setMeta, Frames.metaData(export, names.map { Array($0.utf8) }))
    return replies.dropLast().map { UInt32($0.data.big(at: 0, bytes: 4)) }
  }

  /// Expects that options are understood at this place: nothing is out of step.
  func expectInStep(sourceLocation: SourceLocation = #_sourceLocation) throws {
    let replies = try option(Opt.list)
    #expect(replies.map(\.type) == [Rep.server, Rep.ack], sourceLocation: sourceLocation)
  }

  /// GO, which has to work.
  func go(
    _ name: String = "", infos: [UInt16] = [], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let replies = try option(Opt.go, Frames.goData(Array(name.utf8), infos: infos))
    try #require(replies.last?.type == Rep.ack, sourceLocation: sourceLocation)
    terms = try Self.terms(replies)
  }

  /// What the replies to INFO or GO say.
  static func terms(_ replies: [OptionReply]) throws -> ExportTerms {
    var terms = ExportTerms()
    for reply in replies.dropLast() {
      let type = UInt16(reply.data.big(at: 0, bytes: 2))
      terms.infos.append(type)
      if type == Info.export {
        guard reply.data.count == 12 else { throw FixtureError("export: \(reply.data)") }
        terms.size = reply.data.big(at: 2, bytes: 8)
        terms.flags = UInt16(reply.data.big(at: 10, bytes: 2))
      } else if type == Info.blockSize {
        guard reply.data.count == 14 else { throw FixtureError("block sizes: \(reply.data)") }
        terms.blockSizes = [2, 6, 10].map { UInt32(reply.data.big(at: $0, bytes: 4)) }
      }
    }
    return terms
  }

  // MARK: Transmission

  /// A cookie that was not used before.
  func freshCookie() -> UInt64 {
    nextCookie += 1
    return nextCookie
  }

  /// A request's header as this connection has them.
  func header(
    _ command: UInt16, offset: UInt64 = 0, count: UInt64 = 0, flags: UInt16 = 0,
    cookie: UInt64 = 1
  ) -> [UInt8] {
    if command == Cmd.read { readCounts[cookie] = Int(clamping: count) }
    if isExtended {
      return Frames.extendedRequest(
        command, offset: offset, count: count, flags: flags, cookie: cookie)
    }
    return Frames.request(
      command, offset: offset, count: UInt32(count), flags: flags, cookie: cookie)
  }

  /// A write as this connection has them.
  func writeFrame(
    _ offset: UInt64, _ payload: [UInt8], flags: UInt16 = 0, cookie: UInt64 = 1
  ) -> [UInt8] {
    header(
      Cmd.write, offset: offset, count: UInt64(payload.count),
      flags: isExtended ? flags | Flag.payloadLength : flags, cookie: cookie) + payload
  }

  /// The next reply, all its chunks.
  func reply(within seconds: Double = patienceSeconds) throws -> Reply {
    var reply: Reply?
    while true {
      let magic = UInt32(try receive(4, within: seconds).big(at: 0, bytes: 4))
      if magic == Frames.simpleReplyMagic { return try simpleReply() }
      guard magic == (isExtended ? Frames.extendedChunkMagic : Frames.chunkMagic), isStructured
      else { throw FixtureError("no reply begins with \(String(magic, radix: 16))") }
      if try addChunk(&reply), let reply {
        readCounts[reply.cookie] = nil
        return reply
      }
    }
  }

  private func simpleReply() throws -> Reply {
    guard !isExtended else { throw FixtureError("a simple reply among extended headers") }
    let rest = try receive(12)
    var reply = Reply(
      cookie: rest.big(at: 4, bytes: 8), error: UInt32(rest.big(at: 0, bytes: 4)))
    let count = readCounts[reply.cookie]
    guard count == nil || !isStructured else { throw FixtureError("a simple reply to a read") }
    if reply.error == 0, let count { reply.data = try receive(count) }
    return reply
  }

  /// Takes the rest of a chunk; true if it was the reply's last.
  private func addChunk(_ reply: inout Reply?) throws -> Bool {
    let rest = try receive(isExtended ? 28 : 16)
    let type = UInt16(rest.big(at: 2, bytes: 2))
    let cookie = rest.big(at: 4, bytes: 8)
    let count = isExtended ? rest.big(at: 20, bytes: 8) : rest.big(at: 12, bytes: 4)
    guard count <= 65 << 20 else { throw FixtureError("a chunk of \(count) bytes") }
    let payload = try receive(Int(count))
    var whole = reply ?? Reply(cookie: cookie)
    guard whole.cookie == cookie else { throw FixtureError("chunks of two replies are mixed") }
    whole.chunkTypes.append(type)
    switch type {
    case 0: guard count == 0 else { throw FixtureError("a chunk of nothing has a payload") }
    case 1: whole.data += payload.dropFirst(8)
    case 2: whole.data += [UInt8](repeating: 0, count: Int(payload.big(at: 8, bytes: 4)))
    case 5, 6: whole.status.append(payload)
    case 0x8001, 0x8002:
      whole.error = UInt32(payload.big(at: 0, bytes: 4))
      let text = Int(payload.big(at: 4, bytes: 2))
      let tail = type == 0x8001 ? 6 : 14
      guard whole.error != 0, text + tail == payload.count, text < 256 else {
        throw FixtureError("a malformed error chunk: \(payload)")
      }
    default: throw FixtureError("a chunk of type \(type)")
    }
    reply = whole
    return rest.big(at: 0, bytes: 2) & 1 == 1
  }

  /// Sends a request and gives its reply.
  func request(
    _ command: UInt16, offset: UInt64 = 0, count: UInt64 = 0, flags: UInt16 = 0,
    payload: [UInt8] = []
  ) throws -> Reply {
    let cookie = freshCookie()
    try send(
      header(command, offset: offset, count: count, flags: flags, cookie: cookie) + payload)
    let reply = try reply()
    guard reply.cookie == cookie else { throw FixtureError("the reply is to another request") }
    return reply
  }

  /// The error of a request, 0 for success.
  func error(
    _ command: UInt16, offset: UInt64 = 0, count: UInt64 = 0, flags: UInt16 = 0,
    payload: [UInt8] = []
  ) throws -> UInt32 {
    try request(command, offset: offset, count: count, flags: flags, payload: payload).error
  }

  /// Reads, which has to work.
  func read(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
    let reply = try request(Cmd.read, offset: offset, count: UInt64(count))
    guard reply.error == 0, reply.data.count == count else {
      throw FixtureError("a read failed: error \(reply.error), \(reply.data.count) bytes")
    }
    return reply.data
  }

  /// Writes, which has to work.
  func write(_ offset: UInt64, _ payload: [UInt8]) throws {
    let cookie = freshCookie()
    try send(writeFrame(offset, payload, cookie: cookie))
    let reply = try reply()
    guard reply.error == 0, reply.cookie == cookie else {
      throw FixtureError("a write failed: error \(reply.error)")
    }
  }

  /// Expects that requests are understood at this place and the data is right.
  func expectWorks(at offset: UInt64 = 0, sourceLocation: SourceLocation = #_sourceLocation) throws
  {
    let pattern = (0..<1024).map { _ in UInt8.random(in: 1...255) }
    try write(offset, pattern)
    let isEqual = try read(offset, pattern.count) == pattern
    #expect(isEqual, "what was written is not what is read", sourceLocation: sourceLocation)
  }
}
