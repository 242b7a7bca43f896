// Goal: what the log still says counts while a commit is held up, and what a copy brought to a leg
// counts as cached until its flush. Method: the tests hold page writes and flushes back. Each test is
// a bug that the simulator found; its seeds draw other worlds by now.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("While log and flushes are held")
struct HeldLogTests {
  /// Leg 1 was stale in region 0, which has a durable intent. It is copied and flushed; the page
  /// that clears the bit is in flight and stays so.
  private static func cleared() throws -> EngineDriver {
    let driver = try EngineDriver.opened { start in
      start.words[0] = 1 << 1
      start.isResyncPaused = true
    }
    _ = driver.submit(.write, 0, 4096)
    driver.runToRest()
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    driver.completeAll { !driver.isLog($0) }
    #expect(driver.leg(1)?.staleBytes == 0)
    #expect(driver.count(driver.isLog) == 2)
    return driver
  }

  @Test("a leg that only memory calls stale stays while the log may call it the only good one")
  func logCallsItGood() throws {
    let driver = try HeldLogTests.cleared()
    let first = driver.submit(.write, 0, 4096)
    driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 0 }
    driver.complete(where: driver.isData)
    #expect(driver.leg(0)?.state == .online, "by the log leg 1 may be stale")
    let second = driver.submit(.write, 8192, 4096)
    driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 0 }
    driver.complete(where: driver.isData)
    #expect(driver.leg(0)?.state == .online, "that leg 0 is stale is not in the log yet")
    #expect(driver.replies[first] == nil && driver.replies[second] == nil)
    driver.completeAll(where: driver.isLog)
    driver.runToRest()
    #expect(driver.replies[first] == 0 && driver.replies[second] == 0)
  }

  @Test("a leg that takes no log any more goes when the page is on all others")
  func failsItsLog() throws {
    let driver = try HeldLogTests.cleared()
    let write = driver.submit(.write, 0, 4096)
    driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 0 }
    driver.complete(where: driver.isData)
    #expect(driver.leg(0)?.state == .online)
    driver.complete(error: 5) { driver.isLog($0) && $0.leg.index == 0 }
    driver.complete { driver.isLog($0) && $0.leg.index == 1 }
    #expect(driver.leg(0)?.state == .failed)
    driver.completeAll(where: driver.isLog)
    #expect(driver.replies[write] == nil, "that leg 0 is stale only the log of leg 1 says")
    driver.completeAll(where: driver.isLabel)
    #expect(driver.replies[write] == nil, "the log counts behind the label that excludes leg 0")
    driver.completeAll(where: driver.isLog)
    #expect(driver.replies[write] == 0)
    driver.runToRest()
    let label = try #require(driver.leg(1))
    #expect(label.state == .online && label.staleBytes == 0)
  }

  @Test("a write that failed leaves a region unresolved whose cleared stale bit the log still has")
  func failedWrite() throws {
    let region: UInt64 = 2 << 20
    let driver = try EngineDriver.opened(regionBytes: region) { start in
      start.words[0] = 1 << 1
      start.words[1] = 1 << 1
      start.isResyncPaused = true
    }
    _ = driver.submit(.write, region - 4096, 8192)
    driver.runToRest()
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    // Region 0 is copied and flushed, the copy of region 1 hangs behind its first window.
    let second = driver.layout.dataOffset + region
    let isHeld = { (io: LegIO) in io.offset > second && io.kind == .read }
    driver.completeAll { !driver.isLog($0) && !isHeld($0) }
    driver.pass(seconds: 6)
    driver.completeAll { !driver.isLog($0) && !isHeld($0) }
    #expect(driver.leg(1)?.staleBytes == region)
    #expect(driver.count(driver.isLog) > 0)
    // In region 1 only leg 0 is good, and it is full: the write fails; in region 0 leg 1 has it.
    let write = driver.submit(.write, region - 4096, 8192)
    driver.complete(error: Errno.enospc) {
      driver.isData($0) && $0.kind == .write && $0.leg.index == 0
    }
    driver.complete { driver.isData($0) && $0.kind == .write && $0.leg.index == 1 }
    #expect(driver.replies[write] == Errno.enospc)
    #expect(driver.engine.snapshot().unresolvedRegions == 1)
    driver.runToRest()
    driver.pass(seconds: 6)
    driver.runToRest()
    #expect(driver.engine.snapshot().unresolvedRegions == 0)
  }

  @Test("what a copy brought to the leg that is read first is made durable there, too")
  func copiedToSource() throws {
    var words = [UInt16](repeating: 0, count: 8)
    words[0] = RegionWord.intent
    let driver = try EngineDriver(words: words)
    driver.completeAll(where: driver.isLabel)
    // The copier cannot read leg 0 and takes leg 1; the flush is held.
    driver.complete(error: 5) { $0.kind == .read && $0.leg.index == 0 }
    driver.completeAll { $0.kind != .flush && !driver.isLog($0) }
    #expect(driver.count { $0.kind == .flush } == 2)
    let read = driver.submit(.read, 0, 4096)
    driver.complete { $0.kind == .read }
    let writes = driver.open.map(\.io).filter { driver.isData($0) && $0.kind == .write }
    #expect(Set(writes.map(\.leg.index)) == [0, 1])
    #expect(writes.allSatisfy { $0.isDurable })
    driver.complete { driver.isData($0) && $0.leg.index == 1 }
    #expect(driver.replies[read] == nil, "leg 0 has it in its cache only")
    driver.complete { driver.isData($0) && $0.leg.index == 0 }
    #expect(driver.replies[read] == 0)
    driver.runToRest()
    let after = driver.submit(.read, 0, 4096)
    driver.complete { $0.kind == .read }
    #expect(driver.replies[after] == 0, "flushed and resolved: nothing is written back")
  }

  @Test("a leg that is left alone with a copy in its cache is believed after a flush")
  func copiedToLast() throws {
    var words = [UInt16](repeating: 0, count: 8)
    words[0] = RegionWord.intent
    let driver = try EngineDriver(words: words)
    driver.completeAll(where: driver.isLabel)
    driver.complete(error: 5) { $0.kind == .read && $0.leg.index == 0 }
    driver.complete { $0.kind == .read && $0.leg.index == 1 }
    driver.complete { driver.isData($0) && $0.kind == .write }
    let isFlush = { (io: LegIO) in io.kind == .flush }
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { !isFlush($0) }
    #expect(driver.leg(1)?.state == .failed)
    #expect(driver.engine.snapshot().unresolvedRegions == 1)
    driver.runToRest()
    #expect(driver.engine.snapshot().unresolvedRegions == 0)
  }

  @Test("a read whose source is lost in the write-back is asked of a leg that has become good")
  func askedAgain() throws {
    var words = [UInt16](repeating: 0, count: 8)
    words[0] = RegionWord.intent | 1 << 1
    let driver = try EngineDriver(words: words)
    driver.completeAll(where: driver.isLabel)
    driver.completeAll { $0.kind != .flush }
    #expect(driver.count { $0.kind == .flush } == 2, "leg 1 has the copy, not flushed")
    let read = driver.submit(.read, 0, 4096)
    driver.complete { $0.kind == .read }
    let isWriteBack = { (io: LegIO) in driver.isData(io) && io.kind == .write }
    #expect(driver.count(isWriteBack) == 1)
    driver.completeAll { !isWriteBack($0) }
    #expect(driver.engine.snapshot().unresolvedRegions == 0)
    try driver.engine.fail(LegSlot(0), now: driver.now)
    driver.drain()
    #expect(driver.replies[read] == nil)
    driver.completeAll { !isWriteBack($0) }
    #expect(driver.replies[read] == 0)
  }

  @Test("a write does not count as held by a leg that goes while it is decided")
  func holderGoes() throws {
    let driver = try EngineDriver.opened(legs: 3)
    _ = driver.submit(.write, 0, 4096)
    driver.runToRest()
    // A page for region 1: two legs fail it, the third is slow.
    _ = driver.submit(.write, 1 << 20, 4096)
    for leg in [0, 2] {
      driver.complete(error: 5) { driver.isLog($0) && $0.leg.index == leg }
    }
    let write = driver.submit(.write, 0, 4096)
    let isData = { (io: LegIO) in driver.isData(io) && io.kind == .write }
    driver.complete { isData($0) && $0.leg.index == 0 }
    driver.complete(error: 5) { isData($0) && $0.leg.index == 2 }
    // Leg 1 goes, with it the page's last hope, with it leg 0, which alone has the write.
    driver.complete(error: 5) { isData($0) && $0.leg.index == 1 }
    let run = driver.engine.statusRun(at: ByteRange(offset: 0, count: 4096))
    #expect(!run.good.isEmpty, "somebody is good for what was there before")
    driver.runToRest()
    #expect(driver.replies[write] == 5)
  }
}
