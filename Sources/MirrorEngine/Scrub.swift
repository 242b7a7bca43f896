// The scrub: compares the legs window by window, and repairs by marking what is outvoted stale.
//
//   idle -> comparing: window -> (lock) -> reading -> compared -> next ... -> (settling) -> idle
//
// | from      | to        | performed by                                                         |
// | idle      | comparing | Engine.startScrub                                                    |
// | comparing | comparing | pumpScrub: one window of at most 128 KiB at a time                   |
// | comparing | settling  | finishComparing, in repair mode: the copier has to catch up          |
// | comparing | idle      | finishComparing; Engine.stopScrub                                    |
// | settling  | idle      | pumpScrub, when no region that it marked waits for the copier        |
//
// 1. A window is read from all its legs under a shared range lock: clients read on, writers wait. A
//    leg that is stale there has no part; an unresolved region (its legs may differ, and recovery
//    will make them equal) or an unwritten one is left out. What differs then differs for no good
//    reason (promise P4).
// 2. The repair writes nothing itself. The legs that lose in a region turn stale there, and the
//    copier does the rest: its sources are the good legs that lost nowhere in the region.
// 3. A region is repaired only as a whole, so a repair widens its range to whole regions. Nothing of
//    it is touched if one of its blocks has no winner, if no good leg is left that lost nothing, or
//    if one of those that lost nothing could not be compared in all of it.
// 4. One window of scratch memory (1 MiB) serves all legs: 128 KiB each.
// 5. It shares the copier's rate and makes way for it: a resync restores redundancy. It does not
//    survive a restart.

import Base
import MirrorFormat

/// What a scrub shall do.
public struct ScrubOrder: BitwiseCopyable, Equatable, Sendable {
  /// What a scrub does about legs that differ.
  public enum Mode: UInt8, BitwiseCopyable, Sendable {
    /// Reports it.
    case check
    /// Reports it, and has the legs that lose a vote copied to.
    case repair
  }

  /// What to do about legs that differ.
  public var mode: Mode
  /// The leg that is right where no majority of three or more legs is.
  public var preferred: LegSlot?
  /// What to compare: by default the whole device. Widened to blocks, by a repair to regions.
  public var range: ByteRange?

  /// Describes a scrub.
  public init(mode: Mode, preferred: LegSlot? = nil, range: ByteRange? = nil) {
    self.mode = mode
    self.preferred = preferred
    self.range = range
  }
}

/// The running scrub, or the last one.
public struct ScrubSnapshot: Sendable {
  /// nil: none ever ran.
  public var mode: ScrubOrder.Mode?
  /// It compares, or waits for its repairs.
  public var isRunning: Bool
  /// It came to its end; a stopped one did not.
  public var isComplete: Bool
  /// Bytes compared or left out.
  public var bytesDone: UInt64
  /// Bytes of the range.
  public var bytesTotal: UInt64
  /// Bytes of `bytesDone` that could not be compared: fewer than two good legs, unresolved,
  /// unwritten.
  public var bytesSkipped: UInt64
  /// Smoothed over some seconds; of a scrub that is over its mean.
  public var bytesPerSecond: Double
  /// Bytes of blocks in which legs differed.
  public var mismatchBytes: UInt64
  /// Bytes of `mismatchBytes` that are as they were: a check touches nothing, a repair not where
  /// it cannot tell who is right.
  public var unrepairedBytes: UInt64
  /// Ranges in which legs differed.
  public var mismatchCount: UInt64
  /// The first 64 of these ranges, with the legs that differ from the majority; all legs where
  /// there is none.
  public var mismatches: [NotedRange]
  /// Reads of legs that failed; such a leg has no part in its window.
  public var readErrors: UInt64
}

struct Scrub: ~Copyable {
  static let windowBytes: UInt64 = 128 << 10

  var order = ScrubOrder(mode: .check)
  var hasRun = false
  var isRunning = false
  var isComplete = false
  /// Everything is compared; marked regions are being copied.
  var isSettling = false
  /// A window is at the lock or reads; `operation` carries it.
  var isWindowInFlight = false
  var windowBegan = Instant.zero
  var range = ByteRange(offset: 0, count: 0)
  /// Where the next window begins.
  var position: UInt64 = 0

  // The region at work, in repair mode.
  /// Legs that lost somewhere in it.
  var losers = LegSet.none
  /// Legs that were compared in all of it so far.
  var compared = LegSet(bits: 0xff)
  /// A block of it has no winner, or the region changed under it.
  var isUndecided = false
  /// Bytes of its blocks that differ.
  var regionMismatch: UInt64 = 0

  /// Regions that were marked stale and are not copied yet.
  var marked: RegionBits

  var bytesSkipped: UInt64 = 0
  var mismatchBytes: UInt64 = 0
  var unrepairedBytes: UInt64 = 0
  var readErrors: UInt64 = 0
  var mismatches = RangeList()

  private var bytesPerSecond: Double = 0
  private var begunAt = Instant.zero
  private var endedAt = Instant.zero
  private var measuredAt = Instant.zero
  private var measuredBytes: UInt64 = 0

  init(regions: Int) { marked = RegionBits(regions: regions) }

