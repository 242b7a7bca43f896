// Goal: every wrong option gets the answer that the specification asks for, and where that is an
// error, the connection stays in step. Numbers are those of the catalogue in docs/protocol.md.

import Fixtures
import Foundation
import Testing

/// An option that is answered with one error, after which the connection goes on.
struct BadOption: Sendable, CustomTestStringConvertible {
  let number: Int
  let what: String
  let code: UInt32
  let data: [UInt8]
  /// Any of these.
  let answers: [UInt32]
  /// Whether structured replies are asked for before.
  let structured: Bool

  init(
    _ number: Int, _ what: String, _ code: UInt32, _ data: [UInt8], _ answers: UInt32...,
    structured: Bool = false
  ) {
    (self.number, self.what, self.code, self.data) = (number, what, code, data)
    (self.answers, self.structured) = (answers, structured)
  }

  var testDescription: String { "\(number). \(what)" }

  private static let lab = Array("lab".utf8)
  private static let allocation = Array("base:allocation".utf8)

  static let plain: [BadOption] = [
    BadOption(4, "an unknown option of 4 bytes", 99, [1, 2, 3, 4], Rep.unsupported),
    BadOption(
      5, "an unknown option of 100,000 bytes", 99, tiled(5, 100_000), Rep.unsupported),
    BadOption(6, "an unknown option of 1 MiB", 99, tiled(6, 1 << 20), Rep.unsupported),
    BadOption(7, "LIST with data", Opt.list, [0], Rep.invalid),
    BadOption(7, "STARTTLS with data", Opt.startTLS, [0, 1, 2], Rep.invalid),
    BadOption(7, "STRUCTURED_REPLY with data", Opt.structuredReply, [0], Rep.invalid),
    BadOption(7, "EXTENDED_HEADERS with data", Opt.extendedHeaders, [0], Rep.invalid),
    BadOption(13, "GO to an unknown export", Opt.go, Frames.goData([1, 2, 3]), Rep.unknown),
    BadOption(13, "INFO about an unknown export", Opt.info, Frames.goData([120]), Rep.unknown),
    BadOption(
      14, "GO with a name of 4096 bytes", Opt.go,
      Frames.goData([UInt8](repeating: 98, count: 4096)), Rep.unknown),
    BadOption(
      15, "GO with a name of 4097 bytes", Opt.go,
      Frames.goData([UInt8](repeating: 97, count: 4097)), Rep.invalid),
    BadOption(
      16, "GO with a name of 2^32-1 bytes", Opt.go, Frames.goData(lab, nameLength: .max),
      Rep.invalid),
    BadOption(
      17, "GO with a name one byte longer than the option", Opt.go,
      Frames.goData(lab, nameLength: 4), Rep.invalid),
    BadOption(
      17, "INFO with a name two bytes longer than the option", Opt.info,
      Frames.goData(lab, nameLength: 5), Rep.invalid),
    BadOption(
      17, "GO with a name that takes all of the option", Opt.go,
      Frames.goData(lab, nameLength: 6), Rep.invalid),
    BadOption(18, "GO of 3 bytes", Opt.go, [0, 0, 0], Rep.invalid),
    BadOption(18, "GO of no bytes", Opt.go, [], Rep.invalid),
    BadOption(18, "GO of 5 bytes", Opt.go, [0, 0, 0, 0, 0], Rep.invalid),
    BadOption(19, "GO with a byte too many", Opt.go, Frames.goData(lab) + [0], Rep.invalid),
    BadOption(
      19, "GO with an info too many", Opt.go, Frames.goData(lab, infos: [0, 3], infoCount: 1),
      Rep.invalid),
    BadOption(
      20, "GO that promises 65535 infos", Opt.go, Frames.goData(lab, infoCount: 65535),
      Rep.invalid),
    BadOption(
      20, "GO that promises one info more", Opt.go, Frames.goData(lab, infos: [3], infoCount: 2),
      Rep.invalid),
    BadOption(
      22, "GO with a NUL in the name", Opt.go, Frames.goData(lab + [0]), Rep.invalid, Rep.unknown),
    BadOption(
      22, "GO with a name that begins with a NUL", Opt.go, Frames.goData([0]), Rep.invalid,
      Rep.unknown),
    BadOption(
      23, "GO with a name that is no UTF-8", Opt.go, Frames.goData([0xff, 0xc0, 0x80]), Rep.invalid,
      Rep.unknown),
    BadOption(
      25, "SET_META_CONTEXT without structured replies", Opt.setMeta,
      Frames.metaData("", [allocation]), Rep.invalid),
    BadOption(35, "option 0", 0, [], Rep.unsupported),
    BadOption(35, "option 4", 4, [], Rep.unsupported),
    BadOption(35, "option 2^32-1", .max, [7], Rep.unsupported),
  ]

