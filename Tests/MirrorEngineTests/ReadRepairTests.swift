// Goal: a block that a leg cannot read is rewritten from a good leg, under protection, and checked;
// nothing is ever written that was not read under the lock from a good leg.
// Method: a scripted engine over two small disks in memory with bad blocks.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Read repair")
struct ReadRepairTests {
  /// Disks whose bad blocks fail to be read until they are written.
  final class Disks {
    let driver: EngineDriver
    /// Bad 512-byte blocks by leg.
    var bad: [Set<UInt64>]
    /// Blocks that stay bad.
    var isDead = false
    /// Writes to this leg fail.
    var failsWrites: Int?
    /// Written data is something else.
    var corrupts: Int?
    var writes: [(leg: Int, range: ByteRange)] = []
    /// Data I/O in the order of completion.
    var order: [String] = []

    init(_ driver: EngineDriver, bad: [Set<UInt64>]) {
      self.driver = driver
      self.bad = bad
      driver.contents = { _ in [] }  // `serve` fills the memory.
    }

    /// Bytes of a leg: a function of the place, the same on all.
    private func pattern(_ block: UInt64) -> UInt8 {
      UInt8(truncatingIfNeeded: block / 512 &* 7 + 1)
    }

    private func serve(_ io: LegIO) {
      guard driver.isData(io) else {
        driver.complete { $0.token == io.token }
        return
      }
      let range = ByteRange(offset: io.offset - driver.layout.dataOffset, count: io.count)
      let blocks = stride(from: range.offset, to: range.end, by: 512)
      let leg = io.leg.index
      var error: Int32 = 0
      if io.kind == .read {
        if blocks.contains(where: { bad[leg].contains($0) }) { error = 5 }
        if error == 0, case .scratch(let offset) = io.buffer {
          driver.engine.scratch.withBytes(at: offset, count: Int(io.count)) { span in
            for (number, block) in blocks.enumerated() {
              var byte = pattern(block)
              if corrupts == leg, writes.contains(where: { $0.leg == leg }) { byte ^= 0x10 }
              span.store([UInt8](repeating: byte, count: 512), at: number * 512)
            }
          }
        }
      } else if failsWrites == leg {
        error = 5
      } else {
        writes.append((leg, range))
        if !isDead { for block in blocks { bad[leg].remove(block) } }
      }
      order.append("\(io.kind) \(leg) \(range.offset) \(io.count)\(error == 0 ? "" : " failed")")
      driver.complete(error: error) { $0.token == io.token }
    }

    func run() {
      while let io = driver.open.first?.io { serve(io) }
    }

    /// Reads until leg 0 was asked; the answer has to be good.
    func readOnLeg0(_ offset: UInt64, _ count: UInt64) {
      for _ in 0..<2 {
        let token = driver.submit(.read, offset, count)
        let isLeg0 = driver.open.contains { $0.io.leg.index == 0 && $0.io.owner.raw == token }
        run()
        #expect(driver.replies[token] == 0)
        if isLeg0 { return }
      }
    }
  }

  static func disks(legs: Int = 2, logKind: LogKind = .disk, bad: [UInt64]) throws -> Disks {
    let driver = try EngineDriver.opened(legs: legs, logKind: logKind) { $0.requestsMax = 64 }
    var all = [Set<UInt64>](repeating: [], count: legs)
    all[0] = Set(bad)
    return Disks(driver, bad: all)
  }

  @Test("a bad block is rewritten from the other leg and read back; the reader did not wait")
  func repaired() throws {
    let disks = try ReadRepairTests.disks(bad: [8192])
    let driver = disks.driver
    var token: UInt64 = 0
    repeat {
      driver.runToRest()
      token = driver.submit(.read, 8192, 4096)
    } while driver.open.first?.io.leg.index != 0
    driver.complete(error: 5) { $0.leg.index == 0 }
    driver.complete { $0.leg.index == 1 }
    #expect(driver.replies[token] == 0, "before anything is written")
    #expect(driver.count { driver.isData($0) } == 0, "the log comes first")
    #expect(driver.count(driver.isLog) == 2)
    disks.run()
    #expect(disks.order == ["read 1 8192 4096", "write 0 8192 4096", "read 0 8192 4096"])
    #expect(driver.leg(0)?.repairedBlocks == 8)
    let repaired = driver.events.filter { $0.kind == .readRepaired }
    #expect(repaired.map(\.detail) == [8192] && repaired.first?.leg == LegSlot(0))
    let score = driver.engine.legs[0].readErrorScore
    #expect(score == 1)
  }

