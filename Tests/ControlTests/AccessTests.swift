// Goal: over TCP nothing is told or done without the token; revisions tell what has changed and
// keep a command from a mirror that is another one by now; the journal says who commanded what.
import ControlModel
import ControlPlane
import Foundation
import Testing

/// curl over TCP.
private func curl(_ arguments: [String]) throws -> (status: Int, text: String) {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = ["curl", "-s", "-i", "--max-time", "20"] + arguments
  let pipe = Pipe()
  process.standardOutput = pipe
  try process.run()
  let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  let words = text.split(separator: " ", maxSplits: 2)
  return (words.count > 1 ? Int(words[1]) ?? 0 : 0, text)
}

private let secret = "0123456789abcdefABCDEF-._~+/=="

@Suite("access to the control server")
struct AccessTests {
  private func tcpServer() throws -> TestServer {
    let token = try #require(ControlToken(secret))
    return try TestServer(tcp: [ControlTCP(host: "127.0.0.1", port: 0, token: token)])
  }

  @Test("tokens are 16 to 512 characters of a bearer token")
  func tokens() {
    #expect(ControlToken(secret) != nil)
    #expect(ControlToken(String(repeating: "a", count: 16)) != nil)
    #expect(ControlToken(String(repeating: "a", count: 15)) == nil)
    #expect(ControlToken(String(repeating: "a", count: 513)) == nil)
    for bad in [
      "0123456789abcdef ", "0123456789abcdef\n", "0123456789abcdefä", "0123456789\u{0}abcdef",
    ] {
      #expect(ControlToken(bad) == nil, "\(bad.debugDescription)")
    }
  }

  @Test(
    "over TCP every request without the token is refused, whatever it asks for",
    arguments: [
      [], ["-H", "Authorization: Bearer"], ["-H", "Authorization: Bearer "],
      ["-H", "Authorization: Bearer \(secret)x"], ["-H", "Authorization: Bearer x\(secret)"],
      ["-H", "Authorization: Bearer \(secret.dropLast())"],
      ["-H", "Authorization: Basic \(secret)"], ["-H", "Authorization: \(secret)"],
    ])
  func strangers(field: [String]) throws {
    let server = try tcpServer()
    let address = try #require(server.address)
    for path in ["v1/mirror", "metrics", "openapi.yaml", "v1/events", "nothing"] {
      let answer = try curl(field + ["http://\(address)/\(path)"])
      #expect(answer.status == 401, "\(path): \(answer.text)")
      #expect(answer.text.contains("WWW-Authenticate: Bearer"))
      #expect(answer.text.contains("application/problem+json"))
      #expect(!answer.text.contains("vol0"))
    }
    let command = try curl(field + ["-X", "POST", "http://\(address)/v1/shutdown"])
    #expect(command.status == 401)
    #expect(server.mirror.calls.isEmpty)
    let journal = server.mirror.state.withLock { $0.journal }
    #expect(journal.count == 6)
    #expect(journal.allSatisfy { $0.contains("without the token") && $0.contains("127.0.0.1") })
  }

  @Test("over TCP the token opens everything; the unix socket asks for none")
  func admitted() throws {
    let server = try tcpServer()
    let address = try #require(server.address)
    let shown = ["-H", "authorization: bearer \(secret)"]
    #expect(try curl(shown + ["http://\(address)/v1/mirror"]).text.contains("vol0"))
    #expect(try curl(shown + ["http://\(address)/metrics"]).status == 200)
    #expect(try curl(shown + ["-X", "POST", "http://\(address)/v1/legs/0/fail"]).status == 200)
    #expect(server.mirror.calls == ["fail 0"])
    #expect(try server.client.mirror().name == "vol0")
  }

