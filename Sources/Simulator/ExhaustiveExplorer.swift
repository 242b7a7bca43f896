// Crashes at every event of a scenario, and what must hold after each.
//
// After a crash, for every disk that it may have left (ExhaustiveStates):
// 1. All PVs assemble (P3, P8); the engine starts; every sector is read from every leg in turn and
//    must be what a client may see (P1, P2); so once more after a second crash right then; then
//    all legs come back, copy, and hold the same bytes (P4); a clean stop leaves clean labels.
// 2. Without each single leg, `--degraded`: refused with an explanation, or started; then every
//    sector must be right or, without a source, an error; a client writes on; the leg comes back
//    at the next start, and nobody ever sees what it missed (P3).
// 3. In scenarios of depth two the start after the crash is crashed at each of its events too.
//
// Equal disks with equal knowledge of clients are tried once (a hash each, per scenario).

import Base
import MirrorEngine
import MirrorFormat

/// The first broken promise of a scenario, and where.
public struct ExhaustiveViolation: Sendable {
  /// What is wrong.
  public var text: String
  /// Order, event, state; then event and state of a second crash: what repeats it.
  public var path: [Int]
  /// The scenario.
  public var scenario: String
  /// All events, if it was run with a trace.
  public var trace: [String]
}

/// How much was tried.
public struct ExhaustiveCounts: Sendable {
  /// Completion orders tried.
  public var orders = 0
  /// I/Os issued by the scenario itself.
  public var io = 0
  /// Events after which it was crashed.
  public var points = 0
  /// Different disks with different knowledge.
  public var states = 0
  /// Starts of the engine.
  public var starts = 0
  /// Starts without a leg that were refused.
  public var refusals = 0

  /// Nothing yet.
  public init() {}

  /// Adds another scenario's.
  public mutating func add(_ other: ExhaustiveCounts) {
    orders += other.orders
    io += other.io
    points += other.points
    states += other.states
    starts += other.starts
    refusals += other.refusals
  }
}

final class ExhaustiveExplorer {
  let context: ExhaustiveContext
  let bounds: ExhaustiveBounds
  /// Try this one only.
  let only: [Int]?
  var counts = ExhaustiveCounts()
  var violation: ExhaustiveViolation?
  private var visited: Set<UInt64>
  private var path: [Int]

  init(
    _ context: ExhaustiveContext, _ bounds: ExhaustiveBounds, only: [Int]?, visited: Set<UInt64>
  ) {
    self.context = context
    self.bounds = bounds
    self.only = only
    self.visited = visited
    path = [Int(context.order.rawValue)]
  }

  /// Runs the scenario; gives back the states it has seen, for the next order.
  func explore() -> Set<UInt64> {
    guard let script = ExhaustiveScript(context) else {
      report("a mirror that was just created does not assemble", [])
      return visited
    }
    script.perform(context.scenario.setup)
    if script.problem == nil {
      let first = script.run
      script.onPoint = { [unowned self] run in visit(run) }
      first.onPoint = script.onPoint
      visit(first)
      script.perform(context.scenario.steps)
      if script.problem == nil {
        visit(script.run)
        checkRot(script.run)
      }
    }
    if violation == nil, let problem = script.problem { report(problem, script.run.state.trace) }
    counts.orders = 1
    counts.io = script.ioCount + script.run.ioCount
    counts.starts = context.starts
    return visited
  }

  func report(_ text: String, _ trace: [String]) {
    guard violation == nil else { return }
    violation = ExhaustiveViolation(
      text: text, path: path, scenario: context.scenario.name, trace: trace)
  }

  func report(_ run: ExhaustiveRun) {
    if let problem = run.problem { report(problem, run.state.trace) }
  }

  // MARK: Crash points

