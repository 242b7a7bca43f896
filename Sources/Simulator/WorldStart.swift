// Creating, assembling and starting a mirror on simulated legs, by the production's own assembly.

import Base
import MirrorEngine
import MirrorFormat

extension World {
  /// Fresh PVs, as `create` leaves them: both label copies and both copies of each page valid.
  static func createLegs(
    _ scenario: Scenario, setId: Identifier, _ random: inout PRNG
  ) -> [SimulatedLeg?] {
    let layout = scenario.layout
    var legs = [SimulatedLeg?](repeating: nil, count: LegSlot.count)
    var members = [Member](repeating: .vacant, count: LegSlot.count)
    for slot in 0..<scenario.legCount {
      let legId = Identifier(high: random.next(), low: random.next())
      members[slot] = Member(
        legId: legId, state: .online, isSyncing: scenario.startsStale && slot > 0)
      let isGarbage = scenario.startsStale && slot > 0
      legs[slot] = SimulatedLeg(
        legId: legId, layout: layout,
        fill: scenario.hasUnwritten
          ? Pattern.garbage ^ UInt8(slot + 1) : isGarbage ? Pattern.garbage : 0)
    }
    var stale: UInt16 = 0
    if scenario.startsStale {
      for slot in 1..<scenario.legCount { stale |= 1 << UInt16(slot) }
    }
    if scenario.hasUnwritten { stale = RegionWord.unwritten }
    let words = [UInt16](repeating: stale, count: layout.regionCount)
    let first = Generation(
      counter: 1, id: Identifier(high: random.next(), low: random.next()))
    for slot in 0..<scenario.legCount {
      guard let leg = legs[slot] else { continue }
      for copy in 0...1 {
        let label = Label(
          sequence: UInt64(1 + copy), setId: setId, name: "simulated", legId: leg.legId,
          slot: LegSlot(slot), lineage: Lineage(current: first, parents: []), members: members,
          layout: layout, logKind: scenario.logKind)
        put(label, copy: copy, leg)
        var bytes = [UInt8](repeating: 0, count: Layout.pageBytes)
        for page in 0..<layout.pageCount {
          bytes.withMutableRawSpan { span in
            RegionMapPage.encode(
              page: page, sequence: UInt64(1 + copy), setId: setId, words: words,
              firstWord: page * Layout.wordsPerPage, into: &span)
          }
          put(bytes, at: layout.pageOffset(page: page, copy: copy), leg)
        }
      }
    }
    return legs
  }

  /// Writes one copy of a label, durably.
  static func put(_ label: Label, copy: Int, _ leg: SimulatedLeg) {
    var bytes = [UInt8](repeating: 0, count: Label.byteCount)
    bytes.withMutableRawSpan { label.encode(into: &$0) }
    put(bytes, at: Layout.labelOffset(copy: copy), leg)
  }

  private static func put(_ bytes: [UInt8], at offset: UInt64, _ leg: SimulatedLeg) {
    guard let place = leg.place(offset: offset, count: UInt64(bytes.count)) else {
      preconditionFailure("labels and map have a place")
    }
    leg.write(bytes, at: place, isDurable: true)
  }

  /// What assembly makes of the PVs that are there; those without a label are not offered.
  static func plan(
    _ legs: [SimulatedLeg?], absent: LegSet, isDegradedAllowed: Bool
  ) -> Result<AssemblyPlan, AssemblyRefusal> {
    var candidates: [AssemblyCandidate] = []
    for index in 0..<LegSlot.count {
      guard let leg = legs[index], !absent.contains(LegSlot(index)) else { continue }
      let label = leg.label()
      guard case .success = label else { continue }
      candidates.append(
        AssemblyCandidate(
          path: "leg\(index)", label: label, legBytes: leg.layout.pvBytes,
          logicalBlockBytes: 512))
    }
    let options = AssemblyOptions(isDegradedAllowed: isDegradedAllowed)
    return Assembly.plan(candidates, options: options)
  }

