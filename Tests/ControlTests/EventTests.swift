// Goal: events have numbers, are kept in a ring, and reach whoever follows, from any number on.
// Method: the log alone at its limits; then the server over a scripted mirror with raw requests, the
// project's client, and the verb as a process.
import ControlPlane
import Foundation
import Testing

@testable import ControlModel

@Suite("events")
struct EventTests {
  private func note(_ log: EventLog, _ count: Int) {
    for number in 1...count { log.append(EventRecord(.readRepaired, "event \(number)", leg: 1)) }
  }

  @Test("a log numbers events, keeps the last ones, and says how many it lost")
  func ring() {
    let log = EventLog(capacity: 4)
    #expect(log.events(after: 0).isEmpty)
    note(log, 3)
    #expect(log.events(after: 0).map(\.sequence) == [1, 2, 3])
    #expect(log.events(after: 2).map(\.message) == ["event 3"])
    #expect(log.events(after: 3).isEmpty)
    note(log, 4)
    let all = log.events(after: 0)
    #expect(all.map(\.sequence) == [3, 4, 5, 6, 7])
    #expect(all[0].kind == .eventsLost)
    #expect(all[0].count == 3)
    #expect(log.events(after: 3).map(\.sequence) == [4, 5, 6, 7])
    #expect(log.events(after: 2).map(\.kind).first == .eventsLost)
    #expect(log.events(after: 3, countMax: 2).map(\.sequence) == [4, 5])
    // A number of an earlier server.
    #expect(log.events(after: 900).map(\.sequence) == [3, 4, 5, 6, 7])
  }

  @Test("times are those of an independent formatter")
  func times() throws {
    let formatter = ISO8601DateFormatter()
    formatter.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
    for seconds: UInt64 in [
      0, 68_255_999, 68_256_000, 951_782_400, 951_868_799, 951_868_800, 1_709_164_800,
      1_795_763_708, 4_107_542_399, 4_107_542_400,
    ] {
      let date = Date(timeIntervalSince1970: Double(seconds) + 0.25)
      #expect(EventTime.text(seconds: seconds, milliseconds: 250) == formatter.string(from: date))
    }
  }

  @Test("a stream gives what is kept and what comes, from the number that is asked for")
  func stream() throws {
    let server = try TestServer()
    note(server.mirror.events, 3)
    let connection = try RawConnection(server.path)
    try connection.send("GET /v1/events?after=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    var text = try connection.read(until: "event 3")
    #expect(text.hasPrefix("HTTP/1.1 200 "))
    #expect(text.contains("Content-Type: text/event-stream\r\n"))
    #expect(text.contains("id: 2\nevent: read-repaired\ndata: {"))
    #expect(!text.contains("id: 1\n"))
    server.mirror.events.append(EventRecord(.legFailed, "leg 1 failed", leg: 1))
    text = try connection.read(until: "id: 4\nevent: leg-failed\ndata: ")
    let resumed = try RawConnection(server.path)
    try resumed.send("GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 3\r\n\r\n")
    text = try resumed.read(until: "id: 4\n")
    #expect(!text.contains("id: 3\n"))
    // A stop ends the streams in order.
    server.mirror.events.append(EventRecord(.serverStopping, "enough"))
    server.stop()
    text = try connection.readToEnd()
    #expect(text.contains("id: 5\nevent: server-stopping\n"))
    #expect(text.hasSuffix("\r\n0\r\n\r\n"))
  }

  @Test("who accepts JSON gets an array; wrong numbers and too many streams are refused")
  func list() throws {
    let server = try TestServer()
    note(server.mirror.events, 3)
    #expect(try server.client.events(after: 1).map(\.sequence) == [2, 3])
    let first = try #require(try server.client.events().first)
    let json = try JSONSerialization.jsonObject(with: Data(ControlJSON.line(first)))
    let object = try #require(json as? [String: Any])
    #expect(
      Set(object.keys) == [
        "sequence", "time", "kind", "message", "leg", "offset", "bytes", "count", "name",
      ])
    #expect(object["offset"] is NSNull)
    for target in ["/v1/events?after=x", "/v1/events?after=-1"] {
      let text = try server.exchange(
        "GET \(target) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
      #expect(text.hasPrefix("HTTP/1.1 400 "), "\(text)")
    }
    var streams: [RawConnection] = []
    for _ in 0..<16 {
      let connection = try RawConnection(server.path)
      try connection.send("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
      _ = try connection.read(until: "event 3")
      streams.append(connection)
    }
    let refused = try server.exchange(
      "GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    #expect(refused.hasPrefix("HTTP/1.1 503 "))
    #expect(refused.contains("too-many-streams"))
    // One that goes makes room.
    streams.removeLast()
    let isFree = try eventually {
      let connection = try RawConnection(server.path)
      try connection.send("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
      return try connection.read(until: "HTTP/1.1 ").hasPrefix("HTTP/1.1 200")
    }
    #expect(isFree)
  }

  @Test("a client that takes nothing is told what it lost, and holds nobody up")
  func slowClient() throws {
    let server = try TestServer()
    let connection = try RawConnection(server.path)
    try connection.send("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    _ = try connection.read(until: "\r\n\r\n")
    let long = String(repeating: "x", count: 20_000)
    for _ in 0..<2000 { server.mirror.events.append(EventRecord(.readFailed, long)) }
    var mirror = try server.client.mirror()
    mirror.revision = 0
    #expect(mirror == Samples.degraded)
    let text = try connection.read(until: "id: 2000\n")
    #expect(text.contains("event: events-lost\n"))
  }

  @Test("a stream in pieces of any size is read the same")
  func pieces() throws {
    let text =
      ":\n\nid: 1\nevent: a\ndata: {\"x\":1}\n\n:\n\nid: 2\r\ndata:{\"y\"\r\ndata: :2}\r\n\r\n"
    let expected = [Array("{\"x\":1}".utf8), Array("{\"y\":2}".utf8)]
    for size in 1...text.utf8.count {
      var parser = EventStreamParser()
      var found: [[UInt8]] = []
      var rest = Array(text.utf8)[...]
      while !rest.isEmpty {
        found += try parser.feed(Array(rest.prefix(size)))
        rest = rest.dropFirst(size)
      }
      #expect(found == expected, "in pieces of \(size)")
    }
    var endless = EventStreamParser()
    #expect(throws: HTTPResponseParser.Failure.self) {
      _ = try endless.feed([UInt8](repeating: 65, count: EventStreamParser.bytesMax + 1))
    }
  }

  @Test("the verb shows events as lines, and as JSON")
  func verb() throws {
    let server = try TestServer()
    server.mirror.events.append(EventRecord(.legFailed, "leg 1 failed: it\u{1b}[2J hangs", leg: 1))
    server.mirror.events.append(EventRecord(.legOnline, "leg 1 is online", leg: 1, bytes: 5))
    let shown = try CommandTests.run(["events", "--control", server.path])
    #expect(shown.status == 0)
    let lines = shown.output.split(separator: "\n")
    #expect(lines.count == 2)
    #expect(lines[1].hasSuffix("Z 2 leg-online: leg 1 is online"))
    #expect(!shown.output.contains("\u{1b}"))
    let json = try CommandTests.run(
      ["events", "--json", "--after", "1", "--control", server.path])
    let event = try ControlJSON.decode(EventRecord.self, from: Array(json.output.utf8))
    #expect(event.kind == .legOnline)
    #expect(event.bytes == 5)
  }
}