  /// Crashes the run here in every way.
  private func visit(_ run: ExhaustiveRun) {
    guard violation == nil else {
      run.fail("found")
      return
    }
    let depth = path.count
    if let only {
      guard only.count > depth, only[depth] == run.points else { return }
    } else if run.points % bounds.pointStep != 0, !run.pending.isEmpty {
      return
    }
    counts.points += 1
    path.append(run.points)
    path.append(0)
    for losesPower in [false, true] where violation == nil {
      let hasCache = run.state.legs.contains { !($0?.cache.isEmpty ?? true) }
      if losesPower, !hasCache { continue }
      crash(run, losingPower: losesPower)
    }
    path.removeLast(2)
    if violation != nil { run.fail("found") }
  }

  private func crash(_ run: ExhaustiveRun, losingPower: Bool) {
    var oracle = run.knownBefore ?? run.state.oracle
    if losingPower || run.takesBack { oracle.powerLost() } else { oracle.killed() }
    let salt = ExhaustiveLeg.mix(oracle.hash &+ (path.count > 3 ? 7 : 0))
    let bounds = path.count > 3 ? ExhaustiveBounds.second : bounds
    let variants = (0..<LegSlot.count).map {
      run.variants(of: $0, losingPower: losingPower, bounds)
    }
    let picks = ExhaustiveRun.combinations(variants, bounds)
    let before = path[path.count - 1]
    // Where not all are tried: evenly spread, and others at the next event.
    let step = max(1, picks.count / bounds.statesPerPoint)
    for index in picks.indices where violation == nil {
      path[path.count - 1] = before + index + 1
      if let only {
        guard only[path.count - 1] == path[path.count - 1] else { continue }
      } else {
        guard (index &+ run.points) % step == 0 else { continue }
        var hash = salt
        for leg in variants.indices {
          hash ^= ExhaustiveLeg.mix(variants[leg][picks[index][leg]].hash &+ UInt64(leg))
        }
        guard visited.insert(hash).inserted else { continue }
      }
      counts.states += 1
      var state = run.crashed(variants, picks[index], losingPower: losingPower, oracle: oracle)
      if context.isTracing {
        state.trace.append(describe(run, variants, picks[index], losingPower: losingPower))
      }
      recover(state)
    }
    if violation == nil { path[path.count - 1] = before + picks.count }
  }

  private func describe(
    _ run: ExhaustiveRun, _ variants: [[ExhaustiveVariant]], _ pick: [Int], losingPower: Bool
  ) -> String {
    var text = "CRASH  \(losingPower ? "power loss" : "kill")"
    for index in variants.indices where run.state.legs[index] != nil {
      let changes = variants[index][pick[index]].changes.map { change in
        change.unit < ExhaustiveLeg.metaUnits
          ? "\(["label 0", "label 1", "map 0", "map 1"][change.unit]) (page \(change.value))"
          : "sector \(change.unit - ExhaustiveLeg.metaUnits) = \(String(change.value, radix: 16))"
      }
      text += "; leg \(index) has of what was open: "
      text += changes.isEmpty ? "nothing" : changes.joined(separator: ", ")
    }
    return text
  }

  // MARK: After a crash

  /// Everything that must hold of these disks.
  private func recover(_ before: ExhaustiveState) {
    var state = before
    // Variants of what follows, the same when the path is repeated.
    let ordinal = path.reduce(0) { $0 &* 3 &+ $1 } & 0xffff
    switch context.planOfAll(&state) {
    case .failure(let refusal):
      report("the mirror does not assemble: \(refusal)", state.trace + refusal.explanation)
      return
    case .success(let plan):
      if !plan.lost.isEmpty, !mayLose(plan, state) {
        report("a leg that is there is not used: \(plan.explanation)", state.trace)
        return
      }
      startWithAll(plan, state, ordinal)
      var rest = LegSet.none
      for index in 0..<LegSlot.count where state.legs[index] != nil { rest.insert(LegSlot(index)) }
      guard rest.count > 1 else { return }
      while violation == nil, let leg = rest.popFirst() {
        startWithout(leg, state, newest: plan, ordinal)
      }
    }
  }

