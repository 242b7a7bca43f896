// From what assembly decided to what the engine starts with.

import Base
import MirrorFormat

extension EngineStart {
  /// A start with the default options.
  ///
  /// Legs that come back by themselves (role `returning`, `diverged`) are offline at first; the
  /// caller brings them in with `Engine.readd` once it runs.
  public init(plan: AssemblyPlan, map: AssemblyMap, seed: UInt64) {
    var members = plan.members
    var lost = plan.lost
    while let slot = lost.popFirst() {
      members[slot.index].state = .missing
      members[slot.index].offlineSince = 0
    }
    var rewrite = Array(repeating: false, count: plan.layout.pageCount)
    for page in map.pagesToRewrite { rewrite[page] = true }
    var copies = Array(repeating: UInt8(0), count: plan.layout.pageCount)
    var legs: [LegStart] = []
    for case let leg? in plan.legs where leg.role == .online {
      legs.append(LegStart(slot: leg.slot, labelCopy: leg.label.copy))
      for page in copies.indices where map.newestCopy[leg.slot.index][page] == 1 {
        copies[page] |= 1 << leg.slot.raw
      }
    }
    self.init(
      setId: plan.setId, name: plan.name, layout: plan.layout, logKind: plan.logKind,
      lineage: plan.lineage, members: members, legs: legs,
      nextLabelSequence: plan.nextLabelSequence, words: map.words,
      pageSequences: map.sequences, pageCopies: copies, pagesToRewrite: rewrite,
      needsGeneration: plan.isDegradedStart, createdSeconds: plan.head.createdSeconds,
      resyncMinBytesPerSecond: plan.head.resyncMinBytesPerSecond,
      resyncMaxBytesPerSecond: plan.head.resyncMaxBytesPerSecond, seed: seed)
    isReadOnly = plan.isReadOnly
    unwrittenPages = map.unwrittenPages
  }
}

extension ReturningLeg {
  /// The PV of a leg that assembly found and that is not online.
  public init(_ leg: AssemblyLeg) {
    self.init(
      legId: leg.label.label.legId, lineage: leg.label.label.lineage,
      labelSequence: leg.label.label.sequence, labelCopy: leg.label.copy,
      isTreatedAsNew: leg.role == .diverged)
  }
}
