// Goal: no client input crashes the control server, takes unbounded memory, or keeps others out.
// Method: garbage, oversized, slow, pipelined and greedy clients on a real socket with small
// limits; after each, the server must still answer.
import Base
import ControlModel
import ControlPlane
import Foundation
import Testing

@Suite("hostile clients of the control server")
struct HostileClientTests {
  private func limits(_ change: (inout ControlLimits) -> Void) -> ControlLimits {
    var limits = ControlLimits()
    limits.lingerMillisecondsMax = 100
    change(&limits)
    return limits
  }

  @Test("random bytes are answered or hung up on, and the server goes on")
  func garbage() throws {
    let server = try TestServer(limits: limits { $0.clientMillisecondsMax = 200 })
    var random = PRNG(seed: 2)
    let words = [
      "GET ", "POST ", "/v1/legs", " HTTP/1.1", "\r\n", "\r\n\r\n", "Content-Length: ", "5",
      "Transfer-Encoding: chunked", "\0", ":", "ffffffffffffffff\r\n", "PRI * HTTP/2.0", "-1",
    ]
    for round in 0..<150 {
      let connection = try RawConnection(server.path)
      var bytes: [UInt8] = []
      for _ in 0..<random.int(in: 1...12) {
        if random.chance(1, in: 3) {
          for _ in 0..<random.int(in: 0...40) {
            bytes.append(UInt8(truncatingIfNeeded: random.next()))
          }
        } else {
          bytes += Array(words[random.int(in: 0...words.count - 1)].utf8)
        }
      }
      do { try connection.send(bytes) } catch {}
      if round % 3 == 0 { do { _ = try connection.readToEnd() } catch {} }
    }
    #expect(try server.client.mirror().name == "vol0")
    #expect(server.mirror.calls.isEmpty)
  }

  @Test(
    "what is not HTTP gets 400 and an end",
    arguments: [
      "hello\r\n\r\n", "GET /v1/mirror\r\n\r\n", "GET /v1/mirror HTTP/1.1\r\nbad\r\n\r\n",
    ])
  func notHTTP(text: String) throws {
    let server = try TestServer(limits: limits { _ in })
    let answer = try server.exchange(text)
    #expect(answer.hasPrefix("HTTP/1.1 400 Bad Request\r\n"))
    #expect(answer.contains("application/problem+json"))
  }

  @Test("a header beyond the bounds gets 431")
  func headers() throws {
    let server = try TestServer(limits: limits { _ in })
    let start = "GET /v1/mirror HTTP/1.1\r\nHost: x\r\n"
    let long = String(repeating: "a", count: 17 << 10)
    let many = String(repeating: "a: b\r\n", count: 65)
    let wide = String(repeating: "a: \(long.prefix(9000))\r\n", count: 8)
    for request in [
      start + "a: \(long)\r\n\r\n", start + many + "\r\n", start + wide + "\r\n",
      "GET /\(long) HTTP/1.1\r\n\r\n",
    ] {
      #expect(try server.exchange(request).hasPrefix("HTTP/1.1 431 "))
    }
    #expect(try server.client.mirror().name == "vol0")
  }

  @Test("a body of the bound is read, one byte more gets 413, announced or not")
  func bodies() throws {
    let server = try TestServer(limits: limits { $0.bodyBytesMax = 4096 })
    func body(_ count: Int) -> String {
      "{\"path\":\"c\"" + String(repeating: " ", count: count - 12) + "}"
    }
    #expect(try server.client.addLeg(path: "c").slot == 2)
    let head = "POST /v1/legs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    let fits = try server.exchange(head + "Content-Length: 4096\r\n\r\n" + body(4096))
    #expect(fits.hasPrefix("HTTP/1.1 201 "))
    let announced = try server.exchange(head + "Content-Length: 4097\r\n\r\n" + body(4097))
    #expect(announced.hasPrefix("HTTP/1.1 413 "))
    #expect(announced.contains("body-too-large"))
    let chunked = try server.exchange(
      head + "Transfer-Encoding: chunked\r\n\r\n1001\r\n" + body(4097) + "\r\n0\r\n\r\n")
    #expect(chunked.hasPrefix("HTTP/1.1 413 "))
    #expect(server.mirror.calls == ["add c", "add c"])
  }

  @Test("the client reads the refusal of a body that is far too large")
  func hugeBody() throws {
    let server = try TestServer()
    let path = String(repeating: "x", count: 8 << 20)
    do {
      _ = try server.client.addLeg(path: path)
      Issue.record("8 MiB were accepted")
    } catch ControlClientError.problem(let problem) {
      #expect(problem.status == 413)
    }
  }

