// The copier: clears stale bits by copying. Resync, recovery, rebuild: there is no second path.
//
// A job works on one region, window by window (at most 1 MiB), each under an exclusive range lock:
// read a good leg, write the others that need it. A region is *copied* when its last window is
// done; after a flush of the legs that began later its stale bits (and `unresolved`) are cleared,
// and the log makes that durable.
//
//   idle -> waiting -> (lock) -> reading -> writing -> waiting ... -> copied -> (flush) -> cleared
//
// | from    | to      | performed by                                                        |
// | idle    | waiting | startCopies, with a region that needs it                            |
// | waiting | reading | startCopies, when the rate control lets a window start: beginWindow |
// | reading | writing | copyRead (zeros become holes)                                       |
// | reading | waiting | copyUnreadable: no source has the window; a smaller one, or the next |
// | writing | waiting | copyWindowDone                                                      |
// | waiting | idle    | finishCopy: the region is copied, given up, or was taken away       |
//
// The windows are in CopyWindow; this file has the jobs and their progress.
//
// Progress: `bytesDone` are the bytes copied; what is left is counted in the map whenever somebody
// asks, so the total is right at any time: it grows when a leg fails or comes back, or when what
// was copied has to be copied again.
//
// 1. `targets` of a job or of a copied region only shrink: a leg that goes offline drops out and
//    keeps its stale bit, even if it is back before the region is done.
// 2. Unresolved regions come first.
// 3. A region of which a block can be read from no source is left stale, all of the rest copied and
//    the block reported; it is tried again when a leg comes or goes, and every half a minute.
// 4. A job that waits holds neither lock nor memory.

import Base
import MirrorFormat

struct CopyJob: BitwiseCopyable {
  var isActive = false
  /// No window is under way: the next one may start when the rate allows it.
  var isWaiting = false
  var region = 0
  /// Bytes of the region that are done.
  var cursor: UInt64 = 0
  var targets = LegSet.none
  var isFailed = false
  /// It failed for a reason of the moment: the region may be chosen again at once.
  var isVoid = false
  /// The operation that carries the window.
  var operation: Int32 = -1
  /// Windows are at most so long while unreadable blocks are searched for; 0: not searching.
  var limit: UInt64 = 0
  /// Before this offset in the region there is a block that no source can read.
  var suspectEnd: UInt64 = 0
  /// Some block could be read from no source.
  var isDamaged = false
  /// When the window's first I/O began; nil: none has.
  var windowBegan: Instant?
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
  /// Copied regions wait at most so long for their flush.
  static let flushNanoseconds = 5 * Nanoseconds.second
  /// The time over which the rate is smoothed.
  static let smoothingNanoseconds = 3 * Nanoseconds.second

  /// Tests only: `Barrier.copyVoidedByMiss` is taken away.
  var ignoresMisses = false
  var jobs = [CopyJob](repeating: CopyJob(), count: jobCount)
  /// Copied regions that wait for the next flush round, and those of the round in flight.
  var copied: [CopiedRegion] = []
  var flushing: [CopiedRegion] = []
  /// When the first of `copied` was.
  var copiedAt = Instant.zero
  /// Regions in a job, copied, or given up: not to be chosen again.
  var busy: RegionBits
  var given: RegionBits
  private(set) var isPaused = false
  /// Unresolved regions of which a window was written and not flushed yet: what a leg gives back
  /// there, even the one that is read first, a power loss may take back.
  var unflushed: RegionBits
  /// A whole pass found nothing; until something changes there is nothing to find.
  var isExhausted = false
  /// Where the search for the next region goes on.
  var position = 0

  /// What no leg that has it could read.
  var unreadable = RangeList()

  /// There was something to copy when it was last looked for.
  var isWanted = false
  /// Something is to be copied, or waits for its flush.
  var isBusy: Bool { isWanted || isRunning }
  /// A window is being read or written.
  var hasWindows: Bool { jobs.contains { $0.isActive && !$0.isWaiting } }

  // Progress of the running resync, or of the last one.
  var isRunning = false
  var isRecovery = false
  /// It only tries again what could not be copied: not worth an event.
  private(set) var isRetry = false
  var bytesDone: UInt64 = 0
  /// Bytes of `bytesDone` that were zeros and became holes.
  var bytesZero: UInt64 = 0
  /// Bytes that were left when the last resync ended.
  private(set) var bytesNotDone: UInt64 = 0
  private var bytesPerSecond: Double = 0
  /// Mean rate of the last resync.
  private(set) var lastBytesPerSecond: Double = 0
  private(set) var givenUpAt = Instant.zero
  private var begunAt = Instant.zero
  private var pausedAt = Instant.zero
  private var measuredAt = Instant.zero
  private var measuredBytes: UInt64 = 0

