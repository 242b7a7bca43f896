// Goal: metadata contexts hold for what they were selected for, and for nothing else; block status
// says what is so, in extents that the specification allows.

import Fixtures
import Foundation
import Testing

extension Prober {
  @Suite("Contexts", .serialized, .server, .timeLimit(.minutes(10)))
  struct Contexts {
    private func negotiate(_ kind: WireKind, _ target: Target) throws -> ProbeClient {
      let client = try ProbeClient.negotiating(kind, target)
      try client.expectAck(Opt.structuredReply)
      return client
    }

    private func statusError(_ client: ProbeClient) throws -> UInt32 {
      try client.error(Cmd.blockStatus, count: 65536)
    }

    @Test(
      "29. queries that nobody knows, or without a colon, are ignored or INVALID",
      arguments: WireKind.allCases, ["allocation", ":", "", "base:depth", "x-none:a", "base"])
    func unknownQuery(kind: WireKind, query: String) throws {
      try probe(kind) { target in
        let client = try negotiate(kind, target)
        let replies = try client.option(Opt.setMeta, Frames.metaData("", [Array(query.utf8)]))
        try #require(replies.count == 1)
        #expect([Rep.ack, Rep.invalid].contains(replies[0].type))
        try client.expectInStep()
        try client.go()
        #expect(try statusError(client) == Err.invalid)
        try client.expectWorks()
      }
    }

    @Test("30. SET `base:` is ACKed and selects nothing", arguments: WireKind.allCases)
    func wildcard(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try negotiate(kind, target)
        let listed = try client.option(Opt.listMeta, Frames.metaData("", [Array("base:".utf8)]))
        #expect(listed.map(\.type) == [Rep.meta, Rep.ack])
        #expect(try client.setContexts(["base:"]).isEmpty)
        try client.go()
        #expect(try statusError(client) == Err.invalid)
      }
    }

    @Test(
      "31. contexts of one name hold for a GO to it, and not for a GO to an unknown one",
      arguments: WireKind.allCases)
    func otherExport(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try negotiate(kind, target)
        #expect(try client.setContexts(["base:allocation"], export: "lab").count == 1)
        #expect(try client.answer(Opt.go, Frames.goData([120])) == Rep.unknown)
        try client.go("lab")
        #expect(try statusError(client) == 0)
        try client.expectWorks()
      }
    }

    @Test(
      "32. a SET that fails takes away what was selected before", arguments: WireKind.allCases,
      [0, 1, 2])
    func failedSet(kind: WireKind, way: Int) throws {
      try probe(kind) { target in
        let client = try negotiate(kind, target)
        #expect(try client.setContexts(["base:allocation"]).count == 1)
        let wrong = [
          Frames.metaData("unknown", [Array("base:allocation".utf8)]),
          Frames.metaData("", [Array("base:allocation".utf8)]) + [0],
          [0, 0, 0],
        ]
        #expect(try client.answer(Opt.setMeta, wrong[way]) > 1 << 31)
        try client.go()
        #expect(try statusError(client) == Err.invalid)
        try client.expectWorks()
      }
    }

    @Test(
      "61. block status without a context, of nothing, and past the end: INVALID",
      arguments: WireKind.allCases)
    func statusOfNothing(kind: WireKind) throws {
      try probe(kind) { target in
        let plain = try ProbeClient.transmitting(kind, target)
        #expect(try statusError(plain) == Err.invalid)
        try plain.expectWorks()
        let client = try ProbeClient.transmitting(
          kind, target, structured: true, contexts: ["base:allocation"])
        #expect(try client.error(Cmd.blockStatus) == Err.invalid)
        let end = Target.exportBytes
        for (offset, count) in [(end, 1), (end - 1, 2), (0, 1 << 31), (1 << 63, 512)]
          as [(UInt64, UInt64)]
        {
          #expect(try client.error(Cmd.blockStatus, offset: offset, count: count) == Err.invalid)
        }
        try client.expectWorks()
      }
    }

    @Test(
      "block status has one chunk for each context, and its extents begin at the offset",
      arguments: WireKind.allCases, [0, Flag.reqOne])
    func extents(kind: WireKind, flags: UInt16) throws {
      try probe(kind) { target in
        let client = try negotiate(kind, target)
        let ids = try client.setContexts(["base:allocation", "x-nbdmirror:state"])
        #expect(Set(ids).count == 2)
        try client.go()
        try client.write(1 << 20, tiled(3, 3 << 20))
        let ranges: [(UInt64, UInt64)] = [
          (0, Target.exportBytes), (1_000_003, 5_000_001), (5, 1),
        ]
        for (offset, count) in ranges {
          let reply = try client.request(
            Cmd.blockStatus, offset: offset, count: count, flags: flags)
          #expect(reply.error == 0)
          #expect(
            reply.status.map { UInt32($0.big(at: 0, bytes: 4)) }.sorted() == ids.sorted())
          for payload in reply.status { expectExtents(payload, count, flags) }
        }
      }
    }

    /// Extents are not empty; all but the last end inside the request, with REQ_ONE also the last.
    private func expectExtents(_ payload: [UInt8], _ count: UInt64, _ flags: UInt16) {
      #expect(payload.count >= 12 && payload.count % 8 == 4)
      let lengths = stride(from: 4, to: payload.count, by: 8).map { payload.big(at: $0, bytes: 4) }
      #expect(lengths.allSatisfy { $0 > 0 })
      #expect(lengths.dropLast().reduce(0, +) < count)
      if flags == Flag.reqOne { #expect(lengths.count == 1 && lengths[0] <= count) }
    }
  }
}
