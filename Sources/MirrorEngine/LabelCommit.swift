// The label commit: who is a member becomes durable, before anything is acked under it.
//
// | from                | to                  | performed by                                    |
// | wanted              | in flight           | startLabelCommit                                |
// | in flight           | recorded            | labelFinished, if a leg has it                  |
// | in flight           | wanted (retry)      | labelFinished, if none has it: waiters get EIO  |
//
// Each leg has two copies of its label. The commit is recorded when the first is durable on every
// leg; the same label, one sequence higher, then goes to the other copy, so that one rotten sector
// never takes the newest generation with it. Both writes belong to the one commit in flight.
//
// A leg that fails its label goes offline like any other; the next commit, with the next
// generation, excludes it.

import Base
import MirrorFormat

extension Engine {
  mutating func startLabelCommit() {
    guard membership.needsCommit, !membership.isInFlight, !start.isReadOnly else { return }
    guard log.openingPages.count == 0 else { return }
    let hasWaiters = !labelWaiters.isEmpty || isLogBehindLabel && !log.waiters.isEmpty
    guard hasWaiters || now >= membership.retryAt else { return }
    let joiners = joinersReady
    let targets = online.union(joiners)
    guard units.smallFree >= targets.count else { return }
    // Another try for the same legs is the same generation: a leg remembers only 16 ancestors.
    if targets != membership.unrecordedOnline ?? membership.recordedOnline
      || membership.needsGeneration
    {
      membership.unrecordedOnline = targets
      let id = Identifier(high: random.next(), low: random.next())
      membership.lineage = membership.lineage.successor(id: id)
      membership.needsGeneration = false
    }
    var rest = targets.union(idleSpares)
    while let leg = rest.popFirst() { legs[leg.index].offeredId = membership.lineage.current.id }
    membership.needsCommit = false
    membership.isInFlight = true
    membership.stagedOnline = targets
    membership.mayBeListed = membership.mayBeListed.union(targets)
    membership.stagedJoining = joiners
    membership.stagedSyncing = .none
    for index in 0..<LegSlot.count where map.staleCounts[index] > 0 {
      membership.stagedSyncing.insert(LegSlot(index))
    }
    // What a joiner misses until this label is durable only memory knows with such a log: after a
    // crash the label has to say that it may lack something.
    if start.logKind == .core { membership.stagedSyncing = membership.stagedSyncing.union(joiners) }
    membership.stagedGeneration = membership.lineage.current.counter
    membership.stagedClean = membership.wantsClean
    membership.stagedMembers = memberTable(listing: targets)
    membership.isSecondCopy = false
    writeLabels(targets)
  }

  private mutating func writeLabels(_ targets: LegSet) {
    membership.awaited = targets
    membership.written = .none
    membership.failed = .none
    var rest = targets
    while let leg = rest.popFirst() { writeLabel(leg) }
    // A spare that is slow misses this one; nobody waits for it. One that came after the table was
    // staged must: its own label would not know it, and the next start would refuse its PV.
    var spares = idleSpares
    while let leg = spares.popFirst(), units.smallFree > 0 {
      let isListed = membership.stagedMembers[leg.index].legId == legs[leg.index].legId
      if isListed || !keeps(.labelsThatListTheSpare) { writeLabel(leg) }
    }
    membership.nextSequence += 1
  }

  /// The member table that lists these legs online.
  ///
  /// What it says of a leg's own label has to be true whichever of the label writes of this
  /// commit arrive: a leg that goes on alone does so from the newest label that it is known to
  /// hold (`ownFrom` is one above), or from one that was offered to it.
  func memberTable(listing listed: LegSet) -> [Member] {
    (0..<LegSlot.count).map { index in
      let leg = legs[index]
      let isListed = listed.contains(LegSlot(index))
      guard isListed || leg.phase != .vacant && !(leg.phase == .joining && leg.isNew) else {
        return .vacant
      }
      return Member(
        legId: leg.legId, state: isListed ? .online : leg.offlineState,
        isWriteMostly: leg.isWriteMostly,
        isSyncing: isListed && membership.stagedSyncing.contains(LegSlot(index)),
        isGivenUp: !isListed && leg.isGivenUp, replaces: leg.replaces, offlineSince: leg.ownFrom,
        offeredId: leg.offeredId)
    }
  }

