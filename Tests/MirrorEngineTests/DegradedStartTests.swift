// Goal: what a degraded start knows only by the head's label is in the log before another label
// takes its place, and what holds only under the new one is not. Method: page and label writes one
// by one.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Start without a leg")
struct DegradedStartTests {
  private static let intent = RegionWord.intent

  /// Leg 0 is here (and leg 3, if there are four), leg 1 was online and is absent, leg 2 failed
  /// before. In region 0 only leg 1 is good; region 1 was being written; in the others nothing was.
  private func start(legs: Int = 3) throws -> EngineDriver {
    var words = [UInt16](repeating: 0, count: 8)
    words[0] = Self.intent | (legs == 4 ? 0b1101 : 0b101)
    words[1] = Self.intent | 0b100
    return try EngineDriver(legs: legs, words: words, absent: [1: .missing, 2: .failed]) {
      $0.pagesToRewrite = [true]
      $0.lost = LegSet(LegSlot(1))
    }
  }

  @Test("the page comes before the label, and calls the absent leg stale only behind it")
  func order() throws {
    let driver = try start()
    #expect(driver.count(driver.isLabel) == 0 && driver.count(driver.isLog) == 1)
    let early = try #require(driver.openWords(on: 0))
    #expect(early[0] == Self.intent | 0b101 && early[1] == Self.intent | 0b100)
    let write = driver.submit(.write, 1 << 20, 512)
    driver.complete(where: driver.isLog)
    #expect(driver.count(driver.isLog) == 0)
    let label = try #require(try driver.openLabel(on: 0))
    #expect(label.members[1].state == .missing && label.lineage.current.counter == 2)
    driver.complete(where: driver.isLabel)
    let late = try #require(driver.openWords(on: 0))
    #expect(late[0] == Self.intent | 0b101 && late[1] == Self.intent | 0b110)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }

  @Test("a page that the last leg does not take: no label, and who waits gets EIO")
  func pageFails() throws {
    let driver = try start()
    let first = driver.submit(.write, 1 << 20, 512)
    driver.complete(error: 5, where: driver.isLog)
    #expect(driver.replies[first] == 5)
    #expect(driver.open.isEmpty)
    // With the next request once more, or after a second.
    let second = driver.submit(.write, 1 << 20, 512)
    #expect(driver.count(driver.isLog) == 1)
    driver.complete(error: 5, where: driver.isLog)
    #expect(driver.replies[second] == 5 && driver.open.isEmpty)
    driver.pass(seconds: 1.1)
    driver.runToRest()
    #expect(driver.replies[driver.submit(.flush)] == nil)
    driver.runToRest()
    #expect(driver.isLabelSettled && driver.leg(0)?.state == .online)
  }

  @Test("of two legs one does not take the page: the label excludes it, too")
  func oneLegFails() throws {
    let driver = try start(legs: 4)
    #expect(driver.count(driver.isLog) == 2)
    driver.complete(error: 5) { driver.isLog($0) && $0.leg.index == 3 }
    driver.complete(where: driver.isLog)
    let label = try #require(try driver.openLabel(on: 0))
    #expect(label.members[0].state == .online && label.members[1].state == .missing)
    #expect(label.members[3].state == .failed)
    #expect(driver.leg(3)?.state == .failed)
    driver.completeAll(where: driver.isLabel)
    let words = try #require(driver.openWords(on: 0))
    #expect(words[0] == Self.intent | 0b1101 && words[1] == Self.intent | 0b1110)
  }

  @Test("the leg that is good is back: the failed one gets from it what it lacks")
  func goodLegReturns() throws {
    let driver = try start()
    driver.runToRest()
    let failed = ReturningLeg(
      legId: EngineDriver.legId[2],
      lineage: Lineage(
        current: Generation(counter: 1, id: Identifier(high: 7, low: 7)), parents: []),
      labelSequence: 1, labelCopy: 0, isTreatedAsNew: false)
    try driver.engine.readd(failed, to: LegSlot(2), now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(2)?.state == .online)
    let read = driver.submit(.read, 0, 512)
    driver.runToRest()
    #expect(driver.replies[read] == 5, "nobody who is here has region 0")
  }
}
