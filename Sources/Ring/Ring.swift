// One io_uring instance: submissions in, completions out.
//
// Invariants
//  1. A ring belongs to the thread that made it (SINGLE_ISSUER); it is not Sendable and not copied.
//  2. Memory named in a submission is the caller's and stays valid until its completion is reaped.
//  3. Nothing allocates after `init`: completions are copied into one batch buffer.
//  4. Submissions are never lost and never refused: a full queue is handed to the kernel at once.
//     A kernel that takes none for ten seconds is beyond what a server can work around: a trap.
//
// Every `unsafe` below is a call of the C shim with the ring that this value owns, or a read of
// the batch buffer inside its bounds.

import CRing

/// One finished submission.
public struct Completion: Sendable {
  /// What the submission carried.
  public var userData: UInt64
  /// A count or descriptor, or a negative errno.
  public var result: Int32
  /// Raw flags of the shim.
  @usableFromInline internal var flags: UInt32

  @usableFromInline
  internal init(userData: UInt64, result: Int32, flags: UInt32) {
    self.userData = userData
    self.result = result
    self.flags = flags
  }

  /// The submission stays armed and gives more completions.
  @inlinable public var hasMore: Bool { flags & 2 != 0 }
  /// After a receive: more data waits in the socket.
  @inlinable public var socketHasMore: Bool { flags & 4 != 0 }
}

/// Options of a submission.
public struct SubmissionOptions: OptionSet, Sendable {
  /// NBDMIRROR_* option bits.
  public let rawValue: UInt32

  /// Wraps option bits.
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The descriptor is an index into the registered files.
  public static var fixedFile: SubmissionOptions { SubmissionOptions(rawValue: 1) }
  /// Receive: wait for data before the first try.
  public static var pollFirst: SubmissionOptions { SubmissionOptions(rawValue: 2) }
  /// Receive, send: complete only when all bytes moved, or at the end of the stream.
  public static var waitAll: SubmissionOptions { SubmissionOptions(rawValue: 4) }
  /// Write: durable on completion (`RWF_DSYNC`).
  public static var durable: SubmissionOptions { SubmissionOptions(rawValue: 8) }
  /// Not tried at once: a thread of the ring does it from the start. For files where the try may hang.
  @inlinable public static var async: SubmissionOptions { SubmissionOptions(rawValue: 16) }
}

/// How `fallocate` makes a range read as zeros; the file never grows by it.
public enum ZeroMode: Sendable {
  /// `FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`: storage stays allocated.
  case keepStorage
  /// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`: storage is given back.
  case punchHole

  /// The mode for fallocate(2).
  @inlinable public var rawValue: Int32 { self == .keepStorage ? 0x11 : 0x03 }
}

/// What the kernel granted, for `status` and tests.
public struct RingFeatures: OptionSet, Sendable {
  /// NBDMIRROR_HAS_* bits.
  public let rawValue: UInt32

  /// Wraps feature bits.
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Only one thread submits; the kernel may skip locks (6.0).
  public static let singleIssuer = RingFeatures(rawValue: 1)
  /// Completion work runs only when this thread asks (6.1).
  public static let deferTaskrun = RingFeatures(rawValue: 2)
  /// Completion work interrupts nobody (5.19).
  public static let coopTaskrun = RingFeatures(rawValue: 4)
  /// Pending completion work can be seen without a system call.
  public static let taskrunFlag = RingFeatures(rawValue: 8)
  /// The ring's own descriptor is registered (5.18).
  public static let registeredRing = RingFeatures(rawValue: 16)
  /// One accept submission serves many connections (5.19).
  public static let multishotAccept = RingFeatures(rawValue: 32)
  /// Receives can wait before the first try (5.19).
  public static let pollFirst = RingFeatures(rawValue: 64)
}

/// One io_uring instance, owned by one thread.
@safe
public struct Ring: ~Copyable {
  private let ring: OpaquePointer
  private let batch: UnsafeMutablePointer<nbdmirror_completion>

