// One slot of the operation table: a client request, or a window of the copier, a read repair or the
// scrub.
//
// An operation is worked off in chunks: a chunk lies inside the I/O limits, is either a run of
// whole blocks or one partial block, and holds the range lock on its own. A slot is free again
// only when the request has been answered *and* the kernel has given back every I/O of it.
//
//   free -> locking -> (awaitingOpen) -> (awaitingLog) -> (awaitingScratch) -> (reading) -> writing
//        -> (awaitingStale) -> (awaitingAck) -> next chunk: locking ... -> (flushing) -> answered -> free
//
// | from            | to              | performed by                                     |
// | locking         | awaitingOpen... | Engine.granted                                   |
// | awaitingOpen    | awaitingLog...  | Engine.labelRecorded, when the label is durable  |
// | awaitingLog     | writing         | Engine.logCommitted                              |
// | reading         | writing/answered| Engine.readFinished                              |
// | writing         | awaitingAck     | Engine.decideWrite, when all legs have answered  |
// | awaitingAck     | next            | Engine.labelRecorded                             |
// | flushing        | awaitingAck     | Engine.flushRoundFinished                        |

import Base

struct Operation: BitwiseCopyable {
  enum Kind: UInt8 {
    case read, write, zero, trim, flush, copy, repair, scrub
  }

  enum Phase: UInt8 {
    /// Not in use.
    case free
    /// Waits for the range lock (or holds it and is about to go on).
    case locking
    /// Waits for the label that says the mirror is open.
    case awaitingOpen
    /// Waits until `intent` and the stale bits are durable.
    case awaitingLog
    /// Waits for a scratch block for a partial block.
    case awaitingScratch
    /// A read is in flight: the client's, a block to merge into, the source of a copy, or what a
    /// scrub compares.
    case reading
    /// Writes are in flight.
    case writing
    /// Waits until the stale bits of a leg that missed this write are durable.
    case awaitingStale
    /// Waits until the durable membership no longer lists a leg that missed this.
    case awaitingAck
    /// Waits for a flush round.
    case flushing
    /// The client has its answer; I/O is still with the kernel.
    case answered
  }

  var kind: Kind = .read
  var phase: Phase = .free
  var isFUA = false
  var mayPunchHoles = false
  /// The chunk is one partial block that is merged in scratch memory.
  var isPartial = false
  /// The block to merge into has been read (into `scratchBlock`).
  var isBlockRead = false
  /// The chunk is a run of unwritten regions that are being zeroed for a write (UnwrittenPath).
  var isPreparing = false
  /// The lock on the chunk is exclusive.
  var isExclusive = false
  /// A copy window whose source reads as zeros: its targets get a hole.
  var isZeros = false
  /// The chunk's regions are counted in `pendingWrites`.
  var holdsRegions = false

  var token = RequestToken.none
  /// The whole request.
  var range = ByteRange(offset: 0, count: 0)
  /// Bytes of `range` that are done.
  var cursor: UInt64 = 0
  /// The block-aligned range of the current chunk: what is locked, read and written.
  var chunk = ByteRange(offset: 0, count: 0)
  /// How many bytes of the request the chunk is for (less than `chunk.count` if partial).
  var chunkRequestBytes: UInt64 = 0

  /// Arrival order at the range lock.
  var lockSequence: UInt64 = 0
  /// Earlier conflicting holders or waiters of the range lock.
  var blockers: Int32 = 0

  /// I/O in flight that belongs to this operation, also of legs that nobody waits for any more.
  var pendingIO: Int32 = 0
  /// Legs whose completion is awaited.
  var awaited = LegSet.none
  /// Legs that have the chunk.
  var written = LegSet.none
  /// Legs that failed the chunk.
  var failed = LegSet.none
  /// Legs that need not have it: stale there by the durable map, or not members when it began.
  var excused = LegSet.none
  /// While preparing: bytes of the chunk that are zeroed, and legs that have had all zeros so far
  /// and were online all the time.
  var preparedBytes: UInt64 = 0
  var prepared = LegSet.none
  /// Legs that a read was tried on in vain.
  var tried = LegSet.none
  /// Legs that each read a piece of the chunk; none: one leg reads it as a whole.
  var asked = LegSet.none
  /// The second I/O of a hedged read while it is in flight, else -1; and the leg that was slow. The
  /// second I/O's unit is `scratchBlock`.
  var hedgeRecord: Int32 = -1
  var hedgedLeg = LegSlot(0)
  /// Bytes of the next chunk of a read that no leg could read as a whole, at most; 0: no limit.
  var readLimit: UInt64 = 0
  /// Every failure so far was ENOSPC.
  var onlyNoSpace = true
  /// An operation of the engine itself: nobody waits for an answer.
  var isInternal: Bool { kind == .copy || kind == .repair || kind == .scrub }

  /// What the client will be told.
  var error: Int32 = 0
  /// Scratch block of a partial chunk, copy window of a copy, unit of a hedged read; -1: none.
  var scratchBlock: Int32 = -1
  /// Neighbours in the list of lock holders and waiters; -1: none.
  var previousLocked: Int32 = -1
  var nextLocked: Int32 = -1
}

/// What an I/O in flight is for.
struct IORecord: BitwiseCopyable {
  enum Purpose: UInt8 {
    case free, operation, log, label, flush
    /// A hedged read that nobody waits for: only its scratch unit does.
    case spent
    /// No I/O: data on its way from scratch memory into a request's buffer.
    case delivery
  }

  var purpose: Purpose = .free
  var leg: LegSlot = LegSlot(0)
  var kind: IOKind = .read
  /// Operation index, or page of the batch, by purpose.
  var subject: Int32 = 0
  /// Scratch unit that the I/O uses; -1: none.
  var scratchUnit: Int32 = -1
  /// Rises at each use, so that a stale token traps.
  var generation: UInt32 = 0
  /// When it was issued.
  var start = Instant.zero
  /// Client reads: bytes, whether it goes on where the last read of the leg ended, and its
  /// neighbours in the list of the leg's reads; -1: none.
  var bytes: UInt32 = 0
  var isContinuing = false
  var isListed = false
  /// It is the second I/O of a hedged read.
  var isHedge = false
  var older: Int32 = -1
  var newer: Int32 = -1
  /// Next free record; only while free.
  var nextFree: Int32 = -1

  /// It is in use from now on.
  mutating func take(
    _ purpose: Purpose, _ kind: IOKind, on leg: LegSlot, unit: Int32, now: Instant
  ) {
    self.purpose = purpose
    self.kind = kind
    self.leg = leg
    scratchUnit = unit
    start = now
    isHedge = false
  }

  /// It is the newest in the list of its leg's reads.
  mutating func list(bytes: UInt64, isContinuing: Bool, older: Int32) {
    self.bytes = UInt32(bytes)
    self.isContinuing = isContinuing
    isListed = true
    self.older = older
    newer = -1
  }
}