  /// Only a leg whose label is gone may be missing.
  private func mayLose(_ plan: AssemblyPlan, _ before: ExhaustiveState) -> Bool {
    var state = before
    var lost = plan.lost
    while let slot = lost.popFirst() {
      guard let leg = state.legs[slot.index] else { continue }
      if case .success = leg.label(&state.pages) { return false }
    }
    return true
  }

  private func startWithAll(_ plan: AssemblyPlan, _ state: ExhaustiveState, _ ordinal: Int) {
    let run = context.start(plan, state)
    if context.scenario.depth == .two, bounds.hasSecondCrash, path.count == 3 {
      run.onPoint = { [unowned self] run in visit(run) }
    }
    run.settle()
    if ordinal % 2 == 0 { run.bringBackReturning() }
    run.readEverything(byBlocks: ordinal % 3 == 0)
    run.bringBackReturning()
    // What was read stays so, whatever of what is in flight had landed, and whoever is left.
    if run.problem == nil, path.count == 3 {
      secondStart(run, landed: .none)
      if !run.pending.isEmpty { secondStart(run, landed: LegSet(bits: 0xff)) }
    }
    run.converge()
    run.compare()
    if run.problem == nil, violation == nil, ordinal % 4 == 0 {
      // Whatever was flushed on the way is there after a power loss, too.
      let after = run.crashed(landed: .none, cut: LegSet(bits: 0xff))
      startAgain(after, absent: .none, isWhole: false)
    }
    if violation == nil {
      run.stop()
      run.checkStopped()
    }
    if violation == nil { report(run) }
  }

  private func secondStart(_ run: ExhaustiveRun, landed: LegSet) {
    let state = run.crashed(landed: landed)
    startAgain(state, absent: .none, isWhole: !landed.isEmpty)
    for index in 0..<LegSlot.count where state.legs[index] != nil && violation == nil {
      startAgain(state, absent: LegSet(LegSlot(index)), isWhole: false)
    }
  }

  /// A start after a second crash: everything is read; and made whole.
  private func startAgain(_ before: ExhaustiveState, absent: LegSet, isWhole: Bool) {
    var state = before
    let plan: AssemblyPlan
    switch context.planOfAll(&state) {
    case .failure(let refusal):
      report("it does not assemble after a second crash: \(refusal)", state.trace)
      return
    case .success(let all): plan = all
    }
    guard let chosen = absent.isEmpty ? plan : degraded(&state, absent, newest: plan),
      isNew(state, without: absent, salt: isWhole ? 2 : 1)
    else { return }
    let run = context.start(chosen, state)
    run.settle()
    if !absent.isEmpty { run.bringBackOffline() }
    run.readEverything(byBlocks: false)
    if isWhole {
      run.bringBackReturning()
      run.converge()
      run.compare()
    }
    report(run)
  }

  /// A plan without `absent`, if an administrator may risk it: someone who is online has the newest
  /// generation, and with `--log core` (an absent leg is stale everywhere when it is back) someone
  /// who is there has everything.
  private func degraded(
    _ state: inout ExhaustiveState, _ absent: LegSet, newest: AssemblyPlan
  ) -> AssemblyPlan? {
    switch context.plan(&state, absent: absent, isDegradedAllowed: true) {
    case .failure(let refusal):
      counts.refusals += 1
      if refusal.description.isEmpty || refusal.explanation.isEmpty, !isNobodyLeft(refusal) {
        report("a refusal without an explanation: \(refusal)", state.trace)
      }
      return nil
    case .success(let plan):
      guard plan.lineage.current == newest.lineage.current else { return nil }
      guard
        context.scenario.logKind == .disk
          || !plan.online.subtracting(plan.incomplete).isEmpty
      else { return nil }
      var holders = plan.online
      while let slot = holders.popFirst() {
        if plan.legs[slot.index]?.label.label.lineage.current == newest.lineage.current {
          return plan
        }
      }
      return nil
    }
  }

  private func isNobodyLeft(_ refusal: AssemblyRefusal) -> Bool {
    refusal.reason == .noCandidates
  }

