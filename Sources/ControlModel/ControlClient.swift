// A blocking client of the control socket: one request per connection.
//
// Blocking suits a command line: one caller, one request, a deadline over all of it.

import Glibc

/// Why a request to a control socket gave no result: `description` is a sentence for people.
public enum ControlClientError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Nobody listens at the path.
  case notRunning(path: String)
  /// The server did not answer in time.
  case timedOut(path: String, milliseconds: Int)
  /// The connection failed.
  case system(path: String, SystemError)
  /// The answer is not what this client understands.
  case badAnswer(path: String, String)
  /// The server said no.
  case problem(Problem)

  /// Whether the server does not run, or ended during the call.
  public var isServerGone: Bool {
    switch self {
    case .notRunning: true
    case .system(_, let error): error.isPeerGone
    case .timedOut, .badAnswer, .problem: false
    }
  }

  /// Whether the answer was broken off, or is not understood.
  public var isBadAnswer: Bool {
    if case .badAnswer = self { true } else { false }
  }

  /// A sentence that names the path, or the server's own.
  public var description: String {
    switch self {
    case .notRunning(let path): "no server listens on the control socket \(path)"
    case .timedOut(let path, let milliseconds):
      "the server on \(path) did not answer within \(milliseconds / 1000) s"
    case .system(let path, let error): "cannot talk to the server on \(path): \(error)"
    case .badAnswer(let path, let text): "\(path): \(text)"
    case .problem(let problem): problem.detail
    }
  }
}

/// A client of one control socket. Each call blocks, at most `timeoutMilliseconds`.
public struct ControlClient: Sendable {
  /// The control socket.
  public let path: String
  /// Milliseconds that a request may take in all. Commands wait for labels to be durable.
  public let timeoutMilliseconds: Int

  /// A client of the socket at `path`; connects at each call.
  public init(path: String, timeoutMilliseconds: Int = 60_000) {
    self.path = path
    self.timeoutMilliseconds = timeoutMilliseconds
  }

  /// How the mirror is.
  public func mirror() throws(ControlClientError) -> MirrorStatus {
    try decoded(send("GET", "/v1/mirror"))
  }

  /// The configured legs.
  public func legs() throws(ControlClientError) -> [LegStatus] {
    try decoded(send("GET", "/v1/legs"))
  }

  /// The clients' connections.
  public func connections() throws(ControlClientError) -> [ConnectionStatus] {
    try decoded(send("GET", "/v1/connections"))
  }

  /// The region map at a glance.
  public func regions() throws(ControlClientError) -> RegionMapStatus {
    try decoded(send("GET", "/v1/regions"))
  }

  /// The running resync, else the last one.
  public func resync() throws(ControlClientError) -> ResyncReport {
    try decoded(send("GET", "/v1/resync"))
  }

  /// Adds a leg, or a spare, on the PV at `path`.
  public func addLeg(
    path: String, spare: Bool = false
  ) throws(ControlClientError) -> LegStatus {
    try decoded(send("POST", "/v1/legs", json: AddLegRequest(path: path, spare: spare)))
  }

  /// Puts a leg on the PV at `path` in the place of `leg`; returns the new one.
  public func replaceLeg(_ leg: String, path: String) throws(ControlClientError) -> LegStatus {
    let target = "/v1/legs/\(PercentEncoding.encode(leg))/replace"
    return try decoded(send("POST", target, json: ReplaceLegRequest(path: path)))
  }

  /// Begins anew with a leg whose disk was repaired.
  public func refreshLeg(
    _ leg: String, whole: Bool = false
  ) throws(ControlClientError) -> LegStatus {
    let target = "/v1/legs/\(PercentEncoding.encode(leg))/refresh"
    return try decoded(send("POST", target, json: RefreshLegRequest(whole: whole)))
  }

  /// Changes a leg's options.
  public func setLeg(_ leg: String, writeMostly: Bool) throws(ControlClientError) -> LegStatus {
    let body = SetLegRequest(writeMostly: writeMostly)
    return try decoded(send("PATCH", "/v1/legs/\(PercentEncoding.encode(leg))", json: body))
  }

  /// Pauses or resumes copying, or changes its limits.
  public func changeResync(
    _ request: ResyncRequest
  ) throws(ControlClientError) -> ResyncReport {
    try decoded(send("PATCH", "/v1/resync", json: request))
  }

  /// The running scrub, else the last one.
  public func scrub() throws(ControlClientError) -> ScrubReport {
    try decoded(send("GET", "/v1/scrub"))
  }

  /// Starts a scrub; it runs on after the answer.
  public func startScrub(_ request: ScrubRequest) throws(ControlClientError) -> ScrubReport {
    try decoded(send("POST", "/v1/scrub", json: request))
  }

  /// Stops the running scrub.
  public func stopScrub() throws(ControlClientError) -> ScrubReport {
    try decoded(send("DELETE", "/v1/scrub"))
  }