  @Test("a request that comes too slowly gets 408, a silent connection an end")
  func slow() throws {
    let server = try TestServer(limits: limits { $0.clientMillisecondsMax = 150 })
    let slow = try RawConnection(server.path)
    try slow.send("POST /v1/legs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    #expect(try slow.readToEnd().hasPrefix("HTTP/1.1 408 "))
    let silent = try RawConnection(server.path)
    #expect(try silent.readToEnd() == "")
    let half = try RawConnection(server.path)
    try half.send("GET /v1/mir")
    #expect(try half.readToEnd() == "")
  }

  @Test("bytes that keep trickling in do not prolong the deadline")
  func trickle() throws {
    let server = try TestServer(limits: limits { $0.clientMillisecondsMax = 300 })
    let connection = try RawConnection(server.path)
    let begin = ContinuousClock.now
    #expect(throws: SystemError.self) {
      while ContinuousClock.now - begin < .seconds(20) {
        try connection.send("G")
        usleep(20_000)
      }
    }
    #expect(ContinuousClock.now - begin < .seconds(10))
  }

  @Test("pipelined requests are answered in order")
  func pipelined() throws {
    let server = try TestServer()
    let connection = try RawConnection(server.path)
    let one = "GET /v1/resync HTTP/1.1\r\nHost: x\r\n\r\n"
    let two = "POST /v1/legs/0/fail HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    let three = "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    try connection.send(String(repeating: one, count: 50) + two + three)
    let text = try connection.readToEnd()
    let statuses = text.components(separatedBy: "HTTP/1.1 ").dropFirst().map { $0.prefix(3) }
    #expect(statuses == Array(repeating: "200", count: 51) + ["404"])
  }

  @Test("a client that sends requests and takes no answers is not served without end")
  func takesNoAnswers() throws {
    let server = try TestServer(limits: limits { $0.clientMillisecondsMax = 500 })
    let connection = try RawConnection(server.path)
    let many = String(repeating: "GET /v1/mirror HTTP/1.1\r\nHost: x\r\n\r\n", count: 1000)
    // The socket buffers hold some hundred KiB; 40 MB of requests do not fit.
    #expect(throws: SystemError.self) {
      for _ in 0..<1000 { try connection.send(many) }
    }
    #expect(server.mirror.state.withLock { $0.statusCount } < 1000)
    #expect(try server.client.mirror().name == "vol0")
  }

  @Test("connections beyond the bound are told so, and there is room again when one ends")
  func connections() throws {
    let server = try TestServer(limits: limits { $0.connectionsMax = 2 })
    let request = "GET /v1/resync HTTP/1.1\r\nHost: x\r\n\r\n"
    var open: [RawConnection] = []
    for _ in 0..<2 {
      let connection = try RawConnection(server.path)
      try connection.send(request)
      _ = try connection.read(until: "}")
      open.append(connection)
    }
    #expect(
      throws: ControlClientError.problem(
        Problem(
          status: 503, code: "too-many-connections",
          detail: "too many connections to the control socket; try again"))
    ) { try server.client.mirror() }
    open.removeLast()
    #expect(
      eventually {
        do { return try server.client.mirror().name == "vol0" } catch { return false }
      })
  }

  @Test("bytes behind what is no request, and the end, do not take the answer before them away")
  func behindAnError() throws {
    let server = try TestServer(limits: limits { _ in })
    let socket = try UnixSocket.connect(to: server.path, deadline: .now + .seconds(20)).release()
    defer { close(socket) }
    func send(_ text: String) -> Bool {
      // The bytes live through the call.
      unsafe Array(text.utf8).withUnsafeBytes { bytes in
        unsafe Foundation.send(socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
      } == text.utf8.count
    }
    // The answer waits for this lock.
    server.mirror.state.withLock { _ in
      #expect(send("GET /v1/mirror HTTP/1.1\r\nHost: x\r\n\r\n1&0\r\n"))
      // Reads of the server's own.
      usleep(50_000)
      #expect(send("more\r\n"))
      shutdown(socket, Int32(SHUT_WR))
      usleep(50_000)
    }
    var answer = [UInt8](repeating: 0, count: 15)
    var poll = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    // One pollfd and fifteen bytes, alive through the calls.
    #expect(unsafe Foundation.poll(&poll, 1, 20_000) == 1)
    let count = unsafe recv(socket, &answer, answer.count, 0)
    #expect(String(decoding: answer.prefix(max(0, count)), as: UTF8.self) == "HTTP/1.1 200 OK")
  }

  @Test("a client that shuts its side after the request gets the answer")
  func halfClosed() throws {
    let server = try TestServer()
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/python3")
    process.arguments = [
      "-c",
      """
      import socket, sys
      s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
      s.sendall(b"GET /v1/resync HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"); s.shutdown(socket.SHUT_WR)
      data = b""
      while True:
          part = s.recv(65536)
          if not part: break
          data += part
      sys.exit(0 if data.startswith(b"HTTP/1.1 200") and data.endswith(b"}\\n") else 1)
      """, server.path,
    ]
    try process.run()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
  }
}
