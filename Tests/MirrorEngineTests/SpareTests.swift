// Goal: a spare waits without holding anybody up, takes over from a leg that failed, and is no
// reason to refuse anything. Method: a scripted engine.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Spares")
struct SpareTests {
  private func withSpare() throws -> (EngineDriver, LabelledPVs) {
    var (driver, pvs) = try LabelledPVs.opened(legs: 2)
    pvs.labels[2] = driver.engine.labelForAddedPV(legId: EngineDriver.legId[2], at: LegSlot(2))
    try driver.engine.add(
      legId: EngineDriver.legId[2], at: LegSlot(2), isSpare: true, now: driver.now)
    driver.drain()
    #expect(driver.open.allSatisfy { driver.isLabel($0.io) })
    try pvs.runToRest(driver)
    return (driver, pvs)
  }

  private func settle(_ driver: EngineDriver, _ pvs: inout LabelledPVs) throws {
    for _ in 0..<4 {
      try pvs.runToRest(driver)
      driver.pass(seconds: 0.3)
    }
    try pvs.runToRest(driver)
  }

  @Test("a spare gets labels, no data and no log, and counts for nothing")
  func waits() throws {
    var (driver, pvs) = try withSpare()
    for slot in 0...2 { #expect(pvs.labels[slot]?.members[2].state == .spare) }
    #expect(pvs.labels[2]?.isOfSpare == true && driver.engine.isLabelSettled)
    #expect(driver.leg(2)?.state == .spare && driver.leg(2)?.staleBytes == 0)
    _ = driver.submit(.write, 0, 4096)
    _ = driver.submit(.flush)
    while let io = driver.open.first?.io {
      #expect(io.leg.index != 2)
      driver.complete { $0.token == io.token }
    }
    #expect(driver.engine.snapshot().syncPercent == 100)
    let plan = try pvs.plan([0, 1, 2]).get()
    #expect(plan.legs[2]?.role == .spare && plan.online == LegSet(bits: 0b11))
    #expect(try pvs.plan([0, 1]).get().lost.isEmpty)
    #expect(pvs.plan([2], degraded: true).refusal != nil)
    // A second spare's label cannot be confused with the first one's.
    try pvs.runToRest(driver)
  }

  @Test("a spare takes over from a leg that failed by errors or by command, which is removed then")
  func takesOver() throws {
    for byCommand in [true, false] {
      var (driver, pvs) = try withSpare()
      if byCommand {
        try driver.engine.fail(LegSlot(1), now: driver.now)
        driver.drain()
      } else {
        _ = driver.submit(.write, 0, 4096)
        driver.completeAll(where: driver.isLog)
        driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 1 }
      }
      try settle(driver, &pvs)
      #expect(driver.leg(2)?.state == .online && driver.leg(2)?.staleBytes == 0)
      #expect(driver.leg(1)?.state == .removed)
      #expect(driver.events.contains { $0.kind == .replaceStarted && $0.leg?.index == 2 })
      #expect(driver.engine.snapshot().resyncBytesDone == 8 << 20)
      #expect(try pvs.plan([0, 2]).get().online == LegSet(bits: 0b101))
    }
  }

  @Test("a leg that was removed needs no spare")
  func removal() throws {
    var (driver, pvs) = try withSpare()
    try driver.engine.remove(LegSlot(1), now: driver.now)
    driver.drain()
    try settle(driver, &pvs)
    #expect(driver.leg(2)?.state == .spare)
  }

