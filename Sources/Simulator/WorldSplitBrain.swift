// Split brains: the legs are parted, each part is started by itself and goes on alone; then all are
// there again. Assembly must notice, and must go on with exactly the history that is chosen.

import Base
import MirrorEngine
import MirrorFormat

/// The part of the mirror that does not run at present.
struct OtherSide {
  /// Its legs.
  var legs: LegSet
  /// What its clients know.
  var oracle: Oracle
  /// It has run by itself, and its own generation is durable.
  var hasRecorded: Bool
  /// Its PVs by slot, as they were when the sides were parted.
  var members: LegSet
}

extension World {
  /// The server dies, and the legs are parted if two administrators could start a part each.
  mutating func partLegs() {
    guard otherSide == nil, chosenLeg == nil, unheard.isEmpty, scenario.logKind == .disk, !isCalm
    else { return }
    die(losingPower: random.chance(1, in: 2) ? LegSet(bits: 0xff) : .none)
    let mine = LegSet(bits: UInt8(truncatingIfNeeded: random.next()))
    let theirs = LegSet(bits: ~mine.bits)
    guard violation == nil, goneLegs.isEmpty, canStart(without: theirs), canStart(without: mine)
    else {
      restart()
      return
    }
    counts.hit(.splitBrain)
    hasRecordedOwn = false
    note(.command, "split brain", value: Int64(mine.bits))
    otherSide = OtherSide(legs: theirs, oracle: oracle, hasRecorded: false, members: members)
    startSide()
  }

  /// The other side is started instead of this one.
  mutating func changeSides() {
    guard let other = otherSide else { return }
    die(losingPower: .none)
    guard violation == nil else { return }
    note(.command, "other side", value: Int64(other.legs.bits))
    let mine = LegSet(bits: ~other.legs.bits)
    otherSide = OtherSide(
      legs: mine, oracle: oracle, hasRecorded: hasRecordedOwn, members: members)
    oracle = other.oracle
    members = other.members
    hasRecordedOwn = other.hasRecorded
    startSide()
  }

  private mutating func startSide() {
    endFaults()
    guard let plan = chooseLegs(absent: .none) else {
      fail("a part of the mirror that could be started cannot be started any more")
      return
    }
    takePlan(plan)
  }

  /// All legs are there again: assembly has to refuse, if both sides have gone on, until one is
  /// chosen.
  mutating func rejoinLegs() {
    guard let other = otherSide else { return }
    die(losingPower: .none)
    guard violation == nil else { return }
    otherSide = nil
    endFaults()
    let mine = LegSet(bits: ~other.legs.bits)
    members = members.intersection(mine).union(other.members.intersection(other.legs))
    let plain = plan(absent: .none, isDegraded: true)
    let isForked = hasRecordedOwn && other.hasRecorded
    hasRecordedOwn = false
    switch plain {
    case .success(let plan):
      if isForked {
        fail("two histories went on separately, and assembly does not notice")
        return
      }
      if isOf(plan, other.legs), other.hasRecorded { oracle = other.oracle }
      note(.command, "rejoined", value: Int64(plan.online.bits))
      takePlan(plan)
    case .failure:
      let wantsOther = random.chance(1, in: 2)
      let side = wantsOther ? other.legs : mine
      guard let plan = planChoosing(side) ?? planChoosing(LegSet(bits: ~side.bits)) else {
        fail("neither side of a split brain can be chosen: \(plain)")
        return
      }
      if isOf(plan, other.legs) { oracle = other.oracle }
      note(.command, "chosen", value: Int64(plan.online.bits))
      chosenSide = isOf(plan, other.legs) ? other.legs : mine
      chosenLeg = "leg\((plan.legs.firstIndex { isHead($0, plan) }) ?? 0)"
      takePlan(plan)
    }
  }

  /// Whether the label that speaks for the mirror stands on a leg of `side`.
  private func isOf(_ plan: AssemblyPlan, _ side: LegSet) -> Bool {
    for case let leg? in plan.legs
    where leg.label.label.lineage.current == plan.lineage.current && side.contains(leg.slot) {
      return true
    }
    return false
  }

  private func isHead(_ leg: AssemblyLeg?, _ plan: AssemblyPlan) -> Bool {
    guard let leg, plan.online.contains(leg.slot) else { return false }
    return leg.label.label.lineage.current == plan.lineage.current
  }

  /// The start that an administrator gets who insists on a leg of `side` that has its newest label.
  func planChoosing(_ side: LegSet, absent: LegSet = .none) -> AssemblyPlan? {
    var newest: (slot: Int, counter: UInt64)?
    for index in 0..<LegSlot.count where side.contains(LegSlot(index)) {
      guard let leg = legs[index], case .success(let elected) = leg.label(),
        !elected.label.holdsNothing
      else { continue }
      let counter = elected.label.lineage.current.counter
      if newest == nil || counter > newest?.counter ?? 0 { newest = (index, counter) }
    }
    guard let newest else { return nil }
    let options = AssemblyOptions(isDegradedAllowed: true, chooseLeg: "leg\(newest.slot)")
    guard case .success(let plan) = World.plan(legs, absent: absent, options) else { return nil }
    return plan
  }
}
