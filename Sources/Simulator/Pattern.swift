// What simulated clients write: every cell says which write it comes from and where it belongs.
//
// A cell is `grain` bytes, the unit in which clients write and the oracle thinks; sectors, blocks
// and regions are multiples of it. Each 64-bit word of a cell is `id << 32 | cell number + 1`;
// id 0 is all zeros. A cell with two ids, or with another cell's number, was torn or misplaced.

enum Pattern {
  /// What memory holds that nobody has written.
  static let garbage: UInt8 = 0xee
  /// What buffers hold before a read and after their release, once per cell.
  static let poison: UInt64 = 0xdead_eeee_dead_eeee

  /// Fills the memory from its begin with write `id`, starting at cell `first`.
  static func fill(_ memory: Memory, id: UInt32, cells: Range<Int>, grain: Int) {
    var offset = 0
    for cell in cells {
      memory.fill(word: UInt64(id) << 32 | UInt64(cell + 1), at: offset, count: grain)
      offset += grain
    }
  }

  /// Makes each cell of the memory one that no write has left.
  static func poison(_ memory: Memory, count: Int, grain: Int) {
    var offset = 0
    while offset < count {
      memory.setWord(poison, at: offset)
      offset += grain
    }
  }

  /// The id that the cell at `offset` holds; nil if it is no whole cell of ours at this place.
  static func id(_ memory: Memory, at offset: Int, cell: Int, grain: Int) -> UInt32? {
    let word = memory.word(at: offset)
    guard memory.isFilled(with: word, at: offset, count: grain) else { return nil }
    if word == 0 { return 0 }
    let id = UInt32(truncatingIfNeeded: word >> 32)
    guard id != 0, word & 0xffff_ffff == UInt64(cell + 1) else { return nil }
    return id
  }
}