  var bytesDone: UInt64 { position - range.offset }

  mutating func begin(_ order: ScrubOrder, range: ByteRange, now: Instant) {
    self.order = order
    self.range = range
    hasRun = true
    isRunning = true
    isComplete = false
    isSettling = false
    position = range.offset
    beginRegion()
    marked.removeAll()
    bytesSkipped = 0
    mismatchBytes = 0
    unrepairedBytes = 0
    readErrors = 0
    mismatches.removeAll()
    bytesPerSecond = 0
    begunAt = now
    measuredAt = now
    measuredBytes = 0
  }

  mutating func beginRegion() {
    losers = .none
    compared = LegSet(bits: 0xff)
    isUndecided = false
    regionMismatch = 0
  }

  mutating func end(isComplete: Bool, now: Instant) {
    isRunning = false
    self.isComplete = isComplete
    endedAt = now
  }

  mutating func measure(now: Instant) {
    let elapsed = now.nanoseconds(since: measuredAt)
    guard isRunning, elapsed >= Nanoseconds.second / 5 else { return }
    let rate = Double(bytesDone - measuredBytes) * 1e9 / Double(elapsed)
    let share = Double(elapsed) / Double(elapsed + Copier.smoothingNanoseconds)
    bytesPerSecond = measuredBytes == 0 ? rate : bytesPerSecond * (1 - share) + rate * share
    measuredAt = now
    measuredBytes = bytesDone
  }

  /// Bytes per second: the smoothed rate of one that runs, the mean of one that is over.
  private var rate: Double {
    if isRunning { return isSettling ? 0 : bytesPerSecond }
    let elapsed = max(endedAt.nanoseconds(since: begunAt), Nanoseconds.millisecond)
    return Double(bytesDone) * 1e9 / Double(elapsed)
  }

  var snapshot: ScrubSnapshot {
    ScrubSnapshot(
      mode: hasRun ? order.mode : nil, isRunning: isRunning, isComplete: isComplete,
      bytesDone: bytesDone, bytesTotal: range.count, bytesSkipped: bytesSkipped,
      bytesPerSecond: rate, mismatchBytes: mismatchBytes,
      unrepairedBytes: unrepairedBytes, mismatchCount: mismatches.count,
      mismatches: mismatches.entries, readErrors: readErrors)
  }
}

extension Engine {
  // MARK: Commands

  /// Starts to compare the legs. Returns at once; `snapshot().scrub` tells how it goes.
  public mutating func startScrub(_ order: ScrubOrder, now: Instant) throws(CommandError) {
    self.now = max(self.now, now)
    guard stop == .running, !start.isReadOnly || order.mode == .check else { throw .notWritable }
    guard !scrub.isRunning, !scrub.isWindowInFlight else { throw .scrubRunning }
    if let preferred = order.preferred {
      guard legs[preferred.index].phase != .vacant else { throw .noSuchLeg }
      guard online.contains(preferred) else { throw .notOnline }
    }
    let wanted = order.range ?? ByteRange(offset: 0, count: start.layout.sizeBytes)
    guard wanted.count > 0, wanted.end <= start.layout.sizeBytes else { throw .badRange }
    let unit = order.mode == .repair ? start.layout.regionBytes : blockBytes
    let first = Bytes.alignDown(wanted.offset, to: unit)
    let end = min(Bytes.alignUp(wanted.end, to: unit), start.layout.sizeBytes)
    scrub.begin(order, range: ByteRange(offset: first, count: end - first), now: self.now)
  }

  /// Stops the scrub; the regions that it has marked already are still copied.
  public mutating func stopScrub(now: Instant) throws(CommandError) {
    self.now = max(self.now, now)
    guard scrub.isRunning else { throw .noScrub }
    // What was found in a region that is not compared to its end stays as it is.
    scrub.unrepairedBytes += scrub.regionMismatch
    scrub.beginRegion()
    scrub.end(isComplete: false, now: self.now)
  }

  // MARK: Windows

  /// Starts the next window, as the rate allows; ends the scrub.
  mutating func pumpScrub() {
    guard scrub.isRunning, !scrub.isWindowInFlight, stop == .running else { return }
    if scrub.isSettling {
      settleScrub()
      return
    }
    // What is being copied now, for another reason than this scrub, can be compared after that.
    if !copier.isBusy { scrub.marked.removeAll() }
    let isBlocked = copier.isPaused || flushes.isLatched
    guard !copier.isBusy || isBlocked || scrub.marked.count > 0 else { return }
    skipScrubbed()
    guard scrub.position < scrub.range.end else {
      finishComparing()
      return
    }
    guard units.windowsFree > 0, mayStartWindow() else { return }
    let left = min(scrub.range.end, scrubbedRegion.end) - scrub.position
    let index = takeOperation()
    operations[index].kind = .scrub
    operations[index].chunk = ByteRange(
      offset: scrub.position, count: min(left, Scrub.windowBytes))
    scrub.isWindowInFlight = true
    scrub.windowBegan = now
    rate.started(bytes: operations[index].chunk.count, now: now)
    enterLock(index)
  }

