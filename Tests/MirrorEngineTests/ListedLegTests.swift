// Goal: nothing is written that a leg would not know of which a label still lists: started alone it
// would take the others back as if they had nothing of their own. Method: label, page and data
// writes one by one, around the failure of a leg.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("A leg that is gone and still listed")
struct ListedLegTests {
  @Test("the log waits for the label that excludes it, and the data for the log")
  func order() throws {
    let driver = try EngineDriver.opened()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    let write = driver.submit(.write, 0, 512)
    #expect(driver.count(driver.isLog) == 0 && driver.count(driver.isLabel) == 1)
    driver.complete(where: driver.isLabel)
    #expect(driver.count(driver.isLog) == 1 && driver.count(driver.isData) == 0)
    driver.complete(where: driver.isLog)
    #expect(driver.count(driver.isData) == 1)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }

  @Test("a batch that was in flight when it failed is written once more, behind the label")
  func batchInFlight() throws {
    let driver = try EngineDriver.opened()
    let write = driver.submit(.write, 0, 512)
    driver.complete { driver.isLog($0) && $0.leg.index == 0 }
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.complete { driver.isLog($0) && $0.leg.index == 1 }
    #expect(driver.count(driver.isData) == 0 && driver.count(driver.isLog) == 0)
    driver.complete(where: driver.isLabel)
    let words = try #require(driver.openWords(on: 0))
    #expect(words[0] == RegionWord.intent | 2)
    driver.complete(where: driver.isLog)
    #expect(driver.count(driver.isData) == 1)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }

  @Test("no label, no write: who waits for the log gets EIO, and the next one tries again")
  func labelFails() throws {
    let driver = try EngineDriver.opened()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    let first = driver.submit(.write, 0, 512)
    driver.complete(error: 5, where: driver.isLabel)
    #expect(driver.replies[first] == 5)
    let second = driver.submit(.write, 0, 512)
    #expect(driver.count(driver.isLabel) == 1)
    driver.runToRest()
    #expect(driver.replies[second] == 0)
  }

  /// A stop that has flushed what was written and writes its last pages.
  private func atLastPages() throws -> EngineDriver {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.write, 0, 512)
    driver.runToRest()
    driver.engine.beginStop(now: driver.now)
    driver.drain()
    driver.completeAll { $0.kind == .flush }
    return driver
  }

  @Test("a stop whose last pages wait for a label that fails ends, not clean")
  func stop() throws {
    let driver = try atLastPages()
    #expect(driver.count(driver.isLog) == 2)
    driver.complete(error: 5) { driver.isLog($0) && $0.leg.index == 1 }
    driver.complete(where: driver.isLog)
    #expect(!driver.isStopped && driver.count(driver.isLabel) == 1)
    driver.complete(error: 5, where: driver.isLabel)
    #expect(driver.isStopped && !driver.engine.membership.isCleanRecorded)
  }

  @Test("a stop whose last pages wait for a label that succeeds is clean")
  func cleanStop() throws {
    let driver = try atLastPages()
    driver.complete(error: 5) { driver.isLog($0) && $0.leg.index == 1 }
    driver.runToRest()
    #expect(driver.isStopped && driver.engine.membership.isCleanRecorded)
  }

  @Test("a leg that is brought in and fails its label may be listed by it")
  func joiner() throws {
    let driver = try EngineDriver.opened(legs: 3)
    try driver.engine.fail(LegSlot(2), now: driver.now)
    driver.drain()
    driver.runToRest()
    try driver.engine.readd(
      ReturningLeg(
        legId: EngineDriver.legId[2],
        lineage: Lineage(
          current: Generation(counter: 1, id: Identifier(high: 7, low: 7)), parents: []),
        labelSequence: 1, labelCopy: 0, isTreatedAsNew: false),
      to: LegSlot(2), now: driver.now)
    driver.drain()
    driver.completeAll(where: driver.isLog)
    #expect(driver.count(driver.isLabel) == 3)
    driver.complete(error: 5) { driver.isLabel($0) && $0.leg.index == 2 }
    let write = driver.submit(.write, 0, 512)
    // It may still come in: the page goes to it, too.
    #expect(driver.count { driver.isLog($0) && $0.leg.index == 2 } == 1)
    driver.completeAll { driver.isLog($0) && $0.leg.index != 2 }
    driver.complete { driver.isLabel($0) && $0.leg.index == 0 }
    driver.complete { driver.isLabel($0) && $0.leg.index == 1 }
    #expect(driver.leg(2)?.state == .failed)
    #expect(driver.count(driver.isData) == 0)
    #expect(driver.count { driver.isLog($0) && $0.leg.index != 2 } == 0)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }

  @Test("a region is not resolved while a leg is listed that failed its copy")
  func unresolved() throws {
    let driver = try EngineDriver(words: [RegionWord.intent, 0, 0, 0, 0, 0, 0, 0])
    driver.completeAll(where: driver.isLabel)
    let isCopy = { (io: LegIO) in driver.isData(io) && io.kind == .write && io.leg.index == 1 }
    while driver.count(isCopy) == 0, driver.complete(where: { $0.kind == .read }) {}
    #expect(driver.complete(error: 5, where: isCopy))
    // The copy ends with its flush; that leg 1 is out no label says yet.
    driver.completeAll { $0.kind == .flush }
    #expect(driver.count(driver.isLabel) == 1 && driver.leg(1)?.state == .failed)
    let read = driver.submit(.read, 0, 512)
    driver.completeAll { !driver.isLabel($0) && !driver.isLog($0) }
    #expect(driver.replies[read] == nil)
    driver.runToRest()
    #expect(driver.replies[read] == 0)
  }

  @Test(
    "a leg that does not take the opening label still says clean: the one that excludes it comes first",
    arguments: [LogKind.disk, .core])
  func opening(logKind: LogKind) throws {
    let driver = try EngineDriver(logKind: logKind)
    let write = driver.submit(.write, 0, 512)
    driver.complete { driver.isLabel($0) && $0.leg.index == 0 }
    driver.complete(error: 5) { driver.isLabel($0) && $0.leg.index == 1 }
    driver.completeAll { !driver.isLabel($0) }
    #expect(driver.count(driver.isData) == 0 && driver.replies[write] == nil)
    // The second copy of the first label, then the first copy of the next one.
    driver.complete(where: driver.isLabel)
    #expect(driver.count(driver.isData) == 0)
    driver.complete(where: driver.isLabel)
    driver.completeAll(where: driver.isLog)
    #expect(driver.count(driver.isData) == 1)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }
}
