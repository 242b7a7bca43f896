// What troubles the mirror: faults of legs, crashes, and an administrator.

import Base
import Faults
import MirrorEngine
import MirrorFormat

extension World {
  /// Does one random thing of those that the scenario has.
  func unrest() {
    let scenario = scenario
    switch random.below(16) {
    case 0, 1: if scenario.hasErrors { addErrors() }
    case 2: if scenario.hasNoSpace { addFault(.full, trigger: .probability(millionths: 500_000)) }
    case 3: if scenario.hasHangs { addFault(.hang, trigger: hangTrigger()) }
    case 4: if scenario.hasLosses { loseLeg() }
    case 5, 6, 7: heal(anyLeg())
    case 8: if scenario.hasCrashes { crash(losingPower: .none) }
    case 9: if scenario.hasPowerLosses { losePower() }
    case 10: if scenario.hasStops { stopAndStart() }
    case 11, 12: if scenario.hasCommands { command() }
    default: bringBack(anyLeg())
    }
  }

  func anyLeg() -> LegSlot {
    let present = (0..<LegSlot.count).filter { legs[$0] != nil }
    guard !present.isEmpty else { return LegSlot(0) }
    return LegSlot(present[Int(random.below(UInt64(present.count)))])
  }

  // MARK: Faults

  private func addFault(_ action: FaultAction, trigger: FaultTrigger) {
    faultNumber += 1
    counts.faults += 1
    let leg = anyLeg()
    let operations =
      random.chance(1, in: 2)
      ? FaultOperations.all : FaultOperations(rawValue: 1 << UInt8(random.below(4)))
    note(.command, "fault", leg: leg.index, value: Int64(operations.rawValue))
    faults.add(
      Fault(
        name: "\(faultNumber)", leg: leg, operations: operations, trigger: trigger,
        action: action))
  }

  private func hangTrigger() -> FaultTrigger {
    random.chance(1, in: 2) ? .always : .probability(millionths: 100_000)
  }

  private func addErrors() {
    if random.chance(1, in: 4) {
      let offset = random.below(layout.sizeBytes / 512) * 512
      let count = min(512 * (1 + random.below(16)), layout.sizeBytes - offset)
      faultNumber += 1
      counts.faults += 1
      let leg = anyLeg()
      note(.command, "bad sector", leg: leg.index, range: ByteRange(offset: offset, count: count))
      faults.add(
        Fault(
          name: "\(faultNumber)", leg: leg, range: ByteRange(offset: offset, count: count),
          action: .badSector))
      return
    }
    let trigger: FaultTrigger =
      switch random.below(3) {
      case 0: .always
      case 1: .probability(millionths: 200_000)
      default: .nth(1 + random.below(20))
      }
    addFault(.error(errno: 5), trigger: trigger)
  }

  /// A leg disappears; its cache may die with it, once the engine has noticed.
  private func loseLeg() {
    let leg = anyLeg()
    faultNumber += 1
    counts.faults += 1
    let diesToo = random.chance(1, in: 2)
    note(.command, "leg lost", leg: leg.index, value: diesToo ? 1 : 0)
    faults.add(Fault(name: "\(faultNumber)", leg: leg, action: .offline))
    if diesToo, online.contains(leg), online.count > 1 {
      losesCache.insert(leg)
    }
  }

  /// All faults of a leg end, hung I/O goes on.
  func heal(_ leg: LegSlot) {
    if losesCache.contains(leg) {
      // The engine has to notice first that it is gone, or cannot do without it: then its cache
      // was not lost after all.
      guard random.chance(1, in: 4) else { return }
      losesCache.remove(leg)
    }
    note(.command, "heal", leg: leg.index)
    faults.removeAll(on: leg)
    releaseHeld(on: leg)
  }

  private func losePower() {
    let all = LegSet(bits: 0xff)
    let some = LegSet(bits: UInt8(truncatingIfNeeded: random.next()) | 1)
    crash(losingPower: random.chance(1, in: 3) ? some : all)
  }

