// Regions that were never written (`unwritten`, `create --init lazy`): they read as zeros whatever
// the legs hold there. The first write zeroes a region on all legs before it writes its data.
//
//   write -> (lock on the regions) -> zeroing, window by window -> (flush round) -> (label) -> cleared
//         -> (lock on the chunk) -> as every write, once no copy of a page says unwritten any more
//
// | from             | to              | performed by                                           |
// | chunk locked     | regions locking | writeUnwritten: the chunk is given back first          |
// | regions locking  | writing         | startPreparing, if they are still unwritten            |
// | writing          | writing, next   | zeroesDecided                                          |
// | writing          | flushing        | zeroesDecided, after the last window                   |
// | flushing         | awaitingAck     | zeroesFlushed, if a label still lists who lacks zeros  |
// | ...              | writing         | tryPrepared, if a leg has come that has no zeros       |
// | ...              | chunk locking   | tryPrepared: `unwritten` is cleared in the map         |
//
// A read gives zeros without I/O. Zeroes and trims find nothing to do: the region reads as zeros.
//
// Why this is safe at any crash:
// 1. The word is `unwritten` alone. Zeroing needs no intent: as long as the bit stands nobody reads
//    what the legs hold, and the next write zeroes everything again.
// 2. The bit is cleared in memory only after a flush of every leg that got the zeros. So any page
//    image without it, on any leg, is true: who is not stale there *by the same image* has
//    zeros on its disk. Members without the zeros (offline, joining, failed) turn stale in the
//    same word update; with a log in memory, where a crash forgets that, the update waits
//    until no label lists such a leg.
// 3. Data is written only when no valid copy of the page on any online leg has the bit: after
//    two commits, for a page has two copies. So any valid page image with the bit, on any leg that
//    may be trusted, is true as well: nothing was ever written there. If the newest copy
//    rots and assembly falls back to the older one, it still cannot turn data into zeros.
// 4. By 2 and 3 a crash between the two copies, or between the legs, does not matter: with or
//    without the bit the region reads as zeros.
// 5. A page without any valid copy is lost: its regions count as written, and reads give
//    what one leg holds there, which recovery copies to the others. Data survives; where nothing
//    was written the old content of that disk shows instead of zeros. There is nothing left to
//    tell the two apart.
//
// The zeros are discards where the leg can: a thin or sparse PV stays so but for what is written.
// A leg that fails them is treated as one that fails a write.

import Base
import MirrorFormat

extension Engine {
  /// How long a chunk of a read may be: what needs no I/O is not limited by it.
  func readBytesMax(at position: UInt64) -> UInt64 {
    let region = Int(position >> map.regionShift)
    return map.unwrittenCount > 0 && map.isUnwritten(region)
      ? Engine.zeroBytesMax : Engine.ioBytesMax
  }

  /// Answers a locked read chunk with zeros, or chooses it again if its regions are not what they
  /// were when it was chosen; false if it is to be read.
  mutating func readUnwritten(_ index: Int) -> Bool {
    let chunk = operations[index].chunk
    let isUnwritten = map.isUnwritten(map.regions(of: chunk).lowerBound)
    guard map.uniformPrefix(chunk) == chunk, isUnwritten || chunk.count <= Engine.ioBytesMax else {
      leaveChunk(index)
      beginChunk(index)
      return true
    }
    guard isUnwritten else { return false }
    emit(
      .fillZeros(
        owner: operations[index].token, requestOffset: operations[index].cursor,
        count: operations[index].chunkRequestBytes))
    chunkDone(index)
    return true
  }

  /// Does what a locked chunk needs in unwritten regions; false if it has none and is to be
  /// written.
  mutating func writeUnwritten(_ index: Int) -> Bool {
    let chunk = operations[index].chunk
    guard let run = map.unwrittenRun(in: chunk) else { return false }
    guard operations[index].kind != .write else {
      // The lock is given back first: nobody waits for a lock while it holds one.
      leaveChunk(index)
      operations[index].chunk = run
      operations[index].isPreparing = true
      operations[index].isPartial = false
      enterLock(index)
      return true
    }
    if map.uniformPrefix(chunk) == chunk {
      chunkDone(index)
    } else {
      leaveChunk(index)
      beginChunk(index)
    }
    return true
  }

