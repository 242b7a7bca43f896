// The copier: clears stale bits by copying. Resync, recovery, rebuild: there is no second path.
//
// A job works on one region, window by window (at most 1 MiB), each under an exclusive range lock:
// read a good leg, write the others that need it. A region is *copied* when its last window is
// done; after a flush of the legs that began later its stale bits (and `unresolved`) are cleared,
// and the log makes that durable.
//
//   idle -> (lock) -> reading -> writing -> next window ... -> copied -> (flush) -> cleared
//
// 1. `targets` of a job or of a copied region only shrink: a leg that goes offline drops out and
//    keeps its stale bit, even if it is back before the region is done.
// 2. Unresolved regions come first.
// 3. A region whose source cannot be read is left stale and reported; it is tried again when a leg
//    comes or goes, and every half a minute.

import Base
import MirrorFormat

struct CopyJob: BitwiseCopyable {
  var isActive = false
  var region = 0
  /// Bytes of the region that are done.
  var cursor: UInt64 = 0
  var targets = LegSet.none
  var isFailed = false
  /// It failed for a reason of the moment: the region may be chosen again at once.
  var isVoid = false
  /// The operation that carries the window.
  var operation: Int32 = -1
}

/// A region all of whose windows are copied, waiting for the flush of its targets.
struct CopiedRegion: BitwiseCopyable {
  var region = 0
  var targets = LegSet.none
  var wasUnresolved = false
  /// The legs may differ again: nothing is cleared.
  var isVoid = false
}

struct Copier: ~Copyable {
  static let jobCount = 4
  static let flushBatch = 64

  var jobs = [CopyJob](repeating: CopyJob(), count: jobCount)
  /// Copied regions that wait for the next flush round, and those of the round in flight.
  var copied: [CopiedRegion] = []
  var flushing: [CopiedRegion] = []
  /// Regions in a job, copied, or given up: not to be chosen again.
  var busy: RegionBits
  var given: RegionBits
  var isPaused = false
  /// A whole pass found nothing; until something changes there is nothing to find.
  var isExhausted = false
  /// Where the search for the next region goes on.
  var position = 0

  // Progress of the running resync, or of the last one.
  var isRunning = false
  var isRecovery = false
  var bytesDone: UInt64 = 0
  var bytesTotal: UInt64 = 0
  var bytesPerSecond: Double = 0
  /// Mean rate of the last resync.
  var lastBytesPerSecond: Double = 0
  private(set) var givenUpAt = Instant.zero
  private var begunAt = Instant.zero
  private var measuredAt = Instant.zero
  private var measuredBytes: UInt64 = 0

  init(regions: Int) {
    busy = RegionBits(regions: regions)
    given = RegionBits(regions: regions)
    copied.reserveCapacity(Copier.flushBatch + Copier.jobCount)
    flushing.reserveCapacity(Copier.flushBatch + Copier.jobCount)
  }

  /// Given-up regions may be tried again: the set of legs has changed.
  mutating func restart() {
    given.removeAll()
    isExhausted = false
    position = 0
  }

  /// This region cannot be copied now.
  mutating func giveUp(_ region: Int, now: Instant) {
    given.insert(region)
    givenUpAt = now
  }

  /// A leg went offline: it gets no more copies and keeps its stale bits.
  mutating func drop(_ slot: LegSlot) {
    for index in jobs.indices { jobs[index].targets.remove(slot) }
    for index in copied.indices { copied[index].targets.remove(slot) }
    for index in flushing.indices { flushing[index].targets.remove(slot) }
    restart()
  }

  /// What was copied of a region is no longer what its legs hold: they missed a write, or all of
  /// them may differ.
  mutating func invalidate(_ region: Int, missedBy legs: LegSet, mayDiffer: Bool) {
    for index in jobs.indices where jobs[index].isActive && jobs[index].region == region {
      jobs[index].targets = jobs[index].targets.subtracting(legs)
      if mayDiffer || jobs[index].targets.isEmpty { jobs[index].isVoid = true }
    }
    for index in copied.indices where copied[index].region == region {
      copied[index].targets = copied[index].targets.subtracting(legs)
      if mayDiffer { copied[index].isVoid = true }
    }
    for index in flushing.indices where flushing[index].region == region {
      flushing[index].targets = flushing[index].targets.subtracting(legs)
      if mayDiffer { flushing[index].isVoid = true }
    }
    isExhausted = false
  }

