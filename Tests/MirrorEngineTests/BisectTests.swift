// Goal: a read succeeds if every block of it can be read on some leg.
// Method: a scripted engine; blocks of legs are bad, and every read that touches one fails.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Bisected reads")
struct BisectTests {
  /// Completes reads; those that touch a bad block of their leg fail. Counts the reads.
  static func serve(_ driver: EngineDriver, bad: [Int: [UInt64]]) -> Int {
    var reads = 0
    while let io = driver.open.first?.io {
      var error: Int32 = 0
      if driver.isData(io), io.kind == .read {
        reads += 1
        let range = ByteRange(offset: io.offset - driver.layout.dataOffset, count: io.count)
        for block in bad[io.leg.index] ?? []
        where range.overlaps(ByteRange(offset: block, count: 512)) {
          error = 5
        }
      }
      driver.complete(error: error) { $0.token == io.token }
    }
    return reads
  }

  @Test("different bad blocks on both legs: the read succeeds, in few steps")
  func differentBlocks() throws {
    for policy in [ReadPolicy.roundRobin, .adaptive] {
      let driver = try EngineDriver.opened(regions: 8) { $0.readPolicy = policy }
      let bad: [Int: [UInt64]] = [0: [512 * 700], 1: [512 * 701, 512 * 1500]]
      let token = driver.submit(.read, 0, 1 << 20)
      let reads = BisectTests.serve(driver, bad: bad)
      #expect(driver.replies[token] == 0)
      #expect(reads < 100)
      #expect(!driver.events.contains { $0.kind == .readFailed })
    }
  }

  @Test("a block that no leg can read fails the request, and is named")
  func unreadable() throws {
    let driver = try EngineDriver.opened(legs: 3, regions: 8)
    let token = driver.submit(.read, 65536, 1 << 19)
    let block: UInt64 = 65536 + 512 * 77
    _ = BisectTests.serve(driver, bad: [0: [block], 1: [block], 2: [block]])
    #expect(driver.replies[token] == 5)
    let failures = driver.events.filter { $0.kind == .readFailed }
    #expect(failures.map(\.detail) == [block])
    // Its neighbours can be read.
    let before = driver.submit(.read, 65536, 512 * 77)
    let after = driver.submit(.read, block + 512, 1 << 18)
    _ = BisectTests.serve(driver, bad: [0: [block], 1: [block], 2: [block]])
    #expect(driver.replies[before] == 0 && driver.replies[after] == 0)
  }

  @Test("halving ends at one block, with whole blocks on both sides")
  func halves() {
    let block = ByteRange(offset: 4096, count: 4096)
    let one = Engine.firstHalf(of: block, blockBytes: 4096)
    #expect(one == nil)
    let three = Engine.firstHalf(
      of: ByteRange(offset: 4096, count: 3 * 4096), blockBytes: 4096)
    #expect(three == ByteRange(offset: 4096, count: 4096))
    let two = Engine.firstHalf(of: ByteRange(offset: 512, count: 1024), blockBytes: 512)
    #expect(two == ByteRange(offset: 512, count: 512))
  }

  @Test("a region without a good leg fails at once")
  func noGoodLeg() throws {
    let driver = try EngineDriver(
      words: [0, 1, 0, 0, 0, 0, 0, 0], absent: [1: .failed])
    driver.engine.setCopierPaused(true, now: driver.now)
    driver.runToRest()
    let token = driver.submit(.read, 1 << 20, 1 << 20)
    #expect(driver.replies[token] == 5)
    #expect(driver.open.isEmpty)
  }
}
