// Goal: a wire that lies, breaks off or talks nonsense ends in an error value, at once and in bounded
// memory, and nothing of what it forged is delivered. Method: every cut and every flipped byte of a
// handshake and of records, and hand-made nonsense.
import Fixtures
import Base
import TLS
import Testing

/// A record header and its contents, by hand. Source: RFC 8446, 5.1.
private func record(_ type: UInt8, _ bytes: [UInt8]) -> [UInt8] {
  [type, 3, 3, UInt8(bytes.count >> 8), UInt8(bytes.count & 255)] + bytes
}

/// A server that was sent `bytes`, and nothing more.
private func server(sent bytes: [UInt8]) throws -> (state: TLSState, answer: [UInt8], left: Int) {
  var server = try End(Credentials.server(psk: Keys.current["users.psk"]))
  server.inbox = bytes
  var left = -1
  while left != server.inbox.count {
    left = server.inbox.count
    server.receive()
  }
  return (server.session.state, server.outbox, left)
}

/// A client's hello.
private func hello(_ priority: String) throws -> [UInt8] {
  var client = try End(
    Credentials.client(psk: Keys.current["users.psk"], user: "alice", priority: priority))
  client.receive()
  return client.outbox
}

extension TLSTests {
  @Suite("Bad wire")
  struct BadWire {
    @Test(
      "what is no TLS is refused as such, in one answer",
      arguments: [
        Array("GET / HTTP/1.1\r\n\r\n".utf8), Array("IHAVEOPT".utf8) + [0, 0, 0, 7, 0, 0, 0, 0],
        [0, 0, 0, 3, 73, 72, 65, 86], [UInt8](repeating: 0, count: 100),
        [UInt8](repeating: 255, count: 100), Array("SSH-2.0-OpenSSH_9.2\r\n".utf8),
        [22, 4, 0, 0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
      ])
    func notTLS(bytes: [UInt8]) throws {
      let (state, answer, _) = try server(sent: bytes)
      #expect(state == .failed(.notTLS))
      // One alert at most: type 21.
      #expect(answer.count <= 7)
      #expect(answer.first == nil || answer.first == 21)
    }

    @Test("noise fails a session within 128 KiB", arguments: 1...100)
    func noise(seed: Int) throws {
      var bytes = randomBytes(200_000, seed: UInt64(seed))
      // Half of them look like a record of the handshake.
      if seed % 2 == 0 { bytes.replaceSubrange(0..<3, with: [22, 3, 1]) }
      let (state, _, left) = try server(sent: bytes)
      guard case .failed = state else {
        Issue.record("noise leads to \(state)")
        return
      }
      #expect(bytes.count - left <= 131_072)
    }

    @Test("a hello that claims 16 MB is refused after 128 KiB")
    func longMessage() throws {
      var bytes = record(22, [1, 255, 255, 255] + [UInt8](repeating: 3, count: 16_000))
      for _ in 0..<100 { bytes += record(22, [UInt8](repeating: 3, count: 16_000)) }
      let (state, _, left) = try server(sent: bytes)
      #expect(state == .failed(.tooMuch))
      #expect(bytes.count - left <= 131_072)
      let (early, _, _) = try server(sent: Array(bytes.prefix(131_072)))
      #expect(early == .handshaking)
    }

    @Test("a flood of warnings and of empty records comes to an end")
    func flood() throws {
      let warning = record(21, [1, 90])
      let empty = record(22, [])
      for piece in [warning, empty] {
        let bytes = [UInt8]((0..<20_000).flatMap { _ in piece })
        let (state, answer, left) = try server(sent: bytes)
        #expect(state != .open)
        #expect(answer.count <= 7)
        if case .handshaking = state { #expect(left == 0) }
      }
    }

    @Test(
      "every flipped byte of a hello keeps the session from opening", arguments: [psk12, psk13])
    func flippedHello(priority: String) throws {
      let count = try hello(priority).count
      try #require(count > 100)
      // Not the version in the record's header, which nobody looks at (RFC 8446, 5.1).
      for position in [0, 3, 4] + Array(5..<count) {
        let keys = Keys.current
        var client = try End(
          Credentials.client(psk: keys["users.psk"], user: "alice", priority: priority))
        var server = try End(Credentials.server(psk: keys["users.psk"]))
        var isFirst = true
        exchange(&client, &server) { fromClient, bytes in
          guard fromClient && isFirst && position < bytes.count else { return bytes }
          isFirst = false
          var bytes = bytes
          bytes[position] ^= 0x10
          return bytes
        }
        let states = [client.session.state, server.session.state]
        #expect(!states.contains(.open) || states[1] != .open, "byte \(position)")
      }
    }

    @Test(
      "every flipped byte of a record is found, and nothing of it is delivered",
      arguments: [psk12, psk13])
    func flippedRecord(priority: String) throws {
      let count = try withOpenEnds(priority: priority) { client, _ in
        client.toSend = [1, 2, 3, 4, 5]
        client.send()
        return client.outbox.count
      }
      for position in 5..<count {
        try withOpenEnds(priority: priority) { client, server in
          client.toSend = [1, 2, 3, 4, 5]
          client.send()
          client.outbox[position] ^= 1
          exchange(&client, &server)
          let (states, received) = (
            [client.session.state, server.session.state], server.received
          )
          #expect(states == [.failed(.alert(20)), .failed(.corrupted)], "byte \(position)")
          #expect(received == [])
        }
      }
    }

    @Test("a record that is left out, repeated or exchanged is found", arguments: [psk12, psk13])
    func order(priority: String) throws {
      for order in [[1], [0, 0], [1, 0]] {
        try withOpenEnds(priority: priority) { client, server in
          var records: [[UInt8]] = []
          for byte in 0..<2 {
            client.toSend.append(UInt8(byte))
            client.send()
            records.append(client.outbox)
            client.outbox = []
          }
          for index in order { server.inbox += records[index] }
          exchange(&client, &server)
          let (state, received) = (server.session.state, server.received)
          #expect(state == .failed(.corrupted), "\(order)")
          #expect(received == (order[0] == 0 ? [0] : []))
        }
      }
    }

    @Test("an alert waits for room, and then is said")
    func alertRoom() throws {
      var server = try End(Credentials.server(psk: Keys.current["users.psk"]))
      server.inbox = Array("GET / HTTP/1.1\r\n\r\n".utf8)
      server.pieces.outputMax = 511
      let first = server.receive()
      #expect(first.needsOutputRoom)
      var (owes, said) = (server.session.owesAlert, server.outbox.count)
      #expect(owes)
      #expect(said == 0)
      let second = server.receive()
      #expect(second.wireMade == 7)
      #expect(!second.needsOutputRoom)
      (owes, said) = (server.session.owesAlert, server.outbox.count)
      #expect(!owes)
      #expect(said == 7)
    }
  }

  @Suite("End of the wire")
  struct EndOfWire {
    @Test("a handshake cut at any byte is truncated", arguments: [psk12, psk13])
    func handshake(priority: String) throws {
      let bytes = try hello(priority)
      for count in 0...bytes.count {
        var server = try End(Credentials.server(psk: Keys.current["users.psk"]))
        server.inbox = Array(bytes.prefix(count))
        server.receive()
        server.session.wireEnded()
        let state = server.session.state
        #expect(state == .failed(.truncated), "after \(count) bytes")
      }
    }

    @Test(
      "a stream cut at any byte gives the whole records before, then truncated",
      arguments: [psk12, psk13])
    func stream(priority: String) throws {
      let count = try withOpenEnds(priority: priority) { client, _ in
        client.toSend = [1, 2, 3]
        client.send()
        return client.outbox.count
      }
      for cut in 0...(2 * count) {
        try withOpenEnds(priority: priority) { client, server in
          for _ in 0..<2 {
            client.toSend += [1, 2, 3]
            client.send()
          }
          server.inbox = Array(client.outbox.prefix(cut))
          server.receive()
          server.session.wireEnded()
          let (state, received) = (server.session.state, server.received.count)
          #expect(state == .failed(.truncated), "after \(cut) bytes")
          #expect(received == 3 * (cut / count))
        }
      }
    }

    @Test("plaintext before the cut comes first")
    func pending() throws {
      try withOpenEnds { client, server in
        client.toSend = randomBytes(100, seed: 1)
        client.send()
        server.inbox = client.outbox
        server.pieces.plaintextMax = 60
        server.receive()
        server.session.wireEnded()
        var state = server.session.state
        #expect(state == .open)
        server.receive()
        state = server.session.state
        #expect(state == .failed(.truncated))
        let isSame = server.received == client.toSend
        #expect(isSame)
      }
    }

    @Test("behind a close_notify of either side the end is in order")
    func inOrder() throws {
      try withOpenEnds { client, server in
        client.close()
        client.session.wireEnded()
        var state = client.session.state
        #expect(state == .closed)
        server.inbox = client.outbox
        server.receive()
        server.session.wireEnded()
        state = server.session.state
        #expect(state == .closing(by: .peer))
        server.close()
        state = server.session.state
        #expect(state == .closed)
      }
    }
  }
}
