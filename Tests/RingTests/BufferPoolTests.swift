// Goal: the pool hands memory out once, takes it back, keeps its bounds and merges what is free.
// Method: a seeded random walk of allocations and frees beside a plain map of the pages; every
// buffer carries a pattern that a second owner would destroy.
import Base
import Ring
import Synchronization
import Testing

@Suite("The buffer pool")
struct BufferPoolTests {
  static let mebi = 1 << 20

  @Test("hands no byte out twice, and everything comes back", arguments: 1...8)
  func randomWalk(seed: UInt64) throws {
    var random = PRNG(seed: seed)
    let budget = HugeBudget(bytesMax: 40 * Self.mebi)
    var pool = try BufferPool(arenaBytes: 32 * Self.mebi, huge: budget)
    var out: [(buffer: Buffer, mark: UInt64)] = []
    var refused = 0
    for step in 0..<20_000 {
      if !out.isEmpty, random.chance(UInt64(min(out.count, 60)), in: 100) {
        let index = Int(random.below(UInt64(out.count)))
        let (buffer, mark) = out.swapRemove(at: index)
        #expect(Self.readMark(buffer) == mark)
        pool.free(buffer)
        continue
      }
      let bytes = Self.size(&random)
      guard let buffer = pool.allocate(bytes: bytes) else {
        refused += 1
        continue
      }
      #expect(buffer.bytes >= bytes)
      #expect(unsafe UInt(bitPattern: buffer.base) % 4096 == 0)
      Self.writeMark(buffer, UInt64(step))
      out.append((buffer, UInt64(step)))
      #expect(pool.leasedBytes <= pool.limitBytes)
    }
    #expect(refused > 0, "the walk never met the bound")
    for (buffer, mark) in out {
      #expect(Self.readMark(buffer) == mark)
      pool.free(buffer)
    }
    let whole = pool.isWhole()
    #expect(whole)
    #expect(budget.usedBytes == 0)
  }

  @Test("gives its whole arena in pages, then in one block again")
  func everyPage() throws {
    var pool = try BufferPool(arenaBytes: 16 * Self.mebi, huge: HugeBudget(bytesMax: 1))
    var pages: [Buffer] = []
    while let page = pool.allocate(bytes: 4096) { pages.append(page) }
    #expect(pages.count == 4096)
    let distinct = Set(pages.map { unsafe UInt(bitPattern: $0.base) }).count
    #expect(distinct == 4096)
    for page in pages { pool.free(page) }
    let block = pool.allocate(bytes: 16 * Self.mebi)
    #expect(block != nil, "the cache of pages keeps a large block from merging")
  }

  @Test("keeps the limit, which may be raised up to the arena")
  func limit() throws {
    var pool = try BufferPool(arenaBytes: 32 * Self.mebi, huge: HugeBudget(bytesMax: 1))
    pool.limitBytes = 8192
    let first = pool.allocate(bytes: 4097)
    let second = pool.allocate(bytes: 1)
    #expect(first?.bytes == 8192)
    #expect(second == nil)
    pool.limitBytes = 12288
    let third = pool.allocate(bytes: 1)
    #expect(third != nil)
  }

  @Test("serves 64 MiB and a page under the shared budget, once")
  func huge() throws {
    let budget = HugeBudget(bytesMax: 64 * Self.mebi + 8192)
    var one = try BufferPool(arenaBytes: 16 * Self.mebi, huge: budget)
    var two = try BufferPool(arenaBytes: 16 * Self.mebi, huge: budget)
    let large = one.allocate(bytes: 64 * Self.mebi + 4095)
    let second = two.allocate(bytes: 17 * Self.mebi)
    #expect(large != nil)
    #expect(second == nil)
    if let large { one.free(large) }
    let third = two.allocate(bytes: 17 * Self.mebi)
    #expect(third != nil)
    if let third { two.free(third) }
    #expect(budget.usedBytes == 0)
  }

  static func size(_ random: inout PRNG) -> Int {
    switch random.below(10) {
    case 0..<6: return 1 + Int(random.below(8192))
    case 6..<8: return 1 + Int(random.below(262_144))
    case 8: return 1 + Int(random.below(UInt64(8 * mebi)))
    default: return 1 + Int(random.below(UInt64(24 * mebi)))
    }
  }

  // The first and the last word of each of the buffer's ends belong to its owner.
  static func writeMark(_ buffer: Buffer, _ mark: UInt64) {
    unsafe buffer.base.storeBytes(of: mark, as: UInt64.self)
    unsafe buffer.base.storeBytes(of: mark, toByteOffset: buffer.bytes - 8, as: UInt64.self)
  }

  static func readMark(_ buffer: Buffer) -> UInt64? {
    let first = unsafe buffer.base.load(as: UInt64.self)
    let last = unsafe buffer.base.load(fromByteOffset: buffer.bytes - 8, as: UInt64.self)
    return first == last ? first : nil
  }
}

extension Array {
  mutating func swapRemove(at index: Int) -> Element {
    swapAt(index, count - 1)
    return removeLast()
  }
}
