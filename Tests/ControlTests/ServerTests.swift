// Goal: every operation and every error of the HTTP interface, over a real socket. Method: the
// real server over a scripted mirror, with the project's client and with raw bytes.
import ControlModel
import ControlPlane
import Foundation
import Testing

@Suite("control server")
struct ServerTests {
  @Test("the queries answer what the mirror says")
  func queries() throws {
    let server = try TestServer()
    var mirror = try server.client.mirror()
    mirror.revision = 0
    #expect(mirror == Samples.degraded)
    #expect(try server.client.legs() == Samples.legs)
    #expect(try server.client.resync().status == Samples.degraded.resync)
  }

  @Test("commands reach the mirror with the slot, however the leg is named")
  func commands() throws {
    let server = try TestServer()
    #expect(try server.client.failLeg("0").state == .failed)
    #expect(try server.client.readdLeg("/srv/b c.img", force: false).state == .syncing)
    #expect(try server.client.readdLeg(Samples.legs[0].id, force: true).slot == 0)
    #expect(try server.client.addLeg(path: "/srv/ü \"c\".img").path == "/srv/ü \"c\".img")
    try server.client.removeLeg("2")
    #expect(try server.client.addLeg(path: "/srv/d", spare: true).state == .spare)
    #expect(try server.client.replaceLeg("/srv/b c.img", path: "/srv/e").replaces == 1)
    #expect(try server.client.refreshLeg("0").slot == 0)
    #expect(try server.client.setLeg("0", writeMostly: true).writeMostly)
    #expect(try !server.client.setLeg("0", writeMostly: false).writeMostly)
    try server.client.shutdown()
    #expect(
      server.mirror.calls == [
        "fail 0", "readd 1 false", "readd 0 true", "add /srv/ü \"c\".img", "remove 2",
        "add /srv/d spare", "replace 1 /srv/e", "refresh 0", "set 0 true", "set 0 false",
        "shutdown",
      ])
  }

  @Test(
    "what the mirror refuses is a problem document with the status of its kind",
    arguments: [
      (ControlError.Kind.invalid, 400), (.noSuchLeg, 404), (.noSuchFault, 404), (.conflict, 409),
      (.failed, 500),
      (.stopping, 503),
    ])
  func refusals(kind: ControlError.Kind, status: Int) throws {
    let server = try TestServer()
    server.mirror.state.withLock { $0.error = ControlError(kind, "leg 0 is the last good one") }
    let expected = Problem(
      status: status, code: kind.rawValue, detail: "leg 0 is the last good one")
    #expect(throws: ControlClientError.problem(expected)) { try server.client.failLeg("0") }
    let text = try server.exchange(
      "DELETE /v1/legs/0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    #expect(text.hasPrefix("HTTP/1.1 \(status) "))
    #expect(text.contains("\r\nContent-Type: application/problem+json\r\n"))
    #expect(text.contains("\"type\" : \"about:blank\""))
  }

  @Test("a leg that is not there is a problem, and nothing is commanded")
  func noSuchLeg() throws {
    let server = try TestServer()
    let expected = Problem(
      status: 404, code: "no-such-leg", detail: "no leg goes by the name '7'")
    #expect(throws: ControlClientError.problem(expected)) { try server.client.failLeg("7") }
    #expect(server.mirror.calls.isEmpty)
  }

  @Test(
    "a bad request gets its status as a problem document, and the server goes on",
    arguments: [
      ("GET /v1/nothing HTTP/1.1\r\nHost: x\r\n", "", 404, "no-such-path"),
      ("GET /metric HTTP/1.1\r\nHost: x\r\n", "", 404, "no-such-path"),
      ("PUT /v1/mirror HTTP/1.1\r\nHost: x\r\n", "", 405, "bad-method"),
      ("POST /v1/legs/%zz/fail HTTP/1.1\r\nHost: x\r\n", "", 400, "bad-target"),
      ("POST /v1/legs HTTP/1.1\r\nHost: x\r\n", "{", 400, "bad-json"),
      ("POST /v1/legs HTTP/1.1\r\nHost: x\r\n", "", 400, "bad-json"),
      ("POST /v1/legs HTTP/1.1\r\nHost: x\r\n", "{\"path\":\"\"}", 400, "invalid"),
      ("POST /v1/legs HTTP/1.1\r\nHost: x\r\n", "{\"path\":\"a\\u0000\"}", 400, "invalid"),
      ("POST /v1/legs/0/fail HTTP/1.1\r\nHost: x\r\n", "{\"now\":1}", 400, "bad-json"),
      ("POST /v1/legs/0/readd HTTP/1.1\r\nHost: x\r\n", "{\"force\":1}", 400, "bad-json"),
      ("DELETE /v1/legs/0 HTTP/1.1\r\nHost: x\r\n", "[]", 400, "bad-json"),
    ])
  func badRequests(head: String, body: String, status: Int, code: String) throws {
    let server = try TestServer()
    let text = try server.exchange(
      head + "Connection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n" + body)
    #expect(text.hasPrefix("HTTP/1.1 \(status) "))
    #expect(text.contains("Content-Type: application/problem+json\r\n"))
    #expect(text.contains("\"code\" : \"\(code)\""))
    #expect(text.contains("\r\nAllow: GET, HEAD\r\n") == (status == 405))
    #expect(server.mirror.calls.isEmpty)
    #expect(try server.client.mirror().name == "vol0")
  }

  @Test("a leg is added with 201 and its place")
  func created() throws {
    let server = try TestServer()
    let body = "{\"path\":\"c.img\"}"
    let text = try server.exchange(
      "POST /v1/legs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        + "Transfer-Encoding: chunked\r\n\r\n\(String(body.utf8.count, radix: 16))\r\n\(body)\r\n"
        + "0\r\n\r\n")
    #expect(text.hasPrefix("HTTP/1.1 201 Created\r\n"))
    #expect(text.contains("\r\nLocation: /v1/legs/2\r\n"))
    #expect(server.mirror.calls == ["add c.img"])
  }

  @Test("HEAD has the length of GET and no body; HTTP/1.0 is answered and closed")
  func headAndOldClients() throws {
    let server = try TestServer()
    let head = try server.exchange(
      "HEAD /v1/mirror HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    let length = try ControlJSON.encode(try server.client.mirror()).count
    #expect(head.contains("\r\nContent-Length: \(length)\r\n"))
    #expect(head.hasSuffix("\r\n\r\n"))
    let old = try server.exchange("GET /v1/mirror HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    #expect(old.hasPrefix("HTTP/1.0 200 OK\r\n"))
    #expect(old.hasSuffix("}\n"))
  }

  @Test("a client that waits for 100 Continue gets it")
  func expectContinue() throws {
    let server = try TestServer()
    let connection = try RawConnection(server.path)
    let body = "{\"path\":\"c.img\"}"
    try connection.send(
      "POST /v1/legs HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
        + "Content-Length: \(body.utf8.count)\r\n\r\n")
    _ = try connection.read(until: "HTTP/1.1 100 Continue\r\n\r\n")
    try connection.send(body)
    #expect(try connection.readToEnd().contains("HTTP/1.1 201 Created"))
  }

  @Test("a status is answered while a command blocks, commands run one after the other")
  func blockedCommand() throws {
    let server = try TestServer()
    server.mirror.gate.set(open: false)
    let first = try RawConnection(server.path)
    let second = try RawConnection(server.path)
    let close = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    try first.send("POST /v1/legs/0/fail " + close)
    #expect(eventually { server.mirror.calls == ["fail 0"] })
    try second.send("POST /v1/legs/1/readd " + close)
    for _ in 0..<20 { #expect(try server.client.mirror().name == "vol0") }
    #expect(server.mirror.calls == ["fail 0"])
    try server.client.shutdown()
    server.mirror.gate.set(open: true)
    #expect(try first.readToEnd().hasPrefix("HTTP/1.1 200"))
    #expect(try second.readToEnd().hasPrefix("HTTP/1.1 200"))
    #expect(server.mirror.calls == ["fail 0", "shutdown", "readd 1 false"])
  }

  @Test("stop lets a response under way go out, closes idle clients, and removes the socket")
  func stop() throws {
    let server = try TestServer()
    let idle = try RawConnection(server.path)
    let busy = try RawConnection(server.path)
    server.mirror.gate.set(open: false)
    try busy.send("POST /v1/legs/0/fail HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    #expect(eventually { server.mirror.calls == ["fail 0"] })
    let mirror = server.mirror
    Thread.detachNewThread { [path = server.path] in
      _ = eventually { !FileManager.default.fileExists(atPath: path) }
      mirror.gate.set(open: true)
    }
    server.stop()
    #expect(!FileManager.default.fileExists(atPath: server.path))
    #expect(throws: ControlClientError.notRunning(path: server.path)) {
      try server.client.mirror()
    }
    #expect(try idle.readToEnd() == "")
    let answer = try busy.readToEnd()
    #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
    #expect(answer.hasSuffix("}\n"))
  }

  @Test("stop ends although a command blocks for ever")
  func stopWithBlockedCommand() throws {
    var limits = ControlLimits()
    limits.stopMillisecondsMax = 50
    let server = try TestServer(limits: limits)
    server.mirror.gate.set(open: false)
    let busy = try RawConnection(server.path)
    try busy.send("POST /v1/legs/0/fail HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    #expect(eventually { server.mirror.calls == ["fail 0"] })
    let begin = ContinuousClock.now
    server.stop()
    #expect(ContinuousClock.now - begin < .seconds(10))
    server.mirror.gate.set(open: true)
  }
}