  static let meta: [BadOption] = [
    BadOption(
      26, "2^32-1 queries", Opt.setMeta, Frames.metaData("", [allocation], queryCount: .max),
      Rep.invalid, structured: true),
    BadOption(
      26, "2^32-1 queries to LIST", Opt.listMeta, Frames.metaData("", [], queryCount: .max),
      Rep.invalid, structured: true),
    BadOption(
      26, "one query more than there is", Opt.setMeta,
      Frames.metaData("", [allocation], queryCount: 2), Rep.invalid, structured: true),
    BadOption(
      27, "a query of 2^32-1 bytes", Opt.setMeta,
      Frames.metaData("", [], queryCount: 1) + [UInt8](big: UInt32.max), Rep.invalid,
      structured: true),
    BadOption(
      27, "a query one byte longer than the option", Opt.listMeta,
      Frames.metaData("", [], queryCount: 1) + [0, 0, 0, 5] + Array("base".utf8), Rep.invalid,
      structured: true),
    BadOption(
      27, "an export name longer than the option", Opt.setMeta, [0, 0, 0, 9, 97, 0, 0, 0, 0],
      Rep.invalid, structured: true),
    BadOption(
      27, "SET_META_CONTEXT of 7 bytes", Opt.setMeta, [0, 0, 0, 0, 0, 0, 0], Rep.invalid,
      structured: true),
    BadOption(
      28, "a byte after the last query", Opt.setMeta, Frames.metaData("", [allocation]) + [0],
      Rep.invalid, structured: true),
    BadOption(
      28, "a byte after no queries", Opt.listMeta, Frames.metaData("", []) + [0], Rep.invalid,
      structured: true),
    BadOption(
      13, "contexts of an unknown export", Opt.setMeta, Frames.metaData("no", [allocation]),
      Rep.unknown, structured: true),
    BadOption(
      24, "STRUCTURED_REPLY again", Opt.structuredReply, [], Rep.invalid, Rep.ack,
      structured: true),
  ]
}

extension Prober {
  @Suite("Options", .serialized, .server, .timeLimit(.minutes(10)))
  struct Options {
    @Test(
      "a wrong option gets its error, and the next option is understood",
      arguments: WireKind.allCases, BadOption.plain + BadOption.meta)
    func answered(kind: WireKind, bad: BadOption) throws {
      try probe(kind, memoryGrowthMebibytes: 4) { target in
        let client = try ProbeClient.negotiating(kind, target)
        if bad.structured { try client.expectAck(Opt.structuredReply) }
        let answer = try client.answer(bad.code, bad.data)
        #expect(bad.answers.contains(answer), "\(String(answer, radix: 16))")
        try client.expectInStep()
        try client.go()
        try client.expectWorks()
      }
    }

    @Test(
      "1. client flags that were not offered: hangup", arguments: WireKind.plain,
      [4, 7, 1 << 31, .max] as [UInt32])
    func unknownFlags(kind: WireKind, flags: UInt32) throws {
      try probe(kind) { target in
        let client = try ProbeClient(kind, target)
        try client.greeting()
        try client.send([UInt8](big: flags))
        try client.sendIfTaken(Frames.option(Opt.list))
        try client.expectEnd()
      }
    }

