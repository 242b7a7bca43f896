// Goal: a leg is replaced, by command or by a spare, without a moment in which fewer legs hold the
// data, and nothing is removed that alone has something. Method: a scripted engine.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Replacing")
struct ReplaceTests {
  /// `old` of a mirror of `legs` legs is being replaced; the new leg is online, the copy paused.
  private func replacing(
    _ old: Int = 0, legs: Int = 2, logKind: LogKind = .disk
  ) throws -> (EngineDriver, LabelledPVs, Int) {
    var (driver, pvs) = try LabelledPVs.opened(legs: legs, logKind: logKind)
    driver.engine.setCopierPaused(true, now: driver.now)
    let slot = try driver.engine.slotForNewLeg()
    pvs.labels[slot.index] = driver.engine.labelForAddedPV(
      legId: EngineDriver.legId[slot.index], at: slot)
    try driver.engine.add(
      legId: EngineDriver.legId[slot.index], at: slot, replacing: LegSlot(old), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    return (driver, pvs, slot.index)
  }

  private func resume(_ driver: EngineDriver, _ pvs: inout LabelledPVs) throws {
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    try settle(driver, &pvs)
  }

  private func settle(_ driver: EngineDriver, _ pvs: inout LabelledPVs) throws {
    for _ in 0..<4 {
      try pvs.runToRest(driver)
      driver.pass(seconds: 0.3)
    }
    try pvs.runToRest(driver)
  }

  private func happened(
    _ driver: EngineDriver, _ kind: MirrorEvent.Kind, leg: Int, detail: UInt64
  ) -> Bool {
    driver.events.contains {
      $0.kind == kind && $0.leg?.index == leg && $0.detail == detail
    }
  }

  @Test(
    "the old leg serves until the new one is in sync, then it is removed",
    arguments: [LogKind.disk, .core])
  func replace(logKind: LogKind) throws {
    var (driver, pvs, new) = try replacing(logKind: logKind)
    #expect(pvs.labels[0]?.members[new].replaces == LegSlot(0))
    #expect(driver.leg(new)?.replaces == LegSlot(0) && driver.leg(0)?.state == .online)
    driver.pass(seconds: 1)
    #expect(driver.leg(0)?.state == .online)
    let write = driver.submit(.write, 0, 4096)
    #expect(driver.count { driver.isData($0) || driver.isLog($0) } > 0)
    try pvs.runToRest(driver)
    #expect(driver.replies[write] == 0)
    try resume(driver, &pvs)
    #expect(driver.leg(0)?.state == .removed && driver.leg(new)?.state == .online)
    #expect(driver.leg(new)?.replaces == nil && driver.leg(new)?.staleBytes == 0)
    #expect(happened(driver, .legReplaced, leg: 0, detail: UInt64(new)))
    #expect(pvs.labels[new]?.members[0].state == .removed)
    #expect(pvs.labels[new]?.members[new].replaces == nil)
    #expect(driver.idle == [LegSlot(0)])
    #expect(try pvs.plan([1, new]).get().online == LegSet(bits: 0b110))
  }

  @Test("the labels call the new leg in sync before the old one is removed")
  func recordedFirst() throws {
    var (driver, pvs, new) = try replacing()
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    driver.completeAll { !driver.isLabel($0) }
    driver.pass(seconds: 0.3)
    #expect(driver.leg(new)?.staleBytes == 0 && driver.leg(0)?.state == .online)
    try settle(driver, &pvs)
    #expect(driver.leg(0)?.state == .removed)
  }

  @Test("a replacement goes on after a crash")
  func restart() throws {
    let (_, pvs, new) = try replacing()
    let plan = try pvs.plan([0, 1, new]).get()
    let driver = EngineDriver(plan: plan, words: Array(repeating: 1 << UInt16(new), count: 8))
    #expect(driver.leg(new)?.replaces == LegSlot(0))
    var later = pvs
    try resume(driver, &later)
    #expect(driver.leg(0)?.state == .removed && driver.leg(new)?.staleBytes == 0)
  }

  @Test("if the new leg fails, the old one stays and nothing is degraded")
  func newFails() throws {
    var (driver, pvs, new) = try replacing()
    try driver.engine.fail(LegSlot(new), now: driver.now)
    driver.drain()
    try resume(driver, &pvs)
    #expect(driver.leg(0)?.state == .online && driver.leg(new)?.state == .removed)
    #expect(happened(driver, .replaceEnded, leg: new, detail: 0))
    #expect(pvs.labels[0]?.members[new].replaces == nil)
  }

  @Test("if the old leg fails meanwhile, the copy goes on")
  func oldFails() throws {
    var (driver, pvs, new) = try replacing()
    try driver.engine.fail(LegSlot(0), now: driver.now)
    driver.drain()
    try resume(driver, &pvs)
    #expect(driver.leg(0)?.state == .removed && driver.leg(new)?.staleBytes == 0)
    #expect(driver.leg(new)?.replaces == nil)
  }

  @Test("if the old leg is removed meanwhile, the new one is a leg of its own")
  func oldRemoved() throws {
    var (driver, pvs, new) = try replacing()
    try driver.engine.remove(LegSlot(0), now: driver.now)
    driver.drain()
    #expect(driver.leg(new)?.replaces == nil)
    try resume(driver, &pvs)
    #expect(driver.leg(new)?.staleBytes == 0)
    #expect(!happened(driver, .legReplaced, leg: 0, detail: UInt64(new)))
  }

  @Test("a leg that has failed can be replaced")
  func replaceFailed() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 2)
    try driver.engine.fail(LegSlot(0), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    try driver.engine.add(
      legId: EngineDriver.legId[2], at: LegSlot(2), replacing: LegSlot(0), now: driver.now)
    driver.drain()
    try settle(driver, &pvs)
    #expect(driver.leg(0)?.state == .removed && driver.leg(2)?.staleBytes == 0)
  }

  @Test("an old leg with blocks that nobody else has and that cannot be read stays until they can")
  func unreadable() throws {
    var (driver, pvs, new) = try replacing(legs: 1)
    driver.engine.setCopierPaused(false, now: driver.now)
    driver.drain()
    let bad = driver.layout.dataOffset + (3 << 20)
    for _ in 0..<4 {
      while let io = driver.open.first?.io {
        driver.complete(error: io.kind == .read && io.offset == bad ? 5 : 0) {
          $0.token == io.token
        }
      }
      driver.pass(seconds: 0.3)
    }
    #expect(driver.leg(0)?.state == .online && driver.leg(new)?.staleBytes == 1 << 20)
    #expect(driver.leg(new)?.replaces == LegSlot(0))
    try driver.engine.refresh(LegSlot(0), now: driver.now)
    driver.drain()
    try settle(driver, &pvs)
    #expect(driver.leg(0)?.state == .removed && driver.leg(new)?.staleBytes == 0)
  }

  @Test("what cannot be replaced is refused")
  func refusals() throws {
    let (driver, _, new) = try replacing()
    for (old, error) in [
      (0, CommandError.alreadyReplaced), (new, .alreadyReplaced), (5, .noSuchLeg),
    ] {
      #expect(throws: error) {
        try driver.engine.add(
          legId: EngineDriver.legId[3], at: LegSlot(3), replacing: LegSlot(old), now: driver.now)
      }
    }
    #expect(driver.leg(3) == nil)
  }
}
