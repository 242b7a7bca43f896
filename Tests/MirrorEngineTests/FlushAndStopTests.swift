// Goal: flushes vouch for what they cover; intent is cleared only after a flush; a stop is clean.
// Method: a scripted engine and a scripted clock.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Flushes, intent and the stop")
struct FlushAndStopTests {
  @Test("concurrent flushes share a round; one that comes meanwhile waits for the next")
  func shared() throws {
    let driver = try EngineDriver.opened()
    let first = driver.submit(.flush)
    let second = driver.submit(.flush)
    let third = driver.submit(.flush)
    #expect(driver.count { $0.kind == .flush } == 2)
    driver.complete { $0.leg.index == 0 }
    #expect(driver.replies[first] == nil)
    driver.complete { $0.leg.index == 1 }
    #expect(driver.replies[first] == 0)
    #expect(driver.replies[second] == nil && driver.replies[third] == nil)
    #expect(driver.count { $0.kind == .flush } == 2, "one round for both")
    driver.runToRest()
    #expect(driver.replies[second] == 0 && driver.replies[third] == 0)
  }

  @Test("a leg that fails its flush goes offline, stale where intent was, before the ack")
  func failedFlush() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 2 << 20, 4096)
    driver.runToRest()
    let flush = driver.submit(.flush)
    driver.complete(error: 5) { $0.leg.index == 0 }
    driver.complete { $0.kind == .flush }
    #expect(driver.replies[flush] == nil)
    #expect(driver.leg(0)?.state == .failed)
    #expect(driver.leg(0)?.staleBytes == 1 << 20)
    driver.completeAll(where: driver.isLabel)
    #expect(driver.replies[flush] == 0)
  }

  @Test("a leg that comes during a flush is flushed itself when it alone is left")
  func flushOfWhoCame() throws {
    let driver = try EngineDriver.opened()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    let flush = driver.submit(.flush)
    let label = Generation(counter: 1, id: Identifier(high: 7, low: 7))
    try driver.engine.readd(
      ReturningLeg(
        legId: EngineDriver.legId[1], lineage: Lineage(current: label, parents: []),
        labelSequence: 1, labelCopy: 0, isTreatedAsNew: false), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { $0.kind != .flush }
    #expect(driver.leg(1)?.state == .online && driver.leg(1)?.staleBytes == 0)
    try driver.engine.fail(LegSlot(0), now: driver.now)
    driver.drain()
    #expect(driver.replies[flush] == nil)
    #expect(driver.count { $0.kind == .flush && $0.leg.index == 1 } == 1)
    driver.completeAll { $0.kind == .flush && $0.leg.index == 1 }
    #expect(driver.replies[flush] == nil, "the label still lists leg 0, which was not flushed")
    driver.runToRest()
    #expect(driver.replies[flush] == 0)
  }

  @Test("a flush waits for the label even if the leg failed before the flush began")
  func flushAfterFailure() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 4096)
    driver.runToRest()
    try driver.engine.fail(LegSlot(0), now: driver.now)
    driver.drain()
    let flush = driver.submit(.flush)
    driver.completeAll { $0.kind == .flush }
    #expect(driver.replies[flush] == nil, "leg 0 is recorded online and was not flushed")
    driver.runToRest()
    #expect(driver.replies[flush] == 0)
  }

  @Test("the failed flush of the last leg is latched until it is cleared")
  func latched() throws {
    let driver = try EngineDriver.opened(legs: 1)
    let first = driver.submit(.flush)
    driver.complete(error: 5) { $0.kind == .flush }
    #expect(driver.replies[first] == 5)
    let second = driver.submit(.flush)
    #expect(driver.replies[second] == 5)
    #expect(driver.open.isEmpty, "it is never retried")
    try driver.engine.refresh(LegSlot(0), now: driver.now)
    let third = driver.submit(.flush)
    driver.runToRest()
    #expect(driver.replies[third] == 0)
  }

  @Test("intent is cleared after a flush that began after the last write, and not sooner")
  func clearing() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 4096)
    driver.runToRest()
    driver.pass(seconds: 5.1)
    #expect(driver.open.isEmpty, "written in this period")
    driver.pass(seconds: 5.1)
    #expect(driver.count { $0.kind == .flush } == 2)
    _ = driver.submit(.write, 0, 4096)
    driver.completeAll { $0.kind == .write }
    driver.completeAll { $0.kind == .flush }
    #expect(driver.engine.snapshot().dirtyRegions == 1, "touched while the flush ran")
    driver.pass(seconds: 5.1)
    driver.pass(seconds: 5.1)
    driver.complete { $0.kind == .flush }
    #expect(driver.engine.snapshot().dirtyRegions == 1, "one leg's flush is not enough")
    driver.complete { $0.kind == .flush }
    #expect(driver.engine.snapshot().dirtyRegions == 0)
    #expect(try #require(driver.openWords(on: 0))[0] == 0)
  }

  @Test("a bit that is being cleared on disk does not count as durable")
  func clearInFlight() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 4096)
    driver.runToRest()
    driver.pass(seconds: 5.1)
    driver.pass(seconds: 5.1)
    driver.completeAll { $0.kind == .flush }
    #expect(driver.count(driver.isLog) == 2, "the cleared image is in flight")
    _ = driver.submit(.write, 0, 4096)
    #expect(driver.count(driver.isData) == 0)
    driver.complete(where: driver.isLog)
    driver.complete(where: driver.isLog)
    #expect(driver.count(driver.isLog) == 2, "intent again")
    #expect(driver.count(driver.isData) == 0)
    driver.runToRest()
    #expect(driver.engine.snapshot().dirtyRegions == 1)
  }

  @Test("clearing intent marks the offline legs stale in the same update")
  func clearingDegraded() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 4096)
    driver.runToRest()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    driver.pass(seconds: 5.1)
    driver.pass(seconds: 5.1)
    driver.completeAll { $0.kind == .flush }
    #expect(try #require(driver.openWords(on: 0))[0] == 2)
  }

  @Test("a stop answers, flushes, clears the map and writes clean labels to both copies")
  func cleanStop() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 0, 4096)
    driver.engine.beginStop(now: driver.now)
    driver.drain()
    driver.completeAll { $0.kind == .write }
    #expect(driver.replies[write] == 0)
    #expect(driver.count { $0.kind == .flush } == 2)
    #expect(!driver.isStopped)
    driver.completeAll { $0.kind == .flush }
    #expect(try #require(driver.openWords(on: 1)) == Array(repeating: 0, count: 8))
    driver.completeAll(where: driver.isLog)
    #expect(try #require(try driver.openLabel(on: 0)).isClean)
    var copies: Set<UInt64> = []
    while let io = driver.open.first?.io {
      copies.insert(io.offset)
      driver.complete { $0.token == io.token }
    }
    #expect(copies == [Layout.labelOffset(copy: 0), Layout.labelOffset(copy: 1)])
    #expect(driver.isStopped)
  }

  @Test("with a log in memory nothing is logged until a clean stop, then the whole map is")
  func coreLog() throws {
    let driver = try EngineDriver.opened(logKind: .core)
    _ = driver.submit(.write, 0, 4096)
    #expect(driver.count(driver.isLog) == 0 && driver.count(driver.isData) == 2)
    driver.runToRest()
    driver.engine.beginStop(now: driver.now)
    driver.drain()
    driver.completeAll { $0.kind == .flush }
    #expect(driver.count(driver.isLog) == 2)
    driver.runToRest()
    #expect(driver.isStopped)
  }

  @Test("a read-only mirror writes nothing at all")
  func readOnly() throws {
    var words = [UInt16](repeating: 0, count: 8)
    words[0] = RegionWord.intent
    let driver = try EngineDriver(words: words, isReadOnly: true)
    let read = driver.submit(.read, 0, 4096)
    let flush = driver.submit(.flush)
    driver.pass(seconds: 6)
    #expect(driver.open.map(\.io.kind) == [.read])
    driver.runToRest()
    #expect(driver.replies[read] == 0 && driver.replies[flush] == 0)
    driver.engine.beginStop(now: driver.now)
    driver.drain()
    #expect(driver.open.isEmpty && driver.isStopped)
  }
}
