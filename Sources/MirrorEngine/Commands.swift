// What an administrator can ask of the engine. Every command takes effect at once in memory and
// lets a label commit follow; `work` and `settle` run as after any input.

import Base
import MirrorFormat

/// Why a command was refused; a sentence for people is the control plane's.
public enum CommandError: Error, Equatable, Sendable {
  /// The mirror has no such leg.
  case noSuchLeg
  /// The leg holds the only good copy of some region.
  case onlyGoodCopy
  /// The leg is not online.
  case notOnline
  /// The leg is online or coming online already.
  case notOffline
  /// I/O of before is still with the leg.
  case ioInFlight
  /// The PV is another leg than the one that was here.
  case otherLeg
  /// The PV's history is not part of this mirror's history.
  case diverged
  /// All slots are taken.
  case noFreeSlot
  /// The mirror is served read-only, or it is stopping.
  case notWritable
  /// The minimum of the rate is above its maximum.
  case badLimits
  /// A scrub runs already.
  case scrubRunning
  /// No scrub runs.
  case noScrub
  /// The range is empty or not inside the device.
  case badRange
}

/// A PV that was opened to be brought in.
public struct ReturningLeg: Sendable {
  /// The leg id in its label.
  public var legId: Identifier
  /// The history in its label.
  public var lineage: Lineage
  /// The sequence of its newest label.
  public var labelSequence: UInt64
  /// The copy that holds it.
  public var labelCopy: Int
  /// What the PV knows is not used: it is copied to as a new one. Its map must have been erased.
  public var isTreatedAsNew: Bool

  /// Describes an opened PV.
  public init(
    legId: Identifier, lineage: Lineage, labelSequence: UInt64, labelCopy: Int,
    isTreatedAsNew: Bool
  ) {
    self.legId = legId
    self.lineage = lineage
    self.labelSequence = labelSequence
    self.labelCopy = labelCopy
    self.isTreatedAsNew = isTreatedAsNew
  }
}

extension Engine {
  private func requireWritable() throws(CommandError) {
    guard !start.isReadOnly, stop == .running else { throw .notWritable }
  }

  private func requireMember(_ slot: LegSlot) throws(CommandError) {
    guard legs[slot.index].phase != .vacant else { throw .noSuchLeg }
  }

  /// Takes a leg offline as if it had failed.
  public mutating func fail(_ slot: LegSlot, now: Instant) throws(CommandError) {
    self.now = max(self.now, now)
    try requireWritable()
    try requireMember(slot)
    guard online.contains(slot) else { throw .notOnline }
    guard failLeg(slot, .failed, errno: Errno.none) else { throw .onlyGoodCopy }
    work()
  }

  /// Takes a leg out; it does not come back by itself.
  public mutating func remove(_ slot: LegSlot, now: Instant) throws(CommandError) {
    self.now = max(self.now, now)
    try requireWritable()
    try requireMember(slot)
    switch legs[slot.index].phase {
    case .online:
      guard failLeg(slot, .removed, errno: Errno.none) else { throw .onlyGoodCopy }
    case .joining:
      failJoin(slot)
      legs[slot.index].offlineState = .removed
    case .offline:
      legs[slot.index].offlineState = .removed
      membership.needsCommit = true
      membership.needsGeneration = true
      note(MirrorEvent(.legRemoved, leg: slot))
    case .vacant: throw .noSuchLeg
    }
    work()
  }

  /// Whether `readd` would take this PV; throws the reason if not.
  public func checkReturn(_ leg: ReturningLeg, to slot: LegSlot) throws(CommandError) {
    try requireWritable()
    try requireMember(slot)
    let state = legs[slot.index]
    guard state.phase == .offline else { throw .notOffline }
    guard state.inFlight == 0 else { throw .ioInFlight }
    guard state.legId == leg.legId else { throw .otherLeg }
    guard !leg.isTreatedAsNew else { return }
    let theirs = leg.lineage.current.id
    // Older than our ancestors go back: until we took it offline both had the same history, and
    // whoever went on alone has a generation at least as high as that one.
    let isBeforeItLeft = leg.lineage.current.counter < state.offlineSince
    guard
      membership.lineage.current.id == theirs || membership.lineage.isDescendant(of: theirs)
        || isBeforeItLeft
    else { throw .diverged }
  }

  /// Brings an offline leg back: it copies what it missed, or everything if treated as new.
  ///
  /// The performer must know the new file of the slot before it drains the effects.
  public mutating func readd(
    _ leg: ReturningLeg, to slot: LegSlot, now: Instant
  ) throws(CommandError) {
    self.now = max(self.now, now)
    try checkReturn(leg, to: slot)
    membership.nextSequence = max(membership.nextSequence, leg.labelSequence + 1)
    legs[slot.index].labelCopy = leg.labelCopy
    if leg.isTreatedAsNew { markAllStale(slot) }
    beginJoin(slot)
    work()
  }

  /// The slot that `add` would use: one never used, else one that was removed.
  public func slotForNewLeg() throws(CommandError) -> LegSlot {
    try requireWritable()
    for index in 0..<LegSlot.count where legs[index].phase == .vacant && legs[index].inFlight == 0 {
      return LegSlot(index)
    }
    for index in 0..<LegSlot.count
    where legs[index].phase == .offline && legs[index].offlineState == .removed
      && legs[index].inFlight == 0
    {
      return LegSlot(index)
    }
    throw .noFreeSlot
  }

  /// Adds a new leg at `slot` (from `slotForNewLeg`); everything is copied to it. The PV's label
  /// and map areas must have been erased.
  public mutating func add(
    legId: Identifier, at slot: LegSlot, now: Instant
  ) throws(CommandError) {
    self.now = max(self.now, now)
    guard try slotForNewLeg() == slot else { throw .noFreeSlot }
    legs[slot.index] = LegState()
    legs[slot.index].legId = legId
    legs[slot.index].isNew = true
    markAllStale(slot)
    beginJoin(slot)
    work()
  }

  private mutating func markAllStale(_ slot: LegSlot) {
    let bit = UInt16(LegSet(slot).bits)
    for region in 0..<map.layout.regionCount { map.setBits(bit, in: region) }
  }

  /// Flushes may succeed again: the administrator knows that the last leg lost what it had not
  /// flushed.
  public mutating func clearFlushLatch(now: Instant) {
    self.now = max(self.now, now)
    flushes.isLatched = false
  }

  /// Stops or restarts copying; windows in flight end. It is not kept: a start copies.
  public mutating func setCopierPaused(_ isPaused: Bool, now: Instant) {
    self.now = max(self.now, now)
    copier.setPaused(isPaused, now: self.now)
  }
}
