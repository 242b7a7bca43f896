// The engine: one state machine that keeps a mirror's promises. Sans-I/O, single-threaded.
//
// Requests, completions, commands and ticks go in with the time; effects come out. The server and
// the simulator drain the same effects; neither can make the engine wait.
//
// Invariants (each is asserted where it could break, and checked by the tests' oracle):
// 1. Every byte written to a leg is written under protection: `intent`, `stale` or `unwritten` for
//    that region is durable in the log of every leg that is online, or that a label may list, before
//    the data is issued.
// 2. Overlapping operations of which one writes never run at the same time (RangeLock).
// 3. A write, a flush or an unresolved read is acked only when every leg of the durably recorded
//    membership has it or is durably stale there.
// 4. A leg that is the only good copy of a region is never taken offline.
// 5. An offline leg gets no I/O; it returns only when none is in flight on it.
// 6. Every queue has the bound of the operation table; the submitter never exceeds `requestsMax`.
//
// The state is in this file; what is done with it is in the extensions: WritePath, UnwrittenPath,
// ReadPath, FlushPath, LogCommit, LabelCommit, LegFailure, Replacing, Copier, CopyWindow,
// RateControl, Scrub, ScrubVote, ReadRepair, Hedging, IntentClearing, Commands, Stop, Snapshot.

import Base
import MirrorFormat

/// A mirror, as a state machine.
public struct Engine: ~Copyable {
  /// Reads and writes of data are at most this long; longer requests are worked off in chunks.
  public static let ioBytesMax: UInt64 = 4 << 20
  /// Zeroes and discards are at most this long.
  public static let zeroBytesMax: UInt64 = 64 << 20

  /// The engine's own I/O memory.
  public let scratch: Scratch
  /// Requests that may be inside at once.
  public let requestsMax: Int

  let start: EngineStart
  let blockBytes: UInt64
  let startedAt: Instant
  var now: Instant
  var random: PRNG
  /// With the sequence added, the salt of a label.
  let labelSalt: UInt64

  var operations: [Operation]
  var freeOperations: [Int32]
  /// Requests whose slot is in use, and those of them that are not answered yet.
  var requestCount = 0
  var openRequests = 0
  var lock: RangeLock
  var records: [IORecord]
  var freeRecord: Int32
  var recordsInUse = 0
  var units = ScratchUnits()

  var map: RegionMap
  var legs: [LegState]
  var online: LegSet
  /// When `failOverdueLegs` last looked.
  var overdueLookedAt = Instant.zero
  /// Legs that lately failed something whose other legs have not answered yet: read elsewhere.
  var suspects = LegSet.none
  var membership: Membership
  var log: RegionLog
  var flushes: FlushRounds
  var copier: Copier
  var repairs = ReadRepair()
  var scrub: Scrub
  var rate: RateControl
  var clearing: IntentClearing
  var stop = StopState.running

  /// Operations whose lock was granted, or that have to be looked at again.
  var ready: FixedFIFO<Int32>
  /// Operations whose last awaited leg was taken away.
  var orphaned: FixedFIFO<Int32>
  var labelWaiters: FixedFIFO<Int32>
  var scratchWaiters: FixedFIFO<Int32>
  var effects: FixedFIFO<Effect>
  /// Events that did not fit; they are dropped, never the other effects.
  public internal(set) var eventsDropped: UInt64 = 0
  var choice = ReadChoice()
  /// When the engine wants `tick` at the latest, besides the usual calls several times a second;
  /// nil: it does not care. It stands from one `settle` to the next.
  public internal(set) var nextWake: Instant?

