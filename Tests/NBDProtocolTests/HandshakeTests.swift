// Goal: every case of the bad-input catalogue that concerns the handshake gets its exact response,
// and the good ones their exact bytes. Method: frames written by hand from the specification; the
// numbers in the names are the catalogue's.
import Base
import NBDProtocol
import Testing

@Suite("Handshake")
struct HandshakeTests {
  let ack8 = optionReply(8, 1)

  @Test("the greeting is NBDMAGIC, IHAVEOPT, fixed newstyle and no zeroes")
  func greeting() {
    var output: [UInt8] = []
    ServerSession(export: disk).greet(output: &output)
    #expect(output == hex("4e42444d41474943 49484156454f5054 0003"))
  }

  @Test("1: client flags that were not offered drop the client", arguments: [2, 3, 15, 31])
  func unknownClientFlags(bit: Int) {
    var talk = Conversation()
    talk.send(big(3 | 1 << UInt64(bit), 4))
    #expect(talk.last == (bit < 2 ? .needMore : .close(.unknownClientFlags)))
    #expect(talk.output.isEmpty)
  }

  @Test("2: without fixed newstyle only EXPORT_NAME and ABORT work")
  func notFixed() {
    var talk = Conversation()
    talk.send(hex("00000000") + option(3) + option(99) + option(8, [1]) + option(2))
    #expect(talk.output == invalid(3) + invalid(99) + invalid(8) + optionReply(2, 1))
    #expect(talk.last == .close(.aborted))
    var old = Conversation()
    old.send(hex("00000000") + option(1, Array("disk".utf8)))
    #expect(old.output.count == 134)
  }

