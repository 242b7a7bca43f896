// Goal: `leg refresh` and `leg set` do what they say and nothing to the data. Method: a scripted
// engine.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Refresh")
struct RefreshTests {
  @Test("write-mostly is written into the labels, kept over a restart, and heeded")
  func writeMostly() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 2)
    try driver.engine.setWriteMostly(LegSlot(0), true, now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    #expect(pvs.labels[1]?.members[0].isWriteMostly == true)
    let next = EngineDriver(
      plan: try pvs.plan([0, 1]).get(), words: Array(repeating: 0, count: 8))
    next.runToRest()
    for _ in 0..<6 {
      _ = next.submit(.read, 0, 4096)
      #expect(next.open.first?.io.leg.index == 1)
      next.runToRest()
    }
    try next.engine.setWriteMostly(LegSlot(0), false, now: next.now)
    next.drain()
    #expect(try next.openLabel(on: 0)?.members[0].isWriteMostly == false)
    #expect(throws: CommandError.noSuchLeg) {
      try next.engine.setWriteMostly(LegSlot(5), true, now: next.now)
    }
  }

  @Test("the errors of a leg are forgotten; an offline leg is not refreshed but readded")
  func errors() throws {
    let driver = try EngineDriver.opened()
    for _ in 0..<8 {
      _ = driver.submit(.read, 0, 4096)
      driver.complete(error: 5) { $0.kind == .read && $0.leg.index == 0 }
      driver.runToRest()
    }
    #expect(driver.leg(0)?.readErrors ?? 0 > 0)
    try driver.engine.refresh(LegSlot(0), now: driver.now)
    #expect(driver.leg(0)?.readErrors == 0)
    try driver.engine.fail(LegSlot(0), now: driver.now)
    #expect(throws: CommandError.notOnline) {
      try driver.engine.refresh(LegSlot(0), now: driver.now)
    }
  }

  @Test("a failed flush of the last leg is latched until it is refreshed; then it copies again")
  func latch() throws {
    // Leg 0 alone has regions 1 and 5; region 7 is written on both.
    let driver = try LegTests.degraded()
    driver.engine.setCopierPaused(true, now: driver.now)
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    _ = driver.submit(.write, 7 << 20, 4096)
    driver.runToRest()
    let flush = driver.submit(.flush)
    driver.complete(error: 5) { $0.kind == .flush && $0.leg.index == 0 }
    driver.runToRest()
    #expect(driver.replies[flush] == 5 && driver.engine.snapshot().isFlushLatched)
    try driver.engine.refresh(LegSlot(1), now: driver.now)
    #expect(driver.engine.snapshot().isFlushLatched, "it was the other leg")
    try driver.engine.refresh(LegSlot(0), now: driver.now)
    driver.drain()
    #expect(!driver.engine.snapshot().isFlushLatched)
    // Region 7 has intent and leg 1 is good there; regions 1 and 5 leg 0 alone has.
    #expect(driver.leg(0)?.staleBytes == 1 << 20)
    driver.runToRest()
    let again = driver.submit(.flush)
    driver.runToRest()
    #expect(driver.replies[again] == 0)
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(0)?.staleBytes == 0 && driver.leg(1)?.staleBytes == 0)
  }

  @Test("a whole refresh copies everything that another leg has, and reads go elsewhere meanwhile")
  func whole() throws {
    // Leg 0 alone has regions 1 and 5.
    let driver = try LegTests.degraded()
    driver.engine.setCopierPaused(true, now: driver.now)
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.runToRest()
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(1)?.staleBytes == 2 << 20)
    try driver.engine.refresh(LegSlot(0), isWhole: true, now: driver.now)
    driver.drain()
    #expect(driver.leg(0)?.staleBytes == 6 << 20, "all but what it alone has")
    for region in UInt64(0)..<8 {
      _ = driver.submit(.read, region << 20, 4096)
      let isAlone = region == 1 || region == 5
      let reads = driver.open.map(\.io).filter { $0.kind == .read }
      #expect(reads.map(\.leg.index) == [isAlone ? 0 : 1], "region \(region)")
      driver.completeAll { $0.kind == .read }
    }
    driver.runToRest()
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(0)?.staleBytes == 0 && driver.leg(1)?.staleBytes == 0)
    #expect(driver.engine.snapshot().resyncBytesDone == 8 << 20)
  }

  @Test("a whole refresh is refused where no other leg can be copied from")
  func wholeRefused() throws {
    let alone = try EngineDriver.opened(legs: 1)
    #expect(throws: CommandError.onlyGoodCopy) {
      try alone.engine.refresh(LegSlot(0), isWhole: true, now: alone.now)
    }
    #expect(alone.leg(0)?.staleBytes == 0)
    // The only other leg had a failed flush: what it holds is in doubt.
    let driver = try LegTests.degraded()
    driver.engine.setCopierPaused(true, now: driver.now)
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    _ = driver.submit(.write, 7 << 20, 4096)
    driver.runToRest()
    _ = driver.submit(.flush)
    driver.complete(error: 5) { $0.kind == .flush && $0.leg.index == 0 }
    driver.runToRest()
    #expect(driver.engine.snapshot().isFlushLatched)
    #expect(throws: CommandError.onlyGoodCopy) {
      try driver.engine.refresh(LegSlot(1), isWhole: true, now: driver.now)
    }
    #expect(driver.leg(1)?.staleBytes == 2 << 20)
  }
}
