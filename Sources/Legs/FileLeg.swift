// A leg that is a file or a block device, as the performers of I/O see it.
//
// A `FileLeg` is one 64-bit word, so that every reactor can load it from the leg table without a
// lock. It knows how to start each kind of I/O on a ring, and how to do it at once.
//
// Two ways of performing:
//  * disks go through the ring, all legs of a write in the same submission;
//  * file systems in memory (tmpfs, ramfs) have no non-blocking path in the kernel (FMODE_NOWAIT is
//    not set: io_uring hands every request to a worker thread, two thread switches each), so small
//    I/O on them is done at once by the reactor (`isMemory`).
//
// Errors are positive errno values; 0 is success. A read that meets the end of the file is EIO: a
// leg is never shorter than its label says.
//
// Every `unsafe` here passes the caller's buffer on, whose lease the caller holds.

import Glibc
import Ring

/// How zeros get into a range of a leg.
public enum ZeroWay: UInt8, Sendable, BitwiseCopyable {
  /// `FALLOC_FL_ZERO_RANGE`.
  case keepStorage
  /// `FALLOC_FL_PUNCH_HOLE`.
  case punchHole
  /// By writing zeros: the file system can do neither.
  case write
}

/// A leg's descriptor and what is known about it.
@frozen
public struct FileLeg: Equatable, Sendable, BitwiseCopyable {
  /// Low half: the descriptor; then trait bits.
  @usableFromInline internal var word: UInt64

  @usableFromInline static var memoryBit: UInt64 { 1 << 32 }
  @usableFromInline static var noZeroRangeBit: UInt64 { 1 << 33 }
  @usableFromInline static var noPunchHoleBit: UInt64 { 1 << 34 }
  @usableFromInline static var attachedBit: UInt64 { 1 << 35 }
  @usableFromInline static var fastHoleBit: UInt64 { 1 << 36 }
  @usableFromInline static var fileBit: UInt64 { 1 << 37 }
  @usableFromInline static var asyncBit: UInt64 { 1 << 38 }

  /// Reads and writes of up to this many bytes are done at once on file systems in memory.
  ///
  /// Measured on 2 cores, two legs on tmpfs, unix socket, against the ring: 4 KiB at depth 32
  /// 143k instead of 100k reads/s and 132k instead of 96k writes/s, at depth 1 32k instead of 22k
  /// reads/s. At 256 KiB and depth 8 the ring's worker threads are faster (17.6k instead of 10.3k
  /// reads/s): they copy beside the reactor.
  @inlinable public static var directBytesMax: UInt64 { 64 << 10 }

  /// No leg.
  @inlinable public static var none: FileLeg { FileLeg(word: 0xffff_ffff) }

  @usableFromInline init(word: UInt64) { self.word = word }

  /// Looks at an open file.
  public init(descriptor: Int32) {
    precondition(descriptor >= 0, "a leg has a descriptor")
    word = UInt64(UInt32(bitPattern: descriptor)) | FileLeg.attachedBit
    // Device nodes lie on a devtmpfs, which calls itself tmpfs: what they stand for does not.
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { return }
    // A block device punches a hole only if it does not have to write the zeros itself.
    if FileCalls.canPunchHole(descriptor, at: FileLeg.reservedOffset) {
      word |= FileLeg.fastHoleBit
    }
    guard status.st_mode & S_IFMT == S_IFREG else { return }
    word |= FileLeg.fileBit
    switch FileCalls.fileSystem(descriptor) {
    case 0x0102_1994, 0x8584_58f6: word |= FileLeg.memoryBit  // TMPFS_MAGIC, RAMFS_MAGIC
    // io_uring asks the file's `poll` whether it can be tried at once, and FUSE asks its program:
    // one that hangs would hang the reactor (promise P5).
    case 0x6573_5546: word |= FileLeg.asyncBit  // FUSE_SUPER_MAGIC
    default: break
    }
  }

  /// The open file.
  @inlinable public var descriptor: Int32 { Int32(bitPattern: UInt32(truncatingIfNeeded: word)) }

  /// Whether there is a leg.
  @inlinable public var isAttached: Bool { word & FileLeg.attachedBit != 0 }

