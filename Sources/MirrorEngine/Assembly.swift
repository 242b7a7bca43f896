// Assembly: from labels to a plan, or to a refusal that explains itself. A pure function.
//
// Invariants of every plan:
//  1. All legs are of one set, have different leg ids and the head's layout.
//  2. Every leg's generation is the head's or an ancestor of it, but for `diverged` ones, which
//     exist only after `--choose-leg` and count as empty.
//  3. `online` is not empty, and is what the head lists online less `lost`.
//  4. The plan depends on the labels, not on the order of the PVs (candidate indexes aside).
//
// Why a leg that the head lists online is trusted although its own label is older. The head is
// durable on one leg at least, and says that this leg gets every write. A label becomes older than
// the head's in one way only: a crash between the label writes of one commit. Nothing was
// acked under the head's generation then which this leg has not (the ack rule waits for the label
// on every remaining leg), and region map pages are committed on every online leg before data. If
// the commit brought the leg back, its whole map, stale bits included, was durable before.
// A leg that went on by itself instead has a generation of its own: that is a split brain.
//
// Source: DESIGN 4.6; md's event counters do the same without ancestors and so cannot tell a split
// brain from a stale leg.

import Base
import MirrorFormat

/// Decides how, and whether, a mirror starts.
public struct Assembly: Sendable {
  private let candidates: [AssemblyCandidate]
  private let options: AssemblyOptions
  private var explanation: [String] = []

  private init(_ candidates: [AssemblyCandidate], _ options: AssemblyOptions) {
    self.candidates = candidates
    self.options = options
  }

  /// The plan for these PVs, or why there is none.
  public static func plan(
    _ candidates: [AssemblyCandidate], options: AssemblyOptions = AssemblyOptions()
  ) -> Result<AssemblyPlan, AssemblyRefusal> {
    var assembly = Assembly(candidates, options)
    do throws(AssemblyRefusal) {
      return .success(try assembly.run())
    } catch {
      return .failure(error)
    }
  }

  /// Whether nothing of `label` is unknown to `head`: its generation came before, or is of a
  /// history that the head's line gave up by name.
  ///
  /// A leg may be away for more generations than a label remembers; then the member table decides
  /// (`Member.offlineSince`, `Member.offeredId`): the leg can only have what it was known to
  /// hold, what was offered to it, or what it made alone, and that is above the former.
  public static func isAncestor(_ label: Label, of head: Label) -> Bool {
    isNamedAncestor(label, of: head) ?? isCountedAncestor(label, of: head)
  }

  /// Whether `head` knows the generation of `label` by its id; nil if it does not.
  private static func isNamedAncestor(_ label: Label, of head: Label) -> Bool? {
    let own = label.lineage.current
    let newest = head.lineage.current
    guard own.id != newest.id else { return false }
    let member = head.members.first { $0.state != .vacant && $0.legId == label.legId }
    if let member, own.id == member.offeredId {
      // Two histories can have given up each other; then neither came before.
      return !member.isGivenUp
        || !label.members.contains { $0.isGivenUp && $0.offeredId == newest.id }
    }
    guard own.counter < newest.counter else { return false }
    return head.lineage.isDescendant(of: own.id) ? true : nil
  }

  /// Whether a leg that was away for longer than `head` remembers can only have what came before.
  private static func isCountedAncestor(_ label: Label, of head: Label) -> Bool {
    let member = head.members.first { $0.state != .vacant && $0.legId == label.legId }
    guard let member else { return false }
    return label.lineage.current.counter < member.offlineSince
      || member.state == .spare && label.isOfSpare
  }

  /// A PV with its label.
  private struct Labelled {
    var candidate: Int
    var path: String
    var elected: ElectedLabel
    var label: Label { elected.label }
    var generation: Generation { elected.label.lineage.current }
  }

  private func refusal(_ reason: AssemblyRefusal.Reason) -> AssemblyRefusal {
    AssemblyRefusal(reason, explanation: explanation)
  }

  private mutating func run() throws(AssemblyRefusal) -> AssemblyPlan {
    let legs = try labelled()
    try checkSet(legs)
    try checkDuplicates(legs)
    let holders = legs.filter { !$0.label.holdsNothing }
    guard !holders.isEmpty else { throw refusal(.nothingOnline(paths: legs.map(\.path))) }
    let head = witness(legs, try chooseHead(holders))
    try checkGeometry(legs, head)
    return try seat(legs, head)
  }