  /// A mirror as assembly found it. Its first label and pages are among the first effects.
  public init(_ start: EngineStart, now: Instant) {
    precondition(start.requestsMax > 0 && start.requestsMax <= 1 << 16, "a sane table size")
    precondition(start.members.count == LegSlot.count, "a table has 8 entries")
    // A hung leg can keep the slots of a set of copies and repairs, and of a scrub's window.
    let operationCount =
      start.requestsMax + (Copier.jobCount + ReadRepair.jobCount + 1) * (1 + LegSlot.count)
    // The records: each operation on every leg, a batch of pages, labels, flushes; a hung leg
    // can keep one set of each more.
    // Deliveries and reads that were let go hold a scratch unit each.
    let recordCount =
      (operationCount + 2 * RegionLog.batchPagesMax + 8) * LegSlot.count + ScratchUnits.count

    self.start = start
    self.now = now
    startedAt = now
    requestsMax = start.requestsMax
    scratch = Scratch(count: ScratchUnits.totalBytes)
    blockBytes = UInt64(start.layout.blockBytes)
    random = PRNG(seed: start.seed)
    labelSalt = random.next()
    operations = Array(repeating: Operation(), count: operationCount)
    freeOperations = (0..<Int32(operationCount)).reversed()
    lock = RangeLock(operations: operationCount)
    records = Array(repeating: IORecord(), count: recordCount)
    for index in records.indices.dropLast() { records[index].nextFree = Int32(index + 1) }
    freeRecord = 0
    map = RegionMap(layout: start.layout, words: start.words)
    legs = (0..<LegSlot.count).map { _ in LegState() }
    online = .none
    membership = Membership(
      lineage: start.lineage, recordedOnline: .none, nextSequence: start.nextLabelSequence)
    log = RegionLog(
      sequences: start.pageSequences, copies: start.pageCopies, operations: operationCount)
    flushes = FlushRounds(operations: operationCount)
    copier = Copier(regions: start.layout.regionCount)
    copier.setPaused(start.isResyncPaused, now: now)
    scrub = Scrub(regions: start.layout.regionCount)
    rate = RateControl(
      min: start.resyncMinBytesPerSecond, max: start.resyncMaxBytesPerSecond, now: now)
    clearing = IntentClearing(regions: start.layout.regionCount, now: now)
    ready = FixedFIFO(capacity: operationCount, filler: -1)
    orphaned = FixedFIFO(capacity: operationCount, filler: -1)
    labelWaiters = FixedFIFO(capacity: operationCount, filler: -1)
    scratchWaiters = FixedFIFO(capacity: operationCount, filler: -1)
    effects = FixedFIFO(
      capacity: recordCount + 5 * operationCount + 256, filler: .legIdle(LegSlot(0)))
    copier.ignoresMisses = start.removedBarrier == .copyVoidedByMiss
    map.trustsDurable = start.removedBarrier == .bitsInBothImages
    lock.isOpen = start.removedBarrier == .rangeLock
    takeMembers()
    takeMap()
    lookWhomToAvoid()
  }

  private mutating func takeMembers() {
    for leg in start.legs {
      online.insert(leg.slot)
      legs[leg.slot.index].phase = .online
      legs[leg.slot.index].isIdleTold = false
      legs[leg.slot.index].labelCopy = leg.labelCopy
    }
    for index in 0..<LegSlot.count {
      let member = start.members[index]
      let slot = LegSlot(index)
      guard member.state != .vacant else {
        precondition(!online.contains(slot), "an online leg is in the table")
        continue
      }
      legs[index].legId = member.legId
      legs[index].isWriteMostly = member.isWriteMostly
      if member.isSyncing { membership.recordedSyncing.insert(slot) }
      legs[index].ownFrom = member.offlineSince
      legs[index].offeredId = member.offeredId
      legs[index].isGivenUp = member.isGivenUp
      legs[index].replaces = member.replaces
      if member.state == .spare {
        takeSpare(slot)
      } else if !online.contains(slot) {
        precondition(member.state != .online, "an absent leg is not listed online any more")
        legs[index].phase = .offline
        legs[index].offlineState = member.state
      }
    }
    precondition(!online.isEmpty, "a mirror starts with at least one leg")
    // What the legs' labels list until the first commit; with a new generation to come, nobody
    // is acked before that is recorded (`isOpenRecorded`).
    membership.recordedOnline = online
    membership.mayBeListed = online
    membership.needsGeneration = !start.lost.isEmpty && keeps(.newGeneration)
    membership.needsCommit = !start.isReadOnly
  }

  private mutating func takeMap() {
    for page in 0..<start.layout.pageCount {
      if start.logKind == .core || !start.pagesToRewrite[page] {
        map.assumeDurable(page: page)
      } else {
        map.markDirty(page: page)
        log.wantsCommit = true
        if isLogged, !start.lost.isEmpty, keeps(.pagesBeforeGeneration) {
          log.openingPages.insert(page)
        }
      }
    }
    for page in start.unwrittenPages.indices where start.unwrittenPages[page] {
      map.suspectUnwritten(page: page)
    }
    for region in 0..<start.layout.regionCount
    where map.hasIntent(region) && keeps(.intentAtStart) {
      if map.isCovered(map.range(of: region), by: online) {
        if keeps(.absentLegsAreStaleAtStart) {
          map.setBits(UInt16(offlineMembers.bits), in: region)
          log.wantsCommit = true
        }
      }
      if online.count > 1 { map.markUnresolved(region) }
    }
  }

  // MARK: What others ask often

  /// Members that get nothing at present: their stale bits are set with every write.
  var offlineMembers: LegSet {
    var set = LegSet.none
    for index in 0..<LegSlot.count
    where legs[index].phase == .offline || legs[index].phase == .joining {
      set.insert(LegSlot(index))
    }
    return set
  }

  /// Whether the region map is written to the legs while the mirror runs.
  var isLogged: Bool { start.logKind == .disk && !start.isReadOnly }