  /// The lock on the regions is granted.
  mutating func startPreparing(_ index: Int) {
    let chunk = operations[index].chunk
    guard map.unwrittenRun(in: chunk) == chunk else {
      // Somebody else has prepared some of them.
      endPreparing(index)
      return
    }
    guard !flushes.isLatched else {
      failChunk(index, error: Errno.eio)
      return
    }
    operations[index].prepared = online
    operations[index].preparedBytes = 0
    operations[index].failed = .none
    operations[index].onlyNoSpace = true
    guard keeps(.zeroesBeforeFirstWrite) else {
      tryPrepared(index)
      return
    }
    issueZeroes(index)
  }

  private mutating func issueZeroes(_ index: Int) {
    let operation = operations[index]
    let offset = operation.chunk.offset + operation.preparedBytes
    let count = min(Engine.zeroBytesMax, operation.chunk.count - operation.preparedBytes)
    operations[index].phase = .writing
    operations[index].awaited = operation.prepared
    operations[index].written = .none
    var rest = operation.prepared
    while let leg = rest.popFirst() {
      issue(
        .discard, on: leg, offset: start.layout.dataOffset + offset, count: count, buffer: .none,
        purpose: .operation, subject: index, owner: operation.token)
    }
  }

  /// All legs have answered for a window, or were failed.
  mutating func zeroesDecided(_ index: Int) {
    var failed = operations[index].failed
    suspects = suspects.subtracting(failed)
    operations[index].prepared = operations[index].prepared.intersection(operations[index].written)
    let noSpace = operations[index].onlyNoSpace && !failed.isEmpty
    let error = noSpace ? Errno.enospc : Errno.eio
    if operations[index].prepared.isEmpty, noSpace {
      failChunk(index, error: error)
      return
    }
    while let leg = failed.popFirst() { failLeg(leg, .failed, errno: error) }
    guard !operations[index].prepared.isEmpty else {
      if hasUntriedLegs(index) {
        startPreparing(index)
      } else {
        failChunk(index, error: error)
      }
      return
    }
    let left = operations[index].chunk.count - operations[index].preparedBytes
    operations[index].preparedBytes += min(Engine.zeroBytesMax, left)
    if operations[index].preparedBytes < operations[index].chunk.count {
      issueZeroes(index)
    } else {
      operations[index].phase = .flushing
      flushes.next.push(Int32(index))
    }
  }

  /// A flush round that began after the zeros is done.
  mutating func zeroesFlushed(_ index: Int, isGood: Bool) {
    operations[index].prepared = operations[index].prepared.intersection(flushes.flushed)
    if isGood {
      tryPrepared(index)
    } else {
      failChunk(index, error: Errno.eio)
    }
  }

  /// Whether a leg has come since the zeros were issued, so that it has neither them nor failed them.
  private func hasUntriedLegs(_ index: Int) -> Bool {
    let operation = operations[index]
    return !online.subtracting(operation.prepared).subtracting(operation.failed).isEmpty
  }

  /// Clears `unwritten` when no label lists a leg that has no zeros and is not known to be stale.
  mutating func tryPrepared(_ index: Int) {
    guard !hasUntriedLegs(index) else {
      // It gets the zeros too, and may be the only one left: who had them may be gone.
      startPreparing(index)
      return
    }
    guard !operations[index].prepared.isEmpty else {
      failChunk(index, error: Errno.eio)
      return
    }
    let lacking = online.subtracting(operations[index].prepared)
    var listed = membership.recordedOnline
    if membership.isInFlight, !membership.isSecondCopy {
      listed = listed.union(membership.stagedOnline)
    }
    guard listed.subtracting(online).isEmpty else {
      operations[index].phase = .awaitingAck
      // The label in flight may list less already; then nothing more is needed.
      if !membership.isInFlight { membership.needsCommit = true }
      labelWaiters.push(Int32(index))
      return
    }
    guard lacking.isEmpty || start.logKind == .disk else {
      // It cannot be taken offline and cannot be recorded as stale there.
      failChunk(index, error: Errno.eio)
      return
    }
    if !lacking.isEmpty {
      copier.isExhausted = false
      membership.needsCommit = true
    }
    for region in map.regions(of: operations[index].chunk) {
      map.clearUnwritten(region, lacking: lacking.union(offlineMembers))
    }
    endPreparing(index)
  }

  /// Goes on with the request itself.
  private mutating func endPreparing(_ index: Int) {
    operations[index].isPreparing = false
    leaveChunk(index)
    beginChunk(index)
  }
}