  /// Every candidate's label, in an order that does not depend on the caller's.
  private mutating func labelled() throws(AssemblyRefusal) -> [Labelled] {
    guard !candidates.isEmpty else { throw refusal(.noCandidates) }
    var legs: [Labelled] = []
    let order = candidates.indices.sorted { candidates[$0].path < candidates[$1].path }
    for index in order {
      let candidate = candidates[index]
      switch candidate.content {
      case .label(let elected):
        legs.append(Labelled(candidate: index, path: candidate.path, elected: elected))
      case .noLabel(let why):
        throw refusal(.noLabel(path: candidate.path, why: why))
      case .laterVersion(let why):
        throw refusal(.laterVersion(path: candidate.path, why: why))
      }
    }
    for leg in legs { explanation.append(AssemblyText.label(leg.elected, path: leg.path)) }
    return legs
  }

  private func name(of generation: Generation) -> String { AssemblyText.name(of: generation) }

  private func checkSet(_ legs: [Labelled]) throws(AssemblyRefusal) {
    var groups: [AssemblyRefusal.Group] = []
    for leg in legs {
      if let index = groups.firstIndex(where: { $0.setId == leg.label.setId }) {
        groups[index].paths.append(leg.path)
      } else {
        groups.append(
          AssemblyRefusal.Group(
            name: leg.label.name, setId: leg.label.setId, paths: [leg.path]))
      }
    }
    if groups.count > 1 { throw refusal(.foreignSet(groups)) }
  }

  private func checkDuplicates(_ legs: [Labelled]) throws(AssemblyRefusal) {
    for (index, leg) in legs.enumerated() {
      for other in legs[..<index] where other.label.legId == leg.label.legId {
        throw refusal(
          .duplicateLeg(path: other.path, other: leg.path, legId: leg.label.legId))
      }
    }
  }

  /// The labels that none of the others came after, the last written one of each generation.
  private mutating func heads(
    _ legs: [Labelled], _ isAncestor: (Label, Label) -> Bool
  ) -> [Labelled] {
    var heads: [Labelled] = []
    for leg in legs {
      let newer = legs.first { isAncestor(leg.label, $0.label) }
      if let newer {
        explanation.append(
          "\(name(of: leg.generation)) of PV \(leg.path) came before "
            + "\(name(of: newer.generation)) of PV \(newer.path)")
      } else if let index = heads.firstIndex(where: { $0.generation.id == leg.generation.id }) {
        // Labels of one generation differ in small things only (limits, clean, the reason why a
        // leg is offline): the last one written counts; sequences are common to all legs.
        if leg.label.sequence > heads[index].label.sequence
          || leg.label.sequence == heads[index].label.sequence
            && leg.label.slot < heads[index].label.slot
        {
          heads[index] = leg
        }
      } else {
        heads.append(leg)
      }
    }
    return heads
  }

  /// The label that speaks for the mirror.
  private mutating func chooseHead(_ legs: [Labelled]) throws(AssemblyRefusal) -> Labelled {
    let told = explanation.count
    var heads = self.heads(legs) { Assembly.isAncestor($0, of: $1) }
    if heads.isEmpty {
      // A circle: a history that was given up takes, by its counters, a leg that went over to the
      // other one for an old one of its own. Who names the other knows better.
      explanation.removeSubrange(told...)
      heads = self.heads(legs) { Assembly.isNamedAncestor($0, of: $1) ?? false }
    }
    // Three histories can have given up each other.
    if heads.isEmpty { heads = legs }
    let chosen = try chosenLeg(legs)
    if heads.count > 1 {
      guard let chosen else { throw splitBrain(heads, legs) }
      guard let head = heads.first(where: { $0.generation.id == chosen.generation.id }) else {
        throw staleChoice(chosen, legs)
      }
      explanation.append(
        "the legs went on separately; --choose-leg decides for PV \(chosen.path), "
          + name(of: head.generation))
      return head
    }
    guard let head = heads.first else {
      preconditionFailure("a leg of the highest counter is nobody's ancestor")
    }
    if let chosen, chosen.generation.id != head.generation.id { throw staleChoice(chosen, legs) }
    explanation.append("the head is \(name(of: head.generation)), as PV \(head.path) has it")
    return head
  }

  /// A spare has no data, but may have the newest label: who is online by it counts, if it came
  /// after the head. What it knows beyond that was never in force.
  private mutating func witness(_ legs: [Labelled], _ head: Labelled) -> Labelled {
    var newest = head
    for leg in legs where leg.label.isOfSpare {
      let isLater =
        Assembly.isAncestor(newest.label, of: leg.label)
        || leg.generation.id == newest.generation.id && leg.label.sequence > newest.label.sequence
      if isLater { newest = leg }
    }
    if newest.candidate != head.candidate {
      explanation.append(
        "the spare PV \(newest.path) has a newer label, \(name(of: newest.generation)): it says who "
          + "is online")
    }
    return newest
  }