  @Test("strangers that hold all TCP connections do not keep the owner out")
  func crowd() throws {
    var limits = ControlLimits()
    limits.connectionsMax = 2
    let token = try #require(ControlToken(secret))
    let server = try TestServer(
      limits: limits, tcp: [ControlTCP(host: "127.0.0.1", port: 0, token: token)])
    let address = try #require(server.address)
    let holders = (0..<2).map { _ in Process() }
    defer { for holder in holders where holder.isRunning { holder.terminate() } }
    for holder in holders {
      holder.executableURL = URL(fileURLWithPath: "/usr/bin/env")
      // An events stream stays open for as long as the client wants. (The question below may take
      // the place of one for a moment.)
      holder.arguments = [
        "curl", "-s", "-N", "--retry", "20", "--retry-delay", "1", "-H",
        "Authorization: Bearer \(secret)", "http://\(address)/v1/events",
      ]
      holder.standardOutput = FileHandle.nullDevice
      try holder.run()
    }
    #expect(
      try eventually {
        try curl(["-H", "Authorization: Bearer \(secret)", "http://\(address)/v1/mirror"]).status
          == 503
      })
    #expect(try server.client.mirror().name == "vol0")
  }

  @Test("a TCP address that is taken is named")
  func taken() throws {
    let server = try tcpServer()
    let address = try #require(server.address)
    let port = try #require(UInt16(address.split(separator: ":")[1]))
    let token = try #require(ControlToken(secret))
    do {
      _ = try TestServer(tcp: [ControlTCP(host: "127.0.0.1", port: port, token: token)])
      Issue.record("two servers listen on one port")
    } catch let error as ControlServerError {
      #expect("\(error)".contains(address))
    }
    #expect(try server.client.mirror().name == "vol0")
  }

  // MARK: Revisions

  @Test("a revision changes with legs, states and options, not with counters")
  func revisions() throws {
    let server = try TestServer()
    let first = try server.client.mirror().revision
    #expect(first > 0)
    server.mirror.state.withLock {
      $0.status.uptimeSeconds += 5
      $0.status.dirtyRegions += 1
      $0.status.legs[1].staleBytes += 4096
      $0.status.legs[0].latency.read.p50Microseconds = 1
      $0.status.resync.bytesDone += 1
    }
    #expect(try server.client.mirror().revision == first)
    let changes: [@Sendable (inout MirrorStatus) -> Void] = [
      { $0.legs[1].state = .syncing }, { $0.state = .syncing }, { $0.legs[0].writeMostly = true },
      { $0.resync.paused = true }, { $0.resync.maxBytesPerSecond = 7 }, { $0.generation += 1 },
      { $0.scrub.running = true }, { $0.legs.removeLast() },
    ]
    var last = first
    for (index, change) in changes.enumerated() {
      server.mirror.state.withLock { change(&$0.status) }
      let revision = try server.client.mirror().revision
      #expect(revision > last, "change \(index)")
      last = revision
    }
  }

  private func get(_ fields: String, _ server: TestServer) throws -> String {
    try server.exchange("GET /v1/mirror HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\(fields)\r\n")
  }

  @Test("the ETag is the revision; 304 to who has it")
  func notModified() throws {
    let server = try TestServer()
    let revision = try server.client.mirror().revision
    #expect(try get("", server).contains("\r\nETag: \"\(revision)\"\r\n"))
    for known in ["\"\(revision)\"", "\"1\", \"\(revision)\"", "*"] {
      let answer = try get("If-None-Match: \(known)\r\n", server)
      #expect(answer.hasPrefix("HTTP/1.1 304 "), "\(known): \(answer)")
      #expect(answer.contains("\r\nETag: \"\(revision)\"\r\n"))
      #expect(answer.hasSuffix("\r\n\r\n"), "it has no body")
    }
    for unknown in ["\"1\"", "\(revision)", "W/\"\(revision)\"", "\"\""] {
      #expect(try get("If-None-Match: \(unknown)\r\n", server).hasPrefix("HTTP/1.1 200 "))
    }
  }

  @Test("a command for a revision that is over is not performed")
  func preconditions() throws {
    let server = try TestServer()
    let revision = try server.client.mirror().revision
    func fail(_ tag: String) throws -> String {
      try server.exchange(
        "POST /v1/legs/0/fail HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIf-Match: \(tag)\r\n"
          + "Content-Length: 0\r\n\r\n")
    }
    #expect(try fail("\"\(revision - 1)\"").hasPrefix("HTTP/1.1 412 "))
    #expect(server.mirror.calls.isEmpty)
    #expect(try fail("\"\(revision)\"").hasPrefix("HTTP/1.1 200 "))
    #expect(server.mirror.calls == ["fail 0"])
    let late = try fail("\"\(revision)\"")
    #expect(late.hasPrefix("HTTP/1.1 412 "))
    #expect(late.contains("\"code\" : \"changed\""))
    #expect(server.mirror.calls == ["fail 0"])
    #expect(try fail("*").hasPrefix("HTTP/1.1 200 "))
  }

  @Test("the journal says who commanded what, and how it ended; queries are not in it")
  func journal() throws {
    let server = try TestServer()
    _ = try server.client.mirror()
    _ = try server.client.failLeg("0")
    #expect(throws: ControlClientError.self) { try server.client.failLeg("9") }
    let journal = server.mirror.state.withLock { $0.journal }
    let peer = "by uid \(getuid()), pid \(getpid())"
    #expect(
      journal == [
        "control: POST /v1/legs/0/fail \(peer): 200", "control: POST /v1/legs/9/fail \(peer): 404",
      ])
  }
}
