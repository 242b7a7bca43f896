// What goes into the engine and what comes out: plain values, a closed list.
//
// Into the engine go requests, completions, commands and ticks, each with the time. Out come
// effects, in an order that whoever performs them keeps for the effects of one owner. The engine
// never performs anything: production and the simulator drain the same list.
//
// Ownership of memory. A request's payload belongs to whoever submitted it and must stay where it
// is from `submit` until `Effect.release`. Scratch memory belongs to the engine (`Scratch`); an
// effect lends a part of it to whoever performs the I/O until the completion is handed back.

import Base

/// What the submitter calls a request; opaque to the engine, given back in effects.
///
/// The server puts the reactor and its slot into it. 0 means "nobody" (`RequestToken.none`).
public struct RequestToken: BitwiseCopyable, Equatable, Hashable, Sendable {
  /// The submitter's own value.
  public var raw: UInt64

  /// Wraps the submitter's value.
  @inlinable public init(raw: UInt64) { self.raw = raw }

  /// No request: I/O that the engine does for itself; any thread may perform it.
  @inlinable public static var none: RequestToken { RequestToken(raw: 0) }
}

/// One client request, already validated: inside the device, permitted, flags known.
public struct MirrorRequest: BitwiseCopyable, Sendable {
  /// What a client can ask of the mirror.
  public enum Kind: UInt8, BitwiseCopyable, Sendable {
    /// Read into the request's buffer; the range is aligned to the block size.
    case read
    /// Write from the request's buffer; any range.
    case write
    /// Make the range read as zeros; any range.
    case zero
    /// Like `zero`, but partial blocks at the ends are left alone (a hint, as NBD says).
    case trim
    /// Make every write acked before durable on every online leg. The range is empty.
    case flush
  }

  /// What to do.
  public var kind: Kind
  /// Where.
  public var range: ByteRange
  /// Durable on every online leg before the reply.
  public var isFUA: Bool
  /// `zero` and `trim`: storage may be given back.
  public var mayPunchHoles: Bool
  /// The submitter's name for the request; never `.none`.
  public var token: RequestToken

  /// Describes a request.
  public init(
    kind: Kind, range: ByteRange, isFUA: Bool = false, mayPunchHoles: Bool = false,
    token: RequestToken
  ) {
    self.kind = kind
    self.range = range
    self.isFUA = isFUA
    self.mayPunchHoles = mayPunchHoles
    self.token = token
  }
}

/// The engine's name for one I/O on a leg; handed back with its completion, once.
public struct IOToken: BitwiseCopyable, Equatable, Hashable, Sendable {
  /// Slot and generation inside the engine; a stale token traps.
  public var raw: UInt64

  /// Wraps a raw token, as it came through a completion queue. Bits 56...63 are always 0.
  @inlinable public init(raw: UInt64) { self.raw = raw }
}

/// Memory that an I/O reads into or writes from.
public enum BufferReference: BitwiseCopyable, Equatable, Sendable {
  /// The request's own buffer, `offset` bytes from the byte that stands for `range.offset`.
  case request(RequestToken, offset: UInt64)
  /// Engine memory, `offset` bytes from `Scratch.base`; always 4 KiB aligned.
  case scratch(offset: Int)
  /// No data: flush, zero.
  case none
}

/// What an I/O does on a leg.
public enum IOKind: UInt8, BitwiseCopyable, Sendable {
  /// Read `count` bytes; a short read at the end of the leg is an error (`EIO`).
  case read
  /// Write `count` bytes.
  case write
  /// fdatasync.
  case flush
  /// Make the range read as zeros; the storage stays allocated where the leg can tell.
  case zero
  /// Make the range read as zeros; storage may be given back.
  case discard
}

/// One I/O on a leg.
public struct LegIO: BitwiseCopyable, Sendable {
  /// To be handed back with the completion.
  public var token: IOToken
  /// The leg.
  public var leg: LegSlot
  /// What to do.
  public var kind: IOKind
  /// Write only: durable when it completes (`RWF_DSYNC`).
  public var isDurable: Bool
  /// Byte offset on the PV itself (label, map and data offsets are already added).
  public var offset: UInt64
  /// Bytes; 0 for a flush. Reads and writes are at most `Engine.ioBytesMax`.
  public var count: UInt64
  /// The memory.
  public var buffer: BufferReference
  /// The request whose submitter should perform this I/O; `.none`: anybody.
  public var owner: RequestToken
}

/// How a request ended, as an errno of the protocol: 0, EIO (5), ENOSPC (28), ESHUTDOWN (108).
public typealias ReplyError = Int32

