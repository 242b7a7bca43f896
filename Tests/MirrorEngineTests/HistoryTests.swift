// Goal: whatever label a leg was left with, a start knows whether it is of the mirror's history:
// never a false split brain after long absences, never a silent loss of what a leg took alone (P3).
// Method: a scripted engine whose label writes arrive or not; then assembly of what the PVs hold.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Histories")
struct HistoryTests {
  /// Leg 2 fails and comes back so many times: two generations each.
  private func turnLeg2(
    _ times: Int, _ driver: EngineDriver, _ pvs: inout LabelledPVs
  ) throws {
    for _ in 0..<times {
      try driver.engine.fail(LegSlot(2), now: driver.now)
      driver.drain()
      try pvs.runToRest(driver)
      let label = try #require(pvs.labels[2])
      try driver.engine.readd(driver.returning(label), to: LegSlot(2), now: driver.now)
      driver.drain()
      try pvs.runToRest(driver)
    }
  }

  @Test("a join that failed after its label landed is no split brain, however long ago")
  func failedJoin() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 3)
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    let old = try #require(pvs.labels[1])
    try driver.engine.readd(driver.returning(old), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll(where: driver.isLog)
    try pvs.complete(driver, on: 1, error: 5, lands: true)
    try pvs.runToRest(driver)
    let landed = try #require(pvs.labels[1])
    #expect(landed.members[1].state == .online && driver.leg(1)?.state == .failed)
    try turnLeg2(20, driver, &pvs)
    let plan = try pvs.plan([0, 1, 2]).get()
    #expect(plan.legs[1]?.role == .offline && plan.online == LegSet(bits: 0b101))
    #expect(plan.lineage.current.counter > landed.lineage.current.counter + 16)
    try driver.engine.checkReturn(driver.returning(landed), to: LegSlot(1))
    // The label before that one, should the landed one be torn.
    pvs.labels[1] = old
    #expect(try pvs.plan([0, 1, 2]).get().legs[1]?.role == .offline)
    try driver.engine.checkReturn(driver.returning(old), to: LegSlot(1))
  }

  @Test("a leg that failed its label and went on alone is a split brain, not an ancestor")
  func aloneFromOlderLabel() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 3)
    let opening = try #require(pvs.labels[1]).lineage.current.counter
    try driver.engine.fail(LegSlot(2), now: driver.now)
    driver.drain()
    try pvs.complete(driver, on: 0)
    try pvs.complete(driver, on: 1, error: 5, lands: false)
    try pvs.runToRest(driver)
    #expect(pvs.labels[0]?.lineage.current.counter == opening + 2)
    try pvs.goOnAlone(1)
    #expect(pvs.labels[1]?.lineage.current.counter == opening + 1)
    guard case .splitBrain = pvs.plan([0, 1]).refusal?.reason else {
      Issue.record("what leg 1 took alone would be lost silently")
      return
    }
    let label = try #require(pvs.labels[1])
    #expect(throws: CommandError.diverged) {
      try driver.engine.checkReturn(driver.returning(label), to: LegSlot(1))
    }
  }

  @Test("a leg that failed its label, which landed all the same, is known after any time")
  func landedLabel() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 4)
    try driver.engine.fail(LegSlot(3), now: driver.now)
    driver.drain()
    try pvs.complete(driver, on: 1, error: 5, lands: true)
    try pvs.runToRest(driver)
    try turnLeg2(20, driver, &pvs)
    #expect(try pvs.plan([0, 1, 2]).get().legs[1]?.role == .offline)
    let label = try #require(pvs.labels[1])
    try driver.engine.readd(driver.returning(label), to: LegSlot(1), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    #expect(driver.leg(1)?.state == .online)
  }

  @Test("a leg comes back with what it missed after 40 absences, each with writes")
  func fortyAbsences() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 2, regionBytes: 64 << 10)
    for round in 0..<40 {
      try driver.engine.fail(LegSlot(1), now: driver.now)
      driver.drain()
      try pvs.runToRest(driver)
      let region = UInt64(round % 8)
      let write = driver.submit(.write, region << 16, 4096)
      try pvs.runToRest(driver)
      #expect(driver.replies[write] == 0)
      let label = try #require(pvs.labels[1])
      try driver.engine.readd(driver.returning(label), to: LegSlot(1), now: driver.now)
      driver.drain()
      try pvs.runToRest(driver)
      #expect(driver.leg(1)?.staleBytes == 0)
      // The region it missed, and what still has intent of the rounds before: nothing else.
      #expect(driver.engine.snapshot().resyncBytesTotal <= UInt64(min(round + 1, 8)) << 16)
    }
  }

  // MARK: PVs that are being added

  /// A third PV is added; its label is on it, the map is written, the label commit is open.
  private func adding() throws -> (EngineDriver, LabelledPVs) {
    var (driver, pvs) = try LabelledPVs.opened(legs: 2)
    let slot = try driver.engine.slotForNewLeg()
    let label = driver.engine.labelForAddedPV(legId: EngineDriver.legId[2], at: slot)
    #expect(label.isOfAddedPV && label.members[2].state == .adding)
    #expect(label.sequence > (pvs.labels[0]?.sequence ?? 0))
    pvs.labels[2] = label
    try driver.engine.add(legId: EngineDriver.legId[2], at: slot, now: driver.now)
    driver.drain()
    driver.completeAll(where: driver.isLog)
    return (driver, pvs)
  }

  @Test("a crash in the middle of adding a leg: it is used if a label lists it, else left out")
  func crashWhileAdding() throws {
    var (driver, pvs) = try adding()
    var plan = try pvs.plan([0, 1, 2]).get()
    #expect(plan.online == LegSet(bits: 0b11) && plan.legs[2] == nil && !plan.isDegradedStart)
    #expect(plan.explanation.contains { $0.hasPrefix("PV /pv2: was being added") })
    try pvs.complete(driver, on: 0)
    plan = try pvs.plan([0, 1, 2]).get()
    #expect(plan.online == LegSet(bits: 0b111) && plan.lost.isEmpty)
    #expect(plan.incomplete.contains(LegSlot(2)))
    #expect(pvs.plan([2]).refusal?.reason == .nothingOnline(paths: ["/pv2"]))
    try pvs.runToRest(driver)
    #expect(pvs.labels[2]?.isOfAddedPV == false)
    #expect(try pvs.plan([0, 1, 2]).get().online == LegSet(bits: 0b111))
  }

  @Test("a leg that was emptied to be added anew is not taken for what older labels call it")
  func emptiedAfterwards() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 3)
    let before = pvs
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    try pvs.runToRest(driver)
    let label = driver.engine.labelForAddedPV(legId: EngineDriver.legId[1], at: LegSlot(1))
    pvs.labels[1] = label
    #expect(try pvs.plan([0, 1, 2]).get().legs[1]?.role == .offline)
    // Only an old copy of leg 0 is there, which calls leg 1 online.
    pvs.labels[0] = before.labels[0]
    let plan = try pvs.plan([0, 1], degraded: true).get()
    #expect(plan.legs[1]?.role == .diverged && plan.online == LegSet(bits: 1))
  }
}
