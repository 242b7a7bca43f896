// Goal: the write path keeps P1, P2 and P4 in every order of completions that matters.
// Method: a scripted engine; the test completes I/O one by one and looks at what is open.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Writes")
struct WriteTests {
  @Test("data is issued only when intent is durable in the log of every online leg")
  func intentBeforeData() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 4096, 4096)
    #expect(driver.count(driver.isData) == 0)
    #expect(driver.count(driver.isLog) == 2)
    #expect(try #require(driver.openWords(on: 0))[0] == RegionWord.intent)
    driver.complete { driver.isLog($0) && $0.leg.index == 0 }
    #expect(driver.count(driver.isData) == 0, "one leg's log is not enough")
    driver.complete { driver.isLog($0) }
    #expect(driver.count(driver.isData) == 2, "both legs at once")
    driver.complete { driver.isData($0) && $0.leg.index == 1 }
    #expect(driver.replies[write] == nil, "one leg's data are not enough")
    driver.complete(where: driver.isData)
    #expect(driver.replies[write] == 0)
    #expect(driver.released.contains(write))
  }

  @Test("a region whose intent is durable takes further writes without the log")
  func intentIsShared() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 4096)
    driver.runToRest()
    _ = driver.submit(.write, 8192, 4096)
    #expect(driver.count(driver.isLog) == 0)
    #expect(driver.count(driver.isData) == 2)
  }

  @Test("nothing is written before the opening label is durable")
  func labelFirst() throws {
    let driver = try EngineDriver()
    let write = driver.submit(.write, 0, 4096)
    #expect(driver.open.count == 2)
    #expect(driver.count(driver.isLabel) == 2)
    #expect(try #require(try driver.openLabel(on: 0)).isClean == false)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }

  @Test("group commit: writes that come while a page is in flight share the next commit")
  func groupCommit() throws {
    let driver = try EngineDriver.opened()
    let tokens = (0..<4).map { driver.submit(.write, UInt64($0) << 20, 512) }
    #expect(driver.count(driver.isLog) == 2, "one commit in flight")
    driver.completeAll { driver.isLog($0) && driver.count(driver.isData) == 0 }
    #expect(driver.count(driver.isData) == 2, "the first write goes on")
    #expect(driver.count(driver.isLog) == 2, "one commit for the other three")
    driver.runToRest()
    for token in tokens { #expect(driver.replies[token] == 0) }
  }

  @Test("the ack waits for the label that excludes the leg which failed the write")
  func ackAfterLabel() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 0, 4096)
    driver.completeAll(where: driver.isLog)
    driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 0 }
    #expect(driver.replies[write] == nil)
    driver.complete(where: driver.isData)
    #expect(driver.replies[write] == nil, "the label is not durable yet")
    let label = try #require(try driver.openLabel(on: 1))
    #expect(label.members[0].state == .failed)
    #expect(label.members[1].state == .online)
    #expect(label.lineage.current.counter == 2)
    #expect(try driver.openLabel(on: 0) == nil, "the failed leg gets nothing more")
    driver.complete(where: driver.isLabel)
    #expect(driver.replies[write] == 0)
    #expect(driver.leg(0)?.state == .failed)
  }

  @Test("the error of the last leg goes to the client, and the leg stays")
  func lastLeg() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 0, 4096)
    driver.completeAll(where: driver.isLog)
    driver.completeAll(error: 5, where: driver.isData)
    driver.runToRest()
    #expect(driver.replies[write] == 5)
    let states = driver.engine.snapshot().legs.map(\.state)
    #expect(states.count { $0 == .online } == 1)
    let again = driver.submit(.write, 0, 4096)
    driver.runToRest()
    #expect(driver.replies[again] == 0, "the leg works again and the mirror goes on")
  }

  @Test("ENOSPC on one leg fails the leg; on all it is the client's and no leg fails")
  func noSpace() throws {
    let one = try EngineDriver.opened()
    let write = one.submit(.write, 0, 4096)
    one.completeAll(where: one.isLog)
    one.complete(error: 28) { one.isData($0) && $0.leg.index == 0 }
    one.runToRest()
    #expect(one.replies[write] == 0)
    #expect(one.leg(0)?.state == .failed)

    let all = try EngineDriver.opened()
    let full = all.submit(.write, 0, 4096)
    all.completeAll(where: all.isLog)
    for slot in 0..<2 {
      all.complete(error: 28) { all.isData($0) && $0.leg.index == slot }
    }
    #expect(all.replies[full] == 28)
    #expect(all.leg(0)?.state == .online && all.leg(1)?.state == .online)
    #expect(all.engine.snapshot().unresolvedRegions == 1, "the legs may differ there")
    all.runToRest()
    #expect(all.engine.snapshot().unresolvedRegions == 0, "a copy makes them equal")
  }

  @Test("overlapping writes run one after the other, in arrival order; others run at once")
  func overlap() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 512)
    driver.runToRest()
    let first = driver.submit(.write, 0, 8192)
    let second = driver.submit(.write, 4096, 8192)
    let third = driver.submit(.write, 65536, 4096)
    let read = driver.submit(.read, 8192, 4096)
    #expect(driver.count(driver.isData) == 4, "first and third")
    driver.completeAll { driver.isData($0) && $0.offset == driver.layout.dataOffset + 65536 }
    #expect(driver.replies[third] == 0)
    #expect(driver.replies[second] == nil)
    driver.complete(where: driver.isData)
    #expect(driver.count(driver.isData) == 1, "the second waits for both legs of the first")
    driver.complete(where: driver.isData)
    #expect(driver.replies[first] == 0)
    #expect(driver.count { $0.kind == .read } == 0, "the read waits for the write before it")
    driver.completeAll { $0.kind == .write }
    #expect(driver.replies[second] == 0)
    #expect(driver.count { $0.kind == .read } == 1)
    driver.runToRest()
    #expect(driver.replies[read] == 0)
  }

  @Test("a read behind a write that waits for the log waits too")
  func readBehindParkedWrite() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 0, 4096)
    let read = driver.submit(.read, 0, 4096)
    #expect(driver.count { $0.kind == .read } == 0)
    driver.completeAll { $0.kind == .write }
    #expect(driver.replies[write] == 0 && driver.replies[read] == nil)
    driver.runToRest()
    #expect(driver.replies[read] == 0)
  }

  @Test("a partial block is read, merged and written whole, under the lock")
  func partialBlock() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 700, 1000)
    driver.completeAll(where: driver.isLog)
    // 700...1699: partial 512...1023, whole 1024...1535, partial 1536...2047, one after the other.
    #expect(driver.open.count == 1 && driver.open[0].io.kind == .read)
    #expect(driver.open[0].io.offset == driver.layout.dataOffset + 512)
    driver.complete { $0.kind == .read }
    #expect(driver.merges == 1)
    driver.runToRest()
    #expect(driver.merges == 2)
    #expect(driver.replies[write] == 0)
    let trim = driver.submit(.trim, 100, 300)
    #expect(driver.replies[trim] == 0, "a trim inside one block leaves it alone")
    #expect(driver.open.isEmpty)
  }

  @Test("a hung leg keeps the buffer until it answers; the client goes on after the label")
  func hungLeg() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 0, 4096)
    driver.completeAll(where: driver.isLog)
    driver.complete { driver.isData($0) && $0.leg.index == 1 }
    #expect(driver.replies[write] == nil)
    driver.pass(seconds: 8.5)
    #expect(driver.leg(0)?.state == .failed)
    driver.completeAll(where: driver.isLabel)
    #expect(driver.replies[write] == 0)
    #expect(!driver.released.contains(write), "the kernel still has it")
    #expect(driver.idle.isEmpty)
    driver.complete { $0.leg.index == 0 }
    #expect(driver.released.contains(write))
    #expect(driver.idle.last == LegSlot(0))
  }

  @Test("a degraded write makes the stale bit durable before the data")
  func staleBeforeData() throws {
    let driver = try EngineDriver.opened()
    try driver.engine.fail(LegSlot(0), now: driver.now)
    driver.drain()
    driver.runToRest()
    _ = driver.submit(.write, 3 << 20, 4096)
    #expect(driver.count(driver.isData) == 0)
    #expect(try #require(driver.openWords(on: 1))[3] == RegionWord.intent | 1)
    driver.runToRest()
    #expect(driver.leg(0)?.staleBytes == 1 << 20)
  }

  @Test("FUA writes are durable writes; a FUA zero is followed by a flush")
  func fua() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 4096, fua: true)
    driver.completeAll(where: driver.isLog)
    #expect(driver.open.allSatisfy { $0.io.isDurable })
    driver.runToRest()
    let zero = driver.submit(.zero, 0, 8192, fua: true)
    driver.completeAll { $0.kind == .zero }
    #expect(driver.replies[zero] == nil)
    #expect(driver.count { $0.kind == .flush } == 2)
    driver.runToRest()
    #expect(driver.replies[zero] == 0)
  }

  @Test("a long zero goes in chunks and its range is locked")
  func longZero() throws {
    let driver = try EngineDriver.opened(regions: 200)
    let zero = driver.submit(.zero, 0, 200 << 20)
    let write = driver.submit(.write, 10 << 20, 4096)
    driver.completeAll(where: driver.isLog)
    #expect(driver.open.allSatisfy { $0.io.kind == .zero && $0.io.count == Engine.zeroBytesMax })
    #expect(driver.count { $0.kind == .write } == 0)
    driver.runToRest()
    #expect(driver.replies[zero] == 0 && driver.replies[write] == 0)
  }
}
