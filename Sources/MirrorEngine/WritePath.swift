// The write path: intent before data, all legs in parallel, the decision, the ack rule.
//
// startWrite -> (label open) -> (log durable) -> (block read and merged) -> issueWrites
//   -> writeFinished (per leg) -> decideWrite -> (stale bits durable) -> tryAck -> chunkDone

import Base
import MirrorFormat

extension Engine {
  /// `intent`, and `stale` of every member that will not get the write.
  var protection: UInt16 {
    keeps(.staleBitsOfAbsentLegs)
      ? RegionWord.intent | UInt16(offlineMembers.bits) : RegionWord.intent
  }

  mutating func startWrite(_ index: Int) {
    guard membership.isOpenRecorded || !keeps(.openLabelBeforeData) else {
      operations[index].phase = .awaitingOpen
      membership.needsCommit = true
      labelWaiters.push(Int32(index))
      return
    }
    if operations[index].isPreparing {
      startPreparing(index)
      return
    }
    if map.unwrittenCount > 0, writeUnwritten(index) { return }
    guard map.isCovered(operations[index].chunk, by: online) else {
      // An offline leg may hold the only good copy of a region: it shall not be marked stale for
      // a write that nobody could be answered for.
      failChunk(index, error: Errno.eio)
      return
    }
    retainRegions(index)
    let isProtected =
      requireBits(protection, in: operations[index].chunk) || !keeps(.intentBeforeData)
    // Also with a log in memory: the map on the disk must not call unwritten what is written.
    guard map.requireWritten(operations[index].chunk), isProtected else {
      park(index, .awaitingLog)
      return
    }
    if operations[index].isPartial, !operations[index].isBlockRead {
      readBlock(index)
      return
    }
    // An offline leg that the labels still list has neither the write nor a log that says so: a
    // start on it alone would not know. The ack waits for the label.
    operations[index].excused = offlineMembers.subtracting(membership.recordedOnline)
    issueWrites(index, to: online)
  }

  /// Whether the bits are durable (or need not be: `--log core`); sets them where not.
  mutating func requireBits(_ bits: UInt16, in range: ByteRange) -> Bool {
    if isLogged { return map.require(bits, in: range) }
    for region in map.regions(of: range) { map.setBits(bits, in: region) }
    return true
  }

  /// Parks the operation until the next log commit.
  mutating func park(_ index: Int, _ phase: Operation.Phase) {
    operations[index].phase = phase
    log.waiters.push(Int32(index))
  }

  /// Reads the block that a partial write is merged into.
  mutating func readBlock(_ index: Int) {
    if operations[index].scratchBlock < 0 {
      guard units.smallFree > ScratchUnits.smallReserved, let unit = units.takeSmall() else {
        operations[index].phase = .awaitingScratch
        scratchWaiters.push(Int32(index))
        return
      }
      operations[index].scratchBlock = unit
    }
    let chunk = operations[index].chunk
    let candidates = map.good(online, in: chunk).subtracting(operations[index].tried)
    guard let leg = chooseLeg(candidates, for: chunk) else {
      failChunk(index, error: Errno.eio)
      return
    }
    operations[index].phase = .reading
    operations[index].awaited = LegSet(leg)
    let unit = operations[index].scratchBlock
    issue(
      .read, on: leg, offset: start.layout.dataOffset + chunk.offset, count: chunk.count,
      buffer: .scratch(offset: ScratchUnits.offset(unit)), purpose: .operation, subject: index,
      owner: operations[index].token, unit: unit)
  }

  /// Merges the client's bytes (or zeros) into the block that was read.
  private mutating func mergeBlock(_ index: Int) {
    let operation = operations[index]
    let position = operation.range.offset + operation.cursor
    let target =
      ScratchUnits.offset(operation.scratchBlock) + Int(position - operation.chunk.offset)
    let count = Int(operation.chunkRequestBytes)
    if operation.kind == .write {
      emit(
        .merge(
          owner: operation.token, requestOffset: operation.cursor, scratchOffset: target,
          count: count))
    } else {
      emit(.mergeZeros(owner: operation.token, scratchOffset: target, count: count))
    }
  }

  /// Sends the chunk to `targets`, all in one turn.
  mutating func issueWrites(_ index: Int, to targets: LegSet) {
    if operations[index].isPartial { mergeBlock(index) }
    let operation = operations[index]
    let kind: IOKind
    let buffer: BufferReference
    let unit = operation.isZeros ? -1 : operation.scratchBlock
    if operation.isZeros {
      kind = .discard
      buffer = .none
    } else if unit >= 0 {
      kind = .write
      buffer = .scratch(offset: ScratchUnits.offset(unit))
    } else if operation.kind == .write || operation.kind == .read {
      kind = .write
      buffer = .request(operation.token, offset: operation.cursor)
    } else {
      kind = operation.mayPunchHoles || operation.kind == .trim ? .discard : .zero
      buffer = .none
    }
    // What an unresolved read has returned shall not be taken back by a power loss in which the
    // leg that it was written to falls back to what it held before. A merged block brings the rest
    // of it from one leg to the others just so, and the next read may be answered from any.
    let isMergedUnresolved = operation.isPartial && map.isUnresolved(operation.chunk)
    let isDurable =
      kind == .write
      && (operation.isFUA && keeps(.durableFUA)
        || (operation.kind == .read || isMergedUnresolved) && keeps(.durableWriteBack))
    operations[index].phase = .writing
    operations[index].awaited = targets
    var rest = targets
    while let leg = rest.popFirst() {
      issue(
        kind, on: leg, offset: start.layout.dataOffset + operation.chunk.offset,
        count: operation.chunk.count, buffer: buffer, isDurable: isDurable,
        purpose: .operation, subject: index, owner: operation.token, unit: unit)
    }
  }

