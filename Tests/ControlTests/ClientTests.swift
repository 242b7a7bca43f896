// Goal: the client understands every answer that HTTP/1.1 allows, and gives up on everything else
// within its deadline and its bounds. Method: the parser byte by byte; a scripted server.
import ControlModel
import Foundation
import Testing

@Suite("HTTP response parser")
struct ResponseParserTests {
  /// The body, parsed in pieces of `step` bytes; the end of the connection if it is not done.
  private func parse(_ text: String, step: Int) throws -> (Int, String) {
    var parser = HTTPResponseParser(headBytesMax: 200, bodyBytesMax: 40)
    let bytes = Array(text.utf8)
    for start in stride(from: 0, to: bytes.count, by: step) {
      try parser.feed(Array(bytes[start..<min(start + step, bytes.count)]))
    }
    if !parser.isDone { try parser.end() }
    return (parser.status, String(decoding: parser.body, as: UTF8.self))
  }

  @Test(
    "every framing gives the same body, however the bytes come",
    arguments: [
      "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
      "HTTP/1.1 200 OK\r\ncontent-LENGTH:\t11 \r\n\r\nhello worldignored",
      "HTTP/1.1 200\r\nContent-Length: 11\n\nhello world",
      "HTTP/1.0 200 OK\r\n\r\nhello world",
      "HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n"
        + "B\r\nhello world\r\n000\r\nTrailer: x\r\n\r\n",
    ])
  func framings(text: String) throws {
    for step in 1...text.utf8.count {
      let (status, body) = try parse(text, step: step)
      #expect(status == 200)
      #expect(body.hasPrefix("hello world") && (body.count == 11 || step > 0))
      #expect(body == "hello world")
    }
  }

  @Test("204 and 304 have no body, whatever they announce")
  func noBody() throws {
    for status in [204, 304] {
      let (seen, body) = try parse(
        "HTTP/1.1 \(status) X\r\nContent-Length: 5\r\n\r\n", step: 7)
      #expect(seen == status && body.isEmpty)
    }
  }

  @Test(
    "what is broken, cut short or too large is refused",
    arguments: [
      "", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "SSH-2.0-OpenSSH\r\n",
      "HTTP/2 200\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n",
      "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 41\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n29\r\n"
        + String(repeating: "a", count: 41),
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
      "HTTP/1.1 200 OK\r\n\r\n" + String(repeating: "a", count: 41),
      "HTTP/1.1 200 OK\r\nA: " + String(repeating: "a", count: 200),
      "HTTP/1.1 200 OK\r\n" + String(repeating: "A: b\r\n", count: 40),
    ])
  func refused(text: String) {
    for step in [1, 3, 1000] {
      #expect(throws: HTTPResponseParser.Failure.self) { try parse(text, step: step) }
    }
  }

  @Test("exactly the bounds are accepted")
  func bounds() throws {
    let body = String(repeating: "a", count: 40)
    #expect(try parse("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + body, step: 1).1 == body)
    #expect(try parse("HTTP/1.1 200 OK\r\n\r\n" + body, step: 1).1 == body)
  }
}

@Suite("control client")
struct ClientTests {
  /// A server that answers each connection with `answer` and closes, `count` times.
  private func scripted(_ answer: String, count: Int = 1) throws -> String {
    let path = try temporaryFolder() + "/s"
    let listener = try UnixSocket.bind(to: path).release()
    _ = fcntl(listener, F_SETFL, 0)
    #expect(listen(listener, 8) == 0)
    Thread.detachNewThread {
      for _ in 0..<count {
        let connection = accept(listener, nil, nil)
        var request = [UInt8](repeating: 0, count: 65536)
        _ = unsafe recv(connection, &request, request.count, 0)
        let bytes = Array(answer.utf8)
        _ = unsafe send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        close(connection)
      }
      close(listener)
    }
    return path
  }

  @Test("nobody there is said as such")
  func notRunning() throws {
    let folder = try temporaryFolder()
    let path = folder + "/none"
    #expect(throws: ControlClientError.notRunning(path: path)) {
      try ControlClient(path: path).mirror()
    }
    close(try UnixSocket.bind(to: folder + "/stale").release())
    #expect(throws: ControlClientError.notRunning(path: folder + "/stale")) {
      try ControlClient(path: folder + "/stale").shutdown()
    }
    #expect(!ControlClient(path: path).isListening())
    #expect("\(ControlClientError.notRunning(path: path))".hasSuffix(path))
  }

  @Test("a server that never answers is given up on")
  func silent() throws {
    let path = try temporaryFolder() + "/s"
    let listener = try UnixSocket.bind(to: path).release()
    #expect(listen(listener, 8) == 0)
    let begin = ContinuousClock.now
    #expect(throws: ControlClientError.timedOut(path: path, milliseconds: 100)) {
      try ControlClient(path: path, timeoutMilliseconds: 100).mirror()
    }
    #expect(ContinuousClock.now - begin >= .milliseconds(100))
    close(listener)
  }

  @Test("a server whose queue is full counts as listening, and connecting gives up in time")
  func fullQueue() throws {
    let path = try temporaryFolder() + "/s"
    let listener = try UnixSocket.bind(to: path).release()
    #expect(listen(listener, 0) == 0)
    let first = try RawConnection(path)
    #expect(throws: ControlClientError.timedOut(path: path, milliseconds: 50)) {
      try ControlClient(path: path, timeoutMilliseconds: 50).mirror()
    }
    #expect(ControlClient(path: path, timeoutMilliseconds: 50).isListening())
    withExtendedLifetime(first) {}
    close(listener)
  }

  @Test("answers that are not the control plane's are refused with the path")
  func foreignAnswers() throws {
    for answer in [
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "NBDMAGICIHAVEOPT\r\n",
      "HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    ] {
      let path = try scripted(answer)
      do {
        _ = try ControlClient(path: path).mirror()
        Issue.record("this was taken for a status: \(answer)")
      } catch ControlClientError.badAnswer(let where_, _) {
        #expect(where_ == path)
      }
    }
  }

  @Test("a server that hangs up without an answer is gone")
  func hangsUp() throws {
    let path = try scripted("")
    do {
      _ = try ControlClient(path: path).mirror()
      Issue.record("an empty answer was taken for a status")
    } catch {
      #expect(error.isServerGone)
    }
  }

  @Test("a path that is no socket address is an error, not a crash")
  func badPaths() {
    for path in ["", String(repeating: "a", count: 108), "a\0b"] {
      #expect(throws: ControlClientError.self) { try ControlClient(path: path).mirror() }
    }
  }

  @Test("the server's process is seen through the socket")
  func process() throws {
    let server = try TestServer()
    #expect(try server.client.serverProcess() == getpid())
  }
}
