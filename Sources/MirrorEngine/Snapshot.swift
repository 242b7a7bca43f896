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
  /// The leg in whose place it is being brought: that one is removed when this one is in sync.
  public var replaces: LegSlot?
  /// Read only if nothing else can.
  public var isWriteMostly: Bool
  /// Bytes of the regions in which it is stale.
  public var staleBytes: UInt64
  /// Counters since the start.
  public var readErrors: UInt64
  /// Counters since the start; zeroes, discards and flushes count as writes.
  public var writeErrors: UInt64
  /// Blocks rewritten after a read error.
  public var repairedBlocks: UInt64
  /// Reads that it owed for too long and that were sent to another leg, too.
  public var hedgedReads: UInt64
  /// Of these, how many the other leg answered first.
  public var hedgesWon: UInt64
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
  /// Bytes done and bytes left, of the running resync, else of the last one. Grows when a leg
  /// fails or comes back meanwhile.
  public var resyncBytesTotal: UInt64
  /// Bytes of `resyncBytesDone` that were zeros: the targets got holes.
  public var resyncBytesZero: UInt64
  /// Smoothed over some seconds; 0 while it is paused.
  public var resyncBytesPerSecond: Double
  /// The limits in force, in bytes per second.
  public var resyncMinBytesPerSecond: UInt64
  /// 0: unlimited.
  public var resyncMaxBytesPerSecond: UInt64
  /// Ranges that could be read from no leg that has them, up to 64.
  public var unreadable: [NotedRange]
  /// How many unreadable ranges there are, also those that are not listed.
  public var unreadableCount: UInt64
  /// The running scrub, or the last one.
  public var scrub: ScrubSnapshot
  /// Requests inside.
  public var requests: Int
  /// Read errors whose blocks were not rewritten because too many others were.
  public var repairsDropped: UInt64
  /// The last leg's flush failed.
  public var isFlushLatched: Bool
}

/// What may change at any input, and who looks at the engine after each wants to know.
public struct EngineGlance: Sendable {
  /// As `Engine.onlineLegs`.
  public var online: LegSet
  /// As `Engine.memberLegs`.
  public var members: LegSet
  /// As `Engine.spareLegs`.
  public var spares: LegSet
  /// As `Engine.isFlushLatched`.
  public var isFlushLatched: Bool
  /// As `Engine.isOpen`.
  public var isOpen: Bool
  /// As `Engine.isLabelSettled`.
  public var isLabelSettled: Bool
}

extension Engine {
  /// All of it at once: each call from another module costs a copy of the engine's fields.
  public func glance() -> EngineGlance {
    EngineGlance(
      online: online, members: memberLegs, spares: spareLegs, isFlushLatched: isFlushLatched,
      isOpen: isOpen, isLabelSettled: isLabelSettled)
  }

  /// Legs that get every write now.
  public var onlineLegs: LegSet { online }

  /// Slots that are in use, whatever their state.
  public var memberLegs: LegSet {
    var set = LegSet.none
    for index in 0..<LegSlot.count where legs[index].phase != .vacant { set.insert(LegSlot(index)) }
    return set
  }

  /// Members that wait to replace a leg that fails.
  public var spareLegs: LegSet {
    var set = LegSet.none
    for index in 0..<LegSlot.count where legs[index].phase == .spare { set.insert(LegSlot(index)) }
    return set
  }

  /// The last leg's flush failed: flushes fail until that is cleared by command.
  public var isFlushLatched: Bool { flushes.isLatched }

  /// A label that says the mirror is in use, under the generation of this start, is durable.
  public var isOpen: Bool { membership.isOpenRecorded }

  /// Labels are being written, the second copies included.
  public var isLabelInFlight: Bool { membership.isInFlight }

  /// Whether the durable labels say what is so now: no membership change is under way.
  public var isLabelSettled: Bool {
    !membership.needsCommit && (!membership.isInFlight || membership.isSecondCopy)
      && joiningLegs.isEmpty && !isSpareLabelInFlight
  }

  /// A copy of what `status` shows. Cost: one pass over the region map.
  public func snapshot() -> MirrorSnapshot {
    var members: [LegSnapshot] = []
    var set = LegSet.none
    for index in 0..<LegSlot.count where legs[index].phase != .vacant {
      let leg = legs[index]
      let slot = LegSlot(index)
      let isRemoved = leg.phase == .offline && leg.offlineState == .removed
      if !isRemoved, leg.phase != .spare { set.insert(slot) }
      members.append(
        LegSnapshot(
          slot: slot, legId: leg.legId, state: leg.phase == .online ? .online : leg.offlineState,
          isJoining: leg.phase == .joining, replaces: leg.replaces,
          isWriteMostly: leg.isWriteMostly,
          staleBytes: leg.phase == .spare ? 0 : map.staleBytes(slot),
          readErrors: leg.readErrors, writeErrors: leg.writeErrors,
          repairedBlocks: leg.repairedBlocks,
          hedgedReads: leg.hedgedReads, hedgesWon: leg.hedgesWon, inFlight: leg.inFlight,
          readLatency: leg.readLatency.detached(),
          writeLatency: leg.writeLatency.detached()))
    }
    var notInSync: UInt64 = 0
    for region in 0..<map.layout.regionCount
    where !set.intersection(map.stale(region)).isEmpty {
      notInSync += map.range(of: region).count
    }
    let size = Double(start.layout.sizeBytes)
    // A pause that an earlier start left keeps a resync from beginning: it is shown with nothing done.
    let isHeld = copier.isPaused && copier.isWanted && !copier.isRunning
    let bytesDone = isHeld ? 0 : copier.bytesDone
    let isRunning = copier.isRunning || isHeld
    return MirrorSnapshot(
      legs: members, generation: membership.lineage.current, dirtyRegions: map.intentCount,
      unresolvedRegions: map.unresolved.count, unwrittenBytes: map.unwrittenBytes,
      syncPercent: 100 * (1 - Double(notInSync) / size),
      isResyncRunning: isRunning, isResyncPaused: copier.isPaused, resyncBytesDone: bytesDone,
      resyncBytesTotal: bytesDone + (isRunning ? bytesLeftToCopy() : copier.bytesNotDone),
      resyncBytesZero: isHeld ? 0 : copier.bytesZero, resyncBytesPerSecond: copier.rate(now: now),
      resyncMinBytesPerSecond: rate.min, resyncMaxBytesPerSecond: rate.max,
      unreadable: copier.unreadable.entries, unreadableCount: copier.unreadable.count,
      scrub: scrub.snapshot,
      requests: requestCount, repairsDropped: repairs.dropped, isFlushLatched: flushes.isLatched)
  }
}
