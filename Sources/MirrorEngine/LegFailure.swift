// Legs that go offline, and legs that come (back).
//
// Going offline has effect in memory at once: no new I/O, nobody waits for the old. It is stale
// from then on in every region whose intent is set (its cache may have died with it) and in every
// region that is written. The label that says so follows; acks wait for it.
//
// Coming back: first our whole map goes to the leg, then one label commit makes it online. It is
// syncing then: its stale bits stand in the map until copies have cleared them.

import Base
import MirrorFormat

extension Engine {
  /// How long a tick leaves the table of I/O in flight alone; the shortest leg timeout is as long.
  static let overdueLookNanoseconds = 100 * Nanoseconds.millisecond

  /// Whether the mirror can do without `slot`: every region has another good online leg, by what
  /// the log holds too. (Else a crash would find a region of which no leg is good: the label that
  /// excludes this leg may be durable before the page that says who else is good.) That this leg is
  /// stale in a region counts when the log has it, too: until then the log may call it the only good
  /// one there. With `isBatchOnOthers` the log batch that just ended is durable on every online leg
  /// but this one: what it says is what a start without this leg will find.
  func canLose(_ slot: LegSlot, isBatchOnOthers: Bool = false) -> Bool {
    let others = online.subtracting(LegSet(slot))
    guard !others.isEmpty else { return false }
    guard keeps(.lastGoodCopyStays) else { return true }
    if start.logKind == .core, !start.isReadOnly { return hasCompleteLeg(others) }
    for region in 0..<map.layout.regionCount {
      let (lacking, isLacking) =
        isLogged
        ? map.staleAfterCrash(region, slot, isImageDurable: isBatchOnOthers)
        : (map.stale(region), map.stale(region).contains(slot))
      if !isLacking, others.subtracting(lacking).isEmpty { return false }
    }
    return true
  }

  /// Whether some leg of `legs` is stale nowhere. With a log in memory one always has to be: after
  /// a crash a leg that is not complete is stale everywhere.
  func hasCompleteLeg(_ legs: LegSet) -> Bool {
    var rest = legs
    while let leg = rest.popFirst() {
      if map.staleCounts[leg.index] == 0 { return true }
    }
    return false
  }

  /// Takes a leg offline unless it holds the only good copy of something; true if it is offline.
  @discardableResult
  mutating func failLeg(
    _ slot: LegSlot, _ state: MemberState, errno: Int32, isBatchOnOthers: Bool = false
  ) -> Bool {
    guard online.contains(slot) else { return true }
    guard canLose(slot, isBatchOnOthers: isBatchOnOthers) else { return false }
    online.remove(slot)
    suspects.remove(slot)
    legs[slot.index].phase = .offline
    legs[slot.index].offlineState = state
    endReplacing(slot)
    let stale = UInt16(LegSet(slot).bits)
    if map.intentCount > 0 {
      for region in 0..<map.layout.regionCount
      where map.hasIntent(region) && keeps(.staleBitsOfAbsentLegs) {
        map.setBits(stale, in: region)
      }
    }
    membership.needsCommit = true
    note(
      state == .removed
        ? MirrorEvent(.legRemoved, leg: slot)
        : MirrorEvent(.legFailed, leg: slot, detail: UInt64(errno)))
    stopWaiting(for: slot)
    tellIdle(slot)
    return true
  }

  /// Nobody waits any more for I/O that is still with the leg.
  mutating func stopWaiting(for slot: LegSlot) {
    var index = lock.first
    while index >= 0 {
      let operation = Int(index)
      operations[operation].prepared.remove(slot)
      if operations[operation].awaited.contains(slot) {
        operations[operation].awaited.remove(slot)
        if operations[operation].awaited.isEmpty { orphaned.push(index) }
      }
      index = operations[operation].nextLocked
    }
    copier.drop(slot)
    dropProbes(of: slot)
    if log.isInFlight, log.awaited.contains(slot) {
      log.awaited.remove(slot)
      if log.awaited.isEmpty { logBatchFinished() }
    }
    if membership.isInFlight, membership.awaited.contains(slot) {
      membership.awaited.remove(slot)
      if membership.awaited.isEmpty { labelFinished() }
    }
    if flushes.isInFlight, flushes.awaited.contains(slot) {
      flushes.awaited.remove(slot)
      if flushes.awaited.isEmpty { flushRoundFinished() }
    }
  }

  /// Fails legs on which an I/O is older than the leg timeout (promise P5).
  mutating func failOverdueLegs() {
    guard recordsInUse > 0, start.legTimeoutNanoseconds > 0 else { return }
    // One pass over a large table: ticks may come a thousand times a second (`nextWake`).
    guard now.nanoseconds(since: overdueLookedAt) >= Engine.overdueLookNanoseconds else { return }
    overdueLookedAt = now
    var overdue = LegSet.none
    for record in records where record.purpose != .free && record.purpose != .delivery {
      if now.nanoseconds(since: record.start) >= start.legTimeoutNanoseconds {
        overdue.insert(record.leg)
      }
    }
    while let leg = overdue.popFirst() {
      switch legs[leg.index].phase {
      case .joining: failJoin(leg)
      case .spare: dropSpare(leg, errno: Errno.etimedout)
      case .online: failLeg(leg, .failed, errno: Errno.etimedout)
      case .offline, .vacant: break
      }
    }
  }

