// Between the control plane and the server: commands become engine calls, the engine's state
// becomes the schema, and legs get their files.

import Base
import ControlModel
import ControlPlane
import Legs
import MirrorEngine
import MirrorFormat
import Ring
import Server
import Synchronization

/// A served mirror as the control plane knows it.
final class MirrorAdapter: MirrorController, MirrorObserver, Sendable {
  /// What does not change while the mirror is served.
  struct Facts: Sendable {
    var name: String
    var setId: Identifier
    var layout: Layout
    var readPolicy: String
    var cache: PVFile.Cache
    var resyncMinBytesPerSecond: UInt64
    var resyncMaxBytesPerSecond: UInt64
  }

  let files: LegFiles
  private let facts: Facts
  private let startedNanoseconds = monotonicNanoseconds()
  /// Set once, before anybody asks; the server needs its observer first.
  private let served = Mutex<MirrorServer?>(nil)

  init(facts: Facts, files: LegFiles) {
    self.facts = facts
    self.files = files
  }

  /// Gives the adapter its server. Call it once, before the control plane starts.
  func connect(_ server: MirrorServer) { served.withLock { $0 = server } }

  private var server: MirrorServer {
    guard let server = served.withLock({ $0 }) else {
      preconditionFailure("the adapter is connected before it is asked")
    }
    return server
  }

  private var now: Instant { Instant(nanoseconds: monotonicNanoseconds()) }

  // MARK: MirrorObserver

  func observe(_ event: MirrorEvent) {
    if let line = EventText.line(event, path: event.leg.map { files.path(of: $0) }) {
      Journal.write(line)
    }
  }

  func legIsIdle(_ slot: LegSlot) { files.close(slot) }

  // MARK: MirrorController

  func status() -> MirrorStatus {
    let snapshot = server.withEngine { $0.snapshot() }
    let legs = snapshot.legs.map { status(of: $0) }
    let left = snapshot.resyncBytesTotal - snapshot.resyncBytesDone
    let rate = snapshot.resyncBytesPerSecond
    var resync = ResyncStatus(
      running: snapshot.isResyncRunning, paused: snapshot.isResyncPaused,
      bytesDone: snapshot.resyncBytesDone, bytesTotal: snapshot.resyncBytesTotal,
      bytesPerSecond: rate.isFinite && rate > 0 ? UInt64(rate) : 0,
      minBytesPerSecond: facts.resyncMinBytesPerSecond,
      maxBytesPerSecond: facts.resyncMaxBytesPerSecond == 0 ? nil : facts.resyncMaxBytesPerSecond)
    if snapshot.isResyncRunning, rate >= 1 {
      resync.etaSeconds = UInt64((Double(left) / rate).rounded(.up))
    }
    return MirrorStatus(
      name: facts.name, setId: facts.setId.description, size: facts.layout.sizeBytes,
      state: MirrorAdapter.state(of: snapshot), syncPercent: snapshot.syncPercent,
      generation: snapshot.generation.counter, regionSize: facts.layout.regionBytes,
      dirtyRegions: UInt64(snapshot.dirtyRegions),
      unresolvedRegions: UInt64(snapshot.unresolvedRegions), readPolicy: facts.readPolicy,
      uptimeSeconds: (monotonicNanoseconds() - startedNanoseconds) / Nanoseconds.second,
      legs: legs, resync: resync)
  }

  /// The worst that applies.
  static func state(of snapshot: MirrorSnapshot) -> MirrorStatus.State {
    if snapshot.isFlushLatched { return .failed }
    let members = snapshot.legs.filter { $0.state != .removed && $0.state != .spare }
    if members.contains(where: { $0.state != .online && !$0.isJoining }) { return .degraded }
    let isSyncing = members.contains { $0.staleBytes > 0 || $0.isJoining }
    return isSyncing || snapshot.unresolvedRegions > 0 ? .syncing : .healthy
  }

