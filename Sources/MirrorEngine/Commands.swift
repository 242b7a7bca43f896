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
  /// The leg is being replaced, or is itself to replace another one.
  case alreadyReplaced
  /// The leg is a spare: it holds no data.
  case isSpare
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
  func requireWritable() throws(CommandError) {
    guard !start.isReadOnly, stop == .running else { throw .notWritable }
  }

  func requireMember(_ slot: LegSlot) throws(CommandError) {
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
    case .spare:
      legs[slot.index].phase = .vacant
      membership.needsCommit = true
      note(MirrorEvent(.legRemoved, leg: slot))
      tellIdle(slot)
    case .online:
      guard failLeg(slot, .removed, errno: Errno.none) else { throw .onlyGoodCopy }
    case .joining:
      failJoin(slot)
      legs[slot.index].offlineState = .removed
    case .offline:
      guard !holdsOnlyCopy(slot) else { throw .onlyGoodCopy }
      legs[slot.index].offlineState = .removed
      membership.needsCommit = true
      membership.needsGeneration = true
      note(MirrorEvent(.legRemoved, leg: slot))
    case .vacant: throw .noSuchLeg
    }
    forgetReplaced(slot)
    work()
  }

  /// Whether an offline leg is good in some region in which every other member is stale: once it is
  /// removed its slot may be given to a new leg, and what it has would be gone for good.
  private func holdsOnlyCopy(_ slot: LegSlot) -> Bool {
    var others = LegSet.none
    for index in 0..<LegSlot.count
    where legs[index].phase != .vacant && legs[index].phase != .spare && index != slot.index {
      others.insert(LegSlot(index))
    }
    for region in 0..<map.layout.regionCount where !map.isUnwritten(region) {
      let stale = map.stale(region)
      if !stale.contains(slot), others.subtracting(stale).isEmpty { return true }
    }
    return false
  }

  /// Whether `readd` would take this PV; throws the reason if not.
  public func checkReturn(_ leg: ReturningLeg, to slot: LegSlot) throws(CommandError) {
    try requireWritable()
    try requireMember(slot)
    let state = legs[slot.index]
    guard state.phase == .offline || state.phase == .spare && !state.isPresent else {
      throw .notOffline
    }
    guard state.inFlight == 0 else { throw .ioInFlight }
    guard state.legId == leg.legId else { throw .otherLeg }
    guard !leg.isTreatedAsNew, state.phase != .spare else { return }
    let theirs = leg.lineage.current.id
    // Older than our ancestors go back: until its newest known label both had the same history,
    // and whoever goes on alone makes a generation above that. What was offered it may have got.
    let isKnown = leg.lineage.current.counter < state.ownFrom || theirs == state.offeredId
    guard
      membership.lineage.current.id == theirs || membership.lineage.isDescendant(of: theirs)
        || isKnown && !state.isGivenUp
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
    if legs[slot.index].phase == .spare {
      keepSpare(slot)
      work()
      return
    }
    if leg.isTreatedAsNew {
      markAllStale(slot)
    } else {
      // Nobody but us writes to the PV from here on.
      legs[slot.index].ownFrom = leg.lineage.current.counter + 1
    }
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

  /// The label that a PV has to carry before it is added at `slot`, or brought back as a new one:
  /// it says that the PV is being added and holds nothing. A crash may come between the label
  /// writes of the commit that lists it; without this it would be listed and nobody would find it.
  ///
  /// Write it to copy 1, then with a sequence one higher to copy 0, durably. The sequences are
  /// taken with this call.
  public mutating func labelForAddedPV(legId: Identifier, at slot: LegSlot) -> Label {
    let sequence = membership.nextSequence
    membership.nextSequence += 2
    var members = memberTable(listing: online)
    members[slot.index] = Member(legId: legId, state: .adding)
    for index in members.indices where members[index].replaces == slot {
      members[index].replaces = nil
    }
    var label = Label(
      sequence: sequence, setId: start.setId, name: start.name, legId: legId, slot: slot,
      lineage: membership.lineage, members: members, layout: start.layout,
      logKind: start.logKind, isClean: false, createdSeconds: start.createdSeconds,
      resyncMinBytesPerSecond: start.resyncMinBytesPerSecond,
      resyncMaxBytesPerSecond: start.resyncMaxBytesPerSecond)
    label.salt = labelSalt &+ sequence
    return label
  }

  /// Adds a PV at `slot` (from `slotForNewLeg`): as a leg to which everything is copied; in the
  /// place of another leg, which is removed when this one is in sync; or as a spare, which gets
  /// labels only. The PV's map must have been erased, and its label be that of `labelForAddedPV`.
  /// - Precondition: a spare replaces nothing.
  public mutating func add(
    legId: Identifier, at slot: LegSlot, isSpare: Bool = false, replacing old: LegSlot? = nil,
    now: Instant
  ) throws(CommandError) {
    precondition(!isSpare || old == nil, "a spare replaces nothing yet")
    self.now = max(self.now, now)
    guard try slotForNewLeg() == slot else { throw .noFreeSlot }
    if let old { try checkReplaceable(old) }
    legs[slot.index] = LegState()
    legs[slot.index].legId = legId
    if isSpare {
      keepSpare(slot)
    } else {
      legs[slot.index].isNew = true
      legs[slot.index].replaces = old
      markAllStale(slot)
      beginJoin(slot)
      if let old { note(MirrorEvent(.replaceStarted, leg: slot, detail: UInt64(old.raw))) }
    }
    work()
  }

  mutating func markAllStale(_ slot: LegSlot) {
    let bit = UInt16(LegSet(slot).bits)
    for region in 0..<map.layout.regionCount { map.setBits(bit, in: region) }
  }

  /// The leg is read only if nothing else can, or like any other. It survives a restart.
  public mutating func setWriteMostly(
    _ slot: LegSlot, _ isWriteMostly: Bool, now: Instant
  ) throws(CommandError) {
    self.now = max(self.now, now)
    try requireWritable()
    try requireMember(slot)
    guard legs[slot.index].isWriteMostly != isWriteMostly else { return }
    legs[slot.index].isWriteMostly = isWriteMostly
    membership.needsCommit = true
    work()
  }

  /// Begins anew with an online leg whose disk was repaired: its errors are forgotten, regions that
  /// could not be read are tried again, and a flush that failed on it no longer fails the next
  /// ones. What it may have lost then is copied to it again from legs that have it; what it
  /// alone has cannot be.
  ///
  /// With `isWhole` everything that another leg has is copied to it again: its disk is no longer
  /// trusted with anything. Refused if it alone has all there is.
  public mutating func refresh(
    _ slot: LegSlot, isWhole: Bool = false, now: Instant
  ) throws(CommandError) {
    self.now = max(self.now, now)
    try requireWritable()
    try requireMember(slot)
    guard online.contains(slot) else { throw .notOnline }
    if isWhole { try markAllOthersHave(slot) }
    legs[slot.index].readErrors = 0
    legs[slot.index].writeErrors = 0
    legs[slot.index].readErrorScore = 0
    if flushes.latchedLegs.contains(slot) {
      if !isWhole { markLost(by: slot) }
      flushes.latchedLegs.remove(slot)
      flushes.isLatched = !flushes.latchedLegs.isEmpty
    }
    copier.restart()
    work()
  }

  /// Where a write may not have been flushed the leg may have lost it: it is stale there if
  /// another leg is good.
  private mutating func markLost(by slot: LegSlot) {
    let others = sources(insteadOf: slot)
    guard !others.isEmpty else { return }
    for region in 0..<map.layout.regionCount where map.hasIntent(region) {
      markStale(slot, in: region, ifAnyIsGood: others)
    }
    staleMarked(slot)
  }

  /// The leg is stale wherever another one is good.
  private mutating func markAllOthersHave(_ slot: LegSlot) throws(CommandError) {
    let others = sources(insteadOf: slot)
    let written = (0..<map.layout.regionCount).filter { !map.isUnwritten($0) }
    let isAlone = written.allSatisfy { others.subtracting(map.stale($0)).isEmpty }
    guard !others.isEmpty, written.isEmpty || !isAlone else { throw .onlyGoodCopy }
    for region in written {
      markStale(slot, in: region, ifAnyIsGood: others)
    }
    staleMarked(slot)
  }

  /// The legs that can be copied from to this one. With a log in memory one leg has to stay complete,
  /// and what a latched leg holds is in doubt itself.
  private func sources(insteadOf slot: LegSlot) -> LegSet {
    let others = online.subtracting(LegSet(slot)).subtracting(flushes.latchedLegs)
    return start.logKind == .disk || hasCompleteLeg(others) ? others : .none
  }

  private mutating func markStale(_ slot: LegSlot, in region: Int, ifAnyIsGood others: LegSet) {
    guard !others.subtracting(map.stale(region)).isEmpty else { return }
    map.setBits(UInt16(LegSet(slot).bits), in: region)
    copier.invalidate(region, missedBy: LegSet(slot), mayDiffer: false)
  }

  private mutating func staleMarked(_ slot: LegSlot) {
    log.wantsCommit = true
    if map.staleCounts[slot.index] > 0 { membership.needsCommit = true }
  }

  /// Stops or restarts copying; windows in flight end. The next label keeps it, so a start goes on
  /// as the last one ended; a read-only mirror copies nothing and records nothing.
  public mutating func setCopierPaused(_ isPaused: Bool, now: Instant) {
    self.now = max(self.now, now)
    guard isPaused != copier.isPaused else { return }
    copier.setPaused(isPaused, now: self.now)
    if !start.isReadOnly, stop == .running { membership.needsCommit = true }
  }
}
