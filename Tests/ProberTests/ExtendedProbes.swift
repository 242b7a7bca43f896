// Goal: with extended headers, what has no place among them is refused or ends the connection, and
// payloads of any command are thrown away in step. Numbers are those of the catalogue in
// docs/protocol.md.

import Fixtures
import Foundation
import Testing

extension Prober {
  @Suite("Extended headers", .serialized, .server, .timeLimit(.minutes(10)))
  struct ExtendedHeaders {
    /// A client after EXTENDED_HEADERS.
    private func negotiate(_ kind: WireKind, _ target: Target) throws -> ProbeClient {
      let client = try ProbeClient.negotiating(kind, target)
      try client.send(Frames.option(Opt.extendedHeaders))
      let replies = try client.optionReplies(Opt.extendedHeaders)
      try #require(replies.map(\.type) == [Rep.ack])
      client.noteExtended()
      return client
    }

    /// A client in transmission with extended headers.
    private func transmit(
      _ kind: WireKind, _ target: Target, contexts: [String] = []
    ) throws -> (client: ProbeClient, ids: [UInt32]) {
      let client = try negotiate(kind, target)
      let ids = contexts.isEmpty ? [] : try client.setContexts(contexts)
      try client.go()
      return (client, ids)
    }

    @Test(
      "33. STRUCTURED_REPLY after EXTENDED_HEADERS: EXT_HEADER_REQD", arguments: WireKind.allCases)
    func structuredAfter(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try negotiate(kind, target)
        #expect(try client.answer(Opt.structuredReply) == Rep.extendedRequired)
        try client.expectInStep()
        try client.go()
        try client.expectWorks()
      }
    }

