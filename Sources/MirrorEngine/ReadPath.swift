// The read path: a good leg answers; in an unresolved region what it answered is first made true
// on all legs.
//
// startRead -> readFinished -> (issueWrites to the other legs -> decideWrite) -> tryAck -> chunkDone
//
// A leg that fails or is failed while a read is with it is left out and another one is asked. If
// its I/O is still with the kernel then, it may yet land in the request's buffer; the request gets
// a fresh buffer (`Effect.replaceBuffer`) so that late data of a failed leg never reaches a client.

import Base
import MirrorFormat

extension Engine {
  mutating func startRead(_ index: Int) {
    let chunk = operations[index].chunk
    if !operations[index].isExclusive, map.isUnresolved(chunk) {
      // It became unresolved while we waited for the lock: ask again, exclusively.
      lock.leave(Int32(index), &operations, granted: &ready)
      operations[index].isExclusive = true
      enterLock(index)
      return
    }
    if !start.isReadOnly, map.regions(of: chunk).count > 1, map.isUnresolved(chunk) {
      // What is read is written to every leg that could be asked; who that is differs by region.
      askByRegion(index)
      return
    }
    guard start.isReadOnly || membership.isOpenRecorded || !keeps(.openLabelBeforeData) else {
      // A degraded start answers nothing before its label is durable: a crash now could make the
      // next start read another leg (P2).
      membership.needsCommit = true
      labelWaiters.push(Int32(index))
      return
    }
    if map.knowsUnwritten, readUnwritten(index) { return }
    if operations[index].isExclusive, !start.isReadOnly, map.isUnresolved(chunk) {
      retainRegions(index)
      // What is read will be written to the other legs: under protection, like every write. Legs
      // that are stale there are left out, which has to be so after a crash, too.
      let left = online.intersection(map.stale(map.regions(of: chunk).lowerBound))
      guard requireBits(RegionWord.intent | UInt16(left.bits), in: chunk) else {
        park(index, .awaitingLog)
        return
      }
    }
    askLeg(index)
  }

  private mutating func askLeg(_ index: Int) {
    // Field by field: a copy of the operation costs more than the choice.
    let chunk = operations[index].chunk
    let tried = operations[index].tried
    let isExclusive = operations[index].isExclusive
    let good = keeps(.readsAskGoodLegs) ? map.good(online, in: chunk) : online
    let candidates = good.subtracting(tried)
    if chunk.count >= Engine.splitBytesMin, !isExclusive, tried.isEmpty {
      let shared = sharers(of: chunk, candidates)
      if shared.count > 1 {
        issuePieces(index, to: shared)
        return
      }
    }
    guard let leg = isExclusive ? candidates.first : chooseLeg(candidates, for: chunk) else {
      askForLess(index)
      return
    }
    operations[index].phase = .reading
    operations[index].awaited = LegSet(leg)
    saveForHedges()
    issueRead(
      index, on: leg, chunk,
      buffer: .request(operations[index].token, offset: operations[index].cursor))
  }

  /// No leg is left for the chunk as a whole: its first region, or its first half, may find one.
  private mutating func askForLess(_ index: Int) {
    let chunk = operations[index].chunk
    if map.regions(of: chunk).count > 1 {
      askByRegion(index)
      return
    }
    // One leg alone that failed the whole would fail one of its halves.
    guard !operations[index].tried.isEmpty, map.good(online, in: chunk).count > 1,
      let half = Engine.firstHalf(of: chunk, blockBytes: blockBytes)
    else {
      note(MirrorEvent(.readFailed, detail: chunk.offset))
      failChunk(index, error: Errno.eio)
      return
    }
    leaveChunk(index)
    operations[index].chunk = half
    operations[index].chunkRequestBytes = half.count
    operations[index].readLimit = half.count
    enterLock(index)
  }

  /// The first half of a range in whole blocks; nil if it is one block. What is left of the range
  /// is asked for later. (The copier halves its windows with it, too.)
  static func firstHalf(of range: ByteRange, blockBytes: UInt64) -> ByteRange? {
    guard range.count > blockBytes else { return nil }
    let half = Bytes.alignDown(range.count / 2, to: blockBytes)
    return ByteRange(offset: range.offset, count: max(half, blockBytes))
  }

  /// No leg is good, or readable, in the whole chunk; one may be in each of its regions.
  private mutating func askByRegion(_ index: Int) {
    leaveChunk(index)
    let chunk = operations[index].chunk
    let first = map.range(of: map.regions(of: chunk).lowerBound)
    operations[index].chunk = ByteRange(offset: chunk.offset, count: first.end - chunk.offset)
    operations[index].chunkRequestBytes = operations[index].chunk.count
    enterLock(index)
  }

