// Goal: what goes in on one side comes out on the other, whatever the pieces; no call needs more
// room than it is lent; a session ends only in the ways of the diagram. Method: both ends in memory.
import Fixtures
import Base
import TLS
import Testing

/// Two ends after a handshake with a pre-shared key.
func withOpenEnds<Result>(
  priority: String = psk13, _ body: (inout End, inout End) throws -> Result
) throws -> Result {
  let keys = Keys.current
  var client = try End(
    Credentials.client(psk: keys["users.psk"], user: "alice", priority: priority))
  var server = try End(Credentials.server(psk: keys["users.psk"]))
  exchange(&client, &server)
  let state = server.session.state
  try #require(state == .open)
  return try body(&client, &server)
}

extension TLSTests {
  @Suite("Transfer")
  struct Transfer {
    @Test(
      "10 MB both ways at once in random pieces arrive unchanged", arguments: [psk12, psk13])
    func random(priority: String) throws {
      try withOpenEnds(priority: priority) { client, server in
        client.pieces = .random(seed: 1, max: 100_000)
        server.pieces = .random(seed: 2, max: 50_000)
        client.toSend = randomBytes(10_000_000, seed: 3)
        server.toSend = randomBytes(10_000_000, seed: 4)
        exchange(&client, &server)
        let (up, down) = (server.received == client.toSend, client.received == server.toSend)
        #expect(up)
        #expect(down)
        let states = [client.session.state, server.session.state]
        #expect(states == [.open, .open])
      }
    }

    @Test("small pieces, and one byte at a time, arrive unchanged", arguments: [psk12, psk13])
    func small(priority: String) throws {
      for pieces in [Pieces.random(seed: 5, max: 700), .single] {
        try withOpenEnds(priority: priority) { client, server in
          (client.pieces, server.pieces) = (pieces, pieces)
          client.toSend = randomBytes(40_000, seed: 6)
          server.toSend = randomBytes(30_000, seed: 7)
          exchange(&client, &server)
          let (up, down) = (server.received == client.toSend, client.received == server.toSend)
          #expect(up)
          #expect(down)
        }
      }
    }

    @Test("records end at 16 KiB and at the output's end, to the byte")
    func records() throws {
      try withOpenEnds { client, _ in
        let text = randomBytes(40_000, seed: 8)
        for (room, taken) in [
          (0, 0), (512, 0), (513, 1), (1024, 512), (16_384 + 511, 16_383), (16_384 + 512, 16_384),
        ] {
          client.outbox = []
          let progress = End.send(&client.session, text, room: room, into: &client.outbox)
          #expect(progress.plaintextTaken == taken)
          #expect(progress.needsOutputRoom)
          #expect(progress.wireMade <= room)
          #expect((progress.wireMade > 0) == (taken > 0))
        }
        let all = End.send(&client.session, text, room: 50_000, into: &client.outbox)
        #expect(all.plaintextTaken == 40_000)
        #expect(!all.needsOutputRoom)
      }
    }

    @Test("a record that is longer than the room for it comes in parts, without the wire")
    func parts() throws {
      try withOpenEnds { client, server in
        client.toSend = randomBytes(10_000, seed: 9)
        client.send()
        server.inbox = client.outbox
        server.pieces.plaintextMax = 999
        let first = server.receive()
        #expect(first.plaintextMade == 999)
        #expect(first.wireTaken == client.outbox.count)
        var hasMore = server.session.hasPlaintext
        #expect(hasMore)
        var calls = 1
        while hasMore {
          let progress = server.receive()
          #expect(progress.wireTaken == 0)
          hasMore = server.session.hasPlaintext
          calls += 1
        }
        #expect(calls == 11)
        let isSame = server.received == client.toSend
        #expect(isSame)
      }
    }

    @Test("nothing can be sent during the handshake")
    func early() throws {
      var server = try End(Credentials.server(psk: Keys.current["users.psk"]))
      server.toSend = [1, 2, 3]
      let progress = server.send()
      #expect(progress == TLSProgress())
    }
  }

  @Suite("Closing")
  struct Closing {
    @Test(
      "close_notify ends one direction; the other goes on until it is closed too",
      arguments: [psk12, psk13])
    func halves(priority: String) throws {
      try withOpenEnds(priority: priority) { client, server in
        client.toSend = randomBytes(100, seed: 1)
        client.send()
        client.close()
        var states = [client.session.state]
        exchange(&client, &server)
        states.append(server.session.state)
        #expect(states == [.closing(by: .us), .closing(by: .peer)])
        let isSame = server.received == client.toSend
        #expect(isSame)

        server.toSend = randomBytes(70_000, seed: 2)
        exchange(&client, &server)
        let isAnswered = client.received == server.toSend
        #expect(isAnswered)
        server.close()
        states = [server.session.state]
        exchange(&client, &server)
        states.append(client.session.state)
        #expect(states == [.closed, .closed])
      }
    }

    @Test("both close at once")
    func crossing() throws {
      try withOpenEnds { client, server in
        client.close()
        server.close()
        exchange(&client, &server)
        let states = [client.session.state, server.session.state]
        #expect(states == [.closed, .closed])
        // Once more says nothing.
        server.close()
        let said = server.outbox
        #expect(said == [])
      }
    }

    @Test("close_notify waits for room, and then is said whole")
    func room() throws {
      try withOpenEnds { client, server in
        var progress = server.close(room: 511)
        #expect(progress.needsOutputRoom)
        #expect(progress.wireMade == 0)
        var state = server.session.state
        #expect(state == .open)
        progress = server.close(room: 512)
        #expect(!progress.needsOutputRoom)
        state = server.session.state
        #expect(state == .closing(by: .us))
        exchange(&client, &server)
        state = client.session.state
        #expect(state == .closing(by: .peer))
      }
    }

    @Test("bytes behind close_notify stay with the caller")
    func behind() throws {
      try withOpenEnds { client, server in
        client.close()
        server.inbox = client.outbox + [1, 2, 3]
        let progress = server.receive()
        #expect(progress.wireTaken == client.outbox.count)
        let left = server.inbox
        #expect(left == [1, 2, 3])
      }
    }

    @Test("a session closed during the handshake says nothing")
    func handshaking() throws {
      var client = try End(
        Credentials.client(psk: Keys.current["users.psk"], user: "alice"))
      client.close()
      client.receive()
      let state = client.session.state
      #expect(state == .closed)
      let said = client.outbox
      #expect(said == [])
    }
  }
}