  /// What the engine is started with.
  static func start(
    _ plan: AssemblyPlan, _ legs: [SimulatedLeg?], _ scenario: Scenario, seed: UInt64,
    mutation: Mutation? = nil
  ) -> EngineStart {
    var maps = [LegMap?](repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs {
      maps[leg.slot.index] = legs[leg.slot.index]?.map(setId: plan.setId)
    }
    let map = AssemblyMap.elect(plan: plan, maps: maps)
    var start = EngineStart(plan: plan, map: map, seed: seed)
    start.readPolicy = scenario.readPolicy
    start.requestsMax = requestsMax
    for region in start.words.indices {
      if mutation == .forgetIntent { start.words[region] &= ~RegionWord.intent }
      if mutation == .forgetStale { start.words[region] &= ~RegionWord.staleMask }
    }
    return start
  }

  // MARK: The end of a server

  /// The server dies, with the power or without.
  func crash(losingPower: LegSet) {
    note(.command, "crash", value: Int64(losingPower.bits))
    var takesBack = !losingPower.isEmpty || !losesCache.isEmpty
    for item in pending.removeAll() + held {
      guard let leg = legs[item.io.leg.index] else { continue }
      switch item.io.kind {
      case .write, .zero, .discard:
        guard !item.isDropped else { continue }
        leg.writeTorn(item.bytes ?? sourceBytes(item), at: item.place, &random)
      case .flush, .read: break
      }
    }
    held.removeAll()
    for index in 0..<LegSlot.count {
      guard let leg = legs[index] else { continue }
      let slot = LegSlot(index)
      if !leg.lost.isEmpty || lostCache.contains(slot),
        online.contains(slot) || !engine.isLabelSettled
      {
        takesBack = true
      }
      leg.forgetLost()
      if losingPower.contains(slot) || losesCache.contains(slot) { leg.losePower(&random) }
    }
    losesCache = .none
    lostCache = .none
    if takesBack {
      oracle.powerLost()
      counts.powerLosses += 1
    } else {
      oracle.processCrashed()
      counts.crashes += 1
    }
    restart()
  }

  /// Everything the server had in memory is gone; it is started again.
  func restart() {
    buffers.removeAll()
    freeBuffers.removeAll()
    for slot in requests.indices { requests[slot].isInUse = false }
    guard violation == nil else { return }
    // A server flushes a PV before it trusts what it reads there: what the last server left in
    // flight may be visible and not durable.
    for leg in legs { leg?.flushed(mark: UInt64.max) }
    let gone = goneLegs
    var absent = gone
    if scenario.hasDegradedStarts, !isCalm, random.chance(1, in: 3) {
      absent = absent.union(LegSet(bits: UInt8(truncatingIfNeeded: random.next())))
    }
    guard let plan = chooseLegs(absent: absent) ?? chooseLegs(absent: gone) ?? planOfAll() else {
      return
    }
    takePlan(plan)
  }

  /// Legs that have disappeared.
  var goneLegs: LegSet {
    var gone = LegSet.none
    for active in faults.reports(now: now) where active.fault.action == .offline {
      gone.insert(active.fault.leg)
    }
    return gone
  }

  /// A plan without `absent`, if an administrator may risk it: the newest generation is there.
  private func chooseLegs(absent: LegSet) -> AssemblyPlan? {
    guard case .success(let all) = World.plan(legs, absent: .none, isDegradedAllowed: true),
      case .success(let plan) = World.plan(legs, absent: absent, isDegradedAllowed: true),
      plan.lineage.current == all.lineage.current
    else { return nil }
    // With `--log core` an absent leg is stale everywhere when it is back: who starts without the
    // only complete leg gives its data up.
    guard
      scenario.logKind == .disk || absent.isEmpty
        || !plan.online.subtracting(plan.incomplete).isEmpty
    else { return nil }
    var holders = plan.online
    while let slot = holders.popFirst() {
      if plan.legs[slot.index]?.label.label.lineage.current == all.lineage.current { return plan }
    }
    return nil
  }

  /// All legs are brought back; now it has to assemble.
  private func planOfAll() -> AssemblyPlan? {
    faults.removeAll()
    let isUnlabelled = legs.contains { leg in
      if let leg, case .failure = leg.label() { true } else { false }
    }
    // A PV that was being added may have no label yet.
    switch World.plan(legs, absent: .none, isDegradedAllowed: isUnlabelled) {
    case .success(let plan): return plan
    case .failure(let refusal):
      if dropStrays() { return planOfAll() }
      fail(
        "the mirror does not assemble: \(refusal)\n  "
          + refusal.explanation.joined(separator: "\n  "))
      return nil
    }
  }

  /// Drops PVs that the engine did not count among its members when it was last seen; false if there
  /// is none. They were to be added and failed: an administrator leaves them out.
  func dropStrays() -> Bool {
    var found = false
    for slot in 0..<LegSlot.count where legs[slot] != nil && !members.contains(LegSlot(slot)) {
      legs[slot] = nil
      found = true
    }
    return found
  }

  private func takePlan(_ plan: AssemblyPlan) {
    counts.starts += 1
    for index in 0..<LegSlot.count {
      let member = plan.members[index]
      if let leg = legs[index], member.state == .vacant || member.legId != leg.legId {
        legs[index] = nil
      }
    }
    returning = Array(repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs where leg.role == .returning || leg.role == .diverged {
      if leg.role == .diverged { legs[leg.slot.index]?.eraseMetadata() }
      returning[leg.slot.index] = ReturningLeg(leg)
    }
    let start = World.start(
      plan, legs, scenario, seed: random.next(), mutation: mutation)
    note(
      .start, "start", name: plan.lineage.current.counter, value: Int64(plan.online.bits))
    for index in 0..<LegSlot.count where plan.members[index].state != .vacant {
      let stale = start.words.filter { $0 & (1 << UInt16(index)) != 0 }.count
      note(.start, "stale regions", leg: index, value: Int64(stale))
    }
    now = now.advanced(byNanoseconds: random.below(Nanoseconds.second))
    engine = Engine(start, now: now)
    wasFlushLatched = false
    nextTick = now
    settle()
  }
}