  /// The awaited read is back: the client's, or a block for a merge, or the source of a copy.
  mutating func readFinished(_ index: Int, _ leg: LegSlot, error: Int32) {
    if !operations[index].asked.isEmpty {
      pieceFinished(index, leg, error: error)
      return
    }
    if operations[index].kind == .repair {
      repairRead(index, leg, error: error)
      return
    }
    if operations[index].kind == .scrub {
      scrubRead(index, leg, error: error)
      return
    }
    if error != 0 {
      readErrored(index, leg, error: error)
      return
    }
    switch operations[index].kind {
    case .copy: copyRead(index, from: leg)
    case .write, .zero, .trim:
      operations[index].isBlockRead = true
      operations[index].tried = .none
      // The membership may have changed meanwhile: what protects the write is asked for again.
      startWrite(index)
    case .read:
      operations[index].written = LegSet(leg)
      guard operations[index].isExclusive, !start.isReadOnly,
        map.isUnresolved(operations[index].chunk), keeps(.unresolvedWriteBack)
      else {
        readDone(index)
        return
      }
      writeBack(index, from: leg)
    case .flush, .repair, .scrub:
      preconditionFailure("a flush reads nothing, repair and scrub were dealt with")
    }
  }

  /// Makes what was read true on every leg that could be asked next time, before the reply.
  private mutating func writeBack(_ index: Int, from leg: LegSlot) {
    let chunk = operations[index].chunk
    let everybody = LegSet(bits: 0xff)
    operations[index].excused = everybody.subtracting(membership.recordedOnline)
      .union(recordedStale(in: chunk).intersection(online))
    var targets = map.good(online, in: chunk)
    if copier.unflushed.contains(map.regions(of: chunk).lowerBound) {
      // The leg that was read may have this from a copy that is still in its cache.
      operations[index].written = .none
    } else {
      targets.remove(leg)
    }
    if targets.isEmpty {
      tryAck(index)
    } else {
      issueWrites(index, to: targets)
    }
  }

  /// No leg has what was to be written back: the leg that was read is gone, too. Asks another one,
  /// if there is one; false if there is none.
  mutating func readAgain(_ index: Int) -> Bool {
    let failed = operations[index].failed
    operations[index].tried = operations[index].tried.union(failed)
    let left = map.good(online, in: operations[index].chunk).subtracting(operations[index].tried)
    guard !left.isEmpty else { return false }
    operations[index].failed = .none
    operations[index].written = .none
    startRead(index)
    return true
  }

  /// The chunk stands in the request's buffer.
  mutating func readDone(_ index: Int) {
    let tried = operations[index].tried
    guard !tried.isEmpty else {
      chunkDone(index)
      return
    }
    let chunk = operations[index].chunk
    chunkDone(index)
    repair(chunk, on: tried)
  }

  private mutating func readErrored(_ index: Int, _ leg: LegSlot, error: Int32) {
    operations[index].tried.insert(leg)
    if operations[index].kind != .copy || isNewReadError(index) {
      noteReadError(index, leg, error: error)
    }
    askAgain(index)
  }

  /// The leg was failed while it read: its I/O is still with the kernel.
  mutating func readOrphaned(_ index: Int) {
    operations[index].asked = .none
    letHedgeGo(index)
    switch operations[index].kind {
    case .read:
      if keeps(.freshBuffer) { emit(.replaceBuffer(operations[index].token)) }
      if operations[index].cursor > 0 {
        // The chunks before this one are in the old buffer: all of it once more.
        leaveChunk(index)
        operations[index].cursor = 0
        beginChunk(index)
        return
      }
    case .write, .zero, .trim, .copy:
      // The unit stays lent to the late I/O; the operation takes another one.
      units.release(operations[index].scratchBlock)
      operations[index].scratchBlock = -1
    case .repair:
      repairOrphaned(index)
      return
    case .scrub:
      compareScrubWindow(index)
      return
    case .flush: preconditionFailure("a flush reads nothing")
    }
    askAgain(index)
  }

  mutating func askAgain(_ index: Int) {
    switch operations[index].kind {
    case .read: askLeg(index)
    case .copy: readCopySource(index)
    case .write, .zero, .trim: readBlock(index)
    case .flush, .repair, .scrub:
      preconditionFailure("a flush reads nothing, a repair for itself, a scrub asks once")
    }
  }
}
