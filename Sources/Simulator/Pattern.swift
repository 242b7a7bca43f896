// What simulated clients write: every cell says which write it comes from and where it belongs.
//
// A cell is `grain` bytes, the unit in which clients write and the oracle thinks; sectors, blocks
// and regions are multiples of it. Each 64-bit word of a cell is `id << 32 | cell number + 1`;
// id 0 is all zeros. A cell with two ids, or with another cell's number, was torn or misplaced.

import Base

enum Pattern {
  /// What buffers hold before a read and after their release.
  static let garbage: UInt8 = 0xee

  /// Fills `bytes` with write `id`, starting at cell `first`.
  static func fill(_ bytes: inout [UInt8], id: UInt32, firstCell: Int, grain: Int) {
    bytes.withMutableRawSpan { span in
      var offset = 0
      var cell = firstCell
      let end = span.byteCount
      while offset < end {
        let word = UInt64(id) << 32 | UInt64(cell + 1)
        for part in stride(from: offset, to: offset + grain, by: 8) {
          span.store(littleEndian: word, at: part)
        }
        offset += grain
        cell += 1
      }
    }
  }

  /// The id that the cell at `offset` holds; nil if it is no whole cell of ours at this place.
  static func id(_ bytes: RawSpan, at offset: Int, cell: Int, grain: Int) -> UInt32? {
    let word = bytes.littleEndianUInt64(at: offset)
    for part in stride(from: offset + 8, to: offset + grain, by: 8)
    where bytes.littleEndianUInt64(at: part) != word {
      return nil
    }
    if word == 0 { return 0 }
    let id = UInt32(truncatingIfNeeded: word >> 32)
    guard id != 0, word & 0xffff_ffff == UInt64(cell + 1) else { return nil }
    return id
  }
}
