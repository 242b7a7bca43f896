// The barriers that keep the promises, by name, so that tests can take one away.
//
// Production never does: `EngineStart.removedBarrier` is nil there. The simulator removes one at a
// time and has to find the broken promise; a barrier that is not missed is useless, or the
// simulator has a hole.

/// A barrier that tests may take away.
public enum Barrier: UInt8, CaseIterable, Sendable {
  /// `intent` and the stale bits are durable before data is written.
  case intentBeforeData
  /// A bit counts as durable only if every leg has it that a label may list.
  case logOnListedLegs
  /// A bit counts as durable only if the image in flight has it, too.
  case bitsInBothImages
  /// Absent members are stale wherever something is written.
  case staleBitsOfAbsentLegs
  /// Both the newest copy of a page and the one before are never overwritten: copies alternate.
  case alternatePageCopies
  /// The same for labels.
  case alternateLabelCopies
  /// Each label is written into both copies.
  case bothLabelCopies
  /// Of two labels on a leg the one with the higher sequence counts.
  case newestLabelWins
  /// Of two copies of a page the one with the higher sequence counts.
  case newestPageWins
  /// Nothing is written before a label says that the mirror is in use.
  case openLabelBeforeData
  /// An ack waits for the label that excludes who has missed the write.
  case ackAfterLabel
  /// A leg that misses a write and stays is durably stale there before the ack.
  case staleBeforeAck
  /// A start without some legs makes a generation of its own.
  case newGeneration
  /// What a start without some legs made of the log is in the log before that generation is.
  case pagesBeforeGeneration
  /// Overlapping operations of which one writes never run at the same time.
  case rangeLock
  /// Copies hold the range lock.
  case copyUnderLock
  /// A client's write undoes what was copied to a leg that misses it.
  case copyVoidedByMiss
  /// Stale bits are cleared only after a flush of what was copied.
  case flushBeforeStaleIsCleared
  /// `intent` is cleared only after a flush.
  case flushBeforeIntentIsCleared
  /// A region that was written since it was chosen keeps its `intent`.
  case quietBeforeIntentIsCleared
  /// A flush that comes while a round runs waits for the next one.
  case ownFlushRound
  /// A leg whose flush failed goes offline.
  case failedFlushFailsLeg
  /// A leg whose write failed goes offline.
  case failedWriteFailsLeg
  /// The last good copy of a region stays online.
  case lastGoodCopyStays
  /// Reads ask only legs that are not stale.
  case readsAskGoodLegs
  /// After a crash regions with `intent` are unresolved.
  case intentAtStart
  /// `intent` counts as stale on a leg that is absent at the start.
  case absentLegsAreStaleAtStart
  /// A page of which no leg has two valid copies is doubted.
  case doubtUncertainPages
  /// A region is resolved when every leg has the copy that a label may list.
  case resolvedOnListedLegs
  /// What an unresolved read returns is written to the other legs first.
  case unresolvedWriteBack
  /// That write-back is durable.
  case durableWriteBack
  /// FUA is passed to the legs.
  case durableFUA
  /// The whole map is on a leg that comes back before a label lists it.
  case mapBeforeLabel
  /// A late read of a failed leg cannot land in a buffer that is used again.
  case freshBuffer
  /// A buffer is given back only when no leg has it any more.
  case releaseAfterIO
  /// Regions that were never written are zeroed before their first write.
  case zeroesBeforeFirstWrite
  /// A spare gets only labels whose table lists it.
  case labelsThatListTheSpare
  /// A scrub does not copy from a leg that was outvoted.
  case outvotedIsNoSource
}

extension Engine {
  /// Whether a barrier is in its place: always, but in tests.
  @inline(__always)
  func keeps(_ barrier: Barrier) -> Bool { start.removedBarrier != barrier }
}