  /// Whether the file lies in memory: I/O on it is best done at once.
  @inlinable public var isMemory: Bool { word & FileLeg.memoryBit != 0 }

  /// How to make a range zero, after what the file refused so far.
  public func zeroWay(mayPunchHoles: Bool) -> ZeroWay {
    let canZero = word & FileLeg.noZeroRangeBit == 0
    let canPunch = word & FileLeg.noPunchHoleBit == 0
    if mayPunchHoles { return canPunch ? .punchHole : canZero ? .keepStorage : .write }
    return canZero ? .keepStorage : canPunch ? .punchHole : .write
  }

  /// Whether making zeros is sure to be faster than writing them. A file may keep the storage without
  /// writing; what a block device does then is its own affair.
  func isZeroingFast(mayPunchHoles: Bool) -> Bool {
    word & FileLeg.fastHoleBit != 0 && (mayPunchHoles || word & FileLeg.fileBit != 0)
  }

  /// In a PV, 4 KiB where nothing ever stands: what a trial punches.
  private static let reservedOffset: UInt64 = 64 << 10

  /// The leg without a way that its file refused (EOPNOTSUPP).
  func refusing(_ way: ZeroWay) -> FileLeg {
    switch way {
    case .keepStorage: FileLeg(word: word | FileLeg.noZeroRangeBit)
    case .punchHole: FileLeg(word: word | FileLeg.noPunchHoleBit)
    case .write: self
    }
  }

  // MARK: On the ring

  @inlinable var options: SubmissionOptions { word & FileLeg.asyncBit == 0 ? [] : .async }

  /// Starts a read.
  @inlinable
  public func prepareRead(
    _ ring: borrowing Ring, into buffer: UnsafeMutableRawPointer, count: Int, offset: UInt64,
    userData: UInt64
  ) {
    unsafe ring.prepareRead(
      descriptor, into: buffer, count: count, offset: offset, options: options, userData: userData)
  }

  /// Starts a write.
  @inlinable
  public func prepareWrite(
    _ ring: borrowing Ring, from buffer: UnsafeRawPointer, count: Int, offset: UInt64,
    isDurable: Bool, userData: UInt64
  ) {
    unsafe ring.prepareWrite(
      descriptor, from: buffer, count: count, offset: offset,
      options: isDurable ? options.union(.durable) : options, userData: userData)
  }

  /// Starts a flush (fdatasync).
  public func prepareFlush(_ ring: borrowing Ring, userData: UInt64) {
    ring.prepareSync(descriptor, userData: userData)
  }

  /// Starts zeroing. `way` is not `.write`: that is a write of zeros.
  public func prepareZero(
    _ ring: borrowing Ring, way: ZeroWay, offset: UInt64, count: UInt64, userData: UInt64
  ) {
    precondition(way != .write, "zeros are written from a buffer")
    ring.prepareZero(
      descriptor, mode: way == .punchHole ? .punchHole : .keepStorage, offset: offset,
      count: count, userData: userData)
  }

  // MARK: At once

  /// Reads all `count` bytes. 0 or an errno.
  public func readNow(
    into buffer: UnsafeMutableRawPointer, count: Int, offset: UInt64
  ) -> Int32 {
    var done = 0
    while done < count {
      let result = unsafe FileCalls.read(
        descriptor, into: buffer + done, count: count - done, offset: offset + UInt64(done))
      guard result > 0 else { return result == 0 ? 5 : Int32(-result) }
      done += result
    }
    return 0
  }

  /// Writes all `count` bytes. 0 or an errno.
  public func writeNow(
    from buffer: UnsafeRawPointer, count: Int, offset: UInt64, isDurable: Bool
  ) -> Int32 {
    var done = 0
    while done < count {
      let result = unsafe FileCalls.write(
        descriptor, from: buffer + done, count: count - done, offset: offset + UInt64(done),
        isDurable: isDurable)
      guard result > 0 else { return result == 0 ? 5 : Int32(-result) }
      done += result
    }
    return 0
  }

  /// fdatasync. 0 or an errno.
  public func flushNow() -> Int32 { -FileCalls.sync(descriptor) }
}
