// What troubles the mirror: faults of legs, crashes, and an administrator.

import Base
import Faults
import MirrorEngine
import MirrorFormat

extension World {
  /// Does one random thing of those that the scenario has.
  mutating func unrest() {
    let what = random.below(20)
    // Who dies while nothing is under way proves little, and nothing ever comes to rest.
    let isIdle = openRequests == 0 && iosInFlight == 0
    if isIdle, what == 8 || what == 9 || what == 10, random.chance(15, in: 16) { return }
    switch what {
    case 0, 1: if scenario.has(.errors) { addErrors() }
    case 2:
      if scenario.has(.noSpace) { addFault(.full, trigger: .probability(millionths: 500_000)) }
    case 3: if scenario.has(.hangs) { addFault(.hang, trigger: hangTrigger()) }
    case 4: if scenario.has(.losses) { loseLeg() }
    case 5, 6, 7: heal(anyLeg())
    case 8: if scenario.has(.crashes) { crash(losingPower: .none) }
    case 9: if scenario.has(.powerLosses) { losePower() }
    case 10: if scenario.has(.stops) { stopAndStart() }
    case 11, 12: if scenario.has(.commands) { command() }
    case 13: if scenario.has(.scrubs) { commandScrub() }
    case 14: if scenario.has(.splitBrains) { splitBrain() }
    case 15:
      if scenario.has(.slowness) {
        let slowest = random.chance(1, in: 3) ? Nanoseconds.second : 10 * Nanoseconds.millisecond
        let least = random.below(slowest)
        let delay: FaultDelay =
          random.chance(1, in: 4)
          ? .exponential(mean: least + 1) : .uniform(least: least, most: 4 * least + 1)
        addFault(
          random.chance(1, in: 4)
            ? .throttle(operationsPerSecond: 200 + random.below(5000), bytesPerSecond: nil)
            : .delay(delay), trigger: .always)
      }
    default: bringBack(anyLeg())
    }
  }

  mutating func anyLeg() -> LegSlot {
    var present = LegSet.none
    for slot in 0..<LegSlot.count where legs[slot] != nil { present.insert(LegSlot(slot)) }
    guard !present.isEmpty else { return LegSlot(0) }
    var left = random.below(UInt64(present.count))
    while left > 0, present.popFirst() != nil { left -= 1 }
    return present.first ?? LegSlot(0)
  }

  // MARK: Faults

  private mutating func addFault(_ action: FaultAction, trigger: FaultTrigger) {
    let leg = anyLeg()
    let operations =
      random.chance(1, in: 2)
      ? FaultOperations.all : FaultOperations(rawValue: 1 << UInt8(random.below(4)))
    note(.command, "fault", leg: leg.index, value: Int64(operations.rawValue))
    add(Fault(leg: leg, operations: operations, trigger: trigger, action: action))
  }

  /// Adds a fault; a set that is full takes no more.
  private mutating func add(_ fault: Fault) {
    faultNumber += 1
    var named = fault
    named.name = "\(faultNumber)"
    do throws(FaultSetError) { try faults.add(named, now: now) } catch {
      note(.command, "too many faults", leg: fault.leg.index)
    }
  }

  /// All faults of all legs end.
  mutating func endFaults() {
    faults.removeAll()
    disappeared = .none
  }

  /// One leg lies from the first moment on, each time with some probability.
  mutating func makeLiar(_ leg: LegSlot) {
    let rarely = FaultTrigger.probability(millionths: 20_000)
    let lies: [(FaultAction, FaultOperations, FaultArea)] = [
      (.drop, [.write, .zero], .data), (.drop, .flush, .everywhere),
      (.corrupt(bits: 3), .write, .data), (.corrupt(bits: 1), .read, .data),
      (.misdirect(to: nil), .write, .data), (.misdirect(to: nil), .read, .data),
      (.torn(sectors: nil, errno: 0), .write, .data), (.staleRead, .read, .data),
    ]
    for (action, operations, area) in lies {
      add(
        Fault(leg: leg, operations: operations, area: area, trigger: rarely, action: action))
    }
  }

  private mutating func hangTrigger() -> FaultTrigger {
    random.chance(1, in: 2) ? .always : .probability(millionths: 100_000)
  }

