// The part of the adapter about resync and scrub.

import Base
import ControlModel
import ControlPlane
import MirrorEngine
import Server

extension MirrorAdapter {
  func resync() -> ResyncReport {
    let snapshot = server.withEngine { $0.snapshot() }
    return ResyncReport(
      status: CopyText.resync(snapshot), zeroBytes: snapshot.resyncBytesZero,
      unreadable: snapshot.unreadableCount,
      unreadableRanges: snapshot.unreadable.map(CopyText.range))
  }

  func changeResync(_ request: ResyncRequest) throws(ControlError) {
    if request.minBytesPerSecond != nil || request.maxBytesPerSecond != nil {
      try command("the limits cannot be set", nil) { (engine, now) throws(CommandError) in
        let present = engine.snapshot()
        try engine.setResyncLimits(
          min: request.minBytesPerSecond ?? present.resyncMinBytesPerSecond,
          max: request.maxBytesPerSecond ?? present.resyncMaxBytesPerSecond, now: now)
      }
      try waitUntilRecorded()
      tell(EventRecord(.resyncChanged, "the limits of the resync were changed"))
    }
    if let isPaused = request.paused {
      try command("the resync cannot be changed", nil) { (engine, now) throws(CommandError) in
        engine.setCopierPaused(isPaused, now: now)
      }
      try waitUntilRecorded()
      tell(EventRecord(.resyncChanged, isPaused ? "the resync is paused" : "the resync goes on"))
    }
  }

  func scrub() -> ScrubReport {
    CopyText.report(server.withEngine { $0.snapshot().scrub })
  }

  func startScrub(_ request: ScrubRequest, preferred: Int?) throws(ControlError) {
    let what = "no scrub can be started"
    let size = facts.layout.sizeBytes
    let offset = request.offset ?? 0
    let bytes = request.bytes ?? (offset < size ? size - offset : 0)
    guard offset < size, bytes > 0, bytes <= size - offset else {
      throw CommandText.error(what, .badRange)
    }
    let order = ScrubOrder(
      mode: request.mode == .check ? .check : .repair,
      preferred: preferred.map { LegSlot($0) }, range: ByteRange(offset: offset, count: bytes))
    try inOrder { () throws(ControlError) in
      try command(what, order.preferred) { (engine, now) throws(CommandError) in
        try engine.startScrub(order, now: now)
      }
      progress.withLock { $0.isScrubbing = true }
      tell(
        EventRecord(
          .scrubStarted, "scrub \(request.mode.rawValue) started", offset: offset, bytes: bytes))
    }
  }

  func stopScrub() throws(ControlError) {
    try command("no scrub can be stopped", nil) { (engine, now) throws(CommandError) in
      try engine.stopScrub(now: now)
    }
    progress.withLock { $0.isScrubbing = false }
    let done = scrub().bytesDone
    tell(EventRecord(.scrubStopped, "the scrub is stopped", bytes: done))
  }
}

/// The engine's state of resync and scrub in the words of the schema.
enum CopyText {
  /// The resync. There is an ETA only while bytes flow.
  static func resync(_ snapshot: MirrorSnapshot) -> ResyncStatus {
    let rate = snapshot.resyncBytesPerSecond
    let left = snapshot.resyncBytesTotal - snapshot.resyncBytesDone
    let isMoving = snapshot.isResyncRunning && !snapshot.isResyncPaused
    return ResyncStatus(
      running: snapshot.isResyncRunning, paused: snapshot.isResyncPaused,
      bytesDone: snapshot.resyncBytesDone, bytesTotal: snapshot.resyncBytesTotal,
      bytesPerSecond: whole(rate), etaSeconds: isMoving ? eta(left, rate) : nil,
      minBytesPerSecond: snapshot.resyncMinBytesPerSecond,
      maxBytesPerSecond: snapshot.resyncMaxBytesPerSecond == 0
        ? nil : snapshot.resyncMaxBytesPerSecond)
  }

  /// The scrub in short.
  static func scrub(_ scrub: ScrubSnapshot) -> ScrubStatus {
    ScrubStatus(
      mode: mode(scrub.mode), running: scrub.isRunning, bytesDone: scrub.bytesDone,
      mismatches: scrub.mismatchCount)
  }

  /// The scrub in full.
  static func report(_ scrub: ScrubSnapshot) -> ScrubReport {
    let left = scrub.bytesTotal - scrub.bytesDone
    return ScrubReport(
      mode: mode(scrub.mode), running: scrub.isRunning, complete: scrub.isComplete,
      bytesDone: scrub.bytesDone, bytesTotal: scrub.bytesTotal, bytesSkipped: scrub.bytesSkipped,
      bytesPerSecond: whole(scrub.bytesPerSecond),
      etaSeconds: scrub.isRunning ? eta(left, scrub.bytesPerSecond) : nil,
      mismatches: scrub.mismatchCount, mismatchBytes: scrub.mismatchBytes,
      unrepairedBytes: scrub.unrepairedBytes, readErrors: scrub.readErrors,
      ranges: scrub.mismatches.map(range))
  }

  static func range(_ noted: NotedRange) -> RangeReport {
    var legs: [Int] = []
    var rest = noted.legs
    while let leg = rest.popFirst() { legs.append(leg.index) }
    return RangeReport(offset: noted.range.offset, bytes: noted.range.count, legs: legs)
  }

  private static func mode(_ mode: ScrubOrder.Mode?) -> ScrubStatus.Mode? {
    switch mode {
    case nil: nil
    case .check?: .check
    case .repair?: .repair
    }
  }

  private static func whole(_ rate: Double) -> UInt64 {
    rate.isFinite && rate > 0 && rate < 1e18 ? UInt64(rate) : 0
  }

  private static func eta(_ left: UInt64, _ rate: Double) -> UInt64? {
    guard rate.isFinite, rate >= 1 else { return nil }
    let seconds = (Double(left) / rate).rounded(.up)
    return seconds < 1e12 ? UInt64(seconds) : nil
  }
}
