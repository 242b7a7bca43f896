// One leg in the place of another: replaced by command, or by a spare when a leg fails.
//
// The new leg is brought in like any other, with every region stale, and its member entry says whom
// it replaces; so that survives a restart. The old leg serves as long as it can. It is removed
// when the new one is in sync, the labels say so, and the mirror can do without the old one: if that
// alone has some data (blocks that could not be read), it stays until this is resolved.
//
// | what happens                      | then                                                     |
// | the new leg is in sync            | the old one is removed, its slot can be used again       |
// | the new leg fails                 | the old one stays; the new one is vacant (it never was   |
// |                                   | online) or removed                                       |
// | the old leg fails                 | the copy goes on                                         |
// | the old leg is removed by command | the new one goes on as a leg of its own                  |
// | the new leg is absent at a start  | it comes back by itself and goes on                      |
//
// A spare is a member whose file is open and that gets every label; nobody waits for it. One whose
// label cannot be written is dropped. It takes over from any leg that failed, by errors or by
// `leg fail`, not from one that is missing (that comes back by itself) or removed.

import Base
import MirrorFormat

extension Engine {
  /// Spares that can be written to.
  var idleSpares: LegSet {
    var set = LegSet.none
    for index in 0..<LegSlot.count
    where legs[index].phase == .spare && legs[index].isPresent && legs[index].inFlight == 0 {
      set.insert(LegSlot(index))
    }
    return set
  }

  /// A label is on its way to a spare: whether it is one will be known.
  var isSpareLabelInFlight: Bool {
    // By index: an element that is passed to a closure is copied, with what it refers to.
    for index in 0..<LegSlot.count
    where legs[index].phase == .spare && legs[index].isPresent && legs[index].inFlight > 0 {
      return true
    }
    return false
  }

  // MARK: Replacing

  /// Whether a leg can be replaced: its data are, or were, part of the mirror, once at a time.
  /// Throws the reason if not.
  public func checkReplaceable(_ old: LegSlot) throws(CommandError) {
    try requireWritable()
    try requireMember(old)
    let leg = legs[old.index]
    guard leg.phase != .spare, leg.offlineState != .spare || leg.phase == .online else {
      throw .isSpare
    }
    guard !(leg.phase == .joining && leg.isNew) else { throw .notOnline }
    guard leg.replaces == nil, replacement(of: old) == nil else { throw .alreadyReplaced }
  }

  /// The leg that is to replace `old`.
  func replacement(of old: LegSlot) -> LegSlot? {
    for index in 0..<LegSlot.count
    where legs[index].phase != .vacant && legs[index].replaces == old {
      return LegSlot(index)
    }
    return nil
  }

  /// Several times a second: spares take over, old legs leave.
  mutating func pumpReplacements() {
    guard stop == .running, !start.isReadOnly, membership.isOpenRecorded else { return }
    for index in 0..<LegSlot.count
    where legs[index].phase == .offline && legs[index].offlineState == .failed {
      takeOver(from: LegSlot(index))
    }
    for index in 0..<LegSlot.count where legs[index].phase == .online {
      finishReplacing(LegSlot(index))
    }
  }

  private mutating func finishReplacing(_ slot: LegSlot) {
    guard let old = legs[slot.index].replaces, map.staleCounts[slot.index] == 0 else { return }
    guard !membership.recordedSyncing.contains(slot) else {
      let isOnItsWay = membership.isInFlight && !membership.stagedSyncing.contains(slot)
      if !isOnItsWay { membership.needsCommit = true }
      return
    }
    switch legs[old.index].phase {
    case .online:
      // Its log may still call the new leg stale; or it alone has something.
      guard failLeg(old, .removed, errno: Errno.none) else {
        log.wantsCommit = true
        return
      }
    case .offline:
      legs[old.index].offlineState = .removed
      membership.needsGeneration = true
    case .joining: return
    case .vacant, .spare: break
    }
    legs[slot.index].replaces = nil
    membership.needsCommit = true
    note(MirrorEvent(.legReplaced, leg: old, detail: UInt64(slot.raw)))
  }

  /// `slot` failed: what it was to replace stays. It never had everything, so nobody shall take its
  /// place: it counts as removed.
  mutating func endReplacing(_ slot: LegSlot) {
    guard let old = legs[slot.index].replaces else { return }
    legs[slot.index].replaces = nil
    legs[slot.index].offlineState = .removed
    note(MirrorEvent(.replaceEnded, leg: slot, detail: UInt64(old.raw)))
  }

  /// `old` was removed: whoever was to replace it is a leg of its own.
  mutating func forgetReplaced(_ old: LegSlot) {
    for index in 0..<LegSlot.count where legs[index].replaces == old {
      legs[index].replaces = nil
      membership.needsCommit = true
    }
  }

  // MARK: Spares

  /// A spare of the table, as assembly found it.
  mutating func takeSpare(_ slot: LegSlot) {
    legs[slot.index].phase = .spare
    legs[slot.index].offlineState = .spare
    legs[slot.index].isPresent = false
    legs[slot.index].replaces = nil
    for spare in start.spares where spare.slot == slot {
      legs[slot.index].isPresent = true
      legs[slot.index].isIdleTold = false
      legs[slot.index].labelCopy = spare.labelCopy
    }
  }

  /// The PV in `slot` is a spare from now on; the next label says so, on it too.
  mutating func keepSpare(_ slot: LegSlot) {
    legs[slot.index].phase = .spare
    legs[slot.index].offlineState = .spare
    legs[slot.index].isPresent = true
    legs[slot.index].isIdleTold = false
    membership.needsCommit = true
  }

  /// A label write of a spare is back.
  mutating func spareLabelled(_ slot: LegSlot, error: Int32) {
    if error == 0 {
      legs[slot.index].labelCopy = 1 - legs[slot.index].labelCopy
    } else {
      dropSpare(slot, errno: error)
    }
  }

  /// A spare that cannot take a label would be no help.
  mutating func dropSpare(_ slot: LegSlot, errno: Int32) {
    legs[slot.index].phase = .vacant
    legs[slot.index].replaces = nil
    membership.needsCommit = true
    note(MirrorEvent(.spareDropped, leg: slot, detail: UInt64(errno)))
    tellIdle(slot)
  }

  /// A spare takes the place of a leg that has failed, if there is one.
  private mutating func takeOver(from failed: LegSlot) {
    guard replacement(of: failed) == nil, let spare = idleSpares.first else { return }
    legs[spare.index].isNew = false
    legs[spare.index].replaces = failed
    markAllStale(spare)
    beginJoin(spare)
    note(MirrorEvent(.replaceStarted, leg: spare, detail: UInt64(failed.raw)))
  }

  /// A spare did not get in: it is dropped, or, at a stop, a spare again.
  mutating func failTakeover(_ slot: LegSlot) {
    legs[slot.index].replaces = nil
    if stop == .running {
      legs[slot.index].phase = .vacant
      note(MirrorEvent(.spareDropped, leg: slot, detail: UInt64(Errno.eio)))
    } else {
      legs[slot.index].phase = .spare
    }
  }
}