  private mutating func addErrors() {
    if random.chance(1, in: 4) {
      let offset = random.below(layout.sizeBytes / 512) * 512
      let count = min(512 * (1 + random.below(16)), layout.sizeBytes - offset)
      counts.hit(.badSector)
      let leg = anyLeg()
      let range = ByteRange(offset: offset, count: count)
      note(.command, "bad sector", leg: leg.index, range: range)
      add(Fault(leg: leg, operations: .read, area: .range(range), action: .badSector))
      return
    }
    let trigger: FaultTrigger =
      switch random.below(3) {
      case 0: .always
      case 1: .probability(millionths: 200_000)
      default: .nth(1 + random.below(20))
      }
    let isTorn = random.chance(1, in: 4)
    addFault(
      isTorn ? .torn(sectors: nil, errno: FaultErrno.io) : .error(errno: FaultErrno.io),
      trigger: trigger)
  }

  /// A leg disappears; its cache may die with it, once the engine has noticed.
  private mutating func loseLeg() {
    let leg = anyLeg()
    let diesToo = random.chance(1, in: 2)
    note(.command, "leg lost", leg: leg.index, value: diesToo ? 1 : 0)
    add(Fault(leg: leg, action: .offline))
    disappeared.insert(leg)
    if diesToo, online.contains(leg), online.count > 1 { losesCache.insert(leg) }
  }

  /// All faults of a leg end, hung I/O goes on.
  mutating func heal(_ leg: LegSlot) {
    if losesCache.contains(leg) {
      // The engine has to notice first that it is gone, or cannot do without it: then its cache
      // was not lost after all.
      guard random.chance(1, in: 4) else { return }
      losesCache.remove(leg)
    }
    note(.command, "heal", leg: leg.index)
    faults.removeAll(on: leg)
    disappeared.remove(leg)
    if leg == liar, !isCalm { makeLiar(leg) }
    releaseHeld(on: leg)
  }

  private mutating func losePower() {
    let all = LegSet(bits: 0xff)
    let some = LegSet(bits: UInt8(truncatingIfNeeded: random.next()) | 1)
    crash(losingPower: random.chance(1, in: 3) ? some : all)
  }

  /// Plans a crash for soon, with this probability: something is under way that a crash may catch.
  mutating func planCrash(_ numerator: UInt64, in denominator: UInt64) {
    guard nextCrash == nil, !isCalm, !scenario.features.isDisjoint(with: [.crashes, .powerLosses]),
      random.chance(numerator, in: denominator)
    else { return }
    nextCrash = now.advanced(byNanoseconds: random.below(3 * scenario.ioNanoseconds))
  }

  mutating func crashAsPlanned() {
    nextCrash = nil
    if scenario.has(.powerLosses), !scenario.has(.crashes) || random.chance(1, in: 2) {
      losePower()
    } else {
      crash(losingPower: .none)
    }
  }

  private mutating func splitBrain() {
    guard otherSide != nil else {
      partLegs()
      return
    }
    if random.chance(1, in: 2) { changeSides() } else { rejoinLegs() }
  }

  // MARK: The administrator

  private mutating func command() {
    let leg = anyLeg()
    // While nothing is written a leg can go and come back and miss nothing.
    let isQuiet =
      openRequests == 0 && random.chance(1, in: 2) && engine.snapshot().dirtyRegions == 0
    do throws(CommandError) {
      switch isQuiet ? 0 : random.below(10) {
      case 0, 1:
        try engine.fail(leg, now: now)
        note(.command, "leg fail", leg: leg.index)
        if random.chance(1, in: 2) { soonBack.insert(leg) }
      case 2:
        try engine.remove(leg, now: now)
        note(.command, "leg remove", leg: leg.index)
        returning[leg.index] = nil
      case 3, 4: try addLeg()
      case 5:
        engine.setCopierPaused(random.chance(1, in: 2), now: now)
        note(.command, "pause")
      case 6: clearLatch()
      case 7 where random.chance(1, in: 2):
        if random.chance(1, in: 2) {
          try engine.setWriteMostly(leg, random.chance(1, in: 2), now: now)
        } else if !wasFlushLatched {
          try engine.refresh(leg, isWhole: random.chance(1, in: 2), now: now)
        }
        note(.command, "leg set or refresh", leg: leg.index)
      default: bringBack(leg)
      }
      counts.commands += 1
    } catch {
      counts.refused += 1
      note(.command, "refused", leg: leg.index)
    }
  }