/// What the engine wants done.
public enum Effect: BitwiseCopyable, Sendable {
  /// Start this I/O; hand its completion back with `Engine.completed`.
  case io(LegIO)
  /// Copy bytes of the request's buffer (from `requestOffset` bytes after `range.offset`) into
  /// scratch memory, before any later effect of the same owner.
  case merge(owner: RequestToken, requestOffset: UInt64, scratchOffset: Int, count: Int)
  /// Zero these bytes of scratch memory, before any later effect of the same owner.
  case mergeZeros(owner: RequestToken, scratchOffset: Int, count: Int)
  /// Copy scratch memory into the request's buffer (to `requestOffset` bytes after `range.offset`)
  /// before any later effect of the same owner; then hand the token back with `Engine.completed`,
  /// error 0, as for an I/O: the memory is lent until then.
  case deliver(
    IOToken, owner: RequestToken, requestOffset: UInt64, scratchOffset: Int, count: Int)
  /// Zero these bytes of the request's buffer (from `requestOffset` bytes after `range.offset`),
  /// before any later effect of the same owner: a read of what was never written.
  case fillZeros(owner: RequestToken, requestOffset: UInt64, count: UInt64)
  /// Give the request a fresh buffer of the same size before any later effect of the request: an
  /// I/O of a failed leg may still write into the old one, which is kept until `release`.
  case replaceBuffer(RequestToken)
  /// Answer the client. The buffer of a read holds the data if `error` is 0.
  case reply(RequestToken, error: ReplyError)
  /// The engine and the kernel are done with the request's buffer. Comes after its reply, at once
  /// or much later: a leg that hangs keeps the buffer leased until the kernel gives it back.
  case release(RequestToken)
  /// Something an administrator wants to know.
  case event(MirrorEvent)
  /// The leg is offline and no I/O on it is in flight: whoever holds its file may close it. Comes
  /// exactly once each time a leg goes offline.
  case legIdle(LegSlot)
}

/// Something an administrator wants to know; the texts are the control plane's.
public struct MirrorEvent: BitwiseCopyable, Sendable {
  /// What happened.
  public enum Kind: UInt8, BitwiseCopyable, Sendable {
    /// A leg went offline by an error; `detail` is the errno (110: it did not answer in time).
    case legFailed
    /// A leg was removed by command.
    case legRemoved
    /// A leg is online again, or for the first time; `detail` is its stale bytes.
    case legOnline
    /// Copying started; `detail` is the bytes to copy.
    case resyncStarted
    /// Copying ended; `detail` is the bytes copied.
    case resyncDone
    /// Regions whose legs may have differed after a crash are equal again; `detail`: bytes.
    case recoveryDone
    /// A label with a new generation is durable; `detail` is its counter.
    case generationRecorded
    /// A read failed on a leg and was served by another; `detail` is the errno.
    case readRedirected
    /// A block could be read from no leg; `detail` is the offset.
    case readFailed
    /// The last leg's flush failed; flushes fail until it is cleared by command.
    case flushLatched
    /// Blocks could not be copied by a resync, no leg that has them could read them; `detail` is
    /// their offset. Once per run of neighbouring blocks.
    case copyFailed
    /// A spare is no spare any more: its label could not be written; `detail` is the errno.
    case spareDropped
    /// A leg is being brought in in the place of another one, whose slot is `detail`.
    case replaceStarted
    /// The leg was replaced and removed; `detail` is the slot of the one in its place.
    case legReplaced
    /// The leg, which was to replace another one, failed; that one (`detail`) stays.
    case replaceEnded
    /// Blocks that a leg could not read were written again and read back; `detail`: their offset.
    case readRepaired
    /// A scrub found legs that differ; `detail` is the offset, `leg` the one that differs from the
    /// others if it is one. Once per range, up to 64 of them.
    case scrubMismatch
    /// A scrub could not read a leg; `detail` is the offset.
    case scrubReadFailed
    /// A scrub is at its end; `detail` is the bytes that differed.
    case scrubDone

    /// The kind in a word or two, for traces.
    public var word: StaticString {
      switch self {
      case .legFailed: "leg failed"
      case .legRemoved: "leg removed"
      case .legOnline: "leg online"
      case .resyncStarted: "resync started"
      case .resyncDone: "resync done"
      case .recoveryDone: "recovery done"
      case .generationRecorded: "generation recorded"
      case .readRedirected: "read redirected"
      case .readFailed: "read failed"
      case .flushLatched: "flush latched"
      case .copyFailed: "copy failed"
      case .spareDropped: "spare dropped"
      case .replaceStarted: "replace started"
      case .legReplaced: "leg replaced"
      case .replaceEnded: "replace ended"
      case .readRepaired: "read repaired"
      case .scrubMismatch: "scrub mismatch"
      case .scrubReadFailed: "scrub read failed"
      case .scrubDone: "scrub done"
      }
    }
  }

  /// What happened.
  public var kind: Kind
  /// The leg it happened to, if it was one.
  public var leg: LegSlot?
  /// A number whose meaning the kind gives.
  public var detail: UInt64

  /// Describes an event.
  public init(_ kind: Kind, leg: LegSlot? = nil, detail: UInt64 = 0) {
    self.kind = kind
    self.leg = leg
    self.detail = detail
  }
}
