// Goal: no client's way of sending, reading or leaving harms the others, loses a reply that is owed,
// or writes half a request. Method: raw sockets that do what real clients do when they go wrong.

import Base
import Foundation
import NBDProtocol
import Server
import Testing

@Suite("A client", .serialized)
struct StreamTests {
  @Test("that pipelines 3000 requests gets 3000 replies")
  func pipeline() throws {
    let mirror = try ServedMirror()
    let client = try RawClient(mirror.socketPath)
    let writer = Thread {
      var bytes: [UInt8] = []
      for cookie in 0..<3000 as Range<UInt64> {
        bytes += client.frame(.flush, cookie: cookie)
      }
      do { try client.send(bytes) } catch { Issue.record("\(error)") }
    }
    writer.start()
    var cookies: Set<UInt64> = []
    for _ in 0..<3000 {
      let reply = try client.reply()
      #expect(reply.error == 0)
      cookies.insert(reply.cookie)
    }
    #expect(cookies.count == 3000)
    try mirror.stop()
  }

  @Test("that sends byte by byte is served")
  func bytewise() throws {
    let mirror = try ServedMirror()
    let client = try RawClient(mirror.socketPath)
    let payload = [UInt8](repeating: 9, count: 600)
    for byte in client.frame(.write, offset: 3, count: 600, payload: payload) {
      try client.send([byte])
    }
    #expect(try client.reply().error == 0)
    for byte in client.frame(.read, offset: 0, count: 700, cookie: 2) { try client.send([byte]) }
    let expected = [0, 0, 0] + payload + [UInt8](repeating: 0, count: 97)
    let isEqual = try client.reply().data == expected
    #expect(isEqual)
    try mirror.stop()
  }

  @Test(
    "gets what it asked for before it said goodbye, or closed its side", arguments: [true, false])
  func goodbye(isDisconnect: Bool) throws {
    let mirror = try ServedMirror()
    let client = try RawClient(mirror.socketPath)
    var bytes: [UInt8] = []
    for cookie in 0..<50 as Range<UInt64> {
      bytes += client.frame(.read, offset: cookie * 65536, count: 65536, cookie: cookie)
    }
    if isDisconnect { bytes += client.frame(.disconnect) + [1, 2, 3] }
    try client.send(bytes)
    if !isDisconnect { client.halfClose() }
    for _ in 0..<50 {
      let reply = try client.reply()
      #expect(reply.error == 0 && reply.data.count == 65536)
    }
    #expect(client.isAtEnd())
    try mirror.stop()
  }

  @Test("that leaves in the middle of a write writes nothing", arguments: [1000, 100_000])
  func truncated(count: Int) throws {
    let mirror = try ServedMirror()
    for _ in 0..<20 {
      let client = try RawClient(mirror.socketPath)
      try client.send(
        client.frame(.write, offset: 4096, count: count)
          + [UInt8](repeating: 0xee, count: count - 1))
    }
    let client = try RawClient(mirror.socketPath)
    let reply = try client.read(0, 200_000)
    #expect(reply.data == [UInt8](repeating: 0, count: 200_000))
    try mirror.stop()
  }

  @Test("that vanishes with requests in flight harms nobody, and the stop is clean")
  func vanish() throws {
    let mirror = try ServedMirror(isInMemory: false) { $0.threads = 2 }
    let witness = try RawClient(mirror.socketPath)
    for round in 0..<20 as Range<UInt64> {
      let client = try RawClient(mirror.socketPath)
      var bytes: [UInt8] = []
      for cookie in 0..<200 as Range<UInt64> {
        bytes += client.frame(.read, offset: cookie * 4096, count: 4096, cookie: cookie)
        bytes += client.frame(
          .write, offset: cookie * 4096, count: 4096, cookie: 1000 + cookie,
          payload: [UInt8](repeating: UInt8(round), count: 4096))
        // The socket's buffer ends where the server stops reading; do not wait for that.
        if bytes.count > 100_000 { break }
      }
      try client.send(bytes)
      _ = consume client
      #expect(try witness.read(1 << 20, 4096).error == 0)
    }
    try mirror.stop()
  }