  private mutating func commandScrub() {
    do throws(CommandError) {
      if random.chance(1, in: 4) {
        try engine.stopScrub(now: now)
        note(.command, "scrub stop")
        return
      }
      var range: ByteRange?
      if random.chance(1, in: 2) {
        let first = random.below(layout.sizeBytes)
        range = ByteRange(offset: first, count: 1 + random.below(layout.sizeBytes - first))
      }
      try engine.startScrub(
        ScrubOrder(
          mode: random.chance(1, in: 2) ? .check : .repair,
          preferred: random.chance(1, in: 3) ? anyLeg() : nil, range: range), now: now)
      note(.command, "scrub")
      counts.commands += 1
    } catch {
      counts.refused += 1
      note(.command, "scrub refused")
    }
  }

  mutating func clearLatch() {
    guard wasFlushLatched else { return }
    note(.command, "clear latch")
    engine.refreshOnlineLegs(now: now)
    wasFlushLatched = false
    look()
  }

  private mutating func addLeg() throws(CommandError) {
    let slot = try engine.slotForNewLeg()
    // Who removes a leg waits until the labels say so before its disk is taken away.
    guard legs[slot.index] == nil || engine.isLabelSettled else { return }
    var present = 0
    for leg in legs where leg != nil { present += 1 }
    guard present < 5 || random.chance(1, in: 8), otherSide == nil, !attached.contains(slot)
    else { return }
    let legId = Identifier(high: random.next(), low: random.next())
    let leg = SimulatedLeg(legId: legId, layout: layout, fill: Pattern.garbage, removed: removed)
    faults.removeAll(on: slot)
    disappeared.remove(slot)
    legs[slot.index] = leg
    returning[slot.index] = nil
    forgetCopies(of: slot)
    everOnline.remove(slot)
    attached.insert(slot)
    // As a server does: the PV says what it is before any label lists it.
    var label = engine.labelForAddedPV(legId: legId, at: slot)
    for copy in [1, 0] {
      World.put(label, copy: copy, leg)
      label.sequence += 1
    }
    do throws(CommandError) { try bringIn(legId, slot) } catch {
      attached.remove(slot)
      legs[slot.index] = nil
      throw error
    }
  }

  private mutating func bringIn(_ legId: Identifier, _ slot: LegSlot) throws(CommandError) {
    switch random.below(4) {
    case 0:
      try engine.add(legId: legId, at: slot, isSpare: true, now: now)
      note(.command, "leg add --spare", leg: slot.index)
    case 1:
      let old = anyMember(besides: slot)
      try engine.add(legId: legId, at: slot, replacing: old, now: now)
      note(.command, "leg replace", leg: slot.index, value: Int64(old.index))
    default:
      try engine.add(legId: legId, at: slot, now: now)
      note(.command, "leg add", leg: slot.index)
    }
  }

  /// A client sends something while a leg is brought in.
  private mutating func disturb() {
    let connection = Int(random.below(UInt64(scenario.connections)))
    push(
      .submit, UInt64(connection) | World.extra, to: connection % reactors.count,
      after: random.below(8 * scenario.ioNanoseconds))
  }

  private mutating func anyMember(besides slot: LegSlot) -> LegSlot {
    var rest = members
    rest.remove(slot)
    guard !rest.isEmpty else { return slot }
    var left = random.below(UInt64(rest.count))
    while left > 0, rest.popFirst() != nil { left -= 1 }
    return rest.first ?? slot
  }

  /// Brings an offline leg in again, as a server does that is told to.
  mutating func bringBack(_ slot: LegSlot) {
    guard let leg = legs[slot.index], !attached.contains(slot), !goneLegs.contains(slot) else {
      return
    }
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
      // Until a label says what it is now, one that lists it online may count.
      if !leg.lost.isEmpty { lostCache.insert(slot) }
      leg.forgetLost()
      if random.chance(1, in: 2) { disturb() }
      if returned.isTreatedAsNew { leg.eraseMetadata() }
      forgetCopies(of: slot)
      try engine.readd(returned, to: slot, now: now)
      attached.insert(slot)
      returning[slot.index] = nil
      counts.commands += 1
      note(.command, "leg readd", leg: slot.index, value: returned.isTreatedAsNew ? 1 : 0)
    } catch {
      note(.command, "readd refused", leg: slot.index)
    }
  }
}