  /// Says, once each time a leg goes offline, that nothing is in flight on it any more.
  mutating func tellIdle(_ slot: LegSlot) {
    let index = slot.index
    guard legs[index].inFlight == 0, !legs[index].isIdleTold else { return }
    switch legs[index].phase {
    case .online, .joining, .spare: return
    case .offline, .vacant:
      legs[index].isIdleTold = true
      emit(.legIdle(slot))
    }
  }

  // MARK: Joining

  /// Starts to bring a leg in: every page of the map goes to it with the next commits.
  mutating func beginJoin(_ slot: LegSlot) {
    precondition(legs[slot.index].inFlight == 0, "a late write must never land on newer data")
    legs[slot.index].phase = .joining
    legs[slot.index].isIdleTold = false
    legs[slot.index].readErrorScore = 0
    legs[slot.index].speed = LegSpeed()
    guard keeps(.mapBeforeLabel) else {
      membership.needsCommit = true
      return
    }
    // With a log in memory too: what the leg's own map calls unwritten may be written by now.
    log.joinPass = 0
    fillJoinPages()
  }

  /// Pages of the batch that went to every joining leg are done; after the last one the label.
  mutating func countJoined(pages: [Int32]) {
    guard log.joinPages.count > 0 else { return }
    let joining = joiningLegs
    guard !joining.isEmpty, log.legs.isSuperset(of: joining) else { return }
    for page in pages { log.joinPages.remove(Int(page)) }
    guard log.joinPages.count == 0 else { return }
    if log.joinPass == 0 {
      log.joinPass = 1
      fillJoinPages()
    } else {
      membership.needsCommit = true
    }
  }

  private mutating func fillJoinPages() {
    for page in 0..<map.layout.pageCount {
      map.markDirty(page: page)
      log.joinPages.insert(page)
    }
    log.wantsCommit = true
  }

  /// Joining legs that have the whole map.
  var joinersReady: LegSet { log.joinPages.count == 0 ? joiningLegs : .none }

  /// The label that lists it online is durable; `others` join by the same label.
  mutating func finishJoin(_ slot: LegSlot, others: LegSet) {
    guard legs[slot.index].phase == .joining else { return }
    legs[slot.index].phase = .online
    legs[slot.index].isNew = false
    legs[slot.index].isGivenUp = false
    online.insert(slot)
    // What began without it lies in regions in which it is durably stale: the whole map went to
    // it before this label. Nobody shall wait until it has that, or is excluded once more.
    for index in operations.indices
    where operations[index].phase != .free && !operations[index].awaited.contains(slot) {
      operations[index].excused.insert(slot)
    }
    if flushes.isInFlight { flushes.excused.insert(slot) }
    if map.intentCount > 0 { becomeGood(slot, others) }
    note(MirrorEvent(.legOnline, leg: slot, detail: map.staleBytes(slot)))
    copier.restart()
  }

  /// Where a write may have been in flight it may be the first good leg, or one of several that
  /// differ. If it is the first, what it holds is the truth from now on, and who is away may hold
  /// what a crash cut off: as at a start, those are stale.
  private mutating func becomeGood(_ slot: LegSlot, _ others: LegSet) {
    let before = online.subtracting(LegSet(slot))
    let away = offlineMembers.subtracting(others)
    for region in 0..<map.layout.regionCount
    where map.hasIntent(region) && !map.stale(region).contains(slot) {
      if map.good(before, in: map.range(of: region)).isEmpty, keeps(.absentLegsAreStaleAtStart),
        !map.stale(region).isSuperset(of: away)
      {
        map.setBits(UInt16(away.bits), in: region)
        log.wantsCommit = true
        // Who is being brought in may have got the page without the bit already.
        if !joiningLegs.subtracting(others).isEmpty {
          log.joinPass = 0
          fillJoinPages()
        }
      }
      guard online.count > 1 else { continue }
      map.markUnresolved(region)
      copier.invalidate(region, missedBy: .none, mayDiffer: true)
    }
  }

  /// It failed before it was in, or the mirror is stopping: then it is what it was before.
  mutating func failJoin(_ slot: LegSlot) {
    guard legs[slot.index].phase == .joining else { return }
    // A label in flight may list it online already: the next one must not.
    membership.needsCommit = true
    if legs[slot.index].offlineState == .spare {
      failTakeover(slot)
    } else {
      legs[slot.index].phase = legs[slot.index].isNew ? .vacant : .offline
      if stop == .running {
        legs[slot.index].offlineState = .failed
        endReplacing(slot)
      }
      note(MirrorEvent(.legFailed, leg: slot, detail: UInt64(Errno.eio)))
    }
    stopWaiting(for: slot)
    if joiningLegs.isEmpty { log.joinPages.removeAll() }
    tellIdle(slot)
  }
}