    @Test(
      "2. no fixed newstyle, then LIST: INVALID or hangup", arguments: WireKind.plain)
    func oldStyle(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target, flags: 0)
        try client.send(Frames.option(Opt.list))
        switch try client.wire.receive(upTo: 20, within: ProbeClient.patienceSeconds) {
        case .end: break
        case .silence: Issue.record("neither an answer nor a hangup")
        case .bytes(let bytes):
          #expect(bytes.count == 20 && bytes.big(at: 12, bytes: 4) == UInt64(Rep.invalid))
        }
      }
    }

    @Test(
      "3. an option with a wrong magic: hangup", arguments: WireKind.allCases,
      [0, Frames.greetingMagic, Frames.optionMagic ^ 1])
    func badMagic(kind: WireKind, magic: UInt64) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        try client.send(Frames.option(Opt.list, magic: magic))
        try client.expectEnd()
      }
    }

    @Test(
      "6. an option that announces 4 GiB, or one byte over 1 MiB: hangup, and no memory for it",
      arguments: WireKind.allCases, [.max, (1 << 20) + 1] as [UInt32])
    func hugeOption(kind: WireKind, length: UInt32) throws {
      try probe(kind, memoryGrowthMebibytes: 4) { target in
        for code in [99, Opt.go, Opt.setMeta, Opt.exportName, Opt.abort] {
          let client = try ProbeClient.negotiating(kind, target)
          try client.send(Frames.option(code, length: length))
          try client.sendIfTaken([UInt8](repeating: 1, count: 4096))
          try client.expectEnd()
        }
      }
    }

    @Test("9. ABORT with data: ACK, then the end", arguments: WireKind.allCases)
    func abort(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        #expect(try client.answer(Opt.abort, [1, 2, 3]) == Rep.ack)
        try client.expectEnd()
      }
    }

    @Test(
      "10. ABORT, or nothing, and gone at once, a hundred times", arguments: WireKind.plain)
    func abortAndGone(kind: WireKind) throws {
      try probe(kind) { target in
        let before = try target.descriptorCount()
        for round in 0..<100 {
          let client = try ProbeClient(kind, target)
          if round % 4 > 0 { try client.send([UInt8](big: UInt32(3))) }
          if round % 4 > 1 { try client.send(Frames.option(Opt.abort)) }
          if round % 2 > 0 { client.wire.reset() } else { client.wire.close() }
        }
        try waitUntil("the server closes them", within: 10) {
          try target.descriptorCount() <= before
        }
      }
    }

    @Test(
      "11. EXPORT_NAME of an unknown export, or of 5000 bytes: hangup",
      arguments: WireKind.allCases, [1, 4096, 4097, 5000])
    func unknownExportName(kind: WireKind, count: Int) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        try client.sendIfTaken(
          Frames.option(Opt.exportName, [UInt8](repeating: 97, count: count)))
        try client.expectEnd()
      }
    }

    @Test(
      "12. EXPORT_NAME gets 134 bytes, and 10 from who declined the zeroes",
      arguments: WireKind.plain, [0, 1, 2, 3] as [UInt32])
    func exportName(kind: WireKind, flags: UInt32) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target, flags: flags)
        try client.send(Frames.option(Opt.exportName, Array("lab".utf8)))
        let head = try client.receive(10)
        #expect(head.big(at: 0, bytes: 8) == Target.exportBytes)
        #expect(head[9] & 1 == 1)
        if flags & 2 == 0 {
          #expect(try client.receive(124) == [UInt8](repeating: 0, count: 124))
        }
        // Not a byte more: the next one is a reply.
        try client.expectWorks()
      }
    }

    @Test(
      "21. infos asked for twice, unknown ones and none: each known type once, EXPORT always",
      arguments: WireKind.allCases)
    func duplicateInfos(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        let many = [UInt16](repeating: Info.blockSize, count: 500) + [0, 0, 1, 1, 2, 2, 77, 65535]
        let data = Frames.goData([], infos: many)
        let told = try ProbeClient.terms(try client.option(Opt.info, data))
        #expect(Set(told.infos).count == told.infos.count)
        #expect(Set(told.infos).isSuperset(of: [Info.export, Info.name, Info.blockSize]))
        #expect(Set(told.infos).isSubset(of: [0, 1, 2, 3]))
        let sizes = told.blockSizes
        try #require(sizes.count == 3)
        #expect(sizes.allSatisfy { $0.nonzeroBitCount == 1 } && sizes == sizes.sorted())
        #expect(sizes[0] <= 65536 && sizes[1] >= 512 && sizes[2] >= 1 << 20)
        let plain = try ProbeClient.terms(try client.option(Opt.info, Frames.goData([])))
        #expect(plain.infos == [Info.export])
        // GO says what INFO said.
        try client.go(infos: many)
        #expect(client.terms.size == told.size && client.terms.flags == told.flags)
        #expect(client.terms.infos == told.infos && client.terms.blockSizes == sizes)
        try client.expectWorks()
      }
    }

    @Test(
      "36. options sent all at once are answered in their order", arguments: WireKind.allCases)
    func pipelined(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        let go = Frames.option(Opt.go, Frames.goData([], infos: [3]))
        let read = client.header(Cmd.read, count: 4096, cookie: 77)
        try client.send(
          Frames.option(99, [1]) + Frames.option(Opt.list) + Frames.option(Opt.go, [9])
            + Frames.option(Opt.info, Frames.goData([])) + go + read)
        #expect(try client.optionReplies(99).map(\.type) == [Rep.unsupported])
        #expect(try client.optionReplies(Opt.list).map(\.type) == [Rep.server, Rep.ack])
        #expect(try client.optionReplies(Opt.go).map(\.type) == [Rep.invalid])
        #expect(try client.optionReplies(Opt.info).map(\.type) == [Rep.info, Rep.ack])
        #expect(try client.optionReplies(Opt.go).map(\.type) == [Rep.info, Rep.info, Rep.ack])
        let reply = try client.reply()
        #expect(reply.cookie == 77 && reply.error == 0 && reply.data.count == 4096)
      }
    }

    @Test("37. the 65th option: hangup", arguments: WireKind.allCases)
    func tooManyOptions(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        // What was answered already counts, over TLS also STARTTLS.
        var count = 0
        var isOpen = true
        while isOpen, count < 100 {
          try client.sendIfTaken(Frames.option(99))
          switch try client.wire.receive(upTo: 4096, within: ProbeClient.patienceSeconds) {
          case .bytes: count += 1
          case .end: isOpen = false
          case .silence: throw FixtureError("no answer after \(count) options")
          }
        }
        #expect(!isOpen && count >= 32 && count <= 64, "\(count) options were answered")
      }
    }

    @Test("43. a handshake byte by byte works", arguments: WireKind.allCases)
    func bytewise(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        try client.sendSlowly(Frames.option(99, [1, 2, 3]))
        #expect(try client.optionReplies(99).map(\.type) == [Rep.unsupported])
        try client.sendSlowly(Frames.option(Opt.structuredReply))
        #expect(try client.optionReplies(Opt.structuredReply).map(\.type) == [Rep.ack])
        try client.sendSlowly(
          Frames.option(Opt.setMeta, Frames.metaData("lab", [Array("base:allocation".utf8)])))
        #expect(try client.optionReplies(Opt.setMeta).map(\.type) == [Rep.meta, Rep.ack])
        try client.sendSlowly(Frames.option(Opt.go, Frames.goData(Array("lab".utf8), infos: [3])))
        #expect(try client.optionReplies(Opt.go).map(\.type) == [Rep.info, Rep.info, Rep.ack])
      }
    }
  }
}

/// Waits for a condition; blocks the thread.
func waitUntil(_ what: String, within seconds: Double, _ condition: () throws -> Bool) throws {
  let deadline = ContinuousClock.now + .seconds(seconds)
  while try !condition() {
    guard ContinuousClock.now < deadline else { throw FixtureError("not in \(seconds) s: \(what)") }
    usleep(2000)
  }
}