  @Test("that never reads its replies stalls nobody else")
  func neverReads() throws {
    // A small arena: the greedy would take all of it if they could.
    let mirror = try ServedMirror { $0.arenaBytes = 16 << 20 }
    var greedy: [RawClient] = []
    for _ in 0..<3 {
      let client = try RawClient(mirror.socketPath)
      // Each asks for 512 MiB and takes none of it.
      // In one piece: the server stops reading, and many small ones would fill the socket.
      var bytes: [UInt8] = []
      for cookie in 0..<512 as Range<UInt64> {
        bytes += client.frame(.read, offset: 0, count: 1 << 20, cookie: cookie)
      }
      try client.send(bytes)
      greedy.append(client)
    }
    let client = try RawClient(mirror.socketPath)
    let bytes = [UInt8](repeating: 5, count: 4096)
    for step in 0..<500 as Range<UInt64> {
      #expect(try client.write(step * 4096, bytes) == 0)
    }
    #expect(try client.read(0, 4096).data == bytes)
    // And those who wait get theirs when they read at last.
    for _ in 0..<512 { #expect(try greedy[0].reply().data.count == 1 << 20) }
    greedy = []
    try mirror.stop()
  }

  @Test("that stands in the way of others for too long is dropped")
  func stuck() throws {
    let mirror = try ServedMirror {
      $0.arenaBytes = 16 << 20
      $0.stuckNanoseconds = 300 * Nanoseconds.millisecond
    }
    var greedy: [RawClient] = []
    for _ in 0..<8 {
      let client = try RawClient(mirror.socketPath)
      // In one piece: the server stops reading, and many small ones would fill the socket.
      var bytes: [UInt8] = []
      for cookie in 0..<64 as Range<UInt64> {
        bytes += client.frame(.read, offset: 0, count: 1 << 20, cookie: cookie)
      }
      try client.send(bytes)
      greedy.append(client)
    }
    let client = try RawClient(mirror.socketPath)
    #expect(try client.read(0, 1 << 20).data.count == 1 << 20)
    _ = consume greedy
    try mirror.stop()
  }

  @Test("that says nothing is dropped after the handshake's time, one that serves is not")
  func silent() throws {
    let mirror = try ServedMirror {
      $0.handshakeNanoseconds = 300 * Nanoseconds.millisecond
    }
    let client = try RawClient(mirror.socketPath)
    let silent = try RawClient(silent: mirror.socketPath)
    #expect(silent.receive(18)?.count == 18)
    #expect(silent.isAtEnd())
    let slow = try RawClient(silent: mirror.socketPath)
    #expect(slow.receive(18)?.count == 18)
    // An option that is answered does not buy more time than the whole handshake has.
    try slow.send(ClientFrames.clientFlags(3) + ClientFrames.option(99))
    #expect(slow.receive(20)?.count == 20)
    while slow.receive(1) != nil {}
    #expect(try client.read(0, 512).error == 0)
    try mirror.stop()
  }

  @Test("beyond the limit of connections is closed; a place that is free is given again")
  func limit() throws {
    let mirror = try ServedMirror { $0.connectionsMax = 3 }
    var clients = try (0..<3).map { _ in try RawClient(mirror.socketPath) }
    let extra = try RawClient(silent: mirror.socketPath)
    #expect(extra.isAtEnd())
    #expect(try clients[2].read(0, 512).error == 0)
    clients.removeLast()
    var hasPlace = false
    let deadline = Date().addingTimeInterval(20)
    while !hasPlace, Date() < deadline {
      do {
        clients.append(try RawClient(mirror.socketPath))
        hasPlace = true
      } catch {}
    }
    #expect(hasPlace)
    #expect(mirror.server.connections().count <= 3)
    try mirror.stop()
  }

  @Test("over TCP is served beside one over a unix socket")
  func tcp() throws {
    let mirror = try ServedMirror {
      $0.listenAddresses = ["127.0.0.1:0"]
      $0.threads = 2
    }
    let port = try #require(mirror.server.ports.first)
    let remote = try RawClient(port: port)
    let local = try RawClient(mirror.socketPath)
    #expect(try remote.write(10, [1, 2, 3]) == 0)
    #expect(try local.read(9, 5).data == [0, 1, 2, 3, 0])
    try mirror.stop()
  }

  @Test(
    "that reads late and says more when the server stops or after DISC gets what it was owed",
    arguments: [true, false])
  func readsLate(isStopped: Bool) throws {
    let mirror = try ServedMirror { $0.listenAddresses = ["127.0.0.1:0"] }
    let client = try RawClient(
      port: try #require(mirror.server.ports.first), receiveBytes: 16 << 10)
    let count: UInt64 = 64
    var bytes: [UInt8] = []
    for cookie in 0..<count {
      bytes += client.frame(.read, offset: cookie << 14, count: 16 << 10, cookie: cookie)
    }
    try client.send(isStopped ? bytes : bytes + client.frame(.disconnect))
    // It is one receive: all is taken when something is answered.
    var cookies: Set<UInt64> = [try client.reply().cookie]
    if isStopped { mirror.server.requestStop() }
    for cookie in count..<count + 10 {
      // With unread bytes in it the socket would be reset when it is closed, and drop what it holds.
      try client.send(
        client.frame(.write, count: 512, cookie: cookie) + [UInt8](repeating: 1, count: 512))
      usleep(10_000)
    }
    for _ in 1..<count { cookies.insert(try client.reply().cookie) }
    #expect(cookies == Set(0..<count))
    #expect(client.endsInOrder())
    try mirror.stop()
  }
}
