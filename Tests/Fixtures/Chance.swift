// Chance in the black-box tests: one seed per run, printed, and told by the next run to repeat it.
import Foundation

/// The seed of this run: NBDMIRROR_SEED, else a fresh one. Print it; a failed test has to name it.
public func seedOfThisRun() -> UInt32 {
  let fromOutside = ProcessInfo.processInfo.environment["NBDMIRROR_SEED"].flatMap { UInt32($0) }
  return fromOutside ?? UInt32.random(in: 1...999_999)
}

/// How many rounds a test of random rounds makes: NBDMIRROR_ROUNDS for a campaign, else `usual`.
public func roundsOfThisRun(_ usual: Int) -> Int {
  let fromOutside = ProcessInfo.processInfo.environment["NBDMIRROR_ROUNDS"].flatMap { Int($0) }
  return max(1, fromOutside ?? usual)
}

/// A small seeded generator (Steele, Lea, Flood: splitmix64).
public struct SplitMix: Sendable {
  private var state: UInt64

  /// A generator that gives the same numbers for the same seed.
  public init(seed: UInt64) { state = seed }

  /// A number of `range`.
  public mutating func next(in range: ClosedRange<UInt64>) -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    z ^= z >> 31
    return range.lowerBound + z % (range.upperBound - range.lowerBound + 1)
  }

  /// True `percent` times in a hundred.
  public mutating func chance(_ percent: UInt64) -> Bool { next(in: 1...100) <= percent }

  /// One of `items`, nil if there is none.
  public mutating func pick<Item>(_ items: [Item]) -> Item? {
    items.isEmpty ? nil : items[Int(next(in: 0...UInt64(items.count - 1)))]
  }
}
