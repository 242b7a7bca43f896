// What comes in at the control socket, through a real server on a unix socket: a client that sends
// anything and then nothing more gets the end of its connection in time (but for a stream of events,
// which has none), and before it whole answers, of which problems are problem documents.
//
//   input: number of pieces, then the client's bytes

import Base
import ControlModel
import ControlPlane
import Faults
import Glibc

enum ControlFuzz {
  private static let server: ControlServer? = start()
  private static let path = "/tmp/nbdmirror-fuzz-\(getpid()).ctl"

  private static func start() -> ControlServer? {
    atexit { unsafe unlink(ControlFuzz.path) }
    do throws(ControlServerError) {
      return try ControlServer.start(path: path, controller: ScriptedMirror())
    } catch {
      return nil
    }
  }

  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    try require(server != nil, "the control server does not start")
    var input = FuzzInput(input)
    let pieces = 1 + input.below(3)
    let stream = input.rest
    let answers: [UInt8]
    do throws(SystemError) {
      let socket = try UnixSocket.connect(to: path, deadline: .now + .seconds(30))
      answers = try converse(socket.release(), stream, pieces)
    } catch {
      throw FuzzProblem("the server does not end the connection: \(error)")
    }
    try check(answers, isHead: stream.starts(with: Array("HEAD".utf8)))
  }

  /// Sends everything, then the end; receives until the end.
  private static func converse(
    _ descriptor: Int32, _ stream: [UInt8], _ pieces: Int
  ) throws(SystemError) -> [UInt8] {
    defer { close(descriptor) }
    let deadline = ContinuousClock.now + .seconds(30)
    var answers: [UInt8] = []
    var sent = 0
    var piece = 0
    var isShut = false
    while ContinuousClock.now < deadline {
      if sent < stream.count, piece < pieces {
        piece += 1
        sent += send(descriptor, stream[sent..<(piece * stream.count / pieces)])
      }
      if piece == pieces, sent < stream.count {
        sent += send(descriptor, stream[sent...])
      }
      if sent >= stream.count, !isShut {
        isShut = true
        shutdown(descriptor, Int32(SHUT_WR))
      }
      guard try receive(descriptor, &answers, isBusy: !isShut) else { return answers }
      if isShut, isStream(answers) { return answers }
    }
    throw .timedOut
  }

  /// Whether one of the answers is a stream of events: it goes on as long as somebody reads.
  private static func isStream(_ answers: [UInt8]) -> Bool {
    // The header field: a body can have these words, too.
    String(decoding: answers, as: UTF8.self).contains("Content-Type: text/event-stream\r\n")
  }

  /// How many bytes the socket took; a peer that is gone takes all.
  private static func send(_ descriptor: Int32, _ bytes: ArraySlice<UInt8>) -> Int {
    let count = unsafe bytes.withUnsafeBytes { buffer in
      // The bytes live through the call.
      unsafe Glibc.send(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL))
    }
    if count < 0, errno != EAGAIN, errno != EINTR { return bytes.count }
    return max(0, count)
  }

  /// Takes what is there; waits for it unless there is something to send. False: the end.
  private static func receive(
    _ descriptor: Int32, _ answers: inout [UInt8], isBusy: Bool
  ) throws(SystemError) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    // One pollfd, alive through the call.
    guard unsafe poll(&request, 1, isBusy ? 1 : 1000) > 0 else { return true }
    var bytes = [UInt8](repeating: 0, count: 65536)
    let count = unsafe bytes.withUnsafeMutableBytes { buffer in
      // The kernel writes at most `count` bytes into the array, which lives through the call.
      unsafe recv(descriptor, buffer.baseAddress, buffer.count, 0)
    }
    if count > 0 { answers += bytes[..<count] }
    // Closed with bytes of ours unread: an end like any other.
    return count > 0 || count < 0 && (errno == EAGAIN || errno == EINTR)
  }

  private static func check(_ answers: [UInt8], isHead: Bool) throws(FuzzProblem) {
    guard !answers.isEmpty, !isHead else { return }
    var parser = HTTPResponseParser()
    do throws(HTTPResponseParser.Failure) {
      try parser.feed(answers)
      if parser.field("content-type") == "text/event-stream" { return }
      try parser.end()
    } catch {
      throw FuzzProblem("an answer that is none: \(error.message)")
    }
    try require(parser.isDone && parser.status >= 200, "an answer that is not whole")
    guard parser.status >= 400 else { return }
    let problem: Problem
    do throws(ControlJSON.Failure) {
      problem = try ControlJSON.decode(Problem.self, from: parser.body)
    } catch {
      throw FuzzProblem("status \(parser.status) without a problem document: \(error.message)")
    }
    try require(
      problem.status == parser.status && !problem.detail.isEmpty, "a problem of another status")
  }
}