  private func staleChoice(_ chosen: Labelled, _ legs: [Labelled]) -> AssemblyRefusal {
    let newer = legs.first { Assembly.isAncestor(chosen.label, of: $0.label) }
    return refusal(.staleChoice(path: chosen.path, newer: newer?.path ?? chosen.path))
  }

  /// The split brain, with both histories in the explanation.
  private mutating func splitBrain(_ heads: [Labelled], _ legs: [Labelled]) -> AssemblyRefusal {
    var list: [AssemblyRefusal.Head] = []
    for head in heads {
      let paths = legs.filter { $0.generation.id == head.generation.id }.map(\.path)
      list.append(AssemblyRefusal.Head(lineage: head.label.lineage, paths: paths))
      let line = head.label.lineage.parents.map(\.short).joined(separator: ", ")
      explanation.append(
        "history of \(paths.joined(separator: ", ")): \(name(of: head.generation)), before it "
          + (line.isEmpty ? "nothing" : line)
          + (head.label.writtenSeconds > 0
            ? "; last written \(AssemblyText.time(head.label.writtenSeconds))" : ""))
      for (index, member) in head.label.members.enumerated() where member.state != .vacant {
        explanation.append(
          "  leg \(index) (\(member.legId)): \(member.state)"
            + (member.state.isOffline ? " since generation \(member.offlineSince)" : ""))
      }
    }
    return refusal(.splitBrain(list))
  }

  /// The leg that `--choose-leg` names: by path, by leg id, by slot, in this order.
  private func chosenLeg(_ legs: [Labelled]) throws(AssemblyRefusal) -> Labelled? {
    guard let text = options.chooseLeg else { return nil }
    if let leg = legs.first(where: { $0.path == text }) { return leg }
    if let legId = Identifier(parsing: text),
      let leg = legs.first(where: { $0.label.legId == legId })
    {
      return leg
    }
    if let number = Int(text) {
      let matches = legs.filter { $0.label.slot.index == number }
      if matches.count == 1 { return matches[0] }
    }
    throw refusal(.unknownChoice(text))
  }

  private func checkGeometry(_ legs: [Labelled], _ head: Labelled) throws(AssemblyRefusal) {
    for leg in legs {
      guard leg.label.layout == head.label.layout else {
        throw refusal(.geometryMismatch(path: leg.path, other: head.path))
      }
      let candidate = candidates[leg.candidate]
      let needed = head.label.layout.pvBytes
      guard candidate.legBytes >= needed else {
        throw refusal(
          .tooSmall(path: leg.path, bytes: candidate.legBytes, neededBytes: needed))
      }
      guard candidate.logicalBlockBytes <= head.label.layout.blockBytes else {
        throw refusal(
          .blockTooLarge(
            path: leg.path, bytes: candidate.logicalBlockBytes,
            blockBytes: head.label.layout.blockBytes))
      }
    }
  }

  /// Gives every leg its role by the head's member table.
  private mutating func seat(
    _ legs: [Labelled], _ head: Labelled
  ) throws(AssemblyRefusal) -> AssemblyPlan {
    let members = head.label.members
    var plan = AssemblyPlan(
      setId: head.label.setId, name: head.label.name, head: head.label,
      legs: Array(repeating: nil, count: LegSlot.count), online: .none, lost: .none,
      wasClean: true, isReadOnly: false, nextLabelSequence: 0, explanation: [])
    for leg in legs {
      guard
        let index = members.firstIndex(where: {
          $0.state != .vacant && $0.legId == leg.label.legId
        })
      else {
        guard leg.label.holdsNothing else {
          throw refusal(.notMember(path: leg.path, name: head.label.name))
        }
        explanation.append(AssemblyText.leftOut(path: leg.path, leg.label))
        continue
      }
      let role = role(of: leg, member: members[index], head: head)
      // An ancestor of an ancestor which the head does not remember: not ours to overwrite.
      if role == .diverged, options.chooseLeg == nil, !isEmptied(leg, members[index], head) {
        throw splitBrain([head, leg], legs)
      }
      let slot = LegSlot(index)
      let seated = AssemblyLeg(
        slot: slot, candidate: leg.candidate, path: leg.path, role: role, label: leg.elected)
      plan.legs[index] = seated
      plan.nextLabelSequence = max(plan.nextLabelSequence, leg.elected.nextSequence)
      let isCurrent = leg.generation.id == head.generation.id
      if role == .online {
        plan.online.insert(slot)
        plan.wasClean = plan.wasClean && isCurrent && leg.label.isClean
        plan.isReadOnly = plan.isReadOnly || !leg.label.features.allowsWriting
      }
      explanation.append(AssemblyText.verdict(seated, members[index], isCurrent: isCurrent))
    }
    try findLost(&plan, legs)
    explanation.append(AssemblyText.stop(wasClean: plan.wasClean, plan.logKind))
    if plan.isReadOnly {
      explanation.append(
        "a label has features that this version may only read: it is served read-only; to write, use "
          + "the nbdmirror that made it")
    }
    plan.explanation = explanation
    return plan
  }

