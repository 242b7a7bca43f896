// A mirror that follows a script, a control server over it on a temporary socket, and a raw
// client: what the tests of the control plane share.
import ControlModel
import ControlPlane
import Foundation
import Synchronization
import Testing

/// A controller that records what it is told.
final class FakeMirror: MirrorController {
  struct State {
    var status = Samples.degraded
    var calls: [String] = []
    var error: ControlError?
    var statusCount = 0
    var journal: [String] = []
    var scrub = ScrubReport()
    var faults: [FaultStatus] = []
  }

  let state = Mutex(State())
  let events = EventLog(capacity: 100)
  /// Commands wait until this is open.
  let gate = Gate(isOpen: true)

  var calls: [String] { state.withLock { $0.calls } }

  func status() -> MirrorStatus {
    state.withLock {
      $0.statusCount += 1
      return $0.status
    }
  }

  func connections() -> [ConnectionStatus] {
    [
      ConnectionStatus(
        number: 7, transport: .tcp, phase: .transmission, reactor: 1, structuredReplies: true,
        tls: true,
        requestsInFlight: 3, requests: 40, readBytes: 1 << 20, writtenBytes: 4096)
    ]
  }

  func regions() -> RegionMapStatus {
    RegionMapStatus(regions: 6, regionsPerCell: 1, map: "_.w?S.")
  }

  func failLeg(_ slot: Int) throws(ControlError) {
    try command("fail \(slot)") { $0.legs[slot].state = .failed }
  }

  func removeLeg(_ slot: Int) throws(ControlError) {
    try command("remove \(slot)") { $0.legs.removeAll { $0.slot == slot } }
  }

  func readdLeg(_ slot: Int, force: Bool) throws(ControlError) {
    try command("readd \(slot) \(force)") { $0.legs[slot].state = .syncing }
  }

  func addLeg(path: String, spare: Bool) throws(ControlError) -> Int {
    try command("add \(path)\(spare ? " spare" : "")") {
      $0.legs.append(
        LegStatus(slot: 2, id: "id-2", path: path, state: spare ? .spare : .syncing))
    }
    return 2
  }

  func replaceLeg(_ slot: Int, path: String) throws(ControlError) -> Int {
    try command("replace \(slot) \(path)") {
      $0.legs.append(
        LegStatus(slot: 3, id: "id-3", path: path, state: .syncing, replaces: slot))
    }
    return 3
  }

  func refreshLeg(_ slot: Int, whole: Bool) throws(ControlError) {
    try command("refresh \(slot)\(whole ? " whole" : "")") { $0.legs[slot].readErrors = 0 }
  }

  func setLeg(_ slot: Int, writeMostly: Bool?) throws(ControlError) {
    try command("set \(slot) \(writeMostly.map { "\($0)" } ?? "nothing")") {
      if let writeMostly { $0.legs[slot].writeMostly = writeMostly }
    }
  }

  func resync() -> ResyncReport {
    state.withLock {
      ResyncReport(
        status: $0.status.resync, zeroBytes: 4096, unreadable: 1,
        unreadableRanges: [RangeReport(offset: 1536, bytes: 512, legs: [])])
    }
  }

  func changeResync(_ request: ResyncRequest) throws(ControlError) {
    let text = [
      request.paused.map { "paused \($0)" }, request.minBytesPerSecond.map { "min \($0)" },
      request.maxBytesPerSecond.map { "max \($0)" },
    ].compactMap { $0 }.joined(separator: " ")
    try command("resync \(text)") {
      if let isPaused = request.paused { $0.resync.paused = isPaused }
      if let min = request.minBytesPerSecond { $0.resync.minBytesPerSecond = min }
      if let max = request.maxBytesPerSecond { $0.resync.maxBytesPerSecond = max == 0 ? nil : max }
    }
  }

  func scrub() -> ScrubReport {
    state.withLock {
      $0.statusCount += 1
      return $0.scrub
    }
  }

  func startScrub(_ request: ScrubRequest, preferred: Int?) throws(ControlError) {
    let range = request.offset.map { " \($0)+\(request.bytes ?? 0)" } ?? ""
    let leg = preferred.map { " prefer \($0)" } ?? ""
    try command("scrub \(request.mode.rawValue)\(leg)\(range)") { _ in }
    state.withLock {
      $0.scrub = ScrubReport(mode: request.mode, running: true, bytesTotal: 5 << 30)
    }
  }

  func stopScrub() throws(ControlError) {
    try command("scrub stop") { _ in }
    state.withLock { $0.scrub.running = false }
  }

  func metrics() -> String {
    var text = MetricText(mirror: "a \"b\"")
    text.add("nbdmirror_size_bytes", [], UInt64(5) << 30)
    return text.text
  }

  func commanded(_ line: String) { state.withLock { $0.journal.append(line) } }

  func shutdown() { state.withLock { $0.calls.append("shutdown") } }

  private func command(
    _ call: String, _ change: (inout MirrorStatus) -> Void
  ) throws(ControlError) {
    state.withLock { $0.calls.append(call) }
    gate.pass()
    if let error = state.withLock({ $0.error }) { throw error }
    state.withLock { change(&$0.status) }
  }
}

/// Holds threads back until it is opened.
final class Gate: Sendable {
  private let condition = NSCondition()
  private let isOpen: Mutex<Bool>

