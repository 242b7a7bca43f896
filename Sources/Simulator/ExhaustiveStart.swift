// Creating, assembling and starting a mirror on exhaustive legs, by the production's own assembly.

import Base
import MirrorEngine
import MirrorFormat

extension ExhaustiveContext {
  /// Fresh PVs, as `create` leaves them: both copies of label and page valid.
  func create() -> ExhaustiveState {
    var state = ExhaustiveState(
      legs: Array(repeating: nil, count: LegSlot.count), pages: ExhaustivePages(),
      oracle: ExhaustiveOracle(atomCount: atoms.atoms.count), startNumber: 0, now: .zero,
      trace: [])
    var members = [Member](repeating: .vacant, count: LegSlot.count)
    for slot in 0..<scenario.legCount {
      let isStale = scenario.startsStale && slot > 0
      var leg = ExhaustiveLeg(legId: legId(slot), layout: layout)
      if isStale || scenario.startsUnwritten { spoil(&leg) }
      state.legs[slot] = leg
      members[slot] = Member(legId: leg.legId, state: .online, isSyncing: isStale)
    }
    var stale: UInt16 = 0
    if scenario.startsStale { for slot in 1..<scenario.legCount { stale |= 1 << UInt16(slot) } }
    if scenario.startsUnwritten { stale = RegionWord.unwritten }
    let words = [UInt16](repeating: stale, count: layout.regionCount)
    let first = Generation(counter: 1, id: Identifier(high: 0x6e, low: 1))
    for slot in 0..<scenario.legCount {
      for copy in 0...1 {
        let label = Label(
          sequence: UInt64(1 + copy), setId: setId, name: "exhaustive", legId: legId(slot),
          slot: LegSlot(slot), lineage: Lineage(current: first, parents: []), members: members,
          layout: layout, logKind: scenario.logKind)
        var bytes = [UInt8](repeating: 0, count: Layout.pageBytes)
        bytes.withMutableRawSpan { label.encode(into: &$0) }
        state.legs[slot]?.preset(state.pages.number(of: bytes), unit: copy)
        bytes.withMutableRawSpan { span in
          RegionMapPage.encode(
            page: 0, sequence: UInt64(1 + copy), setId: setId, words: words, firstWord: 0,
            into: &span)
        }
        state.legs[slot]?.preset(state.pages.number(of: bytes), unit: 2 + copy)
      }
    }
    return state
  }

  /// The `number`th PV that there ever was.
  func legId(_ number: Int) -> Identifier { Identifier(high: 0x1e6, low: UInt64(100 + number)) }

  /// Garbage where clients write, and in the last sector of each region.
  func spoil(_ leg: inout ExhaustiveLeg) {
    let perRegion = Int(layout.regionBytes) / ExhaustiveLeg.sectorBytes
    for sector in atoms.bySector.indices {
      guard !atoms.bySector[sector].isEmpty || sector % perRegion == perRegion - 1 else { continue }
      leg.preset(ExhaustiveLeg.garbage, unit: ExhaustiveLeg.metaUnits + sector)
    }
  }

  /// What assembly makes of the PVs that are there; those without a label are not offered.
  func plan(
    _ state: inout ExhaustiveState, absent: LegSet = .none, isDegradedAllowed: Bool
  ) -> Result<AssemblyPlan, AssemblyRefusal> {
    var candidates: [AssemblyCandidate] = []
    for index in 0..<LegSlot.count where !absent.contains(LegSlot(index)) {
      guard let leg = state.legs[index] else { continue }
      let label = leg.label(&state.pages)
      guard case .success = label else { continue }
      candidates.append(
        AssemblyCandidate(
          path: "leg\(index)", label: label, legBytes: layout.pvBytes, logicalBlockBytes: 512))
    }
    return Assembly.plan(
      candidates, options: AssemblyOptions(isDegradedAllowed: isDegradedAllowed))
  }

  /// The plan for all PVs that are there. A PV that was being added may have no label yet, or be no
  /// member: an administrator leaves it out, and says `--degraded` where it is listed already.
  func planOfAll(_ state: inout ExhaustiveState) -> Result<AssemblyPlan, AssemblyRefusal> {
    let isUnlabelled = isUnlabelled(&state)
    let plan = plan(&state, isDegradedAllowed: isUnlabelled)
    guard case .failure(let refusal) = plan, case .notMember(let path, _) = refusal.reason,
      let slot = (0..<LegSlot.count).first(where: { "leg\($0)" == path })
    else { return plan }
    state.legs[slot] = nil
    return planOfAll(&state)
  }

  private func isUnlabelled(_ state: inout ExhaustiveState) -> Bool {
    for index in 0..<LegSlot.count {
      guard let leg = state.legs[index] else { continue }
      if case .failure = leg.label(&state.pages) { return true }
    }
    return false
  }

