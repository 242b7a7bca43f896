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
}