  @Test("a leg that failed before the last stop is replaced by a spare that is there now")
  func takesOverAtStart() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 2)
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    pvs.labels[2] = driver.engine.labelForAddedPV(legId: EngineDriver.legId[2], at: LegSlot(2))
    try driver.engine.add(
      legId: EngineDriver.legId[2], at: LegSlot(2), isSpare: true, now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    let next = EngineDriver(
      plan: try pvs.plan([0, 2]).get(), words: Array(repeating: 2, count: 8))
    try settle(next, &pvs)
    #expect(next.leg(2)?.state == .online && next.leg(1)?.state == .removed)
  }

  @Test("a spare that does not answer holds up no ack, and is dropped")
  func hangs() throws {
    let (driver, _) = try withSpare()
    _ = driver.submit(.write, 0, 4096)
    driver.completeAll(where: driver.isLog)
    driver.complete(error: 5) { driver.isData($0) && $0.leg.index == 1 }
    driver.completeAll { $0.leg.index != 2 }
    #expect(driver.replies[1] == 0)
    #expect(driver.count { $0.leg.index == 2 } == 1)
    driver.pass(seconds: 9)
    #expect(driver.leg(2) == nil)
    #expect(driver.events.contains { $0.kind == .spareDropped && $0.leg?.index == 2 })
    driver.runToRest()
    #expect(driver.idle.contains(LegSlot(2)))
    #expect(driver.leg(0)?.state == .online)
  }

  @Test("a spare that fails its label, or while it takes over, is dropped")
  func fails() throws {
    for isJoining in [false, true] {
      let (driver, _) = try withSpare()
      try driver.engine.fail(LegSlot(1), now: driver.now)
      driver.drain()
      if isJoining {
        driver.runToRest()
        driver.pass(seconds: 0.3)
        #expect(driver.leg(2)?.isJoining == true)
        driver.complete(error: 5) { driver.isLog($0) && $0.leg.index == 2 }
      } else {
        driver.complete(error: 5) { driver.isLabel($0) && $0.leg.index == 2 }
      }
      driver.runToRest()
      #expect(driver.leg(2) == nil && driver.leg(1)?.state == .failed)
      #expect(driver.idle.contains(LegSlot(2)))
    }
  }

  @Test("a spare can be removed; one that was absent comes back by readd")
  func comesAndGoes() throws {
    var (driver, pvs) = try withSpare()
    let absent = EngineDriver(
      plan: try pvs.plan([0, 1]).get(), words: Array(repeating: 0, count: 8))
    absent.runToRest()
    #expect(absent.leg(2)?.state == .spare)
    try absent.engine.fail(LegSlot(1), now: absent.now)
    absent.drain()
    var later = pvs
    try settle(absent, &later)
    #expect(absent.leg(1)?.state == .failed, "an absent spare takes over from nobody")
    let label = try #require(pvs.labels[2])
    try absent.engine.readd(absent.returning(label), to: LegSlot(2), now: absent.now)
    absent.drain()
    try settle(absent, &later)
    #expect(absent.leg(1)?.state == .removed && absent.leg(2)?.state == .online)

    try driver.engine.remove(LegSlot(2), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    #expect(driver.leg(2) == nil && driver.idle == [LegSlot(2)])
    let plan = try pvs.plan([0, 1, 2]).get()
    #expect(plan.legs[2] == nil && plan.online == LegSet(bits: 0b11))
  }

  @Test("a stop while a spare takes over leaves a spare")
  func stop() throws {
    var (driver, pvs) = try withSpare()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    driver.pass(seconds: 0.3)
    #expect(driver.leg(2)?.isJoining == true)
    driver.engine.beginStop(now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    #expect(driver.isStopped && pvs.labels[0]?.isClean == true)
    #expect(pvs.labels[0]?.members[2].state == .spare)
    #expect(try pvs.plan([0, 2]).get().legs[2]?.role == .spare)
  }

  @Test("a label that only the spare got says who is online; nothing else is taken from it")
  func witness() throws {
    var (driver, pvs) = try withSpare()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    try pvs.complete(driver, on: 2)
    let plan = try pvs.plan([0, 1, 2]).get()
    #expect(plan.online == LegSet(bits: 1) && plan.head.slot == LegSlot(2))
    #expect(plan.explanation.contains { $0.hasPrefix("the spare PV /pv2 has a newer label") })
    // The legs go on without having heard of it: the spare's label is nobody's history.
    try pvs.goOnAlone(0)
    let later = try pvs.plan([0, 2], degraded: true).get()
    #expect(later.head.slot == LegSlot(0) && later.legs[2]?.role == .spare)
  }
}