  // MARK: The facade

  /// Takes a request in. Its buffer is the engine's until `Effect.release`.
  /// - Precondition: fewer than `requestsMax` requests are inside; the range is inside the
  ///   device and, for a read, aligned to the block size.
  public mutating func submit(_ request: MirrorRequest, now: Instant) {
    self.now = max(self.now, now)
    precondition(requestCount < requestsMax, "the submitter keeps to requestsMax")
    precondition(request.range.end <= start.layout.sizeBytes, "a validated range")
    precondition(request.token != .none, "a request has a token")
    requestCount += 1
    openRequests += 1
    let index = takeOperation()
    operations[index].token = request.token
    operations[index].range = request.range
    operations[index].isFUA = request.isFUA
    operations[index].mayPunchHoles = request.mayPunchHoles
    switch request.kind {
    case .read: operations[index].kind = .read
    case .write: operations[index].kind = .write
    case .zero: operations[index].kind = .zero
    case .trim: operations[index].kind = .trim
    case .flush: operations[index].kind = .flush
    }
    if request.kind == .flush {
      beginFlush(index)
    } else {
      precondition(
        request.kind != .read
          || (request.range.offset | request.range.count) & (blockBytes - 1) == 0,
        "reads are aligned")
      precondition(request.kind == .read || !start.isReadOnly, "a read-only mirror is not written")
      beginChunk(index)
    }
    work()
  }

  /// Takes the completion of an I/O in: 0, or a positive errno.
  /// - Precondition: `token` came with an `io` effect and is handed back for the first time.
  public mutating func completed(_ token: IOToken, error: Int32, now: Instant) {
    self.now = max(self.now, now)
    let index = Int(token.raw & 0xffff_ffff)
    precondition(index < records.count, "an unknown I/O token")
    let record = records[index]
    precondition(
      record.purpose != .free && UInt64(record.generation & 0xff_ffff) == token.raw >> 32,
      "an I/O completes once")
    giveBack(index)
    account(record, error: error)
    switch record.purpose {
    case .operation: operationCompleted(Int(record.subject), record: record, error: error)
    case .log: logPageCompleted(page: Int(record.subject), record.leg, error: error)
    case .label: labelCompleted(record.leg, error: error)
    case .flush: flushCompleted(record.leg, error: error)
    case .spent, .delivery: break
    case .free: preconditionFailure("a free record has no completion")
    }
    tellIdle(record.leg)
    work()
  }

  /// Tells the time; call it several times a second, and when `nextWake` has come.
  public mutating func tick(now: Instant) {
    self.now = max(self.now, now)
    failOverdueLegs()
    ageIntents()
    copier.measure(now: self.now)
    scrub.measure(now: self.now)
    copier.retry(now: self.now)
    pumpReplacements()
    fadeSpeeds()
    work()
  }

  /// Starts what has gathered: commits, flushes, copies, comparisons. Call it once after each batch of
  /// `submit` and `completed`, before the effects are drained.
  public mutating func settle(now: Instant) {
    self.now = max(self.now, now)
    nextWake = nil
    lookWhomToAvoid()
    if openRequests > 0 { rate.clientSeen(now: self.now) }
    startLogCommit()
    startLabelCommit()
    startFlushRound()
    pumpCopier()
    pumpScrub()
    // A copy window that was granted may have asked for nothing more than a flush.
    startFlushRound()
    pumpStop()
    hedgeReads()
    wakeScratchWaiters()
    work()
  }

  /// The next effect, in order; nil when all are drained.
  public mutating func popEffect() -> Effect? { effects.pop() }

  /// Asks for a `tick` at `instant`. For what `settle` calls: each `settle` asks anew, so that
  /// nobody has to take back a wish that came to nothing.
  mutating func wake(at instant: Instant) {
    // Never at once: whoever waits until then must not turn in circles.
    let soonest = now.advanced(byNanoseconds: 50 * Nanoseconds.microsecond)
    let wanted = max(instant, soonest)
    if let earlier = nextWake, earlier <= wanted { return }
    nextWake = wanted
  }

  // MARK: The loop

  /// Goes on with whatever can go on, until nothing can.
  mutating func work() {
    while true {
      if let index = ready.pop() {
        resume(Int(index))
      } else if let index = orphaned.pop() {
        orphanDecided(Int(index))
      } else {
        break
      }
    }
  }

  func effectRoom() -> Bool { effects.count < effects.capacity - 64 }

  mutating func emit(_ effect: Effect) { effects.push(effect) }

  mutating func note(_ event: MirrorEvent) {
    // Events must not push out what the data path needs.
    guard effects.capacity - effects.count > 128 else {
      eventsDropped += 1
      return
    }
    effects.push(.event(event))
  }
}
