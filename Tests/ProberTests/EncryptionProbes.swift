// Goal: what was said in plaintext is forgotten, what is said in plaintext where TLS is wanted gets
// nothing, and whoever fails at TLS is hung up on. Numbers are those of the catalogue in
// docs/protocol.md.

import Fixtures
import Foundation
import TLS
import Testing

extension Prober {
  @Suite("Encryption", .serialized, .server, .timeLimit(.minutes(10)))
  struct Encryption {
    /// Asks for TLS; what comes next is TLS.
    private func startTLS(_ client: ProbeClient) throws {
      #expect(try client.answer(Opt.startTLS) == Rep.ack)
    }

    @Test(
      "38. structured replies and contexts from before STARTTLS are forgotten",
      arguments: WireKind.plain)
    func forgotten(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        try client.expectAck(Opt.structuredReply)
        #expect(try client.setContexts(["base:allocation"]).count == 1)
        try startTLS(client)
        try client.encrypt(target)
        client.forgetNegotiation()
        #expect(
          try client.answer(Opt.setMeta, Frames.metaData("", [Array("base:allocation".utf8)]))
            == Rep.invalid)
        try client.go()
        #expect(client.terms.flags & 1 << 7 == 0, "DF is offered without structured replies")
        #expect(try client.error(Cmd.blockStatus, count: 4096) == Err.invalid)
        try client.expectWorks()
      }
    }

    @Test(
      "39. plaintext behind STARTTLS, in the same packet or a byte of it: hangup, nothing answered",
      arguments: WireKind.plain, [Frames.option(Opt.list), [0x49], Frames.option(Opt.abort)])
    func injected(kind: WireKind, behind: [UInt8]) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        try client.send(Frames.option(Opt.startTLS) + behind)
        // The ACK of STARTTLS may come; nothing after it but the end.
        var bytes: [UInt8] = []
        var isOpen = true
        while isOpen {
          switch try client.wire.receive(upTo: 4096, within: ProbeClient.patienceSeconds) {
          case .bytes(let more): bytes += more
          case .end: isOpen = false
          case .silence: throw FixtureError("neither a hangup nor an answer")
          }
        }
        #expect(bytes.count <= 20)
      }
    }

    @Test("7. STARTTLS inside TLS: INVALID, goes on", arguments: WireKind.encrypted)
    func twice(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.negotiating(kind, target)
        #expect(try client.answer(Opt.startTLS) == Rep.invalid)
        try client.expectInStep()
        try client.go()
        try client.expectWorks()
      }
    }

    @Test(
      "40. noise, half a record, a record of a wrong kind instead of TLS: hangup",
      arguments: WireKind.plain, 0..<6)
    func noTLS(kind: WireKind, way: Int) throws {
      try probe(kind, memoryGrowthMebibytes: 8) { target in
        let client = try ProbeClient.negotiating(kind, target)
        try startTLS(client)
        let said: [[UInt8]] = [
          pattern(40, 5000), Frames.option(Opt.go, Frames.goData([])), [22, 3, 1, 0xff, 0xff],
          [23, 3, 3, 0, 5, 1, 2, 3, 4, 5], [21, 3, 3, 0, 2, 2, 40], [22, 3, 1, 0, 4, 1, 0, 0, 0],
        ]
        try client.sendIfTaken(said[way])
        client.wire.halfClose()
        // An alert may come before the end.
        while true {
          let received = try client.wire.receive(upTo: 4096, within: ProbeClient.patienceSeconds)
          guard case .bytes(let bytes) = received else {
            #expect(received == .end)
            break
          }
          #expect(bytes[0] == 21, "no alert: \(bytes)")
        }
      }
    }

    @Test(
      "40. TLS 1.0 and 1.1, another's key, an unknown user: hangup", arguments: WireKind.plain,
      ["alice in other.psk", "mallory in other.psk", "1.0", "1.1"])
    func refusedKeys(kind: WireKind, who: String) throws {
      try probe(kind) { target in
        let words = who.split(separator: " ").map(String.init)
        let file = words.count == 3 ? words[2] : "users.psk"
        let priority =
          words.count == 3
          ? nil : "NORMAL:-VERS-ALL:+VERS-TLS\(who):-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK"
        let credentials = try Credentials.client(
          psk: Keys.current[file], user: words.count == 3 ? words[0] : "alice",
          priority: priority)
        let client = try ProbeClient.negotiating(kind, target)
        try startTLS(client)
        let socket = try #require(client.wire as? SocketWire)
        #expect(throws: FixtureError.self) {
          // In TLS 1.3 a client learns of it with the first bytes.
          let wire = try TLSWire(socket, credentials, within: ProbeClient.patienceSeconds)
          try wire.send(Frames.option(Opt.list), within: ProbeClient.patienceSeconds)
          let received = try wire.receive(upTo: 100, within: ProbeClient.patienceSeconds)
          if case .bytes = received { return }
          throw FixtureError("refused: \(received)")
        }
        #expect(try socket.receive(upTo: 4096, within: ProbeClient.patienceSeconds) == .end)
      }
    }
  }

  @Suite("Required encryption", .timeLimit(.minutes(10)))
  struct RequiredEncryption {
    @Test(
      "41. where TLS is required, options in plaintext get TLS_REQD and nothing about exports",
      arguments: WireKind.plain)
    func required(kind: WireKind) async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve(
          ["--listen", "127.0.0.1:0", "--tls", "require", "--tls-psk", Keys.current["users.psk"]])
        let target = try Target(mirror)
        let client = try ProbeClient.negotiating(kind, target)
        let options: [(UInt32, [UInt8])] = [
          (Opt.list, []), (Opt.go, Frames.goData([])), (Opt.info, Frames.goData(Array("lab".utf8))),
          (Opt.go, Frames.goData([120])), (Opt.structuredReply, []),
          (Opt.listMeta, Frames.metaData("", [])), (Opt.setMeta, Frames.metaData("no", [])),
          (Opt.extendedHeaders, []), (99, [1, 2]),
        ]
        for (code, data) in options {
          let replies = try client.option(code, data)
          #expect(replies.map(\.type) == [Rep.tlsRequired], "option \(code)")
          let text = String(decoding: replies[0].data, as: UTF8.self)
          #expect(!text.contains("lab"))
        }
        #expect(try client.answer(Opt.abort) == Rep.ack)
        try client.expectEnd()
        let old = try ProbeClient.negotiating(kind, target)
        try old.send(Frames.option(Opt.exportName, Array("lab".utf8)))
        try old.expectEnd()
        try target.expectAlive(kind == .unix ? .unixTLS : .tcpTLS, at: 8 << 20)
        try await mirror.stop()
      }
    }

    @Test(
      "40. a certificate that is missing, another authority's, expired, revoked or a server's: hangup",
      arguments: WireKind.plain,
      ["anonymous", "stranger", "imposter", "expired", "misused", "revoked"])
    func wrongCertificate(kind: WireKind, who: String) async throws {
      try await withMirror(size: "16M") { mirror in
        let keys = Keys.current
        try await mirror.serve(
          [
            "--listen", "127.0.0.1:0", "--tls", "on", "--tls-verify-peer", "--tls-certificates",
            keys[who == "revoked" ? "revoked" : "mutual"],
          ])
        let target = try Target(mirror)
        for isRight in [false, true] where !isRight || who != "revoked" {
          let client = try ProbeClient.negotiating(kind, target)
          #expect(try client.answer(Opt.startTLS) == Rep.ack)
          let socket = try #require(client.wire as? SocketWire)
          let credentials = try Credentials.client(
            x509: keys[isRight ? "mutual" : who], host: nil)
          var isServed = false
          do {
            let wire = try TLSWire(socket, credentials, within: ProbeClient.patienceSeconds)
            try wire.send(Frames.option(Opt.list), within: ProbeClient.patienceSeconds)
            let received = try wire.receive(upTo: 100, within: ProbeClient.patienceSeconds)
            if case .bytes = received { isServed = true }
          } catch {
            #expect(!isRight, "\(error)")
          }
          #expect(isServed == isRight)
        }
        try target.expectAlive(kind, at: 8 << 20)
        try await mirror.stop()
      }
    }
  }
}
