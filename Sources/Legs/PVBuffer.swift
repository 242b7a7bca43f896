// Memory for direct I/O.

import Base

/// Bytes whose address is a multiple of 4096, as O_DIRECT wants them.
@safe
struct PVBuffer: ~Copyable {
  private let base: UnsafeMutableRawPointer
  /// Size in bytes.
  let count: Int

  /// `count` zero bytes.
  init(count: Int) {
    self.count = count
    unsafe base = UnsafeMutableRawPointer.allocate(byteCount: max(count, 1), alignment: 4096)
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  deinit { unsafe base.deallocate() }

  /// The address, for a system call that uses at most `count` bytes while the buffer lives.
  var address: UnsafeMutableRawPointer { unsafe base }

  /// Runs `body` on bytes `range`, which it may change.
  /// - Precondition: the range lies inside.
  mutating func withMutableBytes<Failure: Error>(
    _ range: Range<Int>, _ body: (inout MutableRawSpan) throws(Failure) -> Void
  ) throws(Failure) {
    precondition(range.lowerBound >= 0 && range.upperBound <= count, "outside the buffer")
    // The memory is owned by `self`, which is borrowed exclusively meanwhile.
    var span = unsafe MutableRawSpan(
      _unsafeStart: base + range.lowerBound, byteCount: range.count)
    try body(&span)
  }

  /// Runs `body` on bytes `range`.
  /// - Precondition: the range lies inside.
  func withBytes<Value>(_ range: Range<Int>, _ body: (RawSpan) -> Value) -> Value {
    precondition(range.lowerBound >= 0 && range.upperBound <= count, "outside the buffer")
    // The memory is owned by `self`, which is borrowed meanwhile.
    let span = unsafe RawSpan(_unsafeStart: base + range.lowerBound, byteCount: range.count)
    return body(span)
  }
}