  init(regions: Int) {
    busy = RegionBits(regions: regions)
    given = RegionBits(regions: regions)
    unflushed = RegionBits(regions: regions)
    copied.reserveCapacity(Copier.flushBatch + Copier.jobCount)
    flushing.reserveCapacity(Copier.flushBatch + Copier.jobCount)
  }

  /// Given-up regions may be tried again: the set of legs has changed.
  mutating func restart() {
    isRetry = false
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
    guard !ignoresMisses else { return }
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
    isRetry = !isRunning
  }

  /// Stops or restarts the clock of the progress; who starts windows asks `isPaused`.
  mutating func setPaused(_ isPaused: Bool, now: Instant) {
    guard isPaused != self.isPaused else { return }
    self.isPaused = isPaused
    if isPaused {
      pausedAt = now
    } else {
      // The pause is not part of the mean.
      begunAt = begunAt.advanced(byNanoseconds: now.nanoseconds(since: max(pausedAt, begunAt)))
      restartMeasure(now: now)
    }
  }

  private mutating func restartMeasure(now: Instant) {
    bytesPerSecond = 0
    measuredAt = now
    measuredBytes = bytesDone
  }

  /// Smooths the rate over some seconds.
  mutating func measure(now: Instant) {
    let elapsed = now.nanoseconds(since: measuredAt)
    guard isRunning, !isPaused, elapsed >= Nanoseconds.second / 5 else { return }
    let rate = Double(bytesDone &- min(measuredBytes, bytesDone)) * 1e9 / Double(elapsed)
    let share = Double(elapsed) / Double(elapsed + Copier.smoothingNanoseconds)
    bytesPerSecond =
      bytesPerSecond == 0 ? rate : bytesPerSecond * (1 - share) + rate * share
    measuredAt = now
    measuredBytes = bytesDone
  }

  /// The smoothed rate of the running resync (its mean in the first seconds; 0 while it is
  /// paused), else the mean rate of the last one.
  func rate(now: Instant) -> Double {
    guard isRunning else { return lastBytesPerSecond }
    if isPaused { return 0 }
    let isYoung = now.nanoseconds(since: begunAt) < Copier.smoothingNanoseconds
    return isYoung || bytesPerSecond == 0 ? meanRate(now: now) : bytesPerSecond
  }

  private func meanRate(now: Instant) -> Double {
    let elapsed = max(now.nanoseconds(since: begunAt), Nanoseconds.millisecond)
    return Double(bytesDone) * 1e9 / Double(elapsed)
  }

  mutating func finish(bytesLeft: UInt64, now: Instant) {
    isRunning = false
    isRetry = false
    bytesNotDone = bytesLeft
    lastBytesPerSecond = meanRate(now: now)
  }

  mutating func begin(isRecovery: Bool, now: Instant) {
    isRunning = true
    self.isRecovery = isRecovery
    if !isRetry {
      bytesDone = 0
      bytesZero = 0
      unreadable.removeAll()
    }
    begunAt = now
    pausedAt = now
    restartMeasure(now: now)
  }
}

extension Engine {
  /// Starts windows of regions that need copying, and the flush of those that are copied.
  mutating func pumpCopier() {
    guard !start.isReadOnly else { return }
    var isWanted = true
    if stop != .running {
      endWaitingCopies()
    } else if copier.isPaused || flushes.isLatched || !membership.isOpenRecorded {
      // While flushes are latched nothing that is copied can be cleared.
      isWanted = staleOnline > 0 || map.unresolved.count > 0
    } else {
      isWanted = startCopies()
    }
    copier.isWanted = isWanted
    let hasWindows = copier.hasWindows
    let isIdle = copier.jobs.allSatisfy { !$0.isActive }
    resolveIfAlone()
    flushCopied(isResting: !hasWindows && (copier.isPaused || (isIdle && !isWanted)))
    if copier.isRunning, isIdle, !isWanted, copier.copied.isEmpty, copier.flushing.isEmpty {
      finishResync()
    }
  }

  /// Lets waiting jobs go on and idle ones begin, as the rate allows; false if there is nothing
  /// more to copy at present.
  private mutating func startCopies() -> Bool {
    var isWanted = false
    for job in copier.jobs.indices where copier.jobs[job].isActive && copier.jobs[job].isWaiting {
      isWanted = true
      guard units.windowsFree > 0, mayStartWindow() else { return true }
      beginWindow(job)
    }
    for job in copier.jobs.indices where !copier.jobs[job].isActive {
      guard let region = nextRegionToCopy() else { return isWanted }
      isWanted = true
      guard units.windowsFree > 0, mayStartWindow() else { return true }
      beginCopy(job, region)
    }
    return true
  }