  /// The round that begins now covers everything copied so far.
  mutating func flushStarted() {
    precondition(flushing.isEmpty, "one round in flight")
    swap(&copied, &flushing)
  }

  /// Gives regions that could not be copied another try now and then.
  mutating func retry(now: Instant) {
    guard given.count > 0, now.nanoseconds(since: givenUpAt) >= 30 * Nanoseconds.second else {
      return
    }
    givenUpAt = now
    restart()
  }

  /// Smooths the rate over some seconds.
  mutating func measure(now: Instant) {
    let elapsed = now.nanoseconds(since: measuredAt)
    guard elapsed >= Nanoseconds.second / 5 else { return }
    let rate = Double(bytesDone &- min(measuredBytes, bytesDone)) * 1e9 / Double(elapsed)
    bytesPerSecond = bytesPerSecond == 0 ? rate : bytesPerSecond * 0.7 + rate * 0.3
    measuredAt = now
    measuredBytes = bytesDone
  }

  /// The smoothed rate of the running resync (its mean until that is known), else the mean rate
  /// of the last one.
  func rate(now: Instant) -> Double {
    guard isRunning else { return lastBytesPerSecond }
    return bytesPerSecond > 0 ? bytesPerSecond : meanRate(now: now)
  }

  private func meanRate(now: Instant) -> Double {
    let elapsed = max(now.nanoseconds(since: begunAt), Nanoseconds.millisecond)
    return Double(bytesDone) * 1e9 / Double(elapsed)
  }

  mutating func finish(now: Instant) {
    isRunning = false
    lastBytesPerSecond = meanRate(now: now)
  }

  mutating func begin(total: UInt64, isRecovery: Bool, now: Instant) {
    isRunning = true
    self.isRecovery = isRecovery
    bytesDone = 0
    bytesTotal = total
    bytesPerSecond = 0
    begunAt = now
    measuredAt = now
    measuredBytes = 0
  }
}

extension Engine {
  /// Starts jobs for regions that need copying, and the flush of those that are copied.
  mutating func pumpCopier() {
    guard !start.isReadOnly else { return }
    // While flushes are latched nothing that is copied can be cleared.
    if !copier.isPaused, !flushes.isLatched, stop == .running, membership.isOpenRecorded {
      for job in copier.jobs.indices where !copier.jobs[job].isActive {
        guard units.windowsFree > 0, let region = nextRegionToCopy() else { break }
        beginCopy(job, region)
      }
    }
    let isIdle = copier.jobs.allSatisfy { !$0.isActive }
    if !copier.copied.isEmpty, copier.copied.count >= Copier.flushBatch || isIdle {
      flushes.nextPurposes.finishesCopies = true
    }
    if copier.isRunning, isIdle, copier.copied.isEmpty, copier.flushing.isEmpty {
      copier.finish(now: now)
      note(
        MirrorEvent(copier.isRecovery ? .recoveryDone : .resyncDone, detail: copier.bytesDone))
    }
  }

  /// Legs that need region `region` copied to them, and can have it.
  private func copyTargets(_ region: Int) -> LegSet {
    let stale = map.stale(region)
    var targets = online.intersection(stale)
    if map.unresolved.contains(region), let source = online.subtracting(stale).first {
      targets = online.subtracting(LegSet(source))
    }
    return targets
  }

  private mutating func nextRegionToCopy() -> Int? {
    guard online.count > 1 else { return nil }
    var from = 0
    while map.unresolved.count > 0, let region = map.unresolved.first(from: from) {
      if !copier.busy.contains(region), !copier.given.contains(region) { return region }
      from = region + 1
      if from >= map.layout.regionCount { break }
    }
    var rest = online
    var stale = 0
    while let leg = rest.popFirst() { stale += map.staleCounts[leg.index] }
    guard stale > 0 else { return nil }
    guard !copier.isExhausted else { return nil }
    for _ in 0..<2 {
      while copier.position < map.layout.regionCount {
        let region = copier.position
        let wanted = online.intersection(map.stale(region))
        if !wanted.isEmpty, !copier.busy.contains(region), !copier.given.contains(region) {
          return region
        }
        copier.position += 1
      }
      copier.position = 0
    }
    copier.isExhausted = true
    return nil
  }

