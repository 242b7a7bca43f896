// Goal: the lock grants exactly what a naive first-in-first-out lock grants.
// Method: seeded random entries, narrow and wide, against a list that is searched in full.

import Base
import Testing

@testable import MirrorEngine

@Suite("Range lock")
struct RangeLockTests {
  @Test("grants as a plain list does, for random ranges, modes and orders of release")
  func model() {
    for seed in 1...20 as ClosedRange<UInt64> {
      var random = PRNG(seed: seed)
      let capacity = 64
      var lock = RangeLock(operations: capacity)
      var operations = [Operation](repeating: Operation(), count: capacity)
      var granted = FixedFIFO<Int32>(capacity: capacity, filler: -1)
      var waiting: [Int] = []  // Arrival order, holders included.
      var holding: Set<Int> = []
      var free = Array(0..<capacity)

      func conflicts(_ left: Int, _ right: Int) -> Bool {
        (operations[left].isExclusive || operations[right].isExclusive)
          && operations[left].chunk.overlaps(operations[right].chunk)
      }
      func expected() -> Set<Int> {
        var result: Set<Int> = []
        for (position, entry) in waiting.enumerated()
        where !waiting[..<position].contains(where: { conflicts($0, entry) }) {
          result.insert(entry)
        }
        return result
      }
      for _ in 0..<3000 {
        if !free.isEmpty, random.chance(1, in: 2) || holding.isEmpty {
          let index = free.removeLast()
          let count =
            random.chance(1, in: 10)
            ? 512 * (1 + random.below(40_000)) : 512 * (1 + random.below(9000))
          operations[index] = Operation()
          operations[index].chunk = ByteRange(
            offset: 512 * random.below(32_768), count: random.chance(1, in: 2) ? count : 4096)
          operations[index].isExclusive = random.chance(1, in: 2)
          waiting.append(index)
          if lock.enter(Int32(index), &operations) { holding.insert(index) }
        } else if let index = holding.sorted().randomElement(&random) {
          holding.remove(index)
          waiting.removeAll { $0 == index }
          free.append(index)
          lock.leave(Int32(index), &operations, granted: &granted)
          while let next = granted.pop() {
            let isNew = holding.insert(Int(next)).inserted
            #expect(isNew, "granted once")
          }
        }
        let isSame = holding == expected()
        #expect(isSame, "seed \(seed)")
        if !isSame { return }
      }
    }
  }
}

extension Array {
  /// A uniformly chosen element.
  fileprivate func randomElement(_ random: inout PRNG) -> Element? {
    isEmpty ? nil : self[Int(random.below(UInt64(count)))]
  }
}
