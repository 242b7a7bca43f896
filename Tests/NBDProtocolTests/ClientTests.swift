// Goal: the client side speaks with the server side, and survives servers that lie. Method: both
// sessions wired to each other in pieces of every size; hand-made wrong replies.
import Base
import NBDProtocol
import Testing

@Suite("Client")
struct ClientTests {
  /// Lets both sides talk in pieces of `piece` bytes until one is done.
  private func talk(
    _ wishes: ClientWishes, _ export: ExportInfo, piece: Int
  ) -> (client: ClientSession.Step, server: HandshakeStep) {
    var client = ClientSession(wishes)
    var server = Conversation(export)
    server.session.greet(output: &server.output)
    var clientStep = ClientSession.Step.needMore
    var sent = 0
    while sent < server.output.count {
      let end = min(sent + piece, server.output.count)
      let part = Array(server.output[sent..<end])
      sent = end
      var upstream: [UInt8] = []
      clientStep = part.withRawSpan { client.receive($0, output: &upstream) }
      server.send(upstream, piece: piece)
      if clientStep != .needMore { break }
    }
    return (clientStep, server.last)
  }

  @Test("every way of asking ends in the same agreement on both sides", arguments: [1, 5, 1000])
  func agreement(piece: Int) {
    for bits in 0..<16 {
      let wishes = ClientWishes(
        exportName: bits & 8 == 0 ? "disk" : "", structuredReplies: bits & 1 != 0,
        blockSizes: bits & 2 != 0, usesExportName: bits & 4 != 0, takesZeroes: bits & 2 != 0)
      let ends = talk(wishes, disk, piece: piece)
      guard case .ready(let export, _) = ends.client,
        case .enteredTransmission(let terms, _) = ends.server
      else {
        Issue.record("no agreement: \(ends)")
        continue
      }
      #expect(export.sizeBytes == terms.sizeBytes && export.sizeBytes == disk.sizeBytes)
      #expect(export.flags == terms.flags)
      #expect(export.isStructured == terms.isStructured)
      #expect(export.isStructured == wishes.structuredReplies)
      #expect(export.minimumBlockBytes == terms.alignmentBytes)
      #expect(terms.alignmentBytes == (wishes.blockSizes && !wishes.usesExportName ? 512 : 1))
    }
  }

  @Test("an export that is not there is refused with UNKNOWN")
  func refused() {
    let ends = talk(ClientWishes(exportName: "other"), disk, piece: 9)
    #expect(ends.client == .refused(0x8000_0006))
  }

  @Test("the export's name and description are told to who asks, and are texts")
  func texts() {
    let described = ExportInfo(name: "disk", description: "mirror ä", sizeBytes: 1 << 20)
    for asks in [false, true] {
      let ends = talk(ClientWishes(texts: asks), described, piece: 7)
      guard case .ready(let export, _) = ends.client else {
        Issue.record("no agreement: \(ends)")
        continue
      }
      #expect(export.name == (asks ? "disk" : nil))
      #expect(export.description == (asks ? "mirror ä" : nil))
    }
    for text in ["00", "ff", String(repeating: "61", count: 4097)] {
      var client = ClientSession(ClientWishes(structuredReplies: false, texts: true))
      var output: [UInt8] = []
      let greeting = Array("NBDMAGICIHAVEOPT".utf8) + [0, 3]
      let reply = optionReply(7, 3, hex("0002" + text))
      let step = (greeting + reply).withRawSpan { client.receive($0, output: &output) }
      #expect(step == .malformed)
    }
  }

  @Test("requests are encoded as drawn")
  func requests() {
    let header = RequestHeader(
      flags: [.fua], type: 6, cookie: 0x0102_0304_0506_0708, offset: 1 << 40, count: 3)
    #expect(
      ClientFrames.request(header)
        == hex("25609513 0001 0006 0102030405060708 0000010000000000 00000003"))
    #expect(ClientFrames.option(99, [7]) == option(99, [7]))
    #expect(ClientFrames.infoPayload(name: [97], infos: [3, 1]) == infoData("a", [3, 1]))
  }

  @Test("a server that lies is malformed, and nothing waits for what it claims")
  func lies() {
    var client = ClientSession()
    var output: [UInt8] = []
    let old = hex("4e42444d41474943 00420281861253 0000").withRawSpan {
      client.receive($0, output: &output)
    }
    #expect(old == .needMore)
    let wrong = [0].withRawSpan { client.receive($0, output: &output) }
    #expect(wrong == .malformed)
    let long = (optionReply(7, 3).dropLast(4) + hex("00010001")).withRawSpan {
      OptionReply.decode($0)
    }
    #expect(long == .malformed)
    let notReply = [UInt8](repeating: 0, count: 20).withRawSpan { ReplyHeader.decode($0) }
    #expect(notReply == .malformed)
  }

  @Test("chunks with wrong lengths are not understood")
  func wrongChunks() {
    let wrong: [(UInt16, String)] = [
      (0, "00"), (1, "0000000000000000"), (1, ""), (2, "0000000000000000 00000000"),
      (2, "0000000000000000"), (0x8001, "00000005"), (0x8001, "00000000 0000"),
      (0x8001, "00000005 0001"), (0x8001, "00000005 0000 00"), (0x8002, "00000005 0000"),
      (5, "00000000"), (77, ""),
    ]
    for (type, payload) in wrong {
      let content = hex(payload).withRawSpan { ChunkContent.decode(type: type, payload: $0) }
      #expect(content == nil, "\(type) \(payload)")
    }
    let offset = hex("00000005 0002 6869 0000000000000200").withRawSpan {
      ChunkContent.decode(type: 0x8002, payload: $0)
    }
    #expect(offset == .error(5, text: "hi", offset: 512))
    let hole = hex("0000000000000200 00000010").withRawSpan {
      ChunkContent.decode(type: 2, payload: $0)
    }
    #expect(hole == .hole(offset: 512, bytes: 16))
  }
}
