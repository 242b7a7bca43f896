// The one place where integers are loaded from and stored to raw bytes.
//
// Every decoder of the project (wire and disk) reads through these functions. They check bounds
// with a precondition, so a decoder must compare lengths first: bytes that a client or a disk sent
// must never reach the trap. Byte order is in the name; alignment is irrelevant.

import CChecksum

extension RawSpan {
  /// The byte at `offset`.
  @inlinable
  public func uint8(at offset: Int) -> UInt8 {
    // Bounds are checked by the standard library's call; any bit pattern is a valid integer.
    unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  /// The big-endian 16-bit number at `offset`.
  @inlinable
  public func bigEndianUInt16(at offset: Int) -> UInt16 {
    unsafe UInt16(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// The big-endian 32-bit number at `offset`.
  @inlinable
  public func bigEndianUInt32(at offset: Int) -> UInt32 {
    unsafe UInt32(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// The big-endian 64-bit number at `offset`.
  @inlinable
  public func bigEndianUInt64(at offset: Int) -> UInt64 {
    unsafe UInt64(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// The little-endian 16-bit number at `offset`.
  @inlinable
  public func littleEndianUInt16(at offset: Int) -> UInt16 {
    unsafe UInt16(littleEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// The little-endian 32-bit number at `offset`.
  @inlinable
  public func littleEndianUInt32(at offset: Int) -> UInt32 {
    unsafe UInt32(littleEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// The little-endian 64-bit number at `offset`.
  @inlinable
  public func littleEndianUInt64(at offset: Int) -> UInt64 {
    unsafe UInt64(littleEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// CRC32C of all bytes of the span.
  public func crc32c() -> UInt32 {
    unsafe withUnsafeBytes { bytes in
      // The C function reads `count` bytes at `baseAddress`, which the span owns meanwhile.
      unsafe nbdmirror_crc32c(0, bytes.baseAddress, bytes.count)
    }
  }

  /// A copy of the bytes `range` as an array.
  /// - Precondition: the range lies inside the span.
  public func copied(_ range: Range<Int>) -> [UInt8] {
    unsafe withUnsafeBytes { bytes in unsafe Array(bytes[range]) }
  }
}

extension MutableRawSpan {
  /// Stores a byte at `offset`.
  @inlinable
  public mutating func store(_ value: UInt8, at offset: Int) {
    precondition(offset >= 0 && offset < byteCount, "a store outside the bytes")
    storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }

  /// Stores a number at `offset`, most significant byte first.
  @inlinable
  public mutating func store(
    bigEndian value: some FixedWidthInteger & BitwiseCopyable, at offset: Int
  ) {
    let swapped = value.bigEndian
    precondition(
      offset >= 0 && offset <= byteCount - MemoryLayout.size(ofValue: swapped),
      "a store outside the bytes")
    storeBytes(of: swapped, toByteOffset: offset, as: type(of: swapped))
  }

  /// Stores a number at `offset`, least significant byte first.
  @inlinable
  public mutating func store(
    littleEndian value: some FixedWidthInteger & BitwiseCopyable, at offset: Int
  ) {
    let swapped = value.littleEndian
    precondition(
      offset >= 0 && offset <= byteCount - MemoryLayout.size(ofValue: swapped),
      "a store outside the bytes")
    storeBytes(of: swapped, toByteOffset: offset, as: type(of: swapped))
  }

  /// Stores the bytes of `source` from `offset` on.
  public mutating func store(_ source: [UInt8], at offset: Int) {
    precondition(
      offset >= 0 && offset <= byteCount - source.count, "a store outside the bytes")
    unsafe withUnsafeMutableBytes { target in
      // The precondition keeps the copy inside both; an array and a span never overlap.
      unsafe UnsafeMutableRawBufferPointer(rebasing: target[offset..<offset + source.count])
        .copyBytes(from: source)
    }
  }
}

extension Array where Element == UInt8 {
  /// Runs `body` on the array's bytes.
  @inlinable
  public func withRawSpan<Result, Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // A span of the array's own storage, which lives through the call.
    try body(unsafe span.bytes)
  }

  /// Runs `body` on the array's bytes, which it may change.
  @inlinable
  public mutating func withMutableRawSpan<Result, Failure: Error>(
    _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // A span of the array's own storage, which lives through the call.
    var owner = mutableSpan
    var bytes = unsafe owner.mutableBytes
    return try body(&bytes)
  }
}
