// What the legs say after a crash, to every start that an administrator may try: who is not called
// stale in a region holds what clients may see there, and where no intent is left all such legs hold
// the same.
//
// A wrong stale bit shows itself to clients only if the right legs come and go afterwards; this looks
// at all of them at once. It asks the labels and maps of each set of legs, as assembly would, and
// compares with what really is on the disks, those that are left out included.

import Base
import MirrorEngine
import MirrorFormat

/// What is on the disks after a crash, looked at once for all starts.
private struct ProbedDisks {
  var candidates: [AssemblyCandidate?] = []
  var maps: [LegMap?] = []
  var present = LegSet.none
  /// By slot and region: 0 not looked at, else one more than the first slot that holds the same.
  var twins: [UInt8] = []
  /// By the first of such slots, and region: 0 not looked at, 1 as it should be, 2 not.
  var verdicts: [UInt8] = []
}

extension World {
  /// Looks at what each set of legs would believe.
  mutating func probeStarts() {
    // Every second time: all of them cost a quarter of the speed.
    guard counts.starts.isMultiple(of: 2), violation == nil, liar == nil, !hasLostData,
      otherSide == nil, chosenLeg == nil, !scenario.has(.rot)
    else { return }
    var disks = lookAtDisks()
    guard let all = probePlan(disks.present, disks) else { return }
    for bits in UInt8(1)...UInt8.max {
      let set = LegSet(bits: bits)
      guard disks.present.isSuperset(of: set) else { continue }
      guard let plan = set == disks.present ? all : probePlan(set, disks),
        plan.lineage.current == all.lineage.current, isOffered(plan, all)
      else { continue }
      probe(plan, set, &disks)
      if violation != nil { return }
    }
  }

  private func lookAtDisks() -> ProbedDisks {
    var disks = ProbedDisks()
    for slot in 0..<LegSlot.count {
      guard let leg = legs[slot], case .success(let elected) = leg.label() else {
        disks.candidates.append(nil)
        disks.maps.append(nil)
        continue
      }
      disks.present.insert(LegSlot(slot))
      disks.candidates.append(
        AssemblyCandidate(
          path: "leg\(slot)", label: .success(elected), legBytes: leg.layout.pvBytes,
          logicalBlockBytes: 512))
      disks.maps.append(leg.map(setId: setId))
    }
    disks.verdicts = Array(repeating: 0, count: LegSlot.count * layout.regionCount)
    disks.twins = disks.verdicts
    return disks
  }

  private func probePlan(_ set: LegSet, _ disks: ProbedDisks) -> AssemblyPlan? {
    var candidates: [AssemblyCandidate] = []
    var rest = set
    while let slot = rest.popFirst() {
      if let candidate = disks.candidates[slot.index] { candidates.append(candidate) }
    }
    let options = AssemblyOptions(isDegradedAllowed: true)
    guard case .success(let plan) = Assembly.plan(candidates, options: options) else { return nil }
    return plan
  }

  /// Whether an administrator may start so: somebody who is online has the newest generation; with
  /// the log in memory, somebody has everything.
  private func isOffered(_ plan: AssemblyPlan, _ all: AssemblyPlan) -> Bool {
    if scenario.logKind == .core, plan.online.subtracting(plan.incomplete).isEmpty { return false }
    var holders = plan.online
    while let slot = holders.popFirst() {
      if plan.legs[slot.index]?.label.label.lineage.current == all.lineage.current { return true }
    }
    return false
  }

  private mutating func probe(_ plan: AssemblyPlan, _ set: LegSet, _ disks: inout ProbedDisks) {
    var maps = disks.maps
    for slot in 0..<LegSlot.count where plan.legs[slot] == nil { maps[slot] = nil }
    let map = AssemblyMap.elect(plan: plan, maps: maps, removed: removed)
    let believed = believedLegs(plan, disks)
    let online = UInt16(plan.online.bits)
    for region in 0..<layout.regionCount {
      var word = map.words[region]
      if word & RegionWord.unwritten != 0 { continue }
      let hasIntent = word & RegionWord.intent != 0
      // What the engine adds when its first label is recorded.
      if hasIntent, word & online != online { word |= UInt16(plan.lost.bits) }
      var good = believed.subtracting(LegSet(bits: UInt8(truncatingIfNeeded: word)))
      var reference: Int?
      while let slot = good.popFirst() {
        let twin = firstTwin(slot, region, &disks)
        if !isAsItShould(twin, region, &disks) {
          fail("by legs \(set) leg \(slot) has region \(region), and holds what nobody may see")
          return
        }
        if hasIntent { continue }
        if let other = reference, other != twin {
          fail("by legs \(set) leg \(slot) has region \(region), which has no intent, and differs")
          return
        }
        reference = twin
      }
    }
  }

  /// The legs that come back with what they have, once they are there: those of the plan's history.
  private func believedLegs(_ plan: AssemblyPlan, _ disks: ProbedDisks) -> LegSet {
    var set = LegSet.none
    for index in 0..<LegSlot.count {
      guard let candidate = disks.candidates[index], case .label(let elected) = candidate.content
      else { continue }
      let member = plan.members[index]
      guard member.state != .vacant, member.state != .spare,
        member.legId == elected.label.legId, !member.isGivenUp, !elected.label.holdsNothing,
        plan.legs[index]?.role != .diverged,
        elected.label.lineage.current.id == plan.lineage.current.id
          || Assembly.isAncestor(elected.label, of: plan.head)
      else { continue }
      set.insert(LegSlot(index))
    }
    return set
  }

  /// The first slot whose leg holds the same in the region; all legs are compared at once, so that no
  /// two of them are compared for each set they are in.
  private func firstTwin(_ slot: LegSlot, _ region: Int, _ disks: inout ProbedDisks) -> Int {
    let known = disks.twins[slot.index * layout.regionCount + region]
    if known != 0 { return Int(known) - 1 }
    var firsts = LegSet.none
    var rest = disks.present
    while let next = rest.popFirst() {
      var others = firsts
      var twin = next
      while twin == next, let other = others.popFirst() {
        if let leg = legs[next.index], let reference = legs[other.index],
          leg.isEqual(reference, region: region)
        {
          twin = other
        }
      }
      firsts.insert(twin)
      disks.twins[next.index * layout.regionCount + region] = UInt8(twin.index + 1)
    }
    return Int(disks.twins[slot.index * layout.regionCount + region]) - 1
  }

  private func isAsItShould(_ index: Int, _ region: Int, _ disks: inout ProbedDisks) -> Bool {
    let place = index * layout.regionCount + region
    if disks.verdicts[place] == 0, let leg = legs[index] {
      let grain = UInt64(oracle.grain)
      let begin = UInt64(region) * layout.regionBytes
      let end = min(begin + layout.regionBytes, layout.sizeBytes)
      let cells = Int(begin / grain)..<Int(end / grain)
      disks.verdicts[place] = cells.allSatisfy { oracle.mayHold(leg, cell: $0) } ? 1 : 2
    }
    return disks.verdicts[place] == 1
  }
}
