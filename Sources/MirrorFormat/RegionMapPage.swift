// A page of the region map on disk: 4096 bytes, little endian.
//
//   0     4   CRC32C of bytes 4...4095
//   4     4   page number, from 0
//   8     8   sequence: of the two copies of a page the higher valid one wins
//   16   16   set id (UUID byte order)
//   32 4064   2032 region words of 2 bytes; words beyond the last region are 0
//
// Both copies of every page are valid from `create` on: a copy that is not valid was torn by a
// crash or has rotted, and the one cannot be told from the other.

import Base

/// Encodes and decodes pages of the region map; no state of its own.
public struct RegionMapPage: Sendable {
  /// Bytes before the words.
  public static let headerBytes = 32

  /// Writes the page's 4096 bytes: `words[firstWord...]`, as many as fit; beyond the array 0.
  ///
  /// Allocates nothing.
  /// - Precondition: `into` has 4096 bytes; `firstWord` is not negative.
  public static func encode(
    page: Int, sequence: UInt64, setId: Identifier, words: [UInt16], firstWord: Int,
    into: inout MutableRawSpan
  ) {
    precondition(into.byteCount == Layout.pageBytes, "a page has 4096 bytes")
    precondition(page >= 0 && firstWord >= 0, "pages and words are counted from 0")
    into.store(littleEndian: UInt32(page), at: 4)
    into.store(littleEndian: sequence, at: 8)
    into.store(identifier: setId, at: 16)
    let present = min(max(words.count - firstWord, 0), Layout.wordsPerPage)
    var offset = headerBytes
    for index in firstWord..<(firstWord + present) {
      into.store(littleEndian: words[index], at: offset)
      offset += 2
    }
    while offset < Layout.pageBytes {
      into.store(littleEndian: 0 as UInt16, at: offset)
      offset += 2
    }
    let checksum = into.crc32c(of: 4..<Layout.pageBytes)
    into.store(littleEndian: checksum, at: 0)
  }

  /// The page's sequence if length, checksum, number and set are right and the sequence leaves
  /// room for more; else nil. Never traps.
  public static func decodeHeader(
    _ bytes: RawSpan, page: Int, setId: Identifier
  ) -> UInt64? {
    guard bytes.byteCount == Layout.pageBytes else { return nil }
    guard
      bytes.littleEndianUInt32(at: 0)
        == bytes.extracting(4..<Layout.pageBytes).crc32c(),
      UInt64(bytes.littleEndianUInt32(at: 4)) == UInt64(page),
      bytes.identifier(at: 16) == setId
    else { return nil }
    let sequence = bytes.littleEndianUInt64(at: 8)
    return sequence < Layout.counterLimit ? sequence : nil
  }

  /// Copies the page's words to `into[firstWord...]`, as many as the array has room for.
  /// - Precondition: `bytes` is a page that `decodeHeader` accepted; `firstWord` is not negative.
  public static func readWords(_ bytes: RawSpan, into: inout [UInt16], firstWord: Int) {
    precondition(bytes.byteCount == Layout.pageBytes, "a page has 4096 bytes")
    precondition(firstWord >= 0, "words are counted from 0")
    let count = min(max(into.count - firstWord, 0), Layout.wordsPerPage)
    for index in 0..<count {
      into[firstWord + index] = bytes.littleEndianUInt16(at: headerBytes + 2 * index)
    }
  }

  /// Whether some region of the page is unwritten.
  /// - Precondition: `bytes` is a page that `decodeHeader` accepted.
  public static func hasUnwritten(_ bytes: RawSpan) -> Bool {
    precondition(bytes.byteCount == Layout.pageBytes, "a page has 4096 bytes")
    for offset in stride(from: headerBytes, to: Layout.pageBytes, by: 2)
    where bytes.littleEndianUInt16(at: offset) & RegionWord.unwritten != 0 {
      return true
    }
    return false
  }
}