  @Test("in a large range only the pieces that fail are rewritten")
  func bisected() throws {
    let disks = try ReadRepairTests.disks(bad: [(1 << 20) + 512, (2 << 20) + 65536 * 3])
    disks.readOnLeg0(4096, 4 << 20)
    #expect(disks.bad[0].isEmpty)
    #expect(disks.writes.map(\.range.offset) == [1 << 20, (2 << 20) + 65536 * 3])
    #expect(disks.writes.allSatisfy { $0.leg == 0 && $0.range.count == 4096 })
    #expect(disks.order.count < 80)
  }

  @Test("a write waits for a repair of its block, and a repair for the write")
  func exclusive() throws {
    let disks = try ReadRepairTests.disks(bad: [8192])
    let driver = disks.driver
    while true {
      _ = driver.submit(.read, 8192, 4096)
      if driver.open[0].io.leg.index == 0 { break }
      driver.runToRest()
    }
    driver.complete(error: 5) { $0.leg.index == 0 }
    driver.complete { $0.leg.index == 1 }
    driver.completeAll(where: driver.isLog)
    #expect(driver.count { $0.kind == .read && $0.leg.index == 1 } == 1, "the source")
    let write = driver.submit(.write, 8192, 512)
    let reader = driver.submit(.read, 8192, 512)
    #expect(driver.count { driver.isData($0) } == 1)
    disks.run()
    #expect(driver.replies[write] == 0 && driver.replies[reader] == 0)
  }

  @Test("the source is read again under the lock: what was read before is not written")
  func sourceFails() throws {
    let disks = try ReadRepairTests.disks(bad: [8192])
    let driver = disks.driver
    while true {
      _ = driver.submit(.read, 8192, 4096)
      if driver.open[0].io.leg.index == 0 { break }
      driver.runToRest()
    }
    driver.complete(error: 5) { $0.leg.index == 0 }
    driver.complete { $0.leg.index == 1 }
    disks.bad[1] = [8192 + 1024]
    disks.run()
    // What leg 1 still can read of the 4 KiB is enough for the block that leg 0 lost.
    #expect(disks.writes.map(\.range) == [ByteRange(offset: 8192, count: 512)])
    disks.bad[0] = [8192]
    disks.bad[1] = [8192]
    disks.writes = []
    let token = driver.submit(.read, 8192, 4096)
    disks.run()
    #expect(driver.replies[token] == 5)
    #expect(disks.writes.isEmpty)
    #expect(driver.leg(0)?.state == .online && driver.leg(1)?.state == .online)
  }

  @Test("a leg that fails the rewrite, or does not hold it, goes offline")
  func unrepairable() throws {
    for kind in 0..<3 {
      let disks = try ReadRepairTests.disks(legs: 3, bad: [8192])
      if kind == 0 { disks.failsWrites = 0 }
      if kind == 1 { disks.isDead = true }
      if kind == 2 { disks.corrupts = 0 }
      for _ in 0..<3 {
        let token = disks.driver.submit(.read, 8192, 4096)
        disks.run()
        #expect(disks.driver.replies[token] == 0)
      }
      #expect(disks.driver.leg(0)?.state == .failed)
      #expect(disks.driver.leg(0)?.repairedBlocks == 0)
    }
  }

  @Test("a leg with the only good copy of something stays, and is not read where it is wrong")
  func onlyGoodCopy() throws {
    for kind in 0..<3 {
      // Region 5 is good on leg 0 only.
      var words = [UInt16](repeating: 0, count: 8)
      words[5] = 2
      let driver = try EngineDriver(words: words)
      driver.engine.setCopierPaused(true, now: driver.now)
      driver.runToRest()
      let disks = Disks(driver, bad: [[8192], []])
      if kind == 0 { disks.failsWrites = 0 }
      if kind == 1 { disks.isDead = true }
      if kind == 2 { disks.corrupts = 0 }
      for _ in 0..<2 {
        let token = driver.submit(.read, 8192, 4096)
        disks.run()
        #expect(driver.replies[token] == 0)
      }
      #expect(driver.leg(0)?.state == .online)
      #expect(driver.leg(0)?.repairedBlocks == 0)
      #expect(driver.leg(0)?.staleBytes == (kind == 1 ? 0 : 1 << 20))
      if kind == 2 {
        for _ in 0..<4 {
          _ = driver.submit(.read, 8192, 4096)
          #expect(driver.open[0].io.leg.index == 1)
          disks.run()
        }
      }
    }
  }