  /// Completions that one `reap` can give.
  public static var batchCount: Int { 256 }

  /// What the kernel granted.
  public let features: RingFeatures

  /// Makes a ring for the calling thread.
  ///
  /// - Parameters:
  ///   - entries: Submissions that fit before they are handed over; a power of two. The
  ///     completion queue is four times as large.
  ///   - without: Features to do without: tests walk the ways of older kernels with it.
  /// - Throws: `RingError`, a sentence for the administrator.
  public init(entries: Int, without: RingFeatures = []) throws(RingError) {
    precondition(entries > 0 && entries & (entries - 1) == 0, "entries: a power of two")
    var made: OpaquePointer?
    let result = unsafe nbdmirror_ring_create(
      UInt32(entries), without.rawValue, &made)
    guard result == 0, let ring = unsafe made else { throw RingError.creation(-result) }
    unsafe self.ring = ring
    features = unsafe RingFeatures(rawValue: nbdmirror_ring_features(ring))
    unsafe batch = UnsafeMutablePointer.allocate(capacity: Ring.batchCount)
    unsafe batch.initialize(repeating: nbdmirror_completion(), count: Ring.batchCount)
  }

  deinit {
    unsafe nbdmirror_ring_destroy(ring)
    unsafe batch.deallocate()
  }

  // MARK: Submissions

  @inline(__always)
  private func took(_ result: Int32) {
    precondition(result == 0, "the kernel takes no submissions (io_uring_enter)")
  }

  /// Does nothing; completes with 0.
  public func prepareNop(userData: UInt64) {
    unsafe took(nbdmirror_prepare_nop(ring, userData))
  }

  /// Reads from a file.
  public func prepareRead(
    _ file: Int32, into buffer: UnsafeMutableRawPointer, count: Int, offset: UInt64,
    options: SubmissionOptions = [], userData: UInt64
  ) {
    unsafe took(
      nbdmirror_prepare_read(
        ring, file, buffer, UInt32(count), offset, options.rawValue, userData))
  }

  /// Writes to a file.
  public func prepareWrite(
    _ file: Int32, from buffer: UnsafeRawPointer, count: Int, offset: UInt64,
    options: SubmissionOptions = [], userData: UInt64
  ) {
    unsafe took(
      nbdmirror_prepare_write(
        ring, file, buffer, UInt32(count), offset, options.rawValue, userData))
  }

  /// fdatasync.
  public func prepareSync(_ file: Int32, options: SubmissionOptions = [], userData: UInt64) {
    unsafe took(nbdmirror_prepare_sync(ring, file, options.rawValue, userData))
  }

  /// Makes a range of a file read as zeros.
  public func prepareZero(
    _ file: Int32, mode: ZeroMode, offset: UInt64, count: UInt64,
    options: SubmissionOptions = [], userData: UInt64
  ) {
    unsafe took(
      nbdmirror_prepare_allocate(
        ring, file, mode.rawValue, offset, count, options.rawValue, userData))
  }

  /// Receives from a socket. Never two at once on one stream.
  public func prepareReceive(
    _ socket: Int32, into buffer: UnsafeMutableRawPointer, count: Int,
    options: SubmissionOptions = [], userData: UInt64
  ) {
    unsafe took(
      nbdmirror_prepare_receive(
        ring, socket, buffer, UInt32(count), options.rawValue, userData))
  }

  /// Sends `count` parts (`struct iovec`) in order. `message` is room for a `struct msghdr`;
  /// both stay the kernel's until the completion. Never two at once on one stream.
  public func prepareSend(
    _ socket: Int32, message: UnsafeMutableRawPointer, parts: UnsafeMutableRawPointer,
    count: Int, options: SubmissionOptions = [], userData: UInt64
  ) {
    unsafe took(
      nbdmirror_prepare_send(
        ring, socket, message, parts, UInt32(count), options.rawValue, userData))
  }

