// Identifiers in raw bytes, and the checksum of a part of them.

import Base

extension RawSpan {
  /// The identifier at `offset`, in UUID byte order.
  func identifier(at offset: Int) -> Identifier {
    Identifier(high: bigEndianUInt64(at: offset), low: bigEndianUInt64(at: offset + 8))
  }
}

extension MutableRawSpan {
  /// Stores an identifier at `offset`, in UUID byte order.
  mutating func store(identifier: Identifier, at offset: Int) {
    store(bigEndian: identifier.high, at: offset)
    store(bigEndian: identifier.low, at: offset + 8)
  }

  /// CRC32C of the bytes `range`.
  /// - Precondition: the range lies inside.
  mutating func crc32c(of range: Range<Int>) -> UInt32 {
    // A read-only view of the bytes that this span borrows meanwhile.
    bytes.extracting(range).crc32c()
  }
}
