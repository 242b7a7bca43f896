// One window of a copy: read a good leg, write the others that need it, under an exclusive lock.
//
// beginWindow -> (lock) -> startCopyWindow -> (log) -> readCopySource -> copyRead -> issueWrites
//   -> decideWrite -> copyWritten -> copyWindowDone -> beginWindow ... -> Engine.finishCopy
//
// - A window that reads as zeros is written as a hole, whatever the target holds there.
// - A window that no source can read is halved until the block is found that cannot be read (every
//   source is asked for every part: each may have what the others lack). The block is reported, the
//   region stays stale, and the copy goes on after it with small windows that grow again.
// - Such a search reads a bad block often; it counts once against the leg.

import Base
import MirrorFormat

extension Engine {
  mutating func beginWindow(_ job: Int) {
    let region = map.range(of: copier.jobs[job].region)
    let cursor = copier.jobs[job].cursor
    var count = min(rate.windowBytes, region.count - cursor)
    if copier.jobs[job].limit > 0 { count = min(count, copier.jobs[job].limit) }
    copier.jobs[job].isWaiting = false
    copier.jobs[job].windowBegan = nil
    rate.started(bytes: count, now: now)
    let index = Int(copier.jobs[job].operation)
    operations[index].chunk = ByteRange(offset: region.offset + cursor, count: count)
    operations[index].error = 0
    operations[index].isZeros = false
    enterLock(index)
  }

  /// The window's lock is granted.
  mutating func startCopyWindow(_ index: Int) {
    let job = job(of: index)
    let region = copier.jobs[job].region
    if !map.unresolved.contains(region) {
      // It may have been unresolved when it was chosen; then its targets were good legs.
      copier.jobs[job].targets = copier.jobs[job].targets.intersection(map.stale(region))
    }
    if copier.jobs[job].targets.isEmpty || stop != .running {
      copier.jobs[job].isVoid = true
      failCopyWindow(index)
      return
    }
    if map.unresolved.contains(region) {
      // Its legs may differ in what is not stale: protected by intent, as a write is.
      retainRegions(index)
      guard requireBits(RegionWord.intent, in: operations[index].chunk) else {
        park(index, .awaitingLog)
        return
      }
    } else {
      // Protected by the stale bits of the targets, which must be durable, not only known.
      guard requireBits(UInt16(copier.jobs[job].targets.bits), in: operations[index].chunk) else {
        park(index, .awaitingLog)
        return
      }
    }
    readCopySource(index)
  }

  mutating func readCopySource(_ index: Int) {
    let job = job(of: index)
    if operations[index].scratchBlock < 0 {
      guard let unit = units.takeWindow() else {
        copier.jobs[job].isVoid = true
        failCopyWindow(index)
        return
      }
      operations[index].scratchBlock = unit
    }
    if copier.jobs[job].windowBegan == nil { copier.jobs[job].windowBegan = now }
    let sources = map.good(online, in: operations[index].chunk)
      .subtracting(operations[index].tried).subtracting(copier.jobs[job].targets)
    let fallback = map.good(online, in: operations[index].chunk).subtracting(
      operations[index].tried)
    guard let source = sources.first ?? fallback.first else {
      copyUnreadable(index)
      return
    }
    operations[index].phase = .reading
    operations[index].awaited = LegSet(source)
    let unit = operations[index].scratchBlock
    issue(
      .read, on: source, offset: start.layout.dataOffset + operations[index].chunk.offset,
      count: operations[index].chunk.count, buffer: .scratch(offset: ScratchUnits.offset(unit)),
      purpose: .operation, subject: index, owner: .none, unit: unit)
  }

  mutating func copyRead(_ index: Int, from source: LegSlot) {
    let job = job(of: index)
    var targets = copier.jobs[job].targets.intersection(online)
    if map.unresolved.contains(copier.jobs[job].region) {
      // Whichever leg was readable is the truth now; all others get it.
      targets = online
      copier.unflushed.insert(copier.jobs[job].region)
      flushes.currentPurposes.resolvesAlone = false
      flushes.nextPurposes.resolvesAlone = false
    }
    targets.remove(source)
    operations[index].written = LegSet(source)
    guard !targets.isEmpty else {
      copier.jobs[job].isVoid = true
      failCopyWindow(index)
      return
    }
    operations[index].isZeros = scratch.isZero(
      at: ScratchUnits.offset(operations[index].scratchBlock),
      count: Int(operations[index].chunk.count))
    issueWrites(index, to: targets)
  }

