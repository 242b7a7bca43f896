// Goal: metadata contexts are listed and selected as the specification says, malformed options are
// refused and leave the stream in step, and block status replies have their exact bytes. Method:
// frames written by hand; the numbers in the names are the bad-input catalogue's.
import Base
import NBDProtocol
import Testing

@Suite("Metadata contexts")
struct MetaContextTests {
  private static let list: UInt32 = 9
  private static let set: UInt32 = 10
  private let ack8 = optionReply(8, 1)

  /// The data of both options.
  private func data(_ queries: [String], export: String = "disk") -> [UInt8] {
    let name = Array(export.utf8)
    return big(UInt64(name.count), 4) + name + big(UInt64(queries.count), 4)
      + queries.flatMap { big(UInt64($0.utf8.count), 4) + Array($0.utf8) }
  }

  private func context(_ option: UInt32, _ id: UInt64, _ name: String) -> [UInt8] {
    optionReply(option, 4, big(id, 4) + Array(name.utf8))
  }

  private func agreed(_ talk: Conversation) -> Transmission? {
    if case .enteredTransmission(let terms, _) = talk.last { terms } else { nil }
  }

  @Test("LIST finds all, a namespace, or one; ids are 0", arguments: [1, .max])
  func lists(piece: Int) {
    let (base, own) = ("base:allocation", "x-nbdmirror:state")
    let cases: [([String], [String])] = [
      ([], [base, own]), (["base:"], [base]), (["x-nbdmirror:"], [own]), ([own], [own]),
      ([base, "base:", base], [base]), (["qemu:", "base", ":", "", "base:alloc", "x-"], []),
      (["nobody:knows", own], [own]),
    ]
    for (queries, found) in cases {
      let talk = Conversation.modernClient(
        sends: option(8), option(Self.list, data(queries)), option(8), piece: piece)
      let expected = found.flatMap { context(Self.list, 0, $0) } + optionReply(Self.list, 1)
      #expect(talk.output == ack8 + expected + ack8)
    }
  }

  @Test("SET selects whole names only; a wildcard selects nothing (30)", arguments: [1, 7, .max])
  func sets(piece: Int) {
    let cases: [([String], MetaContexts)] = [
      ([], []), (["base:"], []), (["base:allocation"], .allocation),
      (["x-nbdmirror:state"], .state),
      (["x-nbdmirror:state", "qemu:x", "base:allocation"], [.allocation, .state]),
    ]
    for (queries, selected) in cases {
      let talk = Conversation.modernClient(
        sends: option(8), option(Self.set, data(queries, export: "")), option(7, infoData("disk")),
        piece: piece)
      var expected: [UInt8] = []
      if selected.contains(.allocation) { expected += context(Self.set, 1, "base:allocation") }
      if selected.contains(.state) { expected += context(Self.set, 2, "x-nbdmirror:state") }
      #expect(talk.output.starts(with: ack8 + expected + optionReply(Self.set, 1)))
      #expect(agreed(talk)?.contexts == selected)
    }
  }

  @Test("25: without structured replies both are INVALID, and nothing is selected")
  func unstructured() {
    for code in [Self.list, Self.set] {
      let talk = Conversation.modernClient(
        sends: option(code, data(["base:allocation"])), option(8), option(7, infoData("disk")))
      #expect(talk.output.starts(with: invalid(code) + ack8))
      #expect(agreed(talk)?.contexts == [])
    }
  }

  @Test("32: any SET replaces the selection, also one that fails")
  func replaces() {
    let good = option(Self.set, data(["base:allocation"]))
    let failing: [([UInt8], [UInt8])] = [
      (option(Self.set, data(["base:allocation"], export: "other")), unknownExport(Self.set)),
      (option(Self.set, [1, 2, 3]), invalid(Self.set)),
      (option(Self.set, data([])), optionReply(Self.set, 1)),
    ]
    for (bad, answer) in failing {
      let talk = Conversation.modernClient(
        sends: option(8), good, bad, option(7, infoData("disk")))
      let before = ack8 + context(Self.set, 1, "base:allocation") + optionReply(Self.set, 1)
      #expect(talk.output.starts(with: before + answer))
      #expect(agreed(talk)?.contexts == [])
    }
    // A LIST in between changes nothing.
    let talk = Conversation.modernClient(
      sends: option(8), good, option(Self.list, data([])), option(7, infoData("disk")))
    #expect(agreed(talk)?.contexts == .allocation)
  }

