// What clients ask: a random mix over a few hot cells or the whole device, several connections.

import Base
import MirrorEngine

/// The habits of the clients of one run.
struct SimulatedClient {
  private let cellCount: Int
  private let cellsPerBlock: Int
  private let grain: UInt64
  private let readWeight: UInt64
  private let writeWeight: UInt64
  private let zeroWeight: UInt64
  private let flushWeight: UInt64
  private let fuaOf16: UInt64
  private let bytesMax: Int
  private let isAligned: Bool
  private let hotCells: Int
  private var hotStart: Int

  init(scenario: Scenario, _ random: inout PRNG) {
    grain = UInt64(scenario.grain)
    cellCount = Int(scenario.sizeBytes) / scenario.grain
    cellsPerBlock = max(1, Int(scenario.blockBytes) / scenario.grain)
    readWeight = 2 + random.below(12)
    writeWeight = 2 + random.below(12)
    zeroWeight = scenario.has(.zeroes) ? random.below(3) : 0
    flushWeight = random.below(4)
    fuaOf16 = random.below(6)
    bytesMax = [1024, 2048, 4096, 16384][Int(random.below(4))]
    isAligned = scenario.isAligned
    hotCells = min(scenario.hotCells, cellCount)
    hotStart = Int(random.below(UInt64(cellCount)))
  }

  /// The next request, without a token, and the cells it covers.
  mutating func next(_ random: inout PRNG) -> (MirrorRequest, Range<Int>) {
    // They go elsewhere now and then: regions that were not written for a while.
    if hotCells < cellCount, random.chance(1, in: 64) {
      hotStart = Int(random.below(UInt64(cellCount)))
    }
    var pick = random.below(readWeight + writeWeight + zeroWeight + flushWeight)
    if pick < flushWeight {
      let nothing = ByteRange(offset: 0, count: 0)
      return (MirrorRequest(kind: .flush, range: nothing, token: .none), 0..<0)
    }
    pick -= flushWeight
    let kind: MirrorRequest.Kind =
      pick < readWeight
      ? .read : pick < readWeight + writeWeight ? .write : random.chance(1, in: 2) ? .zero : .trim
    var cells = range(&random)
    if kind == .read || isAligned { cells = aligned(cells) }
    if kind == .zero || kind == .trim, random.chance(1, in: 24) { cells = 0..<cellCount }
    let bytes = ByteRange(
      offset: UInt64(cells.lowerBound) * grain, count: UInt64(cells.count) * grain)
    if kind == .trim { cells = inner(cells) }
    let request = MirrorRequest(
      kind: kind, range: bytes, isFUA: kind != .read && random.chance(fuaOf16, in: 16),
      mayPunchHoles: random.chance(1, in: 2), token: .none)
    return (request, cells)
  }

  private func range(_ random: inout PRNG) -> Range<Int> {
    var first = Int(random.below(UInt64(hotCells)))
    if hotCells < cellCount { first = (hotStart + first) % cellCount }
    var most = max(1, bytesMax / Int(grain))
    if random.chance(1, in: 100) { most *= 8 }
    if random.chance(1, in: 1000) { most = cellCount }
    let count = min(1 + Int(random.below(UInt64(most))), cellCount - first)
    return first..<first + count
  }

  private func aligned(_ cells: Range<Int>) -> Range<Int> {
    let first = cells.lowerBound / cellsPerBlock * cellsPerBlock
    let end = (cells.upperBound + cellsPerBlock - 1) / cellsPerBlock * cellsPerBlock
    return first..<min(end, cellCount)
  }

  /// The whole blocks inside: what a trim changes.
  private func inner(_ cells: Range<Int>) -> Range<Int> {
    let first = (cells.lowerBound + cellsPerBlock - 1) / cellsPerBlock * cellsPerBlock
    let end = cells.upperBound / cellsPerBlock * cellsPerBlock
    return first < end ? first..<end : first..<first
  }
}