  private func isOfLine(_ leg: Labelled, _ head: Labelled) -> Bool {
    leg.generation.id == head.generation.id || Assembly.isAncestor(leg.label, of: head.label)
  }

  private func role(of leg: Labelled, member: Member, head: Labelled) -> AssemblyRole {
    switch member.state {
    case .online:
      if leg.label.holdsNothing {
        // It got the whole map before the label that lists it. That label must be a later one:
        // else the PV was emptied after it.
        let isLater =
          leg.generation.id == head.generation.id
          || head.label.lineage.isDescendant(of: leg.generation.id)
        return isLater ? .online : .diverged
      }
      return isOfLine(leg, head) ? .online : .diverged
    case .missing:
      if leg.label.holdsNothing || member.isGivenUp { return .diverged }
      return isOfLine(leg, head) ? .returning : .diverged
    case .failed, .removed, .vacant, .adding: return .offline
    case .spare: return .spare
    }
  }

  /// Nothing is lost if everything is copied to this leg: it holds nothing, or what it holds was
  /// given up before.
  private func isEmptied(_ leg: Labelled, _ member: Member, _ head: Labelled) -> Bool {
    leg.label.holdsNothing || member.isGivenUp && isOfLine(leg, head)
  }

  /// Finds the legs that the head lists online and that are not there.
  private mutating func findLost(
    _ plan: inout AssemblyPlan, _ legs: [Labelled]
  ) throws(AssemblyRefusal) {
    var absent: [AssemblyRefusal.MissingLeg] = []
    for (index, member) in plan.members.enumerated() {
      let slot = LegSlot(index)
      if member.state == .online && !plan.online.contains(slot) { plan.lost.insert(slot) }
      guard plan.legs[index] == nil, member.state != .vacant else { continue }
      if member.state == .online {
        absent.append(AssemblyRefusal.MissingLeg(slot: slot, legId: member.legId))
      }
      explanation.append(AssemblyText.absent(slot, member))
    }
    guard !plan.online.isEmpty else {
      throw refusal(.nothingOnline(paths: legs.map(\.path)))
    }
    guard absent.isEmpty || options.isDegradedAllowed else {
      throw refusal(.missingLegs(absent))
    }
    try checkCompleteLeg(&plan, legs)
    if !absent.isEmpty {
      explanation.append(
        "--degraded: starts without the absent legs; when they are back they copy what they missed")
    }
  }

  /// With the log in memory a leg that is not complete is stale everywhere after a crash, and so is
  /// one that was absent: who starts without the only complete leg gives its data up.
  private mutating func checkCompleteLeg(
    _ plan: inout AssemblyPlan, _ legs: [Labelled]
  ) throws(AssemblyRefusal) {
    guard plan.logKind == .core else { return }
    guard plan.online.subtracting(plan.incomplete).isEmpty else { return }
    var complete: [AssemblyRefusal.MissingLeg] = []
    for (index, member) in plan.members.enumerated()
    where member.state == .online && !member.isSyncing && plan.lost.contains(LegSlot(index)) {
      complete.append(AssemblyRefusal.MissingLeg(slot: LegSlot(index), legId: member.legId))
    }
    guard !complete.isEmpty else { return }
    guard let chosen = try chosenLeg(legs), plan.online.contains(chosen.label.slot) else {
      let present = legs.filter { plan.online.contains($0.label.slot) }.map(\.path)
      throw refusal(.onlyCompleteLeg(complete, present: present))
    }
    plan.insistedOn = chosen.label.slot
    explanation.append(
      "--choose-leg: what PV \(chosen.path) has counts from now on, although it had not everything; "
        + "what the absent legs have is given up")
  }
}