  private func status(of leg: LegSnapshot) -> LegStatus {
    let state: LegStatus.State =
      switch leg.state {
      case .online: leg.staleBytes == 0 ? .inSync : .syncing
      case .vacant: .syncing
      case .missing: leg.isJoining ? .syncing : .missing
      case .failed: leg.isJoining ? .syncing : .failed
      case .removed: leg.isJoining ? .syncing : .removed
      case .spare: .spare
      }
    return LegStatus(
      slot: leg.slot.index, id: leg.legId.description, path: files.path(of: leg.slot),
      state: state, staleBytes: leg.staleBytes, readErrors: leg.readErrors,
      writeErrors: leg.writeErrors, repairedBlocks: leg.repairedBlocks,
      cache: files.isDirect(leg.slot).map { $0 ? .direct : .buffered },
      latency: LegStatus.Latency(
        read: quantiles(of: leg.readLatency), write: quantiles(of: leg.writeLatency)))
  }

  private func quantiles(of histogram: LatencyHistogram) -> LegStatus.Quantiles {
    LegStatus.Quantiles(
      p50Microseconds: histogram.quantileMicroseconds(percent: 50),
      p99Microseconds: histogram.quantileMicroseconds(percent: 99))
  }

  func failLeg(_ slot: Int) throws(ControlError) {
    let slot = LegSlot(slot)
    try command("leg \(slot) cannot be failed", slot) { (engine, now) throws(CommandError) in
      try engine.fail(slot, now: now)
    }
    try waitUntilRecorded()
  }

  func removeLeg(_ slot: Int) throws(ControlError) {
    let slot = LegSlot(slot)
    try command("leg \(slot) cannot be removed", slot) { (engine, now) throws(CommandError) in
      try engine.remove(slot, now: now)
    }
    try waitUntilRecorded()
  }

  func readdLeg(_ slot: Int, force: Bool) throws(ControlError) {
    let slot = LegSlot(slot)
    let path = files.path(of: slot)
    guard !path.isEmpty else {
      throw ControlError(
        .conflict, "the path of leg \(slot) is not known: say it with leg add PATH")
    }
    try readd(slot, path: path, force: force)
  }

  func shutdown() { server.requestStop() }

  // MARK: Commands

  /// Runs an engine command; a refusal becomes a sentence that begins with `what`.
  private func command(
    _ what: String, _ slot: LegSlot?,
    _ body: (inout Engine, Instant) throws(CommandError) -> Void
  ) throws(ControlError) {
    let now = now
    let refusal = server.withEngine { engine -> CommandError? in
      do throws(CommandError) {
        try body(&engine, now)
        return nil
      } catch {
        return error
      }
    }
    if let refusal { throw CommandText.error(what, refusal) }
  }

  /// Waits until the labels say what the command changed.
  private func waitUntilRecorded() throws(ControlError) {
    guard waitFor(milliseconds: 20_000, { server.withEngine { $0.isLabelSettled } }) else {
      throw ControlError(
        .failed, "the change is made, but no label that says so could be written yet")
    }
  }

  /// Brings an offline leg back on its PV: `opened`, else the one at `path`.
  private func readd(
    _ slot: LegSlot, path: String, opened: PVFile? = nil, force: Bool
  ) throws(ControlError) {
    let what = "leg \(slot) cannot come back"
    let isOffline = server.withEngine { engine in
      engine.snapshot().legs.contains {
        $0.slot == slot && $0.state != .online && !$0.isJoining
      }
    }
    guard isOffline else { throw CommandText.error(what, .notOffline) }
    guard files.waitUntilFree(slot) else { throw CommandText.error(what, .ioInFlight) }
    let file: PVFile
    if let opened { file = opened } else { file = try open(path) }
    try checkGeometry(file)
    guard case .success(let elected) = file.readLabel(), elected.label.setId == facts.setId else {
      throw ControlError(
        .failed, "\(what): \(path) carries no label of this mirror; leg add \(path) makes a new leg"
      )
    }
    var leg = ReturningLeg(
      legId: elected.label.legId, lineage: elected.label.lineage,
      labelSequence: elected.label.sequence, labelCopy: elected.copy, isTreatedAsNew: false)
    if force {
      let check = leg
      let isDiverged = server.withEngine { engine -> Bool in
        do throws(CommandError) {
          try engine.checkReturn(check, to: slot)
          return false
        } catch {
          return error == .diverged
        }
      }
      if isDiverged {
        leg.isTreatedAsNew = true
        try erase(file)
      }
    }
    files.attach(file, to: slot)
    let returning = leg
    do {
      try command(what, slot) { (engine, now) throws(CommandError) in
        try engine.readd(returning, to: slot, now: now)
      }
    } catch {
      files.close(slot)
      throw error
    }
    try waitUntilRecorded()
  }

