// Who is a member, as it is (legs' phases), as it will be (staged label) and as it is recorded.
//
// 1. `recordedOnline` is what the newest label that is durable on every online leg lists online;
//    an ack waits until every leg in it has the write, or is durably stale there (`excused`).
// 2. One label commit is in flight; changes meanwhile ask for another one after it.
// 3. A label that lists another online set than the one before has a new generation id, made
//    here, and is written before anything is acked under it.
// 4. Nothing of the working state is taken from the staged label before it is durable.

import Base
import MirrorFormat

struct Membership {
  var lineage: Lineage
  var recordedOnline: LegSet
  /// Every leg that the label of some online leg may list online: those of the last one that was
  /// recorded, and of all that were tried since.
  var mayBeListed: LegSet
  /// Sequence of the next label, the same on every leg and above all that any leg has.
  var nextSequence: UInt64
  /// Legs that the same label calls syncing: with a log in memory that is all a crash leaves of
  /// what they lack.
  var recordedSyncing = LegSet.none
  /// The label that says the mirror is open (not clean) is durable on every leg that it lists; no data
  /// is written before.
  var isOpenRecorded = false
  /// What the current generation lists, if no commit of it has succeeded yet.
  var unrecordedOnline: LegSet?
  var needsCommit = false
  var needsGeneration = false
  /// The next label says `clean`: only the stop asks for it, when everything else is at rest.
  var wantsClean = false
  var isCleanRecorded = false
  /// Not before this time, after a failure.
  var retryAt = Instant.zero

  // The commit in flight.
  var isInFlight = false
  var stagedOnline = LegSet.none
  var stagedJoining = LegSet.none
  var stagedSyncing = LegSet.none
  var stagedGeneration: UInt64 = 0
  var stagedClean = false
  var stagedMembers: [Member] = []
  /// The commit is recorded and writes the other copy of the label.
  var isSecondCopy = false
  var awaited = LegSet.none
  var written = LegSet.none
  var failed = LegSet.none

  init(lineage: Lineage, recordedOnline: LegSet, nextSequence: UInt64) {
    self.lineage = lineage
    self.nextSequence = nextSequence
    self.recordedOnline = recordedOnline
    mayBeListed = recordedOnline
  }
}

/// The commit of region map pages: one batch in flight, the rest gathers.
struct RegionLog: ~Copyable {
  static let batchPagesMax = 32

  /// Highest sequence per page.
  var sequences: [UInt64]
  /// Per page, bit n: copy 1 is the newest on slot n.
  var copies: [UInt8]
  /// Operations parked until bits are durable.
  var waiters: FixedFIFO<Int32>
  /// Pages that go to the legs, as they were elected, before the label of a degraded start.
  var openingPages: RegionBits
  /// Pages that the joining legs have not all got yet.
  var joinPages: RegionBits
  /// Every page goes to a joining leg twice, so into both copies: what it held before, with
  /// whatever sequence, is gone, and no page of it is left with one valid copy.
  var joinPass = 0
  /// Dirty pages should be written although nobody waits for them.
  var wantsCommit = false
  /// Not before this time, after a failure without waiters.
  var retryAt = Instant.zero

  var isInFlight = false
  var batch: [Int32] = []
  var batchUnits: [Int32] = []
  var legs = LegSet.none
  var awaited = LegSet.none
  var failed = LegSet.none
  var outstanding = [Int32](repeating: 0, count: LegSlot.count)

  init(sequences: [UInt64], copies: [UInt8], operations: Int) {
    joinPages = RegionBits(regions: sequences.count)
    openingPages = RegionBits(regions: sequences.count)
    self.sequences = sequences
    self.copies = copies
    waiters = FixedFIFO(capacity: operations, filler: -1)
    batch.reserveCapacity(RegionLog.batchPagesMax)
    batchUnits.reserveCapacity(RegionLog.batchPagesMax)
  }
}

/// The flush of all online legs: one round in flight, who comes meanwhile joins the next.
struct FlushRounds: ~Copyable {
  var isInFlight = false
  var awaited = LegSet.none
  var flushed = LegSet.none
  var failed = LegSet.none
  var excused = LegSet.none
  /// Operations served by the round in flight, and by the next.
  var current: FixedFIFO<Int32>
  var next: FixedFIFO<Int32>
  /// What the engine itself wants of the round in flight, and of the next.
  var currentPurposes = Purposes()
  var nextPurposes = Purposes()
  /// The last leg's flush failed: what it held in its cache may be lost.
  var isLatched = false
  /// The legs whose flush failed so.
  var latchedLegs = LegSet.none

  /// Engine-internal reasons for a round.
  struct Purposes: BitwiseCopyable {
    var clearsIntent = false
    var finishesCopies = false
    var resolvesAlone = false
    var stops = false

    var isEmpty: Bool { !clearsIntent && !finishesCopies && !resolvesAlone && !stops }

    mutating func formUnion(_ others: Purposes) {
      clearsIntent = clearsIntent || others.clearsIntent
      finishesCopies = finishesCopies || others.finishesCopies
      resolvesAlone = resolvesAlone || others.resolvesAlone
      stops = stops || others.stops
    }
  }

  init(operations: Int) {
    current = FixedFIFO(capacity: operations, filler: -1)
    next = FixedFIFO(capacity: operations, filler: -1)
  }
}