  // MARK: Unreadable blocks

  /// Every source has failed the window.
  private mutating func copyUnreadable(_ index: Int) {
    let job = job(of: index)
    let chunk = operations[index].chunk
    let end = copier.jobs[job].cursor + chunk.count
    if chunk.count > blockBytes {
      copier.jobs[job].suspectEnd = end
      copier.jobs[job].limit = half(chunk.count)
    } else {
      copier.jobs[job].isDamaged = true
      copier.jobs[job].limit = blockBytes
      copier.jobs[job].suspectEnd = end
      copier.jobs[job].cursor = end
      if !copier.unreadable.contains(chunk), copier.unreadable.add(chunk, legs: .none) {
        note(MirrorEvent(.copyFailed, detail: chunk.offset))
      }
    }
    leaveChunk(index)
    awaitNextWindow(index)
  }

  /// Half of `count` bytes, in blocks, at least one.
  private func half(_ count: UInt64) -> UInt64 {
    max(blockBytes, Bytes.alignDown(count / 2, to: blockBytes))
  }

  /// Whether a read error of a copy is one that the leg was not charged for already.
  func isNewReadError(_ index: Int) -> Bool {
    let chunk = operations[index].chunk
    return chunk.count <= blockBytes && !copier.unreadable.contains(chunk)
      || copier.jobs[job(of: index)].limit == 0
  }

  /// A window went well while blocks were searched for: how long the next one may be.
  private mutating func widen(_ job: Int) {
    guard copier.jobs[job].limit > 0 else { return }
    let cursor = copier.jobs[job].cursor
    if cursor < copier.jobs[job].suspectEnd {
      copier.jobs[job].limit = half(copier.jobs[job].suspectEnd - cursor)
    } else {
      let doubled = copier.jobs[job].limit * 2
      copier.jobs[job].limit = doubled < UInt64(ScratchUnits.windowBytes) ? doubled : 0
    }
  }

  // MARK: Alone

  /// One leg is left, and no start will ask another one: what it holds is the truth, as soon as no
  /// copy is in its cache only.
  mutating func resolveIfAlone() {
    guard map.unresolved.count > 0, online.count == 1, membership.recordedOnline == online,
      membership.isOpenRecorded
    else { return }
    if copier.unflushed.count == 0 {
      map.resolveAll()
    } else if !flushes.isLatched, !flushes.currentPurposes.resolvesAlone, !copier.hasWindows {
      flushes.nextPurposes.resolvesAlone = true
    }
  }

  /// The flush that began when one leg was left, and no copy under way, is done.
  mutating func aloneFlushed() {
    guard online.count == 1, membership.recordedOnline == online else { return }
    copier.unflushed.removeAll()
    map.resolveAll()
  }

  // MARK: The end of a window

  /// The window is on its targets; those that failed it have been failed.
  mutating func copyWritten(_ index: Int) {
    let job = job(of: index)
    let chunk = operations[index].chunk
    copier.jobs[job].targets = copier.jobs[job].targets.intersection(operations[index].written)
    copier.bytesDone += chunk.count
    if operations[index].isZeros { copier.bytesZero += chunk.count }
    copier.unreadable.subtract(chunk)
  }

  /// The region cannot be finished now.
  mutating func failCopyWindow(_ index: Int) {
    copier.jobs[job(of: index)].isFailed = true
    leaveChunk(index)
    copyWindowDone(index)
  }

  /// Lock and memory of the window are given back.
  mutating func copyWindowDone(_ index: Int) {
    let job = job(of: index)
    if operations[index].error != 0 { copier.jobs[job].isFailed = true }
    copier.jobs[job].cursor += operations[index].chunk.count
    widen(job)
    awaitNextWindow(index)
  }

  /// Next window, or the region is done with.
  private mutating func awaitNextWindow(_ index: Int) {
    let job = job(of: index)
    if let began = copier.jobs[job].windowBegan {
      rate.finished(tookNanoseconds: now.nanoseconds(since: began), now: now)
    }
    copier.jobs[job].isWaiting = true
    let isLast = copier.jobs[job].cursor >= map.range(of: copier.jobs[job].region).count
    if copier.jobs[job].isFailed || copier.jobs[job].isVoid || isLast {
      finishCopy(job)
    } else {
      operations[index].phase = .locking
    }
  }
}