  func addLeg(path: String) throws(ControlError) -> Int {
    let file = try openOrMake(path)
    try checkGeometry(file)
    if case .success(let elected) = file.readLabel(), elected.label.setId == facts.setId {
      return try takeBack(file, elected.label.legId)
    }
    try refuseForeign(file)
    try erase(file)
    let legId = Identifier.random()
    var slot: LegSlot?
    try command("no leg can be added", nil) { (engine, _) throws(CommandError) in
      slot = try engine.slotForNewLeg()
    }
    guard let slot, files.waitUntilFree(slot) else {
      throw CommandText.error("no leg can be added", .ioInFlight)
    }
    files.attach(file, to: slot)
    do {
      try command("no leg can be added", slot) { (engine, now) throws(CommandError) in
        try engine.add(legId: legId, at: slot, now: now)
      }
    } catch {
      files.close(slot)
      throw error
    }
    try waitUntilRecorded()
    return slot.index
  }

  /// A PV of this mirror was named: its leg comes back if it is offline.
  private func takeBack(_ file: PVFile, _ legId: Identifier) throws(ControlError) -> Int {
    let member = server.withEngine { $0.snapshot().legs.first { $0.legId == legId } }
    guard let member else {
      throw ControlError(
        .conflict,
        "\(file.path) carries a label of this mirror that the mirror does not know: "
          + "erase it first (wipefs does not know our label; dd the first 2 MiB)")
    }
    // The open file goes on: its lock would refuse a second opening.
    try readd(member.slot, path: file.path, opened: file, force: false)
    return member.slot.index
  }

  // MARK: Files

  private func open(_ path: String) throws(ControlError) -> PVFile {
    do throws(PVError) {
      return try PVFile.openWhenFree(path: path, cache: facts.cache)
    } catch {
      throw ControlError(.failed, error.description)
    }
  }

  /// Opens a PV, or makes a sparse file of the needed size where nothing is.
  private func openOrMake(_ path: String) throws(ControlError) -> PVFile {
    do throws(PVError) {
      return try PVFile.openWhenFree(path: path, cache: facts.cache)
    } catch .cannotOpen(path: _, errno: 2) {
      do throws(PVError) {
        try PVFile.make(path: path, bytes: facts.layout.pvBytes, isPreallocated: false)
      } catch {
        throw ControlError(.failed, error.description)
      }
      return try open(path)
    } catch {
      throw ControlError(.failed, error.description)
    }
  }

  private func checkGeometry(_ file: PVFile) throws(ControlError) {
    guard file.legBytes >= facts.layout.pvBytes else {
      throw ControlError(
        .failed,
        "\(file.path) has \(file.legBytes) bytes, a leg of this mirror needs \(facts.layout.pvBytes)"
      )
    }
    guard file.logicalBlockBytes <= facts.layout.blockBytes else {
      throw ControlError(
        .failed,
        "\(file.path) has sectors of \(file.logicalBlockBytes) bytes, the mirror's blocks are "
          + "\(facts.layout.blockBytes)")
    }
  }

  private func refuseForeign(_ file: PVFile) throws(ControlError) {
    do throws(PVError) {
      if let found = try file.findForeign().first {
        throw PVError.foreign(path: file.path, what: found.what)
      }
    } catch {
      throw ControlError(.conflict, error.description)
    }
  }

  /// Makes the map area hold nothing that was true before.
  func erase(_ file: PVFile) throws(ControlError) {
    do throws(PVError) {
      try file.writeMap(layout: facts.layout, setId: facts.setId, word: 0)
      try file.flush()
    } catch {
      throw ControlError(.failed, error.description)
    }
  }
}
