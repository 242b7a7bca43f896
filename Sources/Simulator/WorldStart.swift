// Creating, assembling and starting a mirror on simulated legs, by the production's own assembly.

import Base
import Faults
import MirrorEngine
import MirrorFormat

extension World {
  /// Fresh PVs, as `create` leaves them: both label copies and both copies of each page valid.
  static func createLegs(
    _ scenario: Scenario, setId: Identifier, removed: Barrier?, _ random: inout PRNG
  ) -> [SimulatedLeg?] {
    let layout = scenario.layout
    let isStale = scenario.has(.staleStart)
    let isUnwritten = scenario.has(.unwritten)
    var legs = [SimulatedLeg?](repeating: nil, count: LegSlot.count)
    var members = [Member](repeating: .vacant, count: LegSlot.count)
    for slot in 0..<scenario.legCount {
      let legId = Identifier(high: random.next(), low: random.next())
      members[slot] = Member(legId: legId, state: .online, isSyncing: isStale && slot > 0)
      legs[slot] = SimulatedLeg(
        legId: legId, layout: layout,
        fill: isUnwritten
          ? Pattern.garbage ^ UInt8(slot + 1) : isStale && slot > 0 ? Pattern.garbage : 0,
        removed: removed)
    }
    var word: UInt16 = 0
    if isStale {
      for slot in 1..<scenario.legCount { word |= 1 << UInt16(slot) }
    }
    if isUnwritten { word = RegionWord.unwritten }
    let words = [UInt16](repeating: word, count: layout.regionCount)
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
        for page in 0..<layout.pageCount {
          let memory = Memory(count: Layout.pageBytes)
          memory.withMutableBytes(at: 0, count: Layout.pageBytes) { span in
            RegionMapPage.encode(
              page: page, sequence: UInt64(1 + copy), setId: setId, words: words,
              firstWord: page * Layout.wordsPerPage, into: &span)
          }
          put(memory, at: layout.pageOffset(page: page, copy: copy), leg)
        }
      }
    }
    return legs
  }

  /// Writes one copy of a label, durably.
  static func put(_ label: Label, copy: Int, _ leg: SimulatedLeg) {
    let memory = Memory(count: Label.byteCount)
    memory.withMutableBytes(at: 0, count: Label.byteCount) { label.encode(into: &$0) }
    put(memory, at: Layout.labelOffset(copy: copy), leg)
  }

  private static func put(_ memory: Memory, at offset: UInt64, _ leg: SimulatedLeg) {
    let place = leg.place(offset: offset, count: UInt64(memory.count))
    precondition(place >= 0, "labels and map have a place")
    leg.write(.memory(memory, at: 0), at: place, count: memory.count, isDurable: true)
  }

  /// What assembly makes of the PVs that are there; those without a label are not offered.
  static func plan(
    _ legs: [SimulatedLeg?], absent: LegSet, _ options: AssemblyOptions
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
    return Assembly.plan(candidates, options: options)
  }

  /// The same for the legs of this world; `--choose-leg` is said again until a label has recorded
  /// what was chosen.
  func plan(absent: LegSet, isDegraded: Bool) -> Result<AssemblyPlan, AssemblyRefusal> {
    if let chosen = chosenLeg {
      let options = AssemblyOptions(isDegradedAllowed: true, chooseLeg: chosen)
      if case .success(let plan) = World.plan(legs, absent: absent, options) {
        return .success(plan)
      }
    }
    let plain = World.plan(legs, absent: absent, AssemblyOptions(isDegradedAllowed: isDegraded))
    // A start without the chosen leg may have died when its label was written, and unknown to it; or
    // a label has recorded the choice, and not what a leg has that was not there.
    if case .failure = plain, chosenLeg != nil || !unheard.subtracting(absent).isEmpty,
      let plan = planChoosing(chosenSide.subtracting(absent), absent: absent)
    {
      return .success(plan)
    }
    return plain
  }

  /// What the engine is started with.
  static func start(
    _ plan: AssemblyPlan, _ legs: [SimulatedLeg?], _ scenario: Scenario, seed: UInt64,
    removed: Barrier?
  ) -> EngineStart {
    var maps = [LegMap?](repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs {
      maps[leg.slot.index] = legs[leg.slot.index]?.map(setId: plan.setId)
    }
    let map = AssemblyMap.elect(plan: plan, maps: maps, removed: removed)
    var start = EngineStart(plan: plan, map: map, seed: seed)
    start.readPolicy = scenario.readPolicy
    start.requestsMax = requestsMax
    start.removedBarrier = removed
    return start
  }

  // MARK: The end of a server

  /// The server dies, with the power or without, and is started again.
  mutating func crash(losingPower: LegSet) {
    die(losingPower: losingPower)
    restart()
  }

  /// The server dies, with the power or without.
  mutating func die(losingPower: LegSet) {
    note(.command, "crash", value: Int64(losingPower.bits))
    wholeLabels = engine.isLabelSettled && !engine.isLabelInFlight ? online : .none
    var takesBack = !losingPower.isEmpty || !losesCache.isEmpty
    for index in ios.indices where ios[index].isInUse {
      let item = ios[index]
      guard let leg = legs[item.io.leg.index] else { continue }
      switch item.io.kind {
      case .write, .zero, .discard:
        leg.writeTorn(source(item), at: item.place, count: Int(item.io.count), &random)
      case .flush, .read: break
      }
    }
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
      counts.hit(.powerLoss)
    } else {
      oracle.processCrashed()
      counts.hit(.crash)
    }
    forgetRequests()
    // A server flushes a PV before it trusts what it reads there: what the last server left in
    // flight may be visible and not durable.
    for leg in legs { leg?.flushed(mark: UInt64.max) }
  }

  /// Everything the server had in memory is gone; it is started again.
  mutating func restart() {
    guard violation == nil else { return }
    probeStarts()
    rotSomething()
    let gone = goneLegs
    var absent = gone
    if scenario.has(.degradedStarts), !isCalm, random.chance(1, in: 3) {
      absent = absent.union(LegSet(bits: UInt8(truncatingIfNeeded: random.next())))
    }
    guard let plan = chooseLegs(absent: absent) ?? chooseLegs(absent: gone) ?? planOfAll() else {
      return
    }
    takePlan(plan)
  }

  /// Legs that have disappeared, or belong to the other side of a split brain.
  var goneLegs: LegSet {
    disappeared.union(otherSide?.legs ?? .none)
  }

  /// A plan without `absent`, if an administrator may risk it: the newest generation is there.
  func chooseLegs(absent: LegSet) -> AssemblyPlan? {
    let hidden = otherSide?.legs ?? .none
    guard case .success(let all) = plan(absent: hidden, isDegraded: true) else { return nil }
    var plan = all
    if !hidden.isSuperset(of: absent) {
      guard case .success(let some) = self.plan(absent: absent.union(hidden), isDegraded: true),
        some.lineage.current == all.lineage.current
      else { return nil }
      plan = some
    }
    // With `--log core` an absent leg is stale everywhere when it is back: who starts without the
    // only complete leg gives its data up.
    guard
      scenario.logKind == .disk || absent.isEmpty
        || !plan.online.subtracting(plan.incomplete).isEmpty
    else { return nil }
    // A page that has rotted on the legs that are there may be whole on the absent ones.
    guard !scenario.has(.rot) || absent.isEmpty || !isLosing(plan) else { return nil }
    // The newest label may stand on a spare only: it has no data to be missed.
    guard !absent.isEmpty else { return plan }
    var holders = plan.online
    while let slot = holders.popFirst() {
      if plan.legs[slot.index]?.label.label.lineage.current == all.lineage.current { return plan }
    }
    return nil
  }

  private func elect(_ plan: AssemblyPlan) -> AssemblyMap {
    var maps = [LegMap?](repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs {
      maps[leg.slot.index] = legs[leg.slot.index]?.map(setId: plan.setId)
    }
    return AssemblyMap.elect(plan: plan, maps: maps)
  }

  /// Whether by this plan some region would be good on no leg, present or not; or could be after one
  /// more fault: a crash that tears the page which is written again because its other copy rotted.
  private func isLosing(_ plan: AssemblyPlan) -> Bool {
    let map = elect(plan)
    if map.uncertainPages > 0 || map.lostPages > 0 { return true }
    let everybody = UInt16(plan.configured.bits)
    for word in map.words where word & everybody == everybody { return true }
    return false
  }

  /// Whether the legs but `absent` can be started and have all data: else whoever is chosen later
  /// has given up what only the others had.
  func canStart(without absent: LegSet) -> Bool {
    guard let plan = chooseLegs(absent: absent) else { return false }
    return elect(plan).regionsWithoutSource == 0
  }

  /// All legs of this side are brought back; now it has to assemble.
  private mutating func planOfAll() -> AssemblyPlan? {
    endFaults()
    let hidden = otherSide?.legs ?? .none
    let isUnlabelled = legs.contains { leg in
      if let leg, case .failure = leg.label() { true } else { false }
    }
    // A PV that was being added may have no label yet.
    switch plan(absent: hidden, isDegraded: isUnlabelled || !hidden.isEmpty) {
    case .success(let plan): return plan
    case .failure(let refusal):
      if dropRefused(refusal) || dropStrays() { return planOfAll() }
      fail(
        "the mirror does not assemble: \(refusal)\n  "
          + refusal.explanation.joined(separator: "\n  "))
      return nil
    }
  }

  /// Drops PVs that the engine did not count among its members when it was last seen; false if there
  /// is none. They were to be added and failed: an administrator leaves them out.
  mutating func dropStrays() -> Bool {
    var found = false
    for slot in 0..<LegSlot.count where legs[slot] != nil && !members.contains(LegSlot(slot)) {
      if let side = otherSide, side.legs.contains(LegSlot(slot)) { continue }
      legs[slot] = nil
      found = true
    }
    return found
  }

  /// Leaves out the PV that assembly says is no member, if it never was online (the server died while
  /// it was brought in) or the engine did not count it either; not the other strays, for a label may
  /// list one of them. False if it was a member, or if something else is wrong.
  private mutating func dropRefused(_ refusal: AssemblyRefusal) -> Bool {
    guard case .notMember(let path, _) = refusal.reason, path.hasPrefix("leg"),
      let slot = Int(path.dropFirst(3)), legs[slot] != nil,
      !members.contains(LegSlot(slot))
        || !everOnline.contains(LegSlot(slot)) && !spares.contains(LegSlot(slot))
    else { return false }
    legs[slot] = nil
    return true
  }

  mutating func takePlan(_ plan: AssemblyPlan) {
    counts.starts += 1
    let hidden = otherSide?.legs ?? .none
    for index in 0..<LegSlot.count where !hidden.contains(LegSlot(index)) {
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
    let start = World.start(plan, legs, scenario, seed: random.next(), removed: removed)
    note(.start, "start", name: plan.lineage.current.counter, value: Int64(plan.online.bits))
    found = .none
    for case let leg? in plan.legs { found.insert(leg.slot) }
    for index in 0..<LegSlot.count where plan.members[index].state != .vacant {
      var stale = 0
      for word in start.words where word & (1 << UInt16(index)) != 0 { stale += 1 }
      note(.start, "stale regions", leg: index, value: Int64(stale))
    }
    let everybody = UInt16(plan.configured.bits)
    var lost = 0
    for word in start.words where word & everybody == everybody { lost += 1 }
    if lost > 0 { note(.start, "regions that are good nowhere", value: Int64(lost)) }
    learnCopies(plan)
    attached = plan.online
    soonBack = .none
    for spare in start.spares { attached.insert(spare.slot) }
    now = now.advanced(byNanoseconds: random.below(Nanoseconds.second))
    engine = Engine(start, now: now)
    wasFlushLatched = false
    nextTick = now
    settle(by: 0)
  }

  // MARK: Rot

  /// A sector of a leg's metadata rots while nobody looks: of a leg whose label commit was through
  /// and whose map is whole. What no second fault has hit has to survive one.
  private mutating func rotSomething() {
    // Where only an absent leg is good, the map says so on its own; a second fault may lose that.
    guard scenario.has(.rot), !isCalm, random.chance(1, in: 2), canStart(without: goneLegs) else {
      return
    }
    let slot = anyLeg().index
    guard let leg = legs[slot], case .success = leg.label(copy: 0),
      case .success = leg.label(copy: 1), wholeLabels.contains(LegSlot(slot))
    else { return }
    let map = leg.map(setId: setId)
    for page in 0..<map.pageCount where !map.hasBothCopies(page: page) { return }
    let place = Int(random.below(UInt64(leg.metadataBytes)))
    leg.rot(at: place)
    counts.hit(.rot)
    note(.command, "rot", leg: slot, value: Int64(place))
  }
}