  /// Starts the engine on a plan. Legs that come back by themselves are brought in at once.
  func start(
    _ plan: AssemblyPlan, _ before: ExhaustiveState, isReadOnly: Bool = false
  ) -> ExhaustiveRun {
    var state = before
    for index in 0..<LegSlot.count {
      let member = plan.members[index]
      if let leg = state.legs[index], member.state == .vacant || member.legId != leg.legId {
        state.legs[index] = nil
      }
      state.legs[index]?.opened()
    }
    state.startNumber += 1
    var maps = [LegMap?](repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs {
      maps[leg.slot.index] = state.legs[leg.slot.index]?.map(
        state.pages, setId: setId, layout: layout)
    }
    let map = AssemblyMap.elect(plan: plan, maps: maps)
    var start = EngineStart(plan: plan, map: map, seed: 0xe0 + state.startNumber)
    start.readPolicy = .roundRobin
    start.isHedging = false
    start.requestsMax = ExhaustiveRun.requestsMax
    start.removedBarrier = removed
    if isReadOnly { start.isReadOnly = true }
    for region in start.words.indices {
      if mutation == .forgetIntent { start.words[region] &= ~RegionWord.intent }
      if mutation == .forgetStale { start.words[region] &= ~RegionWord.staleMask }
    }
    let run = ExhaustiveRun(self, state, plan: plan, start: start)
    // Without a source a region cannot be read; who left the last good leg out knows that.
    run.mustSucceed = map.regionsWithoutSource == 0 && run.everySectorIsReadable(start.words)
    for sector in state.oracle.damaged {
      let region = sector * ExhaustiveLeg.sectorBytes / Int(layout.regionBytes)
      // Legs may differ there, whichever is read the others get.
      if start.words[region] & RegionWord.intent != 0 { run.state.oracle.damageMaySpread() }
    }
    if start.isReadOnly { run.knownBefore = state.oracle }
    run.note(
      "start  generation \(plan.lineage.current.counter), online \(plan.online), map "
        + start.words.map { String($0, radix: 16) }.joined(separator: " "))
    return run
  }
}

extension ExhaustiveRun {
  /// Brings an offline leg in again, as a server does that is told to; false if it was refused.
  @discardableResult
  func bringBack(_ slot: LegSlot) -> Bool {
    guard let leg = state.legs[slot.index] else { return false }
    var returned = ReturningLeg(
      legId: leg.legId, lineage: Lineage(current: Generation(counter: 0, id: .zero), parents: []),
      labelSequence: 0, labelCopy: 0, isTreatedAsNew: true)
    if case .success(let elected) = leg.label(&state.pages) {
      returned.lineage = elected.label.lineage
      returned.labelSequence = elected.label.sequence
      returned.labelCopy = elected.copy
      let isSpare = engine.snapshot().legs.contains { $0.slot == slot && $0.state == .spare }
      returned.isTreatedAsNew = elected.label.holdsNothing && !isSpare
    }
    do throws(CommandError) {
      do throws(CommandError) {
        try engine.checkReturn(returned, to: slot)
      } catch {
        guard error == .diverged else { throw error }
        returned.isTreatedAsNew = true
        returned.labelSequence = 0
        returned.labelCopy = 0
      }
      // Opened anew: what a failed flush lost is gone from the page cache too.
      let reopened = leg.crashed(losingPower: false, leg.lost.map { ($0, leg.stable[$0]) })
      state.legs[slot.index] = reopened
      if returned.isTreatedAsNew { state.legs[slot.index]?.eraseMetadata() }
      try engine.readd(returned, to: slot, now: state.now)
      note("readd  leg \(slot)\(returned.isTreatedAsNew ? " as new" : "")")
      return true
    } catch {
      note("readd  leg \(slot) refused: \(error)")
      return false
    }
  }

  /// What a server brings in by itself once it runs.
  func bringBackReturning() {
    for case let leg? in plan.legs where leg.role == .returning { bringBack(leg.slot) }
    settle()
  }

  /// What an administrator brings in: every leg that is there.
  func bringBackOffline() {
    for leg in engine.snapshot().legs where leg.state != .online && !leg.isJoining {
      bringBack(leg.slot)
    }
    settle()
  }

  /// Adds a fresh PV full of garbage. As a server does: the PV says what it is before any label
  /// lists it.
  func addLeg(isSpare: Bool = false, replacing old: LegSlot? = nil) throws(CommandError) {
    let slot = try engine.slotForNewLeg()
    // Ids that `create` did not use.
    let legId = context.legId(LegSlot.count + Int(state.startNumber) * 8 + slot.index)
    var leg = ExhaustiveLeg(legId: legId, layout: context.layout)
    context.spoil(&leg)
    var label = engine.labelForAddedPV(legId: legId, at: slot)
    for copy in [1, 0] {
      var bytes = [UInt8](repeating: 0, count: Layout.pageBytes)
      bytes.withMutableRawSpan { label.encode(into: &$0) }
      leg.preset(state.pages.number(of: bytes), unit: copy)
      label.sequence += 1
    }
    state.legs[slot.index] = leg
    try engine.add(legId: legId, at: slot, isSpare: isSpare, replacing: old, now: state.now)
    note("add    leg \(slot)\(isSpare ? " as a spare" : "")\(old.map { " for leg \($0)" } ?? "")")
  }

