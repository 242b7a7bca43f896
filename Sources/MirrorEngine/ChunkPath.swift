// The common walk of reads, writes, zeroes and trims: chunk by chunk under the range lock.
//
// beginChunk -> (lock) -> resume -> readPath / writePath -> chunkDone -> beginChunk ... -> finish

import Base
import MirrorFormat

extension Engine {
  /// Chooses the next chunk of the request and asks for its lock; finishes when none is left.
  mutating func beginChunk(_ index: Int) {
    while true {
      let operation = operations[index]
      guard operation.error == 0, operation.cursor < operation.range.count else {
        finish(index)
        return
      }
      let position = operation.range.offset + operation.cursor
      let left = operation.range.count - operation.cursor
      let block = Bytes.alignDown(position, to: blockBytes)
      if position != block || left < blockBytes {
        let bytes = min(block + blockBytes - position, left)
        if operation.kind == .trim {
          // A hint: a block that is not wholly inside keeps its data.
          operations[index].cursor += bytes
          continue
        }
        operations[index].chunk = ByteRange(offset: block, count: blockBytes)
        operations[index].chunkRequestBytes = bytes
        operations[index].isPartial = true
      } else {
        var longest: UInt64
        switch operation.kind {
        case .zero, .trim: longest = Engine.zeroBytesMax
        case .read: longest = readBytesMax(at: position)
        case .write, .flush, .copy, .repair, .scrub: longest = Engine.ioBytesMax
        }
        if operation.readLimit > 0 {
          // No leg could read it as a whole: carefully, then in steps twice as long again.
          longest = min(longest, operation.readLimit)
          operations[index].readLimit = longest < Engine.ioBytesMax ? 2 * longest : 0
        }
        var whole = ByteRange(
          offset: position, count: Bytes.alignDown(min(left, longest), to: blockBytes))
        if operation.kind != .write { whole = map.uniformPrefix(whole) }
        operations[index].chunk = goodPrefix(whole)
        operations[index].chunkRequestBytes = operations[index].chunk.count
        operations[index].isPartial = false
      }
      break
    }
    operations[index].isBlockRead = false
    operations[index].isExclusive =
      operations[index].kind != .read || map.isUnresolved(operations[index].chunk)
    enterLock(index)
  }

  /// The longest prefix of `range` that has a good leg in common; at least up to the end of the
  /// first region.
  func goodPrefix(_ range: ByteRange) -> ByteRange {
    var stale: UInt8 = 0
    let span = map.regions(of: range)
    for region in span {
      stale |= map.stale(region).bits
      if region > span.lowerBound, online.bits & ~stale == 0 {
        let end = map.range(of: region).offset
        return ByteRange(offset: range.offset, count: end - range.offset)
      }
    }
    return range
  }

  mutating func enterLock(_ index: Int) {
    operations[index].phase = .locking
    operations[index].tried = .none
    operations[index].written = .none
    operations[index].failed = .none
    operations[index].excused = .none
    operations[index].awaited = .none
    operations[index].onlyNoSpace = true
    if operations[index].kind == .copy, !keeps(.copyUnderLock) {
      resume(index)
      return
    }
    if lock.enter(Int32(index), &operations) { resume(index) }
  }

  /// Goes on after a lock was granted or a wait has ended.
  mutating func resume(_ index: Int) {
    switch operations[index].phase {
    case .locking:
      if operations[index].kind == .read { startRead(index) } else { startProtected(index) }
    case .awaitingOpen, .awaitingLog, .awaitingScratch:
      if operations[index].kind == .read { startRead(index) } else { startProtected(index) }
    case .awaitingStale: staleRecorded(index)
    case .awaitingAck: tryAck(index)
    case .free, .reading, .writing, .flushing, .answered:
      preconditionFailure("nothing to resume in this phase")
    }
  }

  mutating func startProtected(_ index: Int) {
    switch operations[index].kind {
    case .copy: startCopyWindow(index)
    case .repair: startRepair(index)
    case .scrub: startScrubWindow(index)
    case .read, .write, .zero, .trim, .flush: startWrite(index)
    }
  }

  /// Counts the chunk's regions as being written; `intent` stays from now on.
  mutating func retainRegions(_ index: Int) {
    guard !operations[index].holdsRegions else { return }
    map.retain(operations[index].chunk)
    operations[index].holdsRegions = true
  }

  /// Gives back lock, regions and scratch of the chunk.
  mutating func leaveChunk(_ index: Int) {
    if operations[index].holdsRegions {
      map.release(operations[index].chunk)
      operations[index].holdsRegions = false
    }
    if operations[index].scratchBlock >= 0 {
      units.release(operations[index].scratchBlock)
      operations[index].scratchBlock = -1
      wakeScratchWaiters()
    }
    if operations[index].kind == .copy, !keeps(.copyUnderLock) { return }
    lock.leave(Int32(index), &operations, granted: &ready)
  }

  /// Whoever waits for a scratch block looks again; who finds none waits again.
  mutating func wakeScratchWaiters() {
    var free = units.smallFree - ScratchUnits.smallReserved
    while free > 0, let waiter = scratchWaiters.pop() {
      ready.push(waiter)
      free -= 1
    }
  }

  /// The chunk is done, or `error` ends the request.
  mutating func chunkDone(_ index: Int) {
    if operations[index].kind == .repair {
      endRepair(repairs.job(of: index))
      return
    }
    leaveChunk(index)
    if operations[index].kind == .copy {
      copyWindowDone(index)
      return
    }
    operations[index].cursor += operations[index].chunkRequestBytes
    beginChunk(index)
  }

  mutating func finish(_ index: Int) {
    let operation = operations[index]
    if operation.error == 0, operation.isFUA, operation.kind == .zero || operation.kind == .trim {
      // fallocate has no durable form: FUA is a flush after it.
      beginFlush(index)
    } else {
      answer(index)
    }
  }

  /// Whether every leg of the recorded membership has the operation or need not have it.
  func isAckable(_ index: Int) -> Bool {
    let operation = operations[index]
    return operation.written.union(operation.excused).isSuperset(of: membership.recordedOnline)
      || !keeps(.ackAfterLabel)
  }

  /// Legs that will be stale in all of `range` after a crash now. With a log in memory those that
  /// the label calls syncing, for they will be stale everywhere.
  func recordedStale(in range: ByteRange) -> LegSet {
    if isLogged { return map.durablyStale(in: range) }
    var syncing = membership.recordedSyncing
    if membership.isInFlight, !membership.isSecondCopy {
      syncing = syncing.intersection(membership.stagedSyncing)
    }
    var rest = syncing
    while let leg = rest.popFirst() {
      for region in map.regions(of: range) where !map.stale(region).contains(leg) {
        syncing.remove(leg)
      }
    }
    return syncing
  }

  /// The ack rule: goes on when the membership is recorded that excludes who missed it.
  mutating func tryAck(_ index: Int) {
    if operations[index].isPreparing {
      tryPrepared(index)
      return
    }
    if operations[index].kind != .flush,
      operations[index].cursor < operations[index].range.count
    {
      // Whoever is stale there by its own log, perhaps only since then, cannot be asked next time.
      operations[index].excused = operations[index].excused
        .union(recordedStale(in: operations[index].chunk).intersection(online))
    }
    guard isAckable(index) else {
      operations[index].phase = .awaitingAck
      membership.needsCommit = true
      labelWaiters.push(Int32(index))
      return
    }
    if operations[index].kind == .flush || operations[index].cursor == operations[index].range.count
    {
      answer(index)
    } else {
      chunkDone(index)
    }
  }
}