  mutating func writeFinished(_ index: Int, _ leg: LegSlot, error: Int32) {
    if error == 0 || !keeps(.failedWriteFailsLeg) {
      operations[index].written.insert(leg)
    } else {
      operations[index].failed.insert(leg)
      suspects.insert(leg)
      if error != Errno.enospc { operations[index].onlyNoSpace = false }
    }
    if operations[index].awaited.isEmpty { decideWrite(index) }
  }

  /// All legs have answered, or were failed: who has the write, who goes offline, what is told.
  mutating func decideWrite(_ index: Int) {
    if operations[index].isPreparing {
      zeroesDecided(index)
      return
    }
    let operation = operations[index]
    var failed = operation.failed
    suspects = suspects.subtracting(failed)
    guard map.isCovered(operation.chunk, by: operation.written) else {
      let noSpace = operation.onlyNoSpace && !failed.isEmpty
      if !noSpace {
        while let leg = failed.popFirst() { failLeg(leg, .failed, errno: Errno.eio) }
      }
      writeLost(index, error: noSpace ? Errno.enospc : Errno.eio)
      return
    }
    // A leg that cannot be taken offline (it alone has some other region) is stale here instead.
    var missing = LegSet.none
    while let leg = failed.popFirst() {
      failLeg(leg, .failed, errno: operation.onlyNoSpace ? Errno.enospc : Errno.eio)
      if online.contains(leg) { missing.insert(leg) }
    }
    operations[index].failed = missing
    // With who went, a commit may have ended that let a leg go that has the write, too.
    guard map.isCovered(operation.chunk, by: operation.written) else {
      writeLost(index, error: Errno.eio)
      return
    }
    if start.logKind == .core, !missing.isEmpty, !hasCompleteLeg(online.subtracting(missing)) {
      failChunk(index, error: operation.onlyNoSpace ? Errno.enospc : Errno.eio)
      return
    }
    if missing.isEmpty {
      writeDecided(index)
    } else {
      membership.needsCommit = true
      staleRecorded(index)
    }
  }

  /// Nobody has the chunk: a read whose write-back it was may be asked of another leg.
  private mutating func writeLost(_ index: Int, error: Int32) {
    if operations[index].kind == .read, readAgain(index) { return }
    failChunk(index, error: error)
  }

  /// Waits until the legs that missed the chunk and stay online are durably stale there.
  mutating func staleRecorded(_ index: Int) {
    let missing = operations[index].failed
    for region in map.regions(of: operations[index].chunk) {
      copier.invalidate(region, missedBy: missing, mayDiffer: false)
    }
    guard
      requireBits(UInt16(missing.bits) | RegionWord.intent, in: operations[index].chunk)
        || !keeps(.staleBeforeAck)
    else {
      park(index, .awaitingStale)
      return
    }
    // Its own log says so, too, unless it has gone offline since: then the ack waits for the label
    // that excludes it. With a log in memory it waits for one that calls them syncing.
    if isLogged {
      operations[index].excused = operations[index].excused.union(missing.intersection(online))
    }
    writeDecided(index)
  }

  private mutating func writeDecided(_ index: Int) {
    switch operations[index].kind {
    case .copy:
      copyWritten(index)
      chunkDone(index)
    case .repair: repairWritten(index)
    case .scrub: preconditionFailure("a scrub writes nothing")
    case .read, .write, .zero, .trim, .flush: tryAck(index)
    }
  }

  /// The chunk failed. In each of its regions: what was copied to stale legs no longer holds, and
  /// where several legs may be read, now or by log and labels after a crash, they may differ. (That
  /// a leg is stale may be known in memory only: a log that fails is one reason to be here.)
  mutating func failChunk(_ index: Int, error: Int32) {
    operations[index].error = error
    operations[index].isPreparing = false
    if !operations[index].isInternal, operations[index].isExclusive,
      !operations[index].written.union(operations[index].failed).isEmpty
    {
      let hasLeft = !membership.recordedOnline.subtracting(online).isEmpty
      for region in map.regions(of: operations[index].chunk) {
        copier.invalidate(region, missedBy: .none, mayDiffer: true)
        // Only who is stale in memory and in the log is read neither now nor after a crash.
        let left = recordedStale(in: map.range(of: region)).intersection(map.stale(region))
        let readable = online.subtracting(left)
        if map.hasIntent(region), readable.count > 1 || hasLeft { map.markUnresolved(region) }
      }
    }
    chunkDone(index)
  }
}