    @Test(
      "33. STRUCTURED_REPLY before EXTENDED_HEADERS is no mistake", arguments: WireKind.allCases)
    func structuredBefore(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        try client.expectAck(Opt.structuredReply)
        let answer = try client.answer(Opt.extendedHeaders)
        #expect(answer == Rep.ack)
        client.noteExtended()
        try client.go()
        try client.expectWorks()
      }
    }

    @Test("34. EXPORT_NAME after EXTENDED_HEADERS: hangup", arguments: WireKind.allCases)
    func exportName(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try negotiate(kind, target)
        try client.send(Frames.option(Opt.exportName, Array("lab".utf8)))
        try client.expectEnd()
      }
    }

    @Test("65. READ and others with a payload: thrown away, INVALID", arguments: WireKind.allCases)
    func unexpectedPayload(kind: WireKind) throws {
      try probe(kind, memoryGrowthMebibytes: 8) { target in
        let (client, _) = try transmit(kind, target)
        for command in [Cmd.read, Cmd.trim, Cmd.zeroes, Cmd.cache, Cmd.flush] {
          for count in [512, 300_000, 8 << 20] as [UInt64] {
            let reply = try client.request(
              command, count: count, flags: Flag.payloadLength, payload: tiled(1, Int(count)))
            #expect(reply.error == Err.invalid, "command \(command)")
          }
        }
        try client.expectWorks()
      }
    }

    @Test(
      "66. WRITE without PAYLOAD_LEN: its length is the payload's, or hangup",
      arguments: WireKind.allCases)
    func writeWithoutLength(kind: WireKind) throws {
      try probe(kind) { target in
        let (client, _) = try transmit(kind, target)
        let bytes = tiled(2, 5000)
        try client.sendIfTaken(client.header(Cmd.write, count: 5000, cookie: 3) + bytes)
        let reply: Reply
        do { reply = try client.reply() } catch {
          return try client.expectEnd()
        }
        #expect(reply.cookie == 3 && [0, Err.invalid].contains(reply.error))
        if reply.error == 0 { #expect(try client.read(0, 5000) == bytes) }
        try client.expectWorks()
      }
    }

    @Test(
      "67. a payload of 2^40 bytes: hangup, memory flat", arguments: WireKind.allCases,
      [Cmd.write, Cmd.read, Cmd.blockStatus])
    func hugePayload(kind: WireKind, command: UInt16) throws {
      try probe(kind, memoryGrowthMebibytes: 4) { target in
        let (client, _) = try transmit(kind, target, contexts: ["base:allocation"])
        try client.send(client.header(command, count: 1 << 40, flags: Flag.payloadLength))
        try client.sendIfTaken(tiled(3, 1 << 20))
        try client.expectEnd()
      }
    }

    @Test(
      "67. lengths of 2^40 without payload: an error, or all there is", arguments: WireKind.allCases
    )
    func hugeLength(kind: WireKind) throws {
      try probe(kind, memoryGrowthMebibytes: 4) { target in
        let (client, _) = try transmit(kind, target)
        for command in [Cmd.read, Cmd.trim, Cmd.zeroes, Cmd.cache, Cmd.blockStatus] {
          for count in [1 << 40, .max, 1 << 32] as [UInt64] {
            let error = try client.error(command, offset: 512, count: count)
            #expect([Err.invalid, Err.noSpace, Err.overflow].contains(error), "\(command)")
          }
        }
        #expect(try client.error(Cmd.zeroes, count: Target.exportBytes) == 0)
        try client.expectWorks()
      }
    }

    @Test(
      "68. a filter with unknown, repeated or half ids: INVALID; a right one is followed",
      arguments: WireKind.allCases)
    func filter(kind: WireKind) throws {
      try probe(kind) { target in
        let names = ["base:allocation", "x-nbdmirror:state"]
        let (client, ids) = try transmit(kind, target, contexts: names)
        // BLOCK_STATUS_PAYLOAD
        #expect(client.terms.flags & 1 << 12 != 0)
        try #require(ids.count == 2)
        let effect = [UInt8](big: UInt64(65536))
        let wrong: [[UInt8]] = [
          effect + [UInt8](big: ids[0]) + [UInt8](big: ids[0]),
          effect + [UInt8](big: UInt32.max), effect + [0, 0], Array(effect.prefix(7)), effect,
        ]
        for payload in wrong {
          let error = try client.error(
            Cmd.blockStatus, count: UInt64(payload.count), flags: Flag.payloadLength,
            payload: payload)
          // Of no ids at all, nothing is to be said, or it is a mistake.
          #expect(error == Err.invalid || (payload == effect && error == 0), "\(payload)")
          try client.expectWorks()
        }
        let right = effect + [UInt8](big: ids[1])
        let reply = try client.request(
          Cmd.blockStatus, count: UInt64(right.count), flags: Flag.payloadLength, payload: right)
        #expect(reply.error == 0)
        #expect(reply.status.map { UInt32($0.big(at: 0, bytes: 4)) } == [ids[1]])
      }
    }

    @Test("69. a compact header among extended ones: hangup", arguments: WireKind.allCases)
    func compact(kind: WireKind) throws {
      try probe(kind) { target in
        let (client, _) = try transmit(kind, target)
        try client.expectWorks()
        try client.send(Frames.request(Cmd.read, count: 512) + [0, 0, 0, 0])
        try client.expectEnd()
      }
    }

    @Test(
      "replies have extended headers, block status extended chunks", arguments: WireKind.allCases)
    func replies(kind: WireKind) throws {
      try probe(kind) { target in
        let (client, ids) = try transmit(kind, target, contexts: ["base:allocation"])
        let bytes = tiled(4, 100_000)
        try client.write(7, bytes)
        #expect(try client.read(7, 100_000) == bytes)
        let bad = try client.request(Cmd.read, offset: Target.exportBytes, count: 1)
        #expect(bad.error == Err.invalid && bad.chunkTypes == [0x8001])
        let reply = try client.request(Cmd.blockStatus, count: Target.exportBytes)
        #expect(reply.error == 0 && reply.chunkTypes.filter { $0 != 0 } == [6])
        let payload = try #require(reply.status.first)
        #expect(UInt32(payload.big(at: 0, bytes: 4)) == ids.first)
        #expect(Int(payload.big(at: 4, bytes: 4)) * 16 + 8 == payload.count)
      }
    }
  }
}
