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
  }

  let files: LegFiles
  let facts: Facts
  private let startedNanoseconds = monotonicNanoseconds()
  /// Legs that were failed by command: they do not come back by themselves.
  let failedByCommand = Mutex(LegSet.none)
  /// One change of a leg at a time.
  let oneAtATime = Mutex(())
  /// Set once, before anybody asks; the server needs its observer first.
  private let served = Mutex<MirrorServer?>(nil)

  /// What happened.
  let events = EventLog()
  /// The program that is told; set before the server serves.
  let hook = Mutex<EventHook?>(nil)
  /// Held while something is begun or followed up, and told.
  let telling = Mutex(())
  /// For events about what goes on.
  let progress = Mutex(Progress())

  init(facts: Facts, files: LegFiles) {
    self.facts = facts
    self.files = files
  }

  /// Gives the adapter its server. Call it once, before the control plane starts.
  func connect(_ server: MirrorServer) { served.withLock { $0 = server } }

  var server: MirrorServer {
    guard let server = served.withLock({ $0 }) else {
      preconditionFailure("the adapter is connected before it is asked")
    }
    return server
  }

  var now: Instant { Instant(nanoseconds: monotonicNanoseconds()) }

  // MARK: MirrorObserver

  func legIsIdle(_ slot: LegSlot) { files.close(slot) }

  // MARK: MirrorController

  func status() -> MirrorStatus {
    let snapshot = server.withEngine { $0.snapshot() }
    let legs = snapshot.legs.map { status(of: $0) }
    return MirrorStatus(
      name: facts.name, setId: facts.setId.description, size: facts.layout.sizeBytes,
      state: MirrorAdapter.state(of: snapshot), syncPercent: snapshot.syncPercent,
      generation: snapshot.generation.counter, regionSize: facts.layout.regionBytes,
      dirtyRegions: UInt64(snapshot.dirtyRegions),
      unresolvedRegions: UInt64(snapshot.unresolvedRegions),
      unwrittenBytes: snapshot.unwrittenBytes, readPolicy: facts.readPolicy,
      uptimeSeconds: (monotonicNanoseconds() - startedNanoseconds) / Nanoseconds.second,
      legs: legs, resync: CopyText.resync(snapshot), scrub: CopyText.scrub(snapshot.scrub))
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
      case .vacant, .adding: .syncing
      case .missing: leg.isJoining ? .syncing : .missing
      case .failed: leg.isJoining ? .syncing : .failed
      case .removed: leg.isJoining ? .syncing : .removed
      case .spare: leg.isJoining ? .syncing : .spare
      }
    return LegStatus(
      slot: leg.slot.index, id: leg.legId.description, path: files.path(of: leg.slot),
      state: state, staleBytes: leg.staleBytes, readErrors: leg.readErrors,
      writeErrors: leg.writeErrors, repairedBlocks: leg.repairedBlocks,
      replaces: leg.replaces?.index, writeMostly: leg.isWriteMostly,
      cache: files.isDirect(leg.slot).map { $0 ? .direct : .buffered },
      unusedBytes: files.unusedBytes(of: leg.slot, layout: facts.layout),
      latency: LegStatus.Latency(
        read: quantiles(of: leg.readLatency), write: quantiles(of: leg.writeLatency)))
  }

  func connections() -> [ConnectionStatus] {
    server.connections().map { info in
      ConnectionStatus(
        number: info.number, transport: info.isTCP ? .tcp : .unix,
        phase: info.isTransmitting ? .transmission : .handshake, reactor: info.reactor,
        structuredReplies: info.isStructured, tls: info.isEncrypted,
        requestsInFlight: info.requestsInFlight,
        requests: info.requests, readBytes: info.readBytes, writtenBytes: info.writtenBytes)
    }.sorted { $0.number < $1.number }
  }

  func regions() -> RegionMapStatus {
    let (marks, share) = server.withEngine {
      $0.regionMarks(countMax: RegionMapStatus.cellsMax)
    }
    let map = marks.map { mark in
      switch mark {
      case .unwritten: "_"
      case .clean: "."
      case .dirty: "w"
      case .unresolved: "?"
      case .stale: "S"
      }
    }
    return RegionMapStatus(
      regions: facts.layout.regionCount, regionsPerCell: share, map: map.joined())
  }

  private func quantiles(of histogram: LatencyHistogram) -> LegStatus.Quantiles {
    LegStatus.Quantiles(
      p50Microseconds: histogram.quantileMicroseconds(percent: 50),
      p99Microseconds: histogram.quantileMicroseconds(percent: 99))
  }

  func commanded(_ line: String) { Journal.write(line) }

  func shutdown() {
    tellStopping("the server is told to stop, on its control socket")
    server.requestStop()
  }
}
