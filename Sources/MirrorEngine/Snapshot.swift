// What `status` shows: a copy of the state, as plain values.

import Base
import MirrorFormat

/// The state of a leg as an administrator sees it.
public struct LegSnapshot: Sendable {
  /// The leg's place.
  public var slot: LegSlot
  /// Its identity.
  public var legId: Identifier
  /// `online` (in sync or syncing, by `staleBytes`), else why it is offline. A leg that is being
  /// brought in still counts as what it was.
  public var state: MemberState
  /// It is being brought in.
  public var isJoining: Bool
  /// Bytes of the regions in which it is stale.
  public var staleBytes: UInt64
  /// Counters since the start.
  public var readErrors: UInt64
  /// Counters since the start; zeroes, discards and flushes count as writes.
  public var writeErrors: UInt64
  /// Blocks rewritten after a read error.
  public var repairedBlocks: UInt64
  /// I/O in flight.
  public var inFlight: Int
  /// Latencies since the start.
  public var readLatency: LatencyHistogram
  /// Latencies since the start.
  public var writeLatency: LatencyHistogram
}

/// The state of the mirror as an administrator sees it.
public struct MirrorSnapshot: Sendable {
  /// Members only; vacant slots are left out.
  public var legs: [LegSnapshot]
  /// Generation of the newest label.
  public var generation: Generation
  /// Regions whose legs may differ by a write in flight or not yet known flushed.
  public var dirtyRegions: Int
  /// Regions whose legs may differ after a crash.
  public var unresolvedRegions: Int
  /// Bytes of regions that were never written: they read as zeros without I/O.
  public var unwrittenBytes: UInt64
  /// Share of bytes that every member has in sync, 0...100.
  public var syncPercent: Double
  /// Copying is going on (or paused).
  public var isResyncRunning: Bool
  /// Copying was stopped by command.
  public var isResyncPaused: Bool
  /// Of the running resync, else of the last one.
  public var resyncBytesDone: UInt64
  /// Of the running resync, else of the last one.
  public var resyncBytesTotal: UInt64
  /// Smoothed over some seconds.
  public var resyncBytesPerSecond: Double
  /// Requests inside.
  public var requests: Int
  /// The last leg's flush failed.
  public var isFlushLatched: Bool
}

extension Engine {
  /// Whether the durable labels say what is so now: no membership change is under way.
  public var isLabelSettled: Bool {
    !membership.needsCommit && (!membership.isInFlight || membership.isSecondCopy)
      && joiningLegs.isEmpty
  }

  /// A copy of what `status` shows. Cost: one pass over the region map.
  public func snapshot() -> MirrorSnapshot {
    var members: [LegSnapshot] = []
    var set = LegSet.none
    for index in 0..<LegSlot.count where legs[index].phase != .vacant {
      let leg = legs[index]
      let slot = LegSlot(index)
      if !(leg.phase == .offline && leg.offlineState == .removed) { set.insert(slot) }
      members.append(
        LegSnapshot(
          slot: slot, legId: leg.legId, state: leg.phase == .online ? .online : leg.offlineState,
          isJoining: leg.phase == .joining, staleBytes: map.staleBytes(slot),
          readErrors: leg.readErrors, writeErrors: leg.writeErrors,
          repairedBlocks: leg.repairedBlocks, inFlight: leg.inFlight,
          readLatency: leg.readLatency, writeLatency: leg.writeLatency))
    }
    var notInSync: UInt64 = 0
    for region in 0..<map.layout.regionCount
    where !set.intersection(map.stale(region)).isEmpty {
      notInSync += map.range(of: region).count
    }
    let size = Double(start.layout.sizeBytes)
    return MirrorSnapshot(
      legs: members, generation: membership.lineage.current, dirtyRegions: map.intentCount,
      unresolvedRegions: map.unresolved.count, unwrittenBytes: map.unwrittenBytes,
      syncPercent: 100 * (1 - Double(notInSync) / size),
      isResyncRunning: copier.isRunning, isResyncPaused: copier.isPaused,
      resyncBytesDone: copier.bytesDone, resyncBytesTotal: max(copier.bytesTotal, copier.bytesDone),
      resyncBytesPerSecond: copier.rate(now: now),
      requests: requestCount, isFlushLatched: flushes.isLatched)
  }
}
