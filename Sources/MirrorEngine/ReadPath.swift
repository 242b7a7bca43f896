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
  /// Read errors since a leg came online after which it fails: a disk that keeps failing reads
  /// costs a retry each time and will fail writes soon.
  static let readErrorsMax: UInt64 = 64

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
    guard start.isReadOnly || membership.isOpenRecorded else {
      // A degraded start answers nothing before its label is durable: a crash now could make the
      // next start read another leg (P2).
      membership.needsCommit = true
      labelWaiters.push(Int32(index))
      return
    }
    if map.knowsUnwritten, readUnwritten(index) { return }
    if operations[index].isExclusive, !start.isReadOnly, map.isUnresolved(chunk) {
      retainRegions(index)
      // What is read will be written to the other legs: under protection, like every write.
      guard requireBits(RegionWord.intent, in: chunk) else {
        park(index, .awaitingLog)
        return
      }
    }
    askLeg(index)
  }

  private mutating func askLeg(_ index: Int) {
    let operation = operations[index]
    let candidates = map.good(online, in: operation.chunk).subtracting(operation.tried)
    guard let leg = operation.isExclusive ? candidates.first : chooseLeg(candidates) else {
      if map.regions(of: operation.chunk).count > 1 {
        askByRegion(index)
        return
      }
      note(MirrorEvent(.readFailed, detail: operation.chunk.offset))
      failChunk(index, error: Errno.eio)
      return
    }
    operations[index].phase = .reading
    operations[index].awaited = LegSet(leg)
    issue(
      .read, on: leg, offset: start.layout.dataOffset + operation.chunk.offset,
      count: operation.chunk.count, buffer: .request(operation.token, offset: operation.cursor),
      purpose: .operation, subject: index, owner: operation.token)
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

  /// The leg for a read by the policy; legs that just failed something, and write-mostly ones,
  /// only if there is no other.
  mutating func chooseLeg(_ candidates: LegSet) -> LegSlot? {
    guard !candidates.isEmpty else { return nil }
    var best = candidates.subtracting(suspects)
    if best.isEmpty { best = candidates }
    var preferred = LegSet.none
    var rest = best
    while let leg = rest.popFirst() {
      if !legs[leg.index].isWriteMostly { preferred.insert(leg) }
    }
    if !preferred.isEmpty { best = preferred }
    if start.readPolicy == .leastPending {
      var least = Int.max
      var idle = LegSet.none
      var all = best
      while let leg = all.popFirst() {
        let pending = legs[leg.index].inFlight
        if pending < least {
          least = pending
          idle = LegSet(leg)
        } else if pending == least {
          idle.insert(leg)
        }
      }
      best = idle
    }
    // In turn: the first above the last one that was chosen, else the first of all.
    let above = LegSet(
      bits: best.bits & ~UInt8(truncatingIfNeeded: (UInt16(2) << UInt16(lastRead)) - 1))
    let leg = above.first ?? best.first
    if let leg { lastRead = leg.raw }
    return leg
  }

  /// The awaited read is back: the client's, or a block for a merge, or the source of a copy.
  mutating func readFinished(_ index: Int, _ leg: LegSlot, error: Int32) {
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
        map.isUnresolved(operations[index].chunk)
      else {
        chunkDone(index)
        return
      }
      writeBack(index, from: leg)
    case .flush: preconditionFailure("a flush reads nothing")
    }
  }

  /// Makes what was read true on every leg that could be asked next time, before the reply.
  private mutating func writeBack(_ index: Int, from leg: LegSlot) {
    let chunk = operations[index].chunk
    let everybody = LegSet(bits: 0xff)
    operations[index].excused = everybody.subtracting(membership.recordedOnline)
      .union(recordedStale(in: chunk).intersection(online))
    var others = map.good(online, in: chunk)
    others.remove(leg)
    if others.isEmpty {
      tryAck(index)
    } else {
      issueWrites(index, to: others)
    }
  }

  private mutating func readErrored(_ index: Int, _ leg: LegSlot, error: Int32) {
    operations[index].tried.insert(leg)
    legs[leg.index].readErrorsSinceJoin += 1
    note(MirrorEvent(.readRedirected, leg: leg, detail: UInt64(error)))
    if legs[leg.index].readErrorsSinceJoin >= Engine.readErrorsMax {
      failLeg(leg, .failed, errno: error)
    }
    askAgain(index)
  }

  /// The leg was failed while it read: its I/O is still with the kernel.
  mutating func readOrphaned(_ index: Int) {
    switch operations[index].kind {
    case .read:
      emit(.replaceBuffer(operations[index].token))
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
    case .flush: preconditionFailure("a flush reads nothing")
    }
    askAgain(index)
  }

  private mutating func askAgain(_ index: Int) {
    switch operations[index].kind {
    case .read: askLeg(index)
    case .copy: readCopySource(index)
    case .write, .zero, .trim: readBlock(index)
    case .flush: preconditionFailure("a flush reads nothing")
    }
  }
}