  /// Accepts connections; without `hasMore` in a completion, prepare it again.
  public func prepareAccept(_ listener: Int32, userData: UInt64) {
    unsafe took(nbdmirror_prepare_accept(ring, listener, userData))
  }

  /// Completes once when the descriptor is readable.
  public func preparePoll(_ descriptor: Int32, userData: UInt64) {
    unsafe took(nbdmirror_prepare_poll(ring, descriptor, userData))
  }

  /// Cancels the submission that carries `target`, which then completes with ECANCELED (or with
  /// its own result, if that was faster).
  public func prepareCancel(_ target: UInt64, userData: UInt64) {
    unsafe took(nbdmirror_prepare_cancel(ring, target, userData))
  }

  /// Closes a descriptor.
  public func prepareClose(_ descriptor: Int32, userData: UInt64) {
    unsafe took(nbdmirror_prepare_close(ring, descriptor, userData))
  }

  /// Number of submissions prepared and not yet handed over.
  public var preparedCount: Int { unsafe Int(nbdmirror_ring_prepared(ring)) }

  // MARK: Files

  /// Registers a table of `count` files, all empty. False if the kernel cannot.
  public func registerFiles(count: Int) -> Bool {
    unsafe nbdmirror_ring_register_files(ring, UInt32(count)) == 0
  }

  /// Puts a descriptor (-1: nothing) into the table. False if the kernel refuses.
  public func updateFile(at index: Int, descriptor: Int32) -> Bool {
    unsafe nbdmirror_ring_update_file(ring, UInt32(index), descriptor) == 0
  }

  // MARK: Completions

  /// Hands everything prepared to the kernel and runs completion work that waits; does not block.
  public func submit() {
    let result = unsafe nbdmirror_ring_submit_and_wait(ring, 0, 0)
    precondition(result == 0, "io_uring_enter failed")
  }

  /// Hands everything prepared to the kernel and sleeps until a completion is there or
  /// `timeoutNanoseconds` passed (nil: for ever).
  public func submitAndWait(timeoutNanoseconds: UInt64?) {
    let timeout = timeoutNanoseconds.map { Int64(min($0, UInt64(Int64.max))) } ?? -1
    let result = unsafe nbdmirror_ring_submit_and_wait(ring, 1, timeout)
    precondition(result == 0, "io_uring_enter failed")
  }

  /// Whether a completion waits or its work could run: memory reads, no system call.
  public var hasWork: Bool { unsafe nbdmirror_ring_has_work(ring) }

  /// Watches for work for up to `nanoseconds` without a system call; true as soon as there is.
  public func spin(nanoseconds: UInt64) -> Bool {
    unsafe nbdmirror_ring_spin(ring, nanoseconds)
  }

  /// Copies the completions that wait into the batch; `completion(at:)` reads them. Fewer than
  /// `batchCount` means that none is left.
  public func reap() -> Int {
    unsafe Int(nbdmirror_ring_reap(ring, batch, UInt32(Ring.batchCount)))
  }

  /// The completion `index` of the last `reap`.
  public func completion(at index: Int) -> Completion {
    precondition(index >= 0 && index < Ring.batchCount, "outside the batch")
    let entry = unsafe batch[index]
    return Completion(userData: entry.user_data, result: entry.result, flags: entry.flags)
  }
}

/// The clock of the server: CLOCK_MONOTONIC in nanoseconds.
public func monotonicNanoseconds() -> UInt64 { nbdmirror_monotonic_nanoseconds() }

/// Tells the kernel that this process is part of the writeback path (`PR_SET_IO_FLUSHER`), so that
/// its memory allocations never wait for a file system that lies on a device it serves. False
/// without the privilege.
public func becomeIOFlusher() -> Bool { nbdmirror_set_io_flusher() == 0 }