  @Test(
    "26, 27, 28: lengths and counts that the option does not hold are INVALID, in step",
    arguments: [1, 3, 7, .max])
  func malformed(piece: Int) {
    let name = big(4, 4) + Array("disk".utf8)
    let query = big(4, 4) + Array("base".utf8)
    let wrong: [[UInt8]] = [
      [], big(0, 4), big(0, 4) + [0, 0, 0],
      big(0xffff_ffff, 4) + big(0, 4), big(4097, 4) + [UInt8](repeating: 97, count: 4101),
      big(9, 4) + Array("disk".utf8) + big(0, 4),
      name + big(0xffff_ffff, 4), name + big(1, 4), name + big(2, 4) + query,
      name + big(1, 4) + big(5, 4) + Array("base".utf8),
      name + big(1, 4) + big(0xffff_ffff, 4) + Array("base".utf8),
      name + big(1, 4) + big(4097, 4) + [UInt8](repeating: 97, count: 4097),
      name + big(1, 4) + query + [0], name + big(0, 4) + query,
      big(4, 4) + Array("di\0k".utf8) + big(0, 4),
    ]
    for code in [Self.list, Self.set] {
      for payload in wrong {
        let talk = Conversation.modernClient(
          sends: option(8), option(code, payload), option(8), piece: piece)
        #expect(talk.output == ack8 + invalid(code) + ack8, "\(code) with \(payload.prefix(40))")
      }
      let long = String(repeating: "a", count: 4096)
      let talk = Conversation.modernClient(
        sends: option(8), option(code, data([long, long])), option(8), piece: piece)
      #expect(talk.output == ack8 + optionReply(code, 1) + ack8)
    }
  }