  // MARK: The way back to health

  /// Every leg that is there is online and has everything, and the labels say so.
  var isHealthy: Bool {
    let snapshot = engine.snapshot()
    guard snapshot.unresolvedRegions == 0, engine.isLabelSettled else { return false }
    for leg in snapshot.legs where state.legs[leg.slot.index] != nil {
      if leg.state == .spare, !leg.isJoining { continue }
      if leg.state != .online || leg.staleBytes > 0 || leg.replaces != nil { return false }
    }
    return true
  }

  /// Brings every leg back and lets time pass until the mirror is healthy.
  func converge() {
    faults.removeAll()
    for index in pending.indices { pending[index].isHeld = false }
    engine.setCopierPaused(false, now: state.now)
    for _ in 0..<60 where problem == nil {
      runUntilQuiet()
      if isHealthy {
        repairDamage()
        return
      }
      let snapshot = engine.snapshot()
      if snapshot.isFlushLatched { engine.refreshOnlineLegs(now: state.now) }
      for leg in snapshot.legs where leg.state != .online && !leg.isJoining {
        bringBack(leg.slot)
      }
      settle()
      pass(nanoseconds: Nanoseconds.second)
    }
    if problem == nil { fail("not healthy after 60 s: \(describeLegs())") }
  }

  func describeLegs() -> String {
    let snapshot = engine.snapshot()
    return "unresolved \(snapshot.unresolvedRegions), intent \(snapshot.dirtyRegions), "
      + snapshot.legs.map { leg in
        "leg \(leg.slot) \(leg.state)\(leg.isJoining ? " joining" : "") stale \(leg.staleBytes)"
      }.joined(separator: ", ")
  }

  /// All legs hold the same bytes (P4), and such as clients may see.
  func compare() {
    guard problem == nil else { return }
    var reference: Int?
    var words = [UInt16](repeating: 0, count: context.layout.regionCount)
    for index in 0..<LegSlot.count where engine.onlineLegs.contains(LegSlot(index)) {
      guard let leg = state.legs[index] else { continue }
      guard let first = reference, let other = state.legs[first] else {
        reference = index
        words = leg.map(state.pages, setId: context.setId, layout: context.layout).words
        continue
      }
      for unit in ExhaustiveLeg.metaUnits..<leg.image.count
      where leg.image[unit] != other.image[unit] {
        let sector = unit - ExhaustiveLeg.metaUnits
        // A bad block that nobody has read since is no difference.
        let isBad = [leg, other].contains { $0.image[unit] == ExhaustiveLeg.unreadable }
        guard !isBad, !isUnwritten(sector, words) else { continue }
        fail(
          "legs \(first) and \(index) differ in sector \(sector): "
            + "0x\(String(other.image[unit], radix: 16)), 0x\(String(leg.image[unit], radix: 16))")
        return
      }
    }
    guard let reference, let leg = state.legs[reference] else { return }
    let start = state.oracle.beginRead()
    for unit in ExhaustiveLeg.metaUnits..<leg.image.count {
      let sector = unit - ExhaustiveLeg.metaUnits
      guard leg.image[unit] != ExhaustiveLeg.unreadable else { continue }
      let word = isUnwritten(sector, words) ? 0 : leg.image[unit]
      let wrong = state.oracle.read(word, sector: sector, start: start, context.atoms)
      if let wrong {
        fail("after all legs are equal: " + wrong)
        break
      }
    }
    state.oracle.endRead(start: start)
  }

  // MARK: The clean stop

  /// Stops cleanly.
  func stop() {
    guard problem == nil else { return }
    isStopping = true
    note("stop")
    engine.beginStop(now: state.now)
    settle()
    for _ in 0..<60 where problem == nil && (!engine.isStopped || pending.contains { !$0.isHeld }) {
      runUntilQuiet()
      if !engine.isStopped { pass(nanoseconds: Nanoseconds.second) }
    }
    if problem == nil, !engine.isStopped { fail("the stop takes more than 60 s") }
  }

  /// After a clean stop of a healthy mirror: assembles, is clean, everything is on the disks.
  func checkStopped() {
    guard problem == nil else { return }
    switch context.planOfAll(&state) {
    case .failure(let refusal): fail("it does not assemble after a clean stop: \(refusal)")
    case .success(let plan):
      if !plan.wasClean { fail("a label is not clean after a clean stop") }
      for index in 0..<LegSlot.count {
        guard let leg = state.legs[index], plan.members[index].state != .spare else { continue }
        if !plan.online.contains(LegSlot(index)) { fail("leg \(index) is not online after a stop") }
        if leg.stable != leg.image { fail("leg \(index) has unflushed data after a clean stop") }
        let map = leg.map(state.pages, setId: context.setId, layout: context.layout)
        for word in map.words where word & (RegionWord.intent | RegionWord.staleMask) != 0 {
          fail("leg \(index)'s map is not clean after a clean stop: \(map.words)")
        }
      }
    }
  }
}
