// The part of the adapter about events: what the engine, the clients and the administrator do
// becomes records, which go into the log, to the journal and to the program of --on-event.

import Base
import ControlModel
import ControlPlane
import Faults
import MirrorEngine
import Ring
import Server
import Synchronization
import TLS

extension MirrorAdapter {
  /// Notes an event.
  func tell(_ record: EventRecord) {
    let kept = events.append(record)
    hook.withLock { $0 }?.post(kept)
  }

  /// Runs a command that begins something, and tells of it, before what follows from it is told.
  func inOrder<Result: Sendable>(
    _ body: () throws(ControlError) -> Result
  ) throws(ControlError) -> Result {
    try telling.withLock { (_) throws(ControlError) in try body() }
  }

  /// Notes, once, that the server stops.
  func tellStopping(_ message: String) {
    let isNew = progress.withLock { state in
      defer { state.isStopping = true }
      return !state.isStopping
    }
    if isNew { tell(EventRecord(.serverStopping, message)) }
  }

  // MARK: MirrorObserver

  func observe(_ event: MirrorEvent) { telling.withLock { _ in note(event) } }

  private func note(_ event: MirrorEvent) {
    let path = event.leg.map { files.path(of: $0) }
    if let line = EventText.line(event, path: path) {
      Journal.write(line)
      if let record = EventText.record(event, message: line) { tell(record) }
    }
    switch event.kind {
    case .resyncStarted: progress.withLock { $0.isResyncing = true }
    case .resyncDone: progress.withLock { $0.isResyncing = false }
    case .scrubDone: progress.withLock { $0.isScrubbing = false }
    default: break
    }
  }

  func clientChanged(_ connection: ConnectionInfo, isGone: Bool) {
    let way = connection.isTCP ? "TCP" : "unix socket"
    let name = "\(connection.number)"
    guard isGone else {
      return tell(
        EventRecord(.clientConnected, "client \(name) connected by \(way)", name: name))
    }
    tell(
      EventRecord(
        .clientGone,
        "client \(name) is gone after \(connection.requests) requests, "
          + "\(connection.readBytes) bytes read and \(connection.writtenBytes) written",
        bytes: connection.readBytes + connection.writtenBytes, count: connection.requests,
        name: name))
  }

  func clientFailed(_ connection: ConnectionInfo, _ error: TLSError) {
    let name = "\(connection.number)"
    tell(EventRecord(.clientRefused, "client \(name) was dropped, TLS: \(error)", name: name))
  }

  func eventsDropped(_ count: UInt64) {
    let message = "\(count) events came faster than they could be noted"
    Journal.write(message)
    tell(EventRecord(.eventsLost, message, count: count))
  }

  // MARK: What goes on

  /// Tells of faults that hit, and, now and then, of a resync and a scrub that run.
  func tellWhatGoesOn(seconds: UInt64) {
    telling.withLock { _ in tellOfFaults() }
    tellOfProgress(seconds: seconds)
  }

  /// Tells how often faults hit since it was last told; `telling` is held.
  func tellOfFaults() {
    for report in server.faultReports() {
      let name = report.fault.name
      let before = progress.withLock { state in
        state.fired.updateValue(report.fired, forKey: name) ?? 0
      }
      // Between a removal and this look a fault of the same name may have been added.
      let new = report.fired >= before ? report.fired - before : report.fired
      guard new > 0 else { continue }
      tell(
        EventRecord(
          .faultFired, "fault '\(name)' hit \(new) I/O of leg \(report.fault.leg)",
          leg: report.fault.leg.index, count: new, name: name))
    }
  }