  @Test("neither stale nor unresolved regions are repaired")
  func notTheCopiers() throws {
    let disks = try ReadRepairTests.disks(legs: 3, bad: [8192])
    let driver = disks.driver
    driver.engine.setCopierPaused(true, now: driver.now)
    for isStale in [true, false] {
      var isAsked = false
      while !isAsked {
        driver.runToRest()
        _ = driver.submit(.read, 8192, 4096)
        isAsked = driver.open[0].io.leg.index == 0
      }
      driver.complete(error: 5) { $0.leg.index == 0 }
      let region = isStale ? 1 : 0
      driver.engine.map.setBits(isStale ? 1 : RegionWord.intent, in: region * 0)
      if !isStale { driver.engine.map.markUnresolved(0) }
      driver.complete { $0.leg.index != 0 && driver.isData($0) }
      disks.run()
      #expect(disks.writes.isEmpty)
      driver.engine.map.clearStale(LegSet(bits: 1), in: 0)
    }
  }

  @Test("a full pool counts what it drops, and one block is repaired by one job")
  func pool() throws {
    let disks = try ReadRepairTests.disks(bad: (0..<8).map { 65536 * $0 })
    let driver = disks.driver
    for number in 0..<8 {
      for _ in 0..<4 { _ = driver.submit(.read, 65536 * UInt64(number), 4096) }
    }
    // Half of the reads are leg 0's: all fail there before any repair can go on.
    while driver.complete(error: 5, where: { $0.leg.index == 0 && $0.owner != .none }) {}
    while driver.complete(where: { $0.leg.index == 1 && $0.owner != .none }) {}
    #expect(driver.engine.snapshot().repairsDropped == 8)
    disks.run()
    #expect(disks.bad[0].count == 4)
    #expect(driver.leg(0)?.repairedBlocks == 32)
    #expect(driver.engine.snapshot().requests == 0)
  }

  @Test("the leg fails while it is probed, read for, or written to: the repair ends, nothing hangs")
  func legFailsMeanwhile() throws {
    for failed in [0, 1] {
      for step in 0..<12 {
        let disks = try ReadRepairTests.disks(legs: 3, bad: [65536])
        let driver = disks.driver
        var isAsked = false
        while !isAsked {
          driver.runToRest()
          _ = driver.submit(.read, 65536, 16384)
          isAsked = driver.open[0].io.leg.index == 0
        }
        driver.complete(error: 5) { $0.leg.index == 0 }
        driver.complete { $0.leg.index != 0 && $0.owner != .none }
        for _ in 0..<step {
          guard let io = driver.open.first?.io else { break }
          let isBad = driver.isData(io) && io.leg.index == 0 && io.kind == .read
          driver.complete(error: isBad && disks.writes.isEmpty ? 5 : 0) { $0.token == io.token }
        }
        try? driver.engine.fail(LegSlot(failed), now: driver.now)
        driver.drain()
        let hung = driver.open.filter { $0.io.leg.index == failed }.map(\.io.token)
        driver.completeAll { io in !hung.contains(io.token) }
        let write = driver.submit(.write, 65536, 16384)
        driver.completeAll { io in !hung.contains(io.token) }
        #expect(driver.replies[write] == 0, "no lock is left")
        driver.runToRest()
        let isIdle = driver.engine.repairs.isIdle
        let records = driver.engine.recordsInUse
        #expect(isIdle && records == 0)
        let units = driver.engine.units.windowsFree
        #expect(units == ScratchUnits.windowCount)
        driver.engine.beginStop(now: driver.now)
        driver.drain()
        driver.runToRest()
        #expect(driver.isStopped)
      }
    }
  }

  @Test("read errors are forgotten in hours")
  func scoreAges() throws {
    let driver = try EngineDriver.opened()
    for hour in 0..<20 {
      driver.now = driver.now.advanced(byNanoseconds: 3600 * Nanoseconds.second)
      for _ in 0..<20 {
        _ = driver.submit(.read, 0, 512)
        driver.complete(error: 5) { $0.kind == .read && $0.leg.index == 0 }
        driver.complete { $0.kind == .read && $0.leg.index == 1 }
        driver.completeAll(error: 5) { driver.isData($0) && $0.kind == .read }
      }
      #expect(driver.leg(0)?.state == .online, "hour \(hour)")
    }
    let score = driver.engine.legs[0].readErrorScore
    #expect(score > 0)
  }
}