  @Test("3: a wrong option magic drops the client")
  func badOptionMagic() {
    let talk = Conversation.modernClient(
      sends: option(3), hex("49484156454f5055 00000003 00000000"))
    #expect(talk.last == .close(.badOptionMagic))
    #expect(
      talk.output == optionReply(3, 2, hex("00000004") + "diska mirror".utf8) + optionReply(3, 1))
  }

  @Test(
    "4, 5, 35: an unknown option is drained and answered UNSUP, and the next one works",
    arguments: [(0, 0), (0, 3), (4, 0), (99, 4), (99, 100_000), (0xffff_ffff, 1 << 20)])
  func unknownOption(code: UInt32, bytes: Int) {
    let talk = Conversation.modernClient(
      sends: option(code, [UInt8](repeating: 0x49, count: bytes)), option(8))
    #expect(talk.output == unsupported(code) + ack8)
    #expect(talk.last == .needMore)
  }

  @Test("6: an option of more than 1 MiB drops the client at its header, known or not")
  func hugeOption() {
    for code in [1, 2, 3, 6, 7, 8, 99] as [UInt32] {
      for length in [(1 << 20) + 1, .max] as [UInt32] {
        let talk = Conversation.modernClient(sends: option(code, claiming: length))
        #expect(talk.last == .close(.optionTooLong))
        #expect(talk.output.isEmpty)
      }
    }
  }

  @Test(
    "7: data where none belongs is INVALID, and the next option works", arguments: [3, 5, 8, 11])
  func dataWhereNoneBelongs(code: UInt32) {
    let talk = Conversation.modernClient(
      sends: option(code, [0]), option(code, [UInt8](repeating: 7, count: 5000)), option(8))
    #expect(talk.output == invalid(code) + invalid(code) + ack8)
  }

  @Test("8: STARTTLS is refused by policy, and the next option works")
  func startTLS() {
    let talk = Conversation.modernClient(sends: option(5), option(8))
    #expect(talk.output == optionError(5, 2, "this server does not offer that") + ack8)
  }

  private func encrypted(_ policy: TLSPolicy) -> Conversation {
    var talk = Conversation()
    talk.session = ServerSession(export: disk, tls: policy)
    talk.send(modern)
    return talk
  }

  @Test("38, 39: STARTTLS ends the plain text where it ends, and forgets what was said in it")
  func startTLSForgets() {
    var talk = encrypted(.optional)
    let select = option(10, hex("00000000 00000001 0000000f") + "base:allocation".utf8)
    let plain = option(8) + select + option(5)
    talk.send(plain + option(8))
    #expect(talk.last == .startTLS(consumed: plain.count))
    #expect(talk.output.suffix(20) == optionReply(5, 1)[...])
    talk.output = []
    talk.send(option(5) + option(7, hex("00000000 0000")))
    #expect(talk.output == invalid(5) + optionReply(7, 3, diskInfo) + optionReply(7, 1))
    guard case .enteredTransmission(let terms, _) = talk.last else {
      Issue.record("no transmission")
      return
    }
    #expect(!terms.isStructured && terms.contexts.isEmpty)
  }

  @Test("41: where TLS is required all else is TLS_REQD before it, and nothing is told")
  func tlsRequired() {
    for code in [3, 6, 7, 8, 9, 10, 11, 77] as [UInt32] {
      var talk = encrypted(.required)
      talk.send(option(code, [1, 2, 3]) + option(2))
      #expect(talk.output == optionError(code, 5, "TLS is required") + optionReply(2, 1))
    }
    var refused = encrypted(.required)
    refused.send(option(1, Array("disk".utf8)))
    #expect(refused.last == .close(.tlsRequired) && refused.output.isEmpty)
    var talk = encrypted(.required)
    talk.send(option(5, [0]) + option(5))
    #expect(talk.output == invalid(5) + optionReply(5, 1))
    talk.output = []
    talk.send(option(1, Array("disk".utf8)))
    #expect(talk.output.count == 10)
  }

  @Test("33, 34: extended headers imply structured replies, and leave no place for EXPORT_NAME")
  func extendedHeaders() {
    let talk = Conversation.modernClient(
      sends: option(11, [1]), option(8), option(11), option(11), option(8),
      option(7, hex("00000000 0000")))
    #expect(
      talk.output == invalid(11) + ack8 + optionReply(11, 1) + optionReply(11, 1)
        + optionError(8, 10, "extended headers are in use")
        + optionReply(7, 3, hex("0000 0000000000100000 0ded")) + optionReply(7, 1))
    guard case .enteredTransmission(let terms, _) = talk.last else {
      Issue.record("no transmission")
      return
    }
    #expect(terms.isExtended && terms.isStructured && terms.headerBytes == 32)
    let old = Conversation.modernClient(sends: option(11), option(1, Array("disk".utf8)))
    #expect(old.last == .close(.extendedHeaders) && old.output == optionReply(11, 1))
  }

  @Test("with contexts and extended headers a block status may name those it asks for")
  func statusPayloadFlag() {
    let select = option(10, hex("00000000 00000001 0000000f") + "base:allocation".utf8)
    let go = option(7, hex("00000000 0000"))
    for (options, flags) in [
      ([option(8), select, go], 0x0ded), ([option(11), go], 0x0ded),
      ([option(11), select, go], 0x1ded), ([select, option(11), go], 0x0ded),
    ] as [([[UInt8]], UInt16)] {
      var talk = Conversation()
      talk.send(modern + options.flatMap { $0 })
      guard case .enteredTransmission(let terms, _) = talk.last else {
        Issue.record("no transmission")
        return
      }
      #expect(terms.flags.rawValue == flags)
    }
  }

  @Test("9, 10: ABORT is acknowledged with or without data, then the connection closes")
  func abort() {
    for data in [[], [UInt8](repeating: 1, count: 300)] {
      let talk = Conversation.modernClient(sends: option(2, data), option(3))
      #expect(talk.output == optionReply(2, 1))
      #expect(talk.last == .close(.aborted))
    }
  }

  @Test("11: EXPORT_NAME of something else closes, also with 4096, 4097 and 5000 bytes")
  func unknownExportName() {
    for name in ["disc", "disk\0", "DISK"] {
      let talk = Conversation.modernClient(sends: option(1, Array(name.utf8)))
      #expect(talk.last == .close(.unknownExport))
      #expect(talk.output.isEmpty)
    }
    for count in [4096, 4097, 5000] {
      let talk = Conversation.modernClient(sends: option(1, [UInt8](repeating: 97, count: count)))
      #expect(talk.last == .close(.unknownExport))
    }
    let early = Conversation.modernClient(sends: option(1, claiming: 4097))
    #expect(early.last == .close(.unknownExport))
    let waiting = Conversation.modernClient(sends: option(1, claiming: 4096))
    #expect(waiting.last == .needMore)
  }

  @Test("12: EXPORT_NAME gets 10 bytes, or 134 without NO_ZEROES; name and \"\" select the export")
  func exportName() {
    let answer = hex("0000000000100000 0d6d")
    let agreed = Transmission(
      sizeBytes: 1 << 20, flags: TransmissionFlags(rawValue: 0x0d6d), alignmentBytes: 1,
      isStructured: false)
    for name in ["", "disk"] {
      let frame = option(1, Array(name.utf8))
      let short = Conversation.modernClient(sends: frame + [1, 2, 3])
      #expect(short.output == answer)
      #expect(short.last == .enteredTransmission(agreed, consumed: 4 + frame.count))
      var long = Conversation()
      long.send(hex("00000001") + frame)
      #expect(long.output == answer + [UInt8](repeating: 0, count: 124))
      #expect(long.last == .enteredTransmission(agreed, consumed: 4 + frame.count))
    }
  }

  @Test("13, 14: an unknown export is UNKNOWN, also with the longest legal name")
  func unknownExportInfo() {
    for code in [6, 7] as [UInt32] {
      let long = String(repeating: "n", count: 4096)
      let talk = Conversation.modernClient(
        sends: option(code, infoData("other")), option(code, infoData(long, [0, 1, 2, 3])),
        option(8))
      #expect(talk.output == unknownExport(code) + unknownExport(code) + ack8)
      #expect(talk.last == .needMore)
    }
  }

  @Test("15-20, 22: every wrong length and a NUL in the name is INVALID, and the next option works")
  func wrongLengths() {
    let name = infoData("disk")
    let wrong: [[UInt8]] = [
      infoData(String(repeating: "n", count: 4097)),
      hex("ffffffff") + Array("disk".utf8) + hex("0000"),
      hex("00000005") + Array("disk".utf8) + hex("0000"),
      [], [0], hex("000000"), hex("0000000000"),
      name + [0], name + [0, 0], infoData("disk", [3]) + [0, 3],
      hex("00000004") + Array("disk".utf8) + hex("ffff"),
      hex("00000004") + Array("disk".utf8) + hex("0001 00"),
      infoData("disk\0"), infoData("\0"),
    ]
    for code in [6, 7] as [UInt32] {
      for data in wrong {
        let talk = Conversation.modernClient(sends: option(code, data), option(8))
        #expect(talk.output == invalid(code) + ack8, "\(data.prefix(20))")
        #expect(talk.last == .needMore)
      }
    }
  }

  @Test("21: unknown and repeated infos are ignored; each known type comes once")
  func repeatedInfos() {
    let infos: [UInt16] = [3, 99, 1, 3, 2, 0, 0xffff, 1, 2, 3, 8, 16]
    let talk = Conversation.modernClient(sends: option(6, infoData("", infos)))
    let expected =
      optionReply(6, 3, diskInfo) + optionReply(6, 3, hex("0001") + "disk".utf8)
      + optionReply(6, 3, hex("0002") + "a mirror".utf8)
      + optionReply(6, 3, hex("0003 00000200 00001000 02000000")) + optionReply(6, 1)
    #expect(talk.output == expected)
    #expect(talk.last == .needMore)
    let every = Conversation.modernClient(
      sends: option(6, infoData("disk", (0..<65535).map { UInt16($0) })))
    #expect(every.output == expected)
  }

  @Test("23: a name that is not UTF-8 is UNKNOWN")
  func notUTF8() {
    let talk = Conversation.modernClient(sends: option(7, hex("00000002 c328 0000")), option(8))
    #expect(talk.output == unknownExport(7) + ack8)
  }

  @Test("24: STRUCTURED_REPLY twice is acknowledged twice")
  func structuredTwice() {
    let talk = Conversation.modernClient(sends: option(8), option(8))
    #expect(talk.output == ack8 + ack8)
  }

  @Test("36: pipelined options are answered in order, and the bytes after GO are not touched")
  func pipelined() {
    let frames =
      option(99, [1]) + option(3) + option(8) + option(6, infoData("disk"))
      + option(7, infoData("disk", [3]))
    var talk = Conversation()
    talk.send(modern + frames + request(0, at: 0, count: 512))
    let info = optionReply(6, 3, hex("0000 0000000000100000 0ded")) + optionReply(6, 1)
    let go =
      optionReply(7, 3, hex("0000 0000000000100000 0ded"))
      + optionReply(7, 3, hex("0003 00000200 00001000 02000000")) + optionReply(7, 1)
    let list = optionReply(3, 2, hex("00000004") + "diska mirror".utf8) + optionReply(3, 1)
    #expect(talk.output == unsupported(99) + list + ack8 + info + go)
    let agreed = Transmission(
      sizeBytes: 1 << 20, flags: TransmissionFlags(rawValue: 0x0ded), alignmentBytes: 512,
      isStructured: true)
    #expect(talk.last == .enteredTransmission(agreed, consumed: 4 + frames.count))
  }

  @Test("37: 64 options are served, the 65th drops the client at its header")
  func optionCount() {
    let many = (0..<64).flatMap { _ in option(99) }
    var talk = Conversation.modernClient(sends: many)
    #expect(talk.last == .needMore)
    #expect(talk.output == (0..<64).flatMap { _ in unsupported(99) })
    talk.output = []
    talk.send(option(7, infoData("")))
    #expect(talk.last == .close(.tooManyOptions))
    #expect(talk.output.isEmpty)
    let last = Conversation.modernClient(
      sends: (0..<63).flatMap { _ in option(99) }, option(7, infoData("")))
    #expect(last.last != .close(.tooManyOptions))
  }

  @Test(
    "43: byte by byte, or in any pieces, the handshake is the same", arguments: [1, 2, 3, 7, 4095])
  func pieces(piece: Int) {
    let frames =
      option(99, [UInt8](repeating: 9, count: 77)) + option(3, [1]) + option(3) + option(8)
      + option(7, infoData("other")) + option(7, hex("00000004")) + option(6, infoData("", [1, 2]))
      + option(7, infoData("disk", [3, 1, 2])) + request(3, at: 0, count: 0)
    let whole = Conversation.modernClient(sends: frames)
    let parts = Conversation.modernClient(sends: frames, piece: piece)
    #expect(whole.output == parts.output)
    #expect(whole.last == parts.last)
    guard case .enteredTransmission(_, let consumed) = whole.last else {
      Issue.record("no transmission")
      return
    }
    #expect(consumed == 4 + frames.count - 28)
  }

  @Test("only a GO that asks for block sizes binds the client to them")
  func alignmentPromise() {
    func alignment(_ options: [UInt8]...) -> UInt32? {
      let talk = Conversation.modernClient(sends: options.flatMap { $0 })
      guard case .enteredTransmission(let terms, _) = talk.last else { return nil }
      return terms.alignmentBytes
    }
    #expect(alignment(option(7, infoData("", [3]))) == 512)
    #expect(alignment(option(7, infoData("", [1]))) == 1)
    #expect(alignment(option(6, infoData("", [3])), option(7, infoData(""))) == 1)
    #expect(alignment(option(7, infoData("no", [3])), option(7, infoData(""))) == 1)
    #expect(alignment(option(1)) == 1)
  }

  @Test("a description that is empty is not sent; INFO then GO give the same")
  func withoutDescription() {
    let plain = ExportInfo(name: "p", sizeBytes: 4096)
    let talk = Conversation.modernClient(
      plain, sends: option(6, infoData("p", [2])), option(7, infoData("p", [2])))
    let payload = hex("0000 0000000000001000 0d6d")
    #expect(
      talk.output == optionReply(6, 3, payload) + optionReply(6, 1) + optionReply(7, 3, payload)
        + optionReply(7, 1))
  }

  @Test("a server that stops answers SHUTDOWN; ABORT is still acknowledged, EXPORT_NAME closes")
  func shutdown() {
    let text = "the server is shutting down"
    var talk = Conversation()
    talk.send(modern + option(7, infoData("disk")).dropLast(3))
    talk.session.isShuttingDown = true
    talk.send(Array(option(7, infoData("disk")).suffix(3)))
    talk.send(option(3) + option(99, [1]) + option(7, infoData("disk")))
    #expect(
      talk.output == optionError(7, 7, text) + optionError(3, 7, text) + optionError(99, 7, text)
        + optionError(7, 7, text))
    var other = talk
    talk.send(option(2))
    #expect(talk.last == .close(.aborted))
    other.send(option(1, Array("disk".utf8)))
    #expect(other.last == .close(.shuttingDown))
  }
}