  private mutating func beginCopy(_ job: Int, _ region: Int) {
    if !copier.isRunning {
      var total: UInt64 = 0
      for region in 0..<map.layout.regionCount where !copyTargets(region).isEmpty {
        total += map.range(of: region).count
      }
      copier.begin(total: total, isRecovery: staleOnline == 0, now: now)
      note(MirrorEvent(.resyncStarted, detail: copier.bytesTotal))
    }
    copier.busy.insert(region)
    copier.jobs[job] = CopyJob(isActive: true, region: region, targets: copyTargets(region))
    let index = takeOperation()
    operations[index].kind = .copy
    operations[index].isExclusive = true
    copier.jobs[job].operation = Int32(index)
    beginWindow(job)
  }

  private func job(of operation: Int) -> Int {
    guard let job = copier.jobs.firstIndex(where: { $0.isActive && $0.operation == operation })
    else { preconditionFailure("a copy operation belongs to a job") }
    return job
  }

  private mutating func beginWindow(_ job: Int) {
    let region = map.range(of: copier.jobs[job].region)
    let cursor = copier.jobs[job].cursor
    let count = min(UInt64(ScratchUnits.windowBytes), region.count - cursor)
    let index = Int(copier.jobs[job].operation)
    operations[index].chunk = ByteRange(offset: region.offset + cursor, count: count)
    operations[index].error = 0
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
    let sources = map.good(online, in: operations[index].chunk)
      .subtracting(operations[index].tried).subtracting(copier.jobs[job].targets)
    let fallback = map.good(online, in: operations[index].chunk).subtracting(
      operations[index].tried)
    guard let source = sources.first ?? fallback.first else {
      note(MirrorEvent(.copyFailed, detail: operations[index].chunk.offset))
      failCopyWindow(index)
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
    }
    targets.remove(source)
    operations[index].written = LegSet(source)
    guard !targets.isEmpty else {
      copier.jobs[job].isVoid = true
      failCopyWindow(index)
      return
    }
    issueWrites(index, to: targets)
  }

  /// The window is on its targets; those that failed it have been failed.
  mutating func copyWritten(_ index: Int) {
    let job = job(of: index)
    copier.jobs[job].targets = copier.jobs[job].targets.intersection(operations[index].written)
    copier.bytesDone += operations[index].chunk.count
  }

  /// The region cannot be finished now.
  mutating func failCopyWindow(_ index: Int) {
    copier.jobs[job(of: index)].isFailed = true
    leaveChunk(index)
    copyWindowDone(index)
  }

  /// Lock and memory of the window are given back: next window, or the region is copied.
  mutating func copyWindowDone(_ index: Int) {
    let job = job(of: index)
    if operations[index].error != 0 { copier.jobs[job].isFailed = true }
    copier.jobs[job].cursor += operations[index].chunk.count
    let region = copier.jobs[job].region
    let isLast = copier.jobs[job].cursor >= map.range(of: region).count
    if copier.jobs[job].isFailed || copier.jobs[job].isVoid || isLast {
      finishCopy(job)
    } else {
      beginWindow(job)
    }
  }

  private mutating func finishCopy(_ job: Int) {
    let done = copier.jobs[job]
    let index = Int(done.operation)
    guard operations[index].pendingIO == 0 else {
      // A failed leg still holds I/O of this window; the slot is free when it is back.
      operations[index].phase = .answered
      copier.jobs[job].isActive = false
      finishRegion(done)
      return
    }
    freeOperation(index)
    copier.jobs[job].isActive = false
    finishRegion(done)
  }

  private mutating func finishRegion(_ done: CopyJob) {
    if done.isFailed || done.isVoid {
      copier.busy.remove(done.region)
      copier.isExhausted = false
      if stop == .running, !done.isVoid { copier.giveUp(done.region, now: now) }
      return
    }
    copier.copied.append(
      CopiedRegion(
        region: done.region, targets: done.targets,
        wasUnresolved: map.unresolved.contains(done.region)))
  }

  /// The flush that began after these regions were copied is done.
  mutating func copiesFlushed(isGood: Bool, flushed: LegSet) {
    copier.isExhausted = false
    for done in copier.flushing {
      copier.busy.remove(done.region)
      guard isGood, !done.isVoid else { continue }
      map.clearStale(done.targets.intersection(flushed), in: done.region)
      if done.wasUnresolved { map.resolve(done.region) }
    }
    copier.flushing.removeAll(keepingCapacity: true)
    log.wantsCommit = true
    if isGood, online.count > 1, staleOnline == 0 { membership.needsCommit = true }
  }

  /// Stale regions of all online legs.
  var staleOnline: Int {
    var rest = online
    var count = 0
    while let leg = rest.popFirst() { count += map.staleCounts[leg.index] }
    return count
  }
}