  private mutating func writeLabel(_ leg: LegSlot) {
    guard let unit = units.takeSmall() else {
      preconditionFailure("startLabelCommit counted the free units")
    }
    let newest = legs[leg.index].labelCopy
    let copy = keeps(.alternateLabelCopies) ? 1 - newest : newest
    var label = Label(
      sequence: membership.nextSequence, setId: start.setId, name: start.name,
      legId: legs[leg.index].legId, slot: leg, lineage: membership.lineage,
      members: membership.stagedMembers,
      layout: start.layout, logKind: start.logKind, isClean: membership.stagedClean,
      createdSeconds: start.createdSeconds,
      resyncMinBytesPerSecond: rate.min, resyncMaxBytesPerSecond: rate.max)
    label.isResyncPaused = copier.isPaused
    label.salt = labelSalt &+ label.sequence
    if start.wallSeconds > 0 {
      let seconds = now.nanoseconds(since: startedAt) / Nanoseconds.second
      label.writtenSeconds = start.wallSeconds + seconds
    }
    let offset = ScratchUnits.offset(unit)
    scratch.withBytes(at: offset, count: Layout.pageBytes) { label.encode(into: &$0) }
    issue(
      .write, on: leg, offset: Layout.labelOffset(copy: copy), count: UInt64(Layout.pageBytes),
      buffer: .scratch(offset: offset), isDurable: true, purpose: .label, subject: 0, owner: .none,
      unit: unit)
    units.release(unit)  // Only the I/O holds it from here on.
  }

  mutating func labelCompleted(_ leg: LegSlot, error: Int32) {
    if legs[leg.index].phase == .spare {
      spareLabelled(leg, error: error)
      return
    }
    guard membership.isInFlight, membership.awaited.contains(leg) else { return }
    membership.awaited.remove(leg)
    if error == 0 {
      if keeps(.alternateLabelCopies) { legs[leg.index].labelCopy = 1 - legs[leg.index].labelCopy }
      legs[leg.index].ownFrom = membership.stagedGeneration + 1
      membership.written.insert(leg)
    } else {
      membership.failed.insert(leg)
    }
    if membership.awaited.isEmpty { labelFinished() }
  }

  /// One copy is written, or given up, on every leg.
  mutating func labelFinished() {
    membership.isInFlight = false
    if membership.isSecondCopy {
      failLegsOfLabel()
      return
    }
    failLegsOfLabel()
    // A leg that failed its label and has to stay is the last that has some region: as long as
    // it cannot say who is a member, nothing that depends on that may be acked.
    guard !membership.written.intersection(online.union(joiningLegs)).isEmpty,
      membership.failed.intersection(online).isEmpty
    else {
      membership.needsCommit = true
      // Some leg may have it, some not.
      membership.recordedSyncing = membership.recordedSyncing.intersection(membership.stagedSyncing)
      membership.retryAt = now.advanced(byNanoseconds: Nanoseconds.second)
      if stop == .labelling || stop == .committing { stop = .stopped }
      failLabelWaiters()
      if isLogBehindLabel { failLogWaiters() }
      return
    }
    labelRecorded()
    // The waiters go on; the second copy follows. Without room for it the next commit writes it.
    let targets = membership.stagedOnline.intersection(online)
    if units.smallFree >= targets.count, keeps(.bothLabelCopies) {
      membership.isInFlight = true
      membership.isSecondCopy = true
      writeLabels(targets)
    }
  }

  private mutating func failLegsOfLabel() {
    var failed = membership.failed
    while let leg = failed.popFirst() {
      if legs[leg.index].phase == .joining {
        failJoin(leg)
      } else {
        failLeg(leg, .failed, errno: Errno.eio)
      }
    }
  }

  private mutating func labelRecorded() {
    let staged = membership.stagedOnline
    if staged != membership.recordedOnline || !membership.isOpenRecorded {
      note(MirrorEvent(.generationRecorded, detail: membership.stagedGeneration))
    }
    membership.recordedOnline = staged
    membership.mayBeListed = staged
    membership.unrecordedOnline = nil
    membership.recordedSyncing = membership.stagedSyncing
    // Who did not take the first label that is not clean still says "clean": started alone it would
    // trust the map of the last stop. Nothing is written before the label that excludes it.
    let isOnAll = online.isSuperset(of: staged.subtracting(membership.stagedJoining))
    membership.isOpenRecorded =
      !membership.stagedClean
      && (membership.isOpenRecorded || isOnAll || !keeps(.logOnListedLegs))
    membership.isCleanRecorded = membership.stagedClean
    var joined = membership.stagedJoining.intersection(membership.written)
    // A joiner was called syncing whether it lacked something or not: the next label knows.
    if start.logKind == .core, !joined.isEmpty { membership.needsCommit = true }
    while let leg = joined.popFirst() { finishJoin(leg, others: joined) }
    if online != staged { membership.needsCommit = true }
    resolveIfAlone()
    while let index = labelWaiters.pop() { ready.push(index) }
  }

  mutating func failLabelWaiters() {
    while let index = labelWaiters.pop() {
      let operation = Int(index)
      operations[operation].error = Errno.eio
      switch operations[operation].kind {
      case .flush: answer(operation)
      case .copy: failCopyWindow(operation)
      case .repair: endRepair(repairs.job(of: operation))
      case .scrub: preconditionFailure("a scrub waits for no label")
      case .read, .write, .zero, .trim:
        if operations[operation].cursor == operations[operation].range.count {
          answer(operation)  // Its data are written; only its flush could not be vouched for.
        } else {
          failChunk(operation, error: Errno.eio)
        }
      }
    }
  }
}
