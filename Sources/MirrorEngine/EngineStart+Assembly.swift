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
      members[slot.index].isSyncing = false
      members[slot.index].isGivenUp = plan.insistedOn != nil
      // It was listed, so the head's label went to it.
      members[slot.index].offeredId = plan.lineage.current.id
    }
    for case let leg? in plan.legs {
      let label = leg.label.label
      switch leg.role {
      case .online: members[leg.slot.index].offlineSince = label.lineage.current.counter + 1
      case .diverged, .offline:
        let isKnown =
          label.lineage.current.id == plan.lineage.current.id || label.holdsNothing
          || Assembly.isAncestor(label, of: plan.head)
        guard !isKnown else { break }
        // Given up by --choose-leg: exactly this history, and it is not asked about again.
        members[leg.slot.index].isGivenUp = true
        members[leg.slot.index].offeredId = label.lineage.current.id
      case .returning, .spare: break
      }
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
      lost: plan.lost, createdSeconds: plan.head.createdSeconds,
      resyncMinBytesPerSecond: plan.head.resyncMinBytesPerSecond,
      resyncMaxBytesPerSecond: plan.head.resyncMaxBytesPerSecond, seed: seed)
    isResyncPaused = plan.head.isResyncPaused
    isReadOnly = plan.isReadOnly
    for case let leg? in plan.legs where leg.role == .spare {
      spares.append(LegStart(slot: leg.slot, labelCopy: leg.label.copy))
    }
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