  private mutating func flushCopied(isResting: Bool) {
    guard !copier.copied.isEmpty else { return }
    guard keeps(.flushBeforeStaleIsCleared) else {
      if copier.flushing.isEmpty {
        copier.flushStarted()
        copiesFlushed(isGood: true, flushed: online)
      }
      return
    }
    let due = copier.copiedAt.advanced(byNanoseconds: Copier.flushNanoseconds)
    if isResting || copier.copied.count >= Copier.flushBatch || now >= due {
      flushes.nextPurposes.finishesCopies = true
    } else {
      wake(at: due)
    }
  }

  private mutating func finishResync() {
    let isRetry = copier.isRetry
    let left = bytesLeftToCopy()
    copier.finish(bytesLeft: left, now: now)
    guard !isRetry || left == 0 else { return }
    note(MirrorEvent(copier.isRecovery ? .recoveryDone : .resyncDone, detail: copier.bytesDone))
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

  /// Bytes that are still to be copied. Cost: one pass over the region map.
  func bytesLeftToCopy() -> UInt64 {
    guard staleOnline > 0 || map.unresolved.count > 0 else { return 0 }
    var left: UInt64 = 0
    for region in 0..<map.layout.regionCount where !copyTargets(region).isEmpty {
      left += map.range(of: region).count
    }
    for job in copier.jobs where job.isActive && !job.isVoid && !job.isFailed {
      if !copyTargets(job.region).isEmpty { left -= job.cursor }
    }
    for done in copier.copied where !done.isVoid && isDone(done) {
      left -= map.range(of: done.region).count
    }
    for done in copier.flushing where !done.isVoid && isDone(done) {
      left -= map.range(of: done.region).count
    }
    return left
  }

  /// Whether nothing but the flush is missing for a copied region.
  private func isDone(_ done: CopiedRegion) -> Bool {
    let wanted = copyTargets(done.region)
    return !wanted.isEmpty && done.targets.isSuperset(of: wanted)
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
      copier.begin(isRecovery: staleOnline == 0, now: now)
      if !copier.isRetry { note(MirrorEvent(.resyncStarted, detail: bytesLeftToCopy())) }
    }
    copier.busy.insert(region)
    copier.jobs[job] = CopyJob(
      isActive: true, isWaiting: true, region: region, targets: copyTargets(region))
    let index = takeOperation()
    operations[index].kind = .copy
    operations[index].isExclusive = true
    copier.jobs[job].operation = Int32(index)
    beginWindow(job)
  }

  func job(of operation: Int) -> Int {
    guard let job = copier.jobs.firstIndex(where: { $0.isActive && $0.operation == operation })
    else { preconditionFailure("a copy operation belongs to a job") }
    return job
  }

  /// The mirror stops: jobs whose next window was to come end here.
  private mutating func endWaitingCopies() {
    for job in copier.jobs.indices where copier.jobs[job].isActive && copier.jobs[job].isWaiting {
      copier.jobs[job].isVoid = true
      finishCopy(job)
    }
  }

  mutating func finishCopy(_ job: Int) {
    let done = copier.jobs[job]
    let index = Int(done.operation)
    copier.jobs[job].isActive = false
    if operations[index].pendingIO == 0 {
      freeOperation(index)
    } else {
      // A failed leg still holds I/O of this window; the slot is free when it is back.
      operations[index].phase = .answered
    }
    finishRegion(done)
  }

  private mutating func finishRegion(_ done: CopyJob) {
    if done.isFailed || done.isVoid || done.isDamaged {
      copier.busy.remove(done.region)
      copier.isExhausted = false
      if stop == .running, !done.isVoid { copier.giveUp(done.region, now: now) }
      return
    }
    if copier.copied.isEmpty { copier.copiedAt = now }
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
      scrubRegionCopied(done.region)
      guard done.wasUnresolved else { continue }
      copier.unflushed.remove(done.region)
      if online.isSuperset(of: membership.mayBeListed) || !keeps(.resolvedOnListedLegs) {
        map.resolve(done.region)
      } else if stop == .running {
        // Who failed meanwhile would be asked by a start on it alone, for no label says that it is
        // out: what clients read here still has to wait for that label.
        copier.giveUp(done.region, now: now)
      }
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
