// The engine's own I/O memory: copy windows, metadata pages, blocks of read-modify-write.

/// Page-aligned memory that effects lend to whoever performs them.
///
/// A part of it is written by the engine while it encodes metadata (the engine's caller holds
/// the engine then), and by the performer of an I/O between the effect and its completion; the
/// engine does not touch it in between.
@safe
public final class Scratch: @unchecked Sendable {  // Owner of each part: see above.
  /// First byte; aligned to 4 KiB.
  public let base: UnsafeMutableRawPointer
  /// Size in bytes.
  public let count: Int

  /// Takes `count` bytes; pages are not resident until they are used.
  public init(count: Int) {
    self.count = count
    unsafe base = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 4096)
  }

  deinit { unsafe base.deallocate() }

  /// Lets `body` write `count` bytes from `offset` on.
  /// - Precondition: the range lies inside, and no I/O uses it.
  public func withBytes(
    at offset: Int, count: Int, _ body: (inout MutableRawSpan) -> Void
  ) {
    precondition(offset >= 0 && count >= 0 && offset <= self.count - count, "outside the scratch")
    // The memory lives as long as `self`; the caller owns the range (class comment).
    var span = unsafe MutableRawSpan(_unsafeStart: base + offset, byteCount: count)
    body(&span)
  }

  /// The 16-bit little-endian word at `offset`: for tests that look at what is to be written.
  /// - Precondition: it lies inside, and nobody writes it now.
  public func word(at offset: Int) -> UInt16 {
    precondition(offset >= 0 && offset <= count - 2, "outside the scratch")
    // The caller owns the range (class comment).
    return UInt16(littleEndian: unsafe base.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// Bytes compared at once; ranges that are compared are multiples of it (blocks are).
  private static var stepBytes: Int { 64 }

  /// Whether `count` bytes from `offset` on are all zero. Ends at the first that is not: data
  /// costs nothing, zeros some 50 us per MiB.
  /// - Precondition: the range lies inside, in steps of 64 bytes, and no I/O uses it.
  func isZero(at offset: Int, count: Int) -> Bool {
    precondition(offset >= 0 && count >= 0 && offset <= self.count - count, "outside the scratch")
    precondition((offset | count) & (Scratch.stepBytes - 1) == 0, "whole steps")
    var position = offset
    let end = offset + count
    while position < end {
      var any: UInt64 = 0
      for word in 0..<8 {
        // The caller owns the range (class comment); the memory is aligned to 4 KiB.
        any |= unsafe base.load(fromByteOffset: position + 8 * word, as: UInt64.self)
      }
      if any != 0 { return false }
      position += Scratch.stepBytes
    }
    return true
  }

  /// Whether the `count` bytes from `left` on are those from `right` on.
  /// - Precondition: as for `isZero`, for both ranges.
  func isEqual(_ left: Int, _ right: Int, count: Int) -> Bool {
    precondition(left >= 0 && right >= 0 && count >= 0, "outside the scratch")
    precondition(max(left, right) <= self.count - count, "outside the scratch")
    precondition((left | right | count) & (Scratch.stepBytes - 1) == 0, "whole steps")
    var position = 0
    while position < count {
      var any: UInt64 = 0
      for word in 0..<8 {
        let step = position + 8 * word
        // As above, for both ranges.
        any |=
          unsafe base.load(fromByteOffset: left + step, as: UInt64.self)
          ^ base.load(fromByteOffset: right + step, as: UInt64.self)
      }
      if any != 0 { return false }
      position += Scratch.stepBytes
    }
    return true
  }
}