/// A mirror that answers always the same, and takes every command that makes sense.
private final class ScriptedMirror: MirrorController {
  let events = EventLog(capacity: 4)

  func status() -> MirrorStatus {
    MirrorStatus(
      name: "m", setId: "5f0c9f0e-7b1e-4c58-9a57-0d6a3f2b1c00", size: 5 << 30, state: .degraded,
      syncPercent: 87.5, generation: 7, regionSize: 1 << 20, dirtyRegions: 3,
      unresolvedRegions: 0, readPolicy: "adaptive", uptimeSeconds: 7380,
      legs: [
        LegStatus(
          slot: 0, id: "5f0c9f0e-7b1e-4c58-9a57-0d6a3f2b1c01", path: "/a", state: .inSync),
        LegStatus(
          slot: 1, id: "5f0c9f0e-7b1e-4c58-9a57-0d6a3f2b1c02", path: "/b c", state: .failed),
      ], resync: ResyncStatus())
  }

  func connections() -> [ConnectionStatus] { [] }
  func regions() -> RegionMapStatus { RegionMapStatus(regions: 2, regionsPerCell: 1, map: "_.") }
  func failLeg(_ slot: Int) throws(ControlError) {
    if slot == 1 { throw ControlError(.conflict, "it has failed before") }
  }
  func removeLeg(_ slot: Int) throws(ControlError) {}
  func readdLeg(_ slot: Int, force: Bool) throws(ControlError) {}
  func addLeg(path: String, spare: Bool) throws(ControlError) -> Int { spare ? 1 : 2 }
  func replaceLeg(_ slot: Int, path: String) throws(ControlError) -> Int { slot }
  func refreshLeg(_ slot: Int, whole: Bool) throws(ControlError) {}
  func setLeg(_ slot: Int, writeMostly: Bool?) throws(ControlError) {}
  func resync() -> ResyncReport { ResyncReport(status: ResyncStatus()) }
  func changeResync(_ request: ResyncRequest) throws(ControlError) {}
  func scrub() -> ScrubReport { ScrubReport() }
  func startScrub(_ request: ScrubRequest, preferred: Int?) throws(ControlError) {}
  func stopScrub() throws(ControlError) {}
  func metrics() -> String { "nbdmirror_size_bytes 5\n" }
  func commanded(_ line: String) {}
  func shutdown() {}

  func faults() -> [FaultStatus] { [] }

  /// As the server does it: the words are those of the core.
  func addFault(_ request: AddFaultRequest, slot: Int) throws(ControlError) -> FaultStatus {
    do throws(FaultSyntaxError) {
      var options: [(FaultOption, String)] = []
      for name in request.options.keys.sorted() {
        options.append((try FaultOption.named(name), request.options[name] ?? ""))
      }
      let fault = try Fault.parse(kind: request.kind, options: options, leg: LegSlot(slot))
      return FaultStatus(
        name: fault.name, leg: slot, kind: request.kind, words: fault.words, state: .armed,
        matched: 0, fired: 0, badBytes: 0)
    } catch {
      throw ControlError(.invalid, error.description)
    }
  }

  func removeFault(named name: String) throws(ControlError) {
    if name != "a" { throw ControlError(.noSuchFault, "there is no fault named '\(name)'") }
  }

  func clearFaults() throws(ControlError) {}

  func releaseFault(named name: String) throws(ControlError) -> FaultStatus {
    throw ControlError(.conflict, "'\(name)' is no hang")
  }

  func cutPower(slots: [Int], seed: UInt64?) throws(ControlError) -> PowerCutReport {
    PowerCutReport(seed: seed ?? 5, legs: [])
  }
}
