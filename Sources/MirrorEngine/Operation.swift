// One slot of the operation table: a client request, or a copy window of the engine itself.
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
    case read, write, zero, trim, flush, copy
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
    /// A read is in flight: the client's, a block to merge into, or the source of a copy.
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
  /// Every failure so far was ENOSPC.
  var onlyNoSpace = true
  /// What the client will be told.
  var error: Int32 = 0
  /// Scratch block of a partial chunk, copy window of a copy; -1: none.
  var scratchBlock: Int32 = -1
  /// Neighbours in the list of lock holders and waiters; -1: none.
  var previousLocked: Int32 = -1
  var nextLocked: Int32 = -1
}

/// What an I/O in flight is for.
struct IORecord: BitwiseCopyable {
  enum Purpose: UInt8 {
    case free, operation, log, label, flush
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
  /// Next free record; only while free.
  var nextFree: Int32 = -1
}