  // MARK: The administrator

  private func command() {
    counts.commands += 1
    let leg = anyLeg()
    do throws(CommandError) {
      switch random.below(8) {
      case 0, 1:
        try engine.fail(leg, now: now)
        note(.command, "leg fail", leg: leg.index)
      case 2:
        try engine.remove(leg, now: now)
        note(.command, "leg remove", leg: leg.index)
        returning[leg.index] = nil
      case 3: try addLeg()
      case 4:
        engine.setCopierPaused(random.chance(1, in: 2), now: now)
        note(.command, "pause")
      case 5: clearLatch()
      case 6 where random.chance(1, in: 2):
        if random.chance(1, in: 2) {
          try engine.setWriteMostly(leg, random.chance(1, in: 2), now: now)
        } else if !wasFlushLatched {
          try engine.refresh(leg, now: now)
        }
        note(.command, "leg set or refresh", leg: leg.index)
      default: bringBack(leg)
      }
    } catch {
      note(.command, "refused", leg: leg.index)
    }
  }

  func clearLatch() {
    guard wasFlushLatched else { return }
    note(.command, "clear latch")
    engine.refreshOnlineLegs(now: now)
    wasFlushLatched = false
    look()
  }

  private func addLeg() throws(CommandError) {
    let slot = try engine.slotForNewLeg()
    guard legs.filter({ $0 != nil }).count < 5 else { return }
    let legId = Identifier(high: random.next(), low: random.next())
    let leg = SimulatedLeg(legId: legId, layout: layout, fill: Pattern.garbage)
    faults.removeAll(on: slot)
    legs[slot.index] = leg
    returning[slot.index] = nil
    // As a server does: the PV says what it is before any label lists it.
    var label = engine.labelForAddedPV(legId: legId, at: slot)
    for copy in [1, 0] {
      World.put(label, copy: copy, leg)
      label.sequence += 1
    }
    switch random.below(4) {
    case 0:
      try engine.add(legId: legId, at: slot, isSpare: true, now: now)
      note(.command, "leg add --spare", leg: slot.index)
    case 1 where slot != anyLeg():
      let old = members.first ?? slot
      try engine.add(legId: legId, at: slot, replacing: old, now: now)
      note(.command, "leg replace", leg: slot.index, value: Int64(old.index))
    default:
      try engine.add(legId: legId, at: slot, now: now)
      note(.command, "leg add", leg: slot.index)
    }
  }

  /// Brings an offline leg in again, as a server does that is told to.
  func bringBack(_ slot: LegSlot) {
    guard let leg = legs[slot.index], !goneLegs.contains(slot) else { return }
    var returned = ReturningLeg(
      legId: leg.legId, lineage: Lineage(current: Generation(counter: 0, id: .zero), parents: []),
      labelSequence: 0, labelCopy: 0, isTreatedAsNew: true)
    if case .success(let elected) = leg.label() {
      returned.lineage = elected.label.lineage
      returned.labelSequence = elected.label.sequence
      returned.labelCopy = elected.copy
      returned.isTreatedAsNew =
        returning[slot.index]?.isTreatedAsNew ?? elected.label.isOfAddedPV
    }
    do throws(CommandError) {
      do throws(CommandError) {
        try engine.checkReturn(returned, to: slot)
      } catch {
        guard error == .diverged else { throw error }
        returned.isTreatedAsNew = true
        returned.labelSequence = 0
        returned.labelCopy = 0
      }
      leg.forgetLost()
      if returned.isTreatedAsNew { leg.eraseMetadata() }
      try engine.readd(returned, to: slot, now: now)
      returning[slot.index] = nil
      note(.command, "leg readd", leg: slot.index, value: returned.isTreatedAsNew ? 1 : 0)
    } catch {
      note(.command, "readd refused", leg: slot.index)
    }
  }
}