  /// Whether such a start was not tried yet.
  private func isNew(_ state: ExhaustiveState, without absent: LegSet, salt: UInt64) -> Bool {
    guard only == nil else { return true }
    var hash = ExhaustiveLeg.mix(state.oracle.hash &+ salt)
    for index in 0..<LegSlot.count {
      guard let leg = state.legs[index] else { continue }
      let isAbsent = absent.contains(LegSlot(index))
      let own = leg.hash(state.pages, losingPower: false)
      hash ^= ExhaustiveLeg.mix(own &+ UInt64(index) &+ (isAbsent ? 100 : 0))
    }
    return visited.insert(hash).inserted
  }

  private func startWithout(
    _ leg: LegSlot, _ before: ExhaustiveState, newest: AssemblyPlan, _ ordinal: Int
  ) {
    var state = before
    guard let plan = degraded(&state, LegSet(leg), newest: newest),
      isNew(state, without: LegSet(leg), salt: 3)
    else { return }
    let left = state.legs[leg.index]
    state.legs[leg.index] = nil
    if context.isTracing { state.trace.append("START  without leg \(leg)") }
    let run = context.start(plan, state)
    run.settle()
    if ordinal % 4 >= 2 { run.bringBackOffline() }
    run.readEverything(byBlocks: ordinal % 3 == 1)
    guard run.problem == nil, run.mustSucceed else {
      report(run)
      return
    }
    // Who writes marks the absent leg stale there; nothing else may hide what that leg has.
    for probe in context.scenario.probes where ordinal % 5 < 3 {
      run.submit(probe)
      run.settle()
      run.finish()
    }
    run.readEverything(byBlocks: false)
    if ordinal % 2 == 0 { run.stop() }
    report(run)
    guard violation == nil else { return }
    var after = run.crashed(landed: .none)
    after.legs[leg.index] = left
    // Whoever was left out may be copied to from a damaged leg.
    after.oracle.damageMaySpread()
    if context.isTracing { after.trace.append("START  with leg \(leg) again") }
    comeBack(leg, after, ordinal)
  }

  /// The leg that was left out is there again.
  private func comeBack(_ leg: LegSlot, _ before: ExhaustiveState, _ ordinal: Int) {
    var state = before
    switch context.planOfAll(&state) {
    case .failure(let refusal):
      report("it does not assemble with leg \(leg) again: \(refusal)", state.trace)
    case .success(let plan):
      if plan.online.contains(leg) {
        report("leg \(leg) was left out and is called current", state.trace)
        return
      }
      let run = context.start(plan, state)
      run.settle()
      if ordinal % 4 < 2 { run.bringBackReturning() }
      run.readEverything(byBlocks: false)
      run.converge()
      run.compare()
      report(run)
    }
  }

  // MARK: Rot

  /// One metadata page of one leg rots while the mirror is stopped or idle (P8).
  private func checkRot(_ run: ExhaustiveRun) {
    guard violation == nil, run.pending.isEmpty, !run.takesBack, only == nil || only?.count == 4
    else { return }
    let quiet = run.crashed(landed: .none)
    path.append(-1)
    for index in 0..<LegSlot.count {
      guard let leg = quiet.legs[index] else { continue }
      for unit in 0..<ExhaustiveLeg.metaUnits where violation == nil {
        path += [index, unit]
        defer { path.removeLast(2) }
        if let only, only != path { continue }
        // A sample tries one page of each leg.
        if bounds.statesPerPoint == 1, unit != (run.points + index) % 4 { continue }
        var state = quiet
        var bytes = state.pages.bytes(leg.image[unit])
        bytes[100] ^= 0x40
        state.legs[index]?.rot(unit: unit, page: state.pages.number(of: bytes))
        if context.isTracing { state.trace.append("ROT    leg \(index) metadata page \(unit)") }
        counts.states += 1
        recover(state)
      }
    }
    path.removeLast()
  }
}