  /// Takes a leg offline as failed.
  public func failLeg(_ leg: String) throws(ControlClientError) -> LegStatus {
    try decoded(send("POST", "/v1/legs/\(PercentEncoding.encode(leg))/fail"))
  }

  /// Brings a leg back.
  public func readdLeg(_ leg: String, force: Bool) throws(ControlClientError) -> LegStatus {
    let body = ReaddLegRequest(force: force)
    return try decoded(send("POST", "/v1/legs/\(PercentEncoding.encode(leg))/readd", json: body))
  }

  /// Takes a leg out of the mirror.
  public func removeLeg(_ leg: String) throws(ControlClientError) {
    _ = try send("DELETE", "/v1/legs/\(PercentEncoding.encode(leg))")
  }

  /// Tells the server to stop; it stops after the answer.
  public func shutdown() throws(ControlClientError) {
    _ = try send("POST", "/v1/shutdown")
  }

  /// The process of the server, where it can be seen.
  public func serverProcess() throws(ControlClientError) -> Int32? {
    let deadline = ContinuousClock.now + .milliseconds(timeoutMilliseconds)
    do {
      return try UnixSocket.connect(to: path, deadline: deadline).peerProcess
    } catch {
      throw failure(error)
    }
  }

  /// Whether somebody listens.
  public func isListening() -> Bool {
    do {
      let deadline = ContinuousClock.now + .milliseconds(timeoutMilliseconds)
      _ = try UnixSocket.connect(to: path, deadline: deadline)
      return true
    } catch {
      // A full queue: somebody is there, and busy.
      return error == .timedOut
    }
  }

  // MARK: One exchange

  func send(
    _ method: String, _ target: String, json: some Encodable
  ) throws(ControlClientError) -> [UInt8] {
    let body: [UInt8]
    do { body = try ControlJSON.encode(json) } catch {
      throw .badAnswer(path: path, error.message)
    }
    return try send(method, target, body: body)
  }

  /// Sends one request and returns the body of the answer.
  /// - Throws: `.problem` for any status of 400 or more.
  func send(
    _ method: String, _ target: String, body: [UInt8] = [], accept: String? = nil
  ) throws(ControlClientError) -> [UInt8] {
    let answer = try exchange(method, target, body: body, accept: accept)
    try check(answer)
    return answer.body
  }

  /// - Throws: `.problem` for any status of 400 or more.
  func check(_ answer: HTTPResponseParser) throws(ControlClientError) {
    guard answer.status >= 400 else { return }
    do {
      throw ControlClientError.problem(try ControlJSON.decode(Problem.self, from: answer.body))
    } catch let error as ControlClientError {
      throw error
    } catch {
      throw .badAnswer(path: path, "the server answered with HTTP status \(answer.status)")
    }
  }

  private func exchange(
    _ method: String, _ target: String, body: [UInt8], accept: String?
  ) throws(ControlClientError) -> HTTPResponseParser {
    let deadline = ContinuousClock.now + .milliseconds(timeoutMilliseconds)
    var request = "\(method) \(target) HTTP/1.1\r\nHost: nbdmirror\r\nConnection: close\r\n"
    if !body.isEmpty { request += "Content-Type: application/json\r\n" }
    if let accept { request += "Accept: \(accept)\r\n" }
    if method != "GET" { request += "Content-Length: \(body.count)\r\n" }
    var parser = HTTPResponseParser()
    do {
      let socket = try UnixSocket.connect(to: path, deadline: deadline)
      do {
        try socket.send(Array((request + "\r\n").utf8) + body, deadline: deadline)
      } catch {
        // A server that refuses a request early answers and closes: its answer is there to read.
        guard error.isPeerGone else { throw error }
      }
      while !parser.isDone {
        let bytes = try socket.receive(countMax: 64 << 10, deadline: deadline)
        if !bytes.isEmpty {
          try parser.feed(bytes)
        } else if parser.status == 0 {
          throw SystemError(code: ECONNRESET)
        } else {
          try parser.end()
        }
      }
      return parser
    } catch let error as SystemError {
      throw failure(error)
    } catch let error as HTTPResponseParser.Failure {
      throw .badAnswer(path: path, error.message)
    } catch {
      throw .badAnswer(path: path, "\(error)")
    }
  }

  func decoded<Value: Decodable>(
    _ body: [UInt8]
  ) throws(ControlClientError) -> Value {
    do {
      return try ControlJSON.decode(Value.self, from: body)
    } catch {
      throw .badAnswer(path: path, "the server's answer is not understood: \(error.message)")
    }
  }

  func failure(_ error: SystemError) -> ControlClientError {
    if error.isNobodyThere { return .notRunning(path: path) }
    if error == .timedOut {
      return .timedOut(path: path, milliseconds: timeoutMilliseconds)
    }
    return .system(path: path, error)
  }
}
