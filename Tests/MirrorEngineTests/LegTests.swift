// Goal: legs fail, return and are copied to without stale data ever being used (P2, P3, P6).
// Method: a scripted engine.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Legs")
struct LegTests {
  static func returning(
    _ driver: EngineDriver, _ slot: Int, generation: Generation? = nil
  ) -> ReturningLeg {
    ReturningLeg(
      legId: EngineDriver.legId[slot],
      lineage: Lineage(
        current: generation ?? Generation(counter: 1, id: Identifier(high: 7, low: 7)), parents: []),
      labelSequence: 1, labelCopy: 0, isTreatedAsNew: false)
  }

  /// Two legs, leg 1 failed, two of eight regions written meanwhile.
  static func degraded() throws -> EngineDriver {
    let driver = try EngineDriver.opened()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    _ = driver.submit(.write, 1 << 20, 4096)
    _ = driver.submit(.write, 5 << 20, 4096)
    driver.runToRest()
    return driver
  }

  @Test("a leg that comes back gets the map, then the label, then only what it missed")
  func partialResync() throws {
    let driver = try LegTests.degraded()
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    #expect(driver.count(driver.isLog) == 2)
    #expect(try #require(driver.openWords(on: 1))[5] & 2 == 2)
    #expect(driver.count(driver.isLabel) == 0, "map before label")
    driver.completeAll(where: driver.isLog)
    let label = try #require(try driver.openLabel(on: 1))
    #expect(label.members[1].state == .online)
    #expect(driver.count(driver.isData) == 0, "label before data")
    var copied: [UInt64] = []
    while let io = driver.open.first?.io {
      if driver.isData(io), io.kind == .write {
        #expect(io.leg.index == 1)
        driver.now = driver.now.advanced(byNanoseconds: Nanoseconds.second / 2)
        copied.append(io.offset - driver.layout.dataOffset)
      }
      driver.complete { $0.token == io.token }
    }
    #expect(copied.sorted() == [1 << 20, 5 << 20])
    #expect(driver.leg(1)?.staleBytes == 0)
    let snapshot = driver.engine.snapshot()
    #expect(snapshot.resyncBytesDone == 2 << 20 && snapshot.resyncBytesTotal == 2 << 20)
    #expect(!snapshot.isResyncRunning && snapshot.syncPercent == 100)
    #expect(snapshot.resyncBytesPerSecond == Double(2 << 20))
  }