  init(isOpen: Bool) { self.isOpen = Mutex(isOpen) }

  func set(open: Bool) {
    condition.lock()
    isOpen.withLock { $0 = open }
    condition.broadcast()
    condition.unlock()
  }

  func pass() {
    condition.lock()
    while !isOpen.withLock({ $0 }) { condition.wait() }
    condition.unlock()
  }
}

/// A control server over a fake mirror, in a folder of its own.
final class TestServer {
  let mirror = FakeMirror()
  let folder: String
  let path: String
  private let server: ControlServer
  private var isStopped = false

  init(limits: ControlLimits = ControlLimits(), tcp: [ControlTCP] = []) throws {
    folder = try temporaryFolder()
    path = folder + "/vol0.ctl"
    server = try ControlServer.start(path: path, tcp: tcp, controller: mirror, limits: limits)
  }

  /// The TCP address, as in a URI.
  var address: String? { server.addresses.first }

  deinit {
    stop()
    do { try FileManager.default.removeItem(atPath: folder) } catch {}
  }

  func stop() {
    if !isStopped { server.stop() }
    isStopped = true
  }

  var client: ControlClient { ControlClient(path: path, timeoutMilliseconds: 20_000) }

  /// Sends `text` on a connection of its own and returns all that comes back until its end.
  func exchange(_ text: String) throws -> String {
    let connection = try RawConnection(path)
    try connection.send(text)
    return try connection.readToEnd()
  }
}

/// A connection without a protocol.
final class RawConnection {
  private let socket: UnixSocket
  private var received: [UInt8] = []

  init(_ path: String) throws {
    socket = try UnixSocket.connect(to: path, deadline: .now + .seconds(20))
  }

  func send(_ text: String, within: Duration = .seconds(20)) throws {
    try socket.send(Array(text.utf8), deadline: .now + within)
  }

  func send(_ bytes: [UInt8]) throws { try socket.send(bytes, deadline: .now + .seconds(20)) }

  /// Everything until the server closes.
  func readToEnd() throws -> String {
    while true {
      let bytes = try socket.receive(countMax: 65536, deadline: .now + .seconds(20))
      if bytes.isEmpty { return String(decoding: received, as: UTF8.self) }
      received += bytes
    }
  }

  /// Everything until `text` has come `count` times.
  func read(until text: String, count: Int = 1) throws -> String {
    while true {
      let all = String(decoding: received, as: UTF8.self)
      if all.components(separatedBy: text).count > count { return all }
      let bytes = try socket.receive(countMax: 65536, deadline: .now + .seconds(20))
      if bytes.isEmpty { throw SystemError(code: ECONNRESET) }
      received += bytes
    }
  }
}

/// A new empty folder with a short name, for socket paths are short; removed at the end of the
/// tests.
func temporaryFolder() throws -> String {
  let folder = TemporaryRoot.path + "/\(UUID().uuidString.prefix(8))"
  try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  return folder
}

/// The folder of all temporary folders of this process.
private enum TemporaryRoot {
  static let path: String = {
    atexit {
      do { try FileManager.default.removeItem(atPath: TemporaryRoot.path) } catch {}
    }
    return NSTemporaryDirectory() + "/nbdm-\(getpid())"
  }()
}

/// Waits for a condition, with a deadline.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
  let deadline = ContinuousClock.now + .seconds(20)
  while ContinuousClock.now < deadline {
    if try condition() { return true }
    usleep(2_000)
  }
  return false
}

/// Statuses to show.
enum Samples {
  static let legs = [
    LegStatus(
      slot: 0, id: "5f0c9f0e-7b1e-4c58-9a57-0d6a3f2b1c00", path: "/srv/a.img", state: .inSync,
      cache: .direct,
      latency: LegStatus.Latency(
        read: .init(p50Microseconds: 82.4, p99Microseconds: 410.2),
        write: .init(p50Microseconds: 9.5, p99Microseconds: 1200))),
    LegStatus(
      slot: 1, id: "5F0C9F0E-7B1E-4C58-9A57-0D6A3F2B1C01", path: "/srv/b c.img", state: .failed,
      staleBytes: 640 << 20, readErrors: 0, writeErrors: 3, repairedBlocks: 12),
  ]

  static let degraded = MirrorStatus(
    name: "vol0", setId: "set", size: 5 << 30, state: .degraded, syncPercent: 87.5,
    generation: 7, regionSize: 1 << 20, dirtyRegions: 3, unresolvedRegions: 0,
    readPolicy: "round-robin", uptimeSeconds: 7380, legs: legs,
    resync: ResyncStatus(bytesDone: 64 << 20, bytesTotal: 64 << 20))

  static var healthy: MirrorStatus {
    var status = degraded
    status.state = .healthy
    status.syncPercent = 100
    status.legs[1] = LegStatus(slot: 1, id: "id-1", path: "/srv/b.img", state: .inSync)
    return status
  }

  static var syncing: MirrorStatus {
    var status = healthy
    status.state = .syncing
    status.syncPercent = 87.509
    status.legs[1].state = .syncing
    status.legs[1].staleBytes = 640 << 20
    status.resync = ResyncStatus(
      running: true, bytesDone: 1_288_490_189, bytesTotal: 3 << 30,
      bytesPerSecond: 85 << 20, etaSeconds: 21)
    return status
  }
}