  @Test("an unknown export is UNKNOWN, a server that stops says so")
  func refusals() {
    for code in [Self.list, Self.set] {
      let talk = Conversation.modernClient(
        sends: option(8), option(code, data(["base:allocation"], export: "other")))
      #expect(talk.output == ack8 + unknownExport(code))
      var stopping = Conversation()
      stopping.send(modern + option(8))
      stopping.session.isShuttingDown = true
      stopping.send(option(code, data(["base:allocation"])))
      #expect(
        stopping.output == ack8 + optionError(code, 7, "the server is shutting down"))
    }
  }

  // MARK: Requests and replies

  private func terms(_ contexts: MetaContexts) -> Transmission {
    Transmission(
      sizeBytes: 1 << 20, flags: [.hasFlags, .sendFUA], alignmentBytes: 1, isStructured: true,
      contexts: contexts)
  }

  @Test("61: block status needs a context, bytes, and an end inside; REQ_ONE and FUA are its flags")
  func requests() {
    func step(_ flags: UInt16, _ offset: UInt64, _ count: UInt32) -> TransmissionStep {
      request(7, flags: flags, at: offset, count: count).withRawSpan {
        terms(.allocation).nextRequest($0)
      }.withoutOffset
    }
    func refused(_ refusal: Refusal) -> TransmissionStep {
      .answer(Answer(cookie: 0x1122_3344_5566_7788, refusal: refusal, isRead: false))
    }
    for flags in [0, 1, 8, 9] as [UInt16] {
      #expect(
        step(flags, 512, 99)
          == .request(
            Request(
              kind: .blockStatus, flags: CommandFlags(rawValue: flags),
              cookie: 0x1122_3344_5566_7788, offset: 512, count: 99, contexts: .allocation)))
    }
    for flags in [2, 4, 16, 32, 0x8000] as [UInt16] {
      #expect(step(flags, 0, 512) == refused(.invalidFlags))
    }
    #expect(step(0, 0, 0) == refused(.emptyStatus))
    #expect(step(0, 1 << 20, 1) == refused(.beyondEnd))
    #expect(step(0, .max, .max) == refused(.beyondEnd))
    #expect(Refusal.emptyStatus.error == .invalid)
    let none = request(7, at: 0, count: 512).withRawSpan { terms([]).nextRequest($0) }
    #expect(none == refused(.noMetaContext))
  }

  /// The reply to a request for `count` bytes, of what `fill` appends per context.
  private func reply(
    _ count: UInt64, _ contexts: [MetaContexts], _ extents: [(UInt64, UInt32)],
    flags: CommandFlags = [], isExtended: Bool = false
  ) -> [UInt8] {
    var room = [UInt8](repeating: 0xee, count: BlockStatusReply.bytesMax)
    var reply = BlockStatusReply(
      Request(
        kind: .blockStatus, flags: flags, cookie: 0x0102_0304_0506_0708, offset: 0, count: count),
      isExtended: isExtended)
    room.withMutableRawSpan { bytes in
      for context in contexts {
        reply.begin(context, into: &bytes)
        for (count, flags) in extents { reply.append(count: count, flags: flags, into: &bytes) }
        reply.end(isLast: context == contexts.last, into: &bytes)
      }
    }
    return Array(room[..<reply.byteCount])
  }

  private func chunk(_ id: UInt64, isDone: Bool, _ extents: [(UInt64, UInt64)]) -> [UInt8] {
    hex("668e33ef") + big(isDone ? 1 : 0, 2) + big(5, 2) + hex("0102030405060708")
      + big(UInt64(4 + 8 * extents.count), 4) + big(id, 4)
      + extents.flatMap { big($0.0, 4) + big($0.1, 4) }
  }

  @Test("one chunk per context, neighbours joined, the end cut at the request's, DONE on the last")
  func chunks() {
    let extents: [(UInt64, UInt32)] = [(10, 3), (20, 3), (0, 1), (30, 0), (100, 3), (5, 0)]
    let told: [(UInt64, UInt64)] = [(30, 3), (30, 0), (40, 3)]
    #expect(reply(100, [.allocation], extents) == chunk(1, isDone: true, told))
    #expect(
      reply(100, [.allocation, .state], extents)
        == chunk(1, isDone: false, told) + chunk(2, isDone: true, told))
    #expect(reply(100, [.state], extents, flags: .reqOne) == chunk(2, isDone: true, [(30, 3)]))
    #expect(reply(7, [.state], [(9, 5)], flags: .reqOne) == chunk(2, isDone: true, [(7, 5)]))
    #expect(
      reply(0xffff_ffff, [.state], [(1 << 40, 1)]) == chunk(2, isDone: true, [(0xffff_ffff, 1)]))
  }

  @Test("more extents than a reply takes end it early, in the room for both contexts")
  func many() {
    let extents = (0..<2000).map { (UInt64(512), UInt32($0 & 1)) }
    let told = (0..<BlockStatusReply.extentsMax).map { (UInt64(512), UInt64($0 & 1)) }
    let bytes = reply(2000 * 512, [.allocation, .state], extents)
    #expect(bytes == chunk(1, isDone: false, told) + chunk(2, isDone: true, told))
    #expect(bytes.count <= BlockStatusReply.bytesMax)
  }

  @Test("with extended headers extents have 64 bits, and a chunk says how many there are")
  func extended() {
    func chunk(_ id: UInt64, isDone: Bool, _ extents: [(UInt64, UInt64)]) -> [UInt8] {
      hex("6e8a278c") + big(isDone ? 1 : 0, 2) + big(6, 2)
        + hex("0102030405060708 0000000000000000") + big(UInt64(8 + 16 * extents.count), 8)
        + big(id, 4) + big(UInt64(extents.count), 4)
        + extents.flatMap { big($0.0, 8) + big($0.1, 8) }
    }
    let extents: [(UInt64, UInt32)] = [(1 << 40, 3), (1 << 41, 3), (512, 0)]
    let told: [(UInt64, UInt64)] = [(3 << 40, 3), (512, 0)]
    #expect(
      reply(1 << 50, [.allocation, .state], extents, isExtended: true)
        == chunk(1, isDone: false, told) + chunk(2, isDone: true, told))
    let many = (0..<2000).map { (UInt64(512), UInt32($0 & 1)) }
    #expect(
      reply(1 << 50, [.allocation, .state], many, isExtended: true).count
        <= BlockStatusReply.bytesMax)
  }
}