  @Test("a leg that missed a write is never read there before it is copied")
  func neverStale() throws {
    let driver = try LegTests.degraded()
    driver.engine.setCopierPaused(true, now: driver.now)
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(1)?.state == .online)
    for _ in 0..<8 {
      _ = driver.submit(.read, 5 << 20, 4096)
      #expect(driver.open.last?.io.leg.index == 0)
      driver.runToRest()
    }
    var legs: Set<Int> = []
    for _ in 0..<8 {
      _ = driver.submit(.read, 6 << 20, 4096)
      legs.insert(driver.open[0].io.leg.index)
      driver.runToRest()
    }
    #expect(legs == [0, 1], "elsewhere it is read")
    _ = driver.submit(.write, 5 << 20, 4096)
    #expect(driver.count(driver.isData) == 2, "it gets every write")
  }

  @Test("the stale bit is cleared after a flush of the target that began after the copy")
  func flushBeforeClear() throws {
    let driver = try LegTests.degraded()
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { $0.kind != .flush }
    #expect(driver.leg(1)?.staleBytes == 2 << 20)
    driver.complete { $0.kind == .flush && $0.leg.index == 0 }
    #expect(driver.leg(1)?.staleBytes == 2 << 20)
    driver.complete { $0.kind == .flush }
    #expect(driver.leg(1)?.staleBytes == 0)
    #expect(try #require(driver.openWords(on: 1))[5] & 0xff == 0)
  }

  @Test("a copy waits for writes in flight and new writes wait for the copy")
  func copyLock() throws {
    let driver = try LegTests.degraded()
    driver.pass(seconds: 1)
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    #expect(driver.count { driver.isData($0) && $0.kind == .read } == 2)
    let write = driver.submit(.write, (5 << 20) + 8192, 4096)
    #expect(driver.count { driver.isData($0) && $0.kind == .write } == 0)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }

  @Test("a target that leaves during its copy keeps its stale bits")
  func targetLeaves() throws {
    let driver = try LegTests.degraded()
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) || $0.kind == .read }
    driver.complete { driver.isData($0) && $0.leg.index == 1 }
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(1)?.staleBytes == 2 << 20)
    #expect(driver.leg(1)?.state == .failed)
  }

  @Test("a leg of an unknown or diverged generation is refused")
  func diverged() throws {
    let driver = try LegTests.degraded()
    let foreign = LegTests.returning(
      driver, 1, generation: Generation(counter: 9, id: Identifier(high: 9, low: 9)))
    #expect(throws: CommandError.diverged) {
      try driver.engine.readd(foreign, to: LegSlot(1), now: driver.now)
    }
    var asNew = foreign
    asNew.isTreatedAsNew = true
    try driver.engine.readd(asNew, to: LegSlot(1), now: driver.now)
    #expect(driver.leg(1)?.staleBytes == 8 << 20)
  }

  @Test("a leg does not come back while I/O of before is with it")
  func lateIO() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 4096)
    driver.completeAll(where: driver.isLog)
    driver.complete { $0.leg.index == 0 }
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    #expect(throws: CommandError.ioInFlight) {
      try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    }
    driver.runToRest()
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
  }

  @Test("a leg that goes offline is told idle exactly once, and again the next time")
  func idleOnce() throws {
    let driver = try EngineDriver.opened()
    for round in 1...3 {
      _ = driver.submit(.write, 0, 4096)
      driver.completeAll(where: driver.isLog)
      // The failure is noticed inside a completion of the leg itself, the last one in flight.
      driver.complete { driver.isData($0) && $0.leg.index == 0 }
      driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 1 }
      driver.runToRest()
      #expect(driver.idle == Array(repeating: LegSlot(1), count: round))
      try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
      driver.drain()
      driver.runToRest()
    }
  }

  @Test("a read that hangs is asked of another leg, into a fresh buffer")
  func hungRead() throws {
    let driver = try EngineDriver.opened()
    let read = driver.submit(.read, 0, 4096)
    let hung = try #require(driver.open.first?.io)
    driver.pass(seconds: 9)
    #expect(driver.replaced.contains(read))
    driver.complete { $0.kind == .read && $0.leg != hung.leg }
    driver.completeAll(where: driver.isLabel)
    #expect(driver.replies[read] == 0)
    #expect(!driver.released.contains(read))
    driver.complete { $0.token == hung.token }
    #expect(driver.released.contains(read))
  }

  @Test("a read error is served by another leg; too many fail the leg")
  func readErrors() throws {
    let driver = try EngineDriver.opened()
    var failures = 0
    while driver.leg(0)?.state == .online {
      let read = driver.submit(.read, 0, 4096)
      // What it is asked to read for the repair fails, too: nothing is rewritten.
      let isAsked = driver.complete(error: 5) { $0.kind == .read && $0.leg.index == 0 }
      if isAsked {
        failures += 1
        driver.complete { $0.kind == .read && $0.leg.index == 1 }
        driver.completeAll(where: driver.isLog)
        driver.completeAll(error: 5) { driver.isData($0) && $0.kind == .read }
      }
      driver.runToRest()
      #expect(driver.replies[read] == 0)
    }
    #expect(failures == 64)
    let read = driver.submit(.read, 0, 4096)
    driver.complete(error: 5) { $0.kind == .read }
    #expect(driver.replies[read] == 5, "the last good leg's error is the client's")
    #expect(driver.leg(1)?.state == .online)
  }

  @Test("an unresolved read is written to the other legs before the reply")
  func unresolvedRead() throws {
    var words = [UInt16](repeating: 0, count: 8)
    words[2] = RegionWord.intent
    let driver = try EngineDriver(words: words)
    driver.engine.setCopierPaused(true, now: driver.now)
    driver.runToRest()
    let read = driver.submit(.read, 2 << 20, 4096)
    #expect(driver.open.map(\.io.kind) == [.read])
    driver.complete { $0.kind == .read }
    #expect(driver.replies[read] == nil)
    #expect(driver.open.map(\.io.kind) == [.write])
    #expect(driver.open[0].io.isDurable, "a power loss shall not take back what was read")
    driver.runToRest()
    #expect(driver.replies[read] == 0)
    let elsewhere = driver.submit(.read, 3 << 20, 4096)
    driver.complete { $0.kind == .read }
    #expect(driver.replies[elsewhere] == 0)
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.engine.snapshot().unresolvedRegions == 0)
  }

  @Test("a degraded start answers no read before its generation is durable")
  func degradedStart() throws {
    let driver = try EngineDriver(absent: [1: .missing])
    let read = driver.submit(.read, 0, 4096)
    #expect(driver.count { $0.kind == .read } == 0)
    let label = try #require(try driver.openLabel(on: 0))
    #expect(label.lineage.current.counter == 2 && label.members[1].state == .missing)
    #expect(label.members[1].offlineSince == 2)
    driver.complete(where: driver.isLabel)
    driver.complete { $0.kind == .read }
    #expect(driver.replies[read] == 0)
  }

  @Test("a new leg is listed only when it has the map, and is copied in whole")
  func addLeg() throws {
    let driver = try EngineDriver.opened()
    let slot = try driver.engine.slotForNewLeg()
    #expect(slot == LegSlot(2))
    try driver.engine.add(legId: EngineDriver.legId[2], at: slot, now: driver.now)
    driver.drain()
    driver.completeAll(where: driver.isLog)
    #expect(try #require(try driver.openLabel(on: 0)).members[2].legId == EngineDriver.legId[2])
    driver.runToRest()
    #expect(driver.leg(2)?.state == .online && driver.leg(2)?.staleBytes == 0)
    #expect(driver.engine.snapshot().resyncBytesDone == 8 << 20)
  }

  @Test("the only good copy is neither failed nor removed by command")
  func onlyCopy() throws {
    let driver = try LegTests.degraded()
    #expect(throws: CommandError.onlyGoodCopy) {
      try driver.engine.fail(LegSlot(0), now: driver.now)
    }
    driver.engine.setCopierPaused(true, now: driver.now)
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(throws: CommandError.onlyGoodCopy) {
      try driver.engine.remove(LegSlot(0), now: driver.now)
    }
  }

  @Test("an offline leg that alone has something is not removed: its slot would be given away")
  func offlineOnlyCopy() throws {
    let driver = try LegTests.degraded()
    // Leg 1 is offline and lacks what leg 0 has: nothing is lost with it.
    try driver.engine.remove(LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(1)?.state == .removed)
    // Leg 1 lacks a region that leg 0, which is offline, has.
    let only = try EngineDriver.opened { start in
      start.members[0].state = .failed
      start.legs.removeAll { $0.slot == LegSlot(0) }
      start.words[3] = 1 << 1
    }
    #expect(only.leg(1)?.staleBytes == 1 << 20)
    #expect(throws: CommandError.onlyGoodCopy) {
      try only.engine.remove(LegSlot(0), now: only.now)
    }
  }

  @Test("a write that fails on a leg which must stay makes it stale there instead")
  func partlyOnlyCopy() throws {
    let driver = try LegTests.degraded()
    driver.engine.setCopierPaused(true, now: driver.now)
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    // Leg 0 alone has regions 1 and 5; it fails a write in region 7, where leg 1 is good too.
    let write = driver.submit(.write, 7 << 20, 4096)
    driver.completeAll(where: driver.isLog)
    driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 0 }
    driver.complete(where: driver.isData)
    #expect(driver.replies[write] == nil)
    #expect(try #require(driver.openWords(on: 1))[7] & 1 == 1)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
    #expect(driver.leg(0)?.state == .online)
    #expect(driver.leg(0)?.staleBytes == 1 << 20)
  }

  @Test("the first good leg of a region that comes back makes stale who is still away")
  func firstGoodLeg() throws {
    // Started on leg 1, which lacks region 0; legs 0 and 2 may differ there by a write that a crash
    // cut off.
    var words = [UInt16](repeating: 0, count: 8)
    words[0] = RegionWord.intent | 1 << 1
    let driver = try EngineDriver(
      legs: 3, words: words, absent: [0: .failed, 2: .failed]
    ) { start in start.isResyncPaused = true }
    driver.runToRest()
    #expect(driver.leg(0)?.staleBytes == 0, "it may have the only copy")
    for slot in [2, 0] {
      try driver.engine.readd(
        LegTests.returning(driver, slot), to: LegSlot(slot), now: driver.now)
      driver.drain()
      driver.runToRest()
      #expect(driver.leg(0)?.staleBytes == 1 << 20)
      #expect(driver.leg(2)?.staleBytes == 0)
    }
    let read = driver.submit(.read, 0, 4096)
    #expect(driver.open.map(\.io.leg.index) == [2])
    driver.runToRest()
    #expect(driver.replies[read] == 0)
  }

  @Test("good legs of a region that come back together may differ, and none is made stale")
  func goodLegsTogether() throws {
    var words = [UInt16](repeating: 0, count: 8)
    words[0] = RegionWord.intent | 1 << 1
    let driver = try EngineDriver(
      legs: 3, words: words, absent: [0: .failed, 2: .failed]
    ) { start in start.isResyncPaused = true }
    driver.runToRest()
    for slot in [2, 0] {
      try driver.engine.readd(
        LegTests.returning(driver, slot), to: LegSlot(slot), now: driver.now)
    }
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(0)?.staleBytes == 0 && driver.leg(2)?.staleBytes == 0)
    #expect(driver.engine.snapshot().unresolvedRegions == 1)
  }
}