  /// The region in which the next window lies.
  private var scrubbedRegion: ByteRange { map.range(of: Int(scrub.position >> map.regionShift)) }

  /// Whether the legs are to be compared in `region`: two have it, and should be equal.
  private func isComparable(_ region: Int) -> Bool {
    online.subtracting(map.stale(region)).count > 1 && !map.unresolved.contains(region)
      && map.words[region] & RegionWord.unwritten == 0
  }

  /// Passes regions in which there is nothing to compare.
  private mutating func skipScrubbed() {
    while scrub.position < scrub.range.end {
      let region = Int(scrub.position >> map.regionShift)
      if isComparable(region) { return }
      let end = min(scrub.range.end, map.range(of: region).end)
      scrub.bytesSkipped += end - scrub.position
      // What was found before it changed cannot be decided now.
      scrub.isUndecided = true
      scrub.position = end
      endScrubbedRegion(region)
    }
  }

  /// The window's lock is granted.
  mutating func startScrubWindow(_ index: Int) {
    let chunk = operations[index].chunk
    let region = Int(chunk.offset >> map.regionShift)
    // Stopped, changed while it waited, or no memory: the next turn sees what to do.
    guard scrub.isRunning, stop == .running, isComparable(region), let unit = units.takeWindow()
    else {
      endScrubWindow(index)
      return
    }
    let targets = map.good(online, in: chunk)
    operations[index].scratchBlock = unit
    operations[index].phase = .reading
    operations[index].awaited = targets
    scrub.windowBegan = now
    var rest = targets
    while let leg = rest.popFirst() {
      issue(
        .read, on: leg, offset: start.layout.dataOffset + chunk.offset, count: chunk.count,
        buffer: .scratch(offset: scrubOffset(index, leg)), purpose: .operation, subject: index,
        owner: .none, unit: unit)
    }
  }

  /// Where a leg's bytes of the window are.
  func scrubOffset(_ index: Int, _ leg: LegSlot) -> Int {
    ScratchUnits.offset(operations[index].scratchBlock) + leg.index * Int(Scrub.windowBytes)
  }

  mutating func scrubRead(_ index: Int, _ leg: LegSlot, error: Int32) {
    if error == 0 {
      operations[index].written.insert(leg)
    } else {
      operations[index].failed.insert(leg)
      scrubReadErrored(leg, operations[index].chunk, error: error)
    }
    if operations[index].awaited.isEmpty { compareScrubWindow(index) }
  }

  /// A leg could not be read: counted like any read error of it, and repaired like one.
  private mutating func scrubReadErrored(_ leg: LegSlot, _ range: ByteRange, error: Int32) {
    scrub.readErrors += 1
    if scrub.readErrors <= UInt64(RangeList.capacity) {
      note(MirrorEvent(.scrubReadFailed, leg: leg, detail: range.offset))
    }
    countReadError(leg, error: error)
    repair(range, on: LegSet(leg))
  }

  /// Every leg has answered, or was failed.
  mutating func compareScrubWindow(_ index: Int) {
    let chunk = operations[index].chunk
    let region = Int(chunk.offset >> map.regionShift)
    if scrub.isRunning, isComparable(region) {
      let readable = map.good(operations[index].written.intersection(online), in: chunk)
      scrub.compared = scrub.compared.intersection(readable)
      if readable.count > 1 { compare(index, readable) } else { scrub.bytesSkipped += chunk.count }
      scrub.position = chunk.end
      if scrub.position == map.range(of: region).end || scrub.position == scrub.range.end {
        endScrubbedRegion(region)
      }
    }
    endScrubWindow(index)
  }

  /// A leg was copied to in `region`, perhaps from one that lost there: what was found before in
  /// the region at work no longer says who is right.
  mutating func scrubRegionCopied(_ region: Int) {
    guard scrub.isRunning, !scrub.isSettling, scrub.position < scrub.range.end else { return }
    if Int(scrub.position >> map.regionShift) == region { scrub.isUndecided = true }
  }

  /// Gives lock, memory and slot of the window back.
  private mutating func endScrubWindow(_ index: Int) {
    rate.finished(tookNanoseconds: now.nanoseconds(since: scrub.windowBegan), now: now)
    leaveChunk(index)
    operations[index].awaited = .none
    scrub.isWindowInFlight = false
    // A failed leg may still read into the window's memory.
    operations[index].phase = .answered
    releaseIfAnswered(index)
  }

  // MARK: The end

  private mutating func finishComparing() {
    if scrub.order.mode == .repair {
      scrub.isSettling = true
      settleScrub()
    } else {
      endScrub()
    }
  }

  /// A repair ends when the copier has dealt with every region that it marked: copied, or given
  /// up, or its leg is offline.
  private mutating func settleScrub() {
    while let region = scrub.marked.first(from: 0) {
      let isPending =
        !online.intersection(map.stale(region)).isEmpty && !copier.given.contains(region)
      if isPending { return }
      scrub.marked.remove(region)
    }
    endScrub()
  }

  private mutating func endScrub() {
    scrub.end(isComplete: true, now: now)
    note(MirrorEvent(.scrubDone, detail: scrub.mismatchBytes))
  }
}