  private func tellOfProgress(seconds: UInt64) {
    let isDue = progress.withLock { state in
      guard state.isResyncing || state.isScrubbing,
        seconds >= state.toldSeconds + MirrorAdapter.progressSeconds
      else { return false }
      state.toldSeconds = seconds
      return true
    }
    guard isDue else { return }
    let snapshot = server.withEngine { $0.snapshot() }
    if snapshot.isResyncRunning {
      tell(
        EventRecord(
          .resyncProgress,
          "resync: \(snapshot.resyncBytesDone) of \(snapshot.resyncBytesTotal) bytes copied",
          bytes: snapshot.resyncBytesDone))
    }
    if snapshot.scrub.isRunning {
      tell(
        EventRecord(
          .scrubProgress,
          "scrub: \(snapshot.scrub.bytesDone) of \(snapshot.scrub.bytesTotal) bytes compared",
          bytes: snapshot.scrub.bytesDone))
    }
  }

  /// Seconds between two events of progress.
  static let progressSeconds: UInt64 = 5

  /// What the last look showed.
  struct Progress: Sendable {
    var isResyncing = false
    var isScrubbing = false
    var isStopping = false
    var toldSeconds: UInt64 = 0
    var fired: [String: UInt64] = [:]
  }
}

/// The thread that looks four times a second at what makes no events by itself.
final class EventTicker: Sendable {
  private let adapter: MirrorAdapter
  private let isOver = Atomic<Bool>(false)
  private let thread = Mutex<ServerThread?>(nil)

  init(_ adapter: MirrorAdapter) { self.adapter = adapter }

  /// Starts it; once, when the server serves.
  func start() throws(ServerError) {
    let made = try ServerThread { [self] in
      var watchdog = Watchdog.ofThisProcess(now: monotonicNanoseconds())
      while !waitFor(milliseconds: 250, { isOver.load(ordering: .acquiring) }) {
        let now = monotonicNanoseconds()
        adapter.tellWhatGoesOn(seconds: now / Nanoseconds.second)
        guard watchdog != nil else { continue }
        // Whoever holds the engine for good keeps the server from living, too.
        adapter.server.withEngine { _ in }
        if watchdog?.isDue(now: now, turns: adapter.server.statistics().turns) == true {
          Systemd.notify("WATCHDOG=1")
        }
      }
      adapter.tellWhatGoesOn(seconds: monotonicNanoseconds() / Nanoseconds.second)
    }
    thread.withLock { $0 = made }
  }

  /// Ends it and waits for that.
  func stop() {
    isOver.store(true, ordering: .releasing)
    thread.withLock { $0 }?.join()
  }
}

extension EventText {
  /// The event in the words of the schema; nil for those that are only counted.
  static func record(_ event: MirrorEvent, message: String) -> EventRecord? {
    let leg = event.leg?.index
    let detail = event.detail
    func bytes(_ kind: EventKind) -> EventRecord {
      EventRecord(kind, message, leg: leg, bytes: detail)
    }
    func place(_ kind: EventKind) -> EventRecord {
      EventRecord(kind, message, leg: leg, offset: detail)
    }
    func plain(_ kind: EventKind) -> EventRecord { EventRecord(kind, message, leg: leg) }
    return switch event.kind {
    case .legFailed: plain(.legFailed)
    case .legRemoved: plain(.legRemoved)
    case .legOnline: bytes(.legOnline)
    case .resyncStarted: bytes(.resyncStarted)
    case .resyncDone: bytes(.resyncDone)
    case .recoveryDone: bytes(.recoveryDone)
    case .generationRecorded: plain(.labelWritten)
    case .readRedirected: nil
    case .readFailed: place(.readFailed)
    case .flushLatched: plain(.flushLatched)
    case .copyFailed: place(.copyFailed)
    case .spareDropped: plain(.spareDropped)
    case .replaceStarted: plain(.replaceStarted)
    case .legReplaced: plain(.legReplaced)
    case .replaceEnded: plain(.replaceEnded)
    case .readRepaired: place(.readRepaired)
    case .scrubMismatch: place(.scrubMismatch)
    case .scrubReadFailed: place(.scrubReadFailed)
    case .scrubDone: bytes(.scrubDone)
    }
  }
}
