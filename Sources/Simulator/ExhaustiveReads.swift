// Reading everything through the engine.

import Base
import MirrorEngine

extension ExhaustiveRun {
  /// Reads every sector once per leg, which with reads in turn asks every good leg.
  func readEverything(byBlocks: Bool) {
    let layout = context.layout
    var legCount = 0
    for leg in state.legs where leg != nil { legCount += 1 }
    for pass in 0..<max(legCount, 1) {
      if byBlocks || pass > 0 {
        readTouched()
        if pass > 0 { continue }
      }
      var offset: UInt64 = 0
      while offset < layout.sizeBytes, problem == nil {
        let count = min(layout.regionBytes, layout.sizeBytes - offset)
        read(ByteRange(offset: offset, count: count))
        offset += count
      }
    }
  }

  /// Reads the blocks that clients write, run by run.
  private func readTouched() {
    let block = Int(context.layout.blockBytes) / ExhaustiveLeg.sectorBytes
    let sectors = context.atoms.bySector
    var first = 0
    while first < sectors.count, problem == nil {
      guard (first..<first + block).contains(where: { !sectors[$0].isEmpty }) else {
        first += block
        continue
      }
      read(
        ByteRange(
          offset: UInt64(first * ExhaustiveLeg.sectorBytes),
          count: UInt64(block * ExhaustiveLeg.sectorBytes)))
      first += block
    }
  }

  private func read(_ range: ByteRange) {
    guard problem == nil else { return }
    submit(ExhaustiveOperation(kind: .read, range: range))
    settle()
    // Copies go on meanwhile, but a read waits for none but those in its way.
    var left = ExhaustiveRun.completionsMax
    while openRequests > 0, left > 0, completeNext() { left -= 1 }
    if openRequests > 0 { finish() }
  }
}
