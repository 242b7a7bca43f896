// The steps of a scenario, performed.

import Base
import MirrorEngine
import MirrorFormat

/// A scenario as it runs: servers come and go, the disks stay.
final class ExhaustiveScript {
  let context: ExhaustiveContext
  private(set) var run: ExhaustiveRun
  private(set) var problem: String?
  var onPoint: ((ExhaustiveRun) -> Void)?
  private(set) var ioCount = 0
  private(set) var points = 0

  init?(_ context: ExhaustiveContext) {
    self.context = context
    var state = context.create()
    guard case .success(let plan) = context.plan(&state, isDegradedAllowed: false) else {
      return nil
    }
    run = context.start(plan, state)
    run.mustSucceed = !context.scenario.hasFaults
    run.settle()
  }

  /// Performs steps until one breaks a promise.
  func perform(_ steps: [ExhaustiveStep]) {
    for step in steps where problem == nil {
      run.onPoint = onPoint
      do throws(CommandError) {
        try perform(step)
      } catch {
        run.fail("the command is refused: \(error)")
      }
      problem = run.problem
    }
  }

  private func perform(_ step: ExhaustiveStep) throws(CommandError) {
    switch step {
    case .run(let operations):
      begin(operations)
      run.finish()
    case .begin(let operations): begin(operations)
    case .completions(let count):
      for _ in 0..<count where run.problem == nil { _ = run.completeNext() }
    case .unsettled(let step):
      try command(step)
      run.settle()
    case .untilWriting:
      while !run.pending.contains(where: { $0.isDataWrite }) {
        guard run.completeNext() else {
          run.fail("nothing is ever written")
          break
        }
      }
    case .idle:
      for _ in 0..<14 { run.pass(nanoseconds: Nanoseconds.second) }
    case .second: run.pass(nanoseconds: Nanoseconds.second)
    case .converge: waitForCopies()
    case .scrubbed: run.finishScrub()
    case .damage(let leg, let sector):
      run.state.oracle.damage(sector: sector)
      run.spoil(leg, sector: sector, ExhaustiveLeg.damage)
    case .badSector(let leg, let sector):
      run.spoil(leg, sector: sector, ExhaustiveLeg.unreadable)
    case .expectSound: run.expectSound()
    case .stop: run.stop()
    case .restart(let how): restart(how)
    case .fault(let fault):
      run.note("fault  leg \(fault.leg) \(fault.target) #\(fault.nth) times \(fault.count)")
      run.faults.append(fault)
    case .heal:
      run.faults.removeAll()
      for index in run.pending.indices { run.pending[index].isHeld = false }
      run.runUntilQuiet()
    case .fail, .remove, .readd, .add, .replace, .addSpare, .scrub, .pauseCopies, .clearLatch:
      try command(step)
      run.settle()
      // A command that meets requests in flight is followed by whatever the next step says.
      if run.openRequests == 0 { run.runUntilQuiet() }
    }
  }

  private func command(_ step: ExhaustiveStep) throws(CommandError) {
    let now = run.state.now
    switch step {
    case .fail(let leg):
      run.note("fail   leg \(leg)")
      try run.engine.fail(LegSlot(leg), now: now)
    case .remove(let leg):
      run.note("remove leg \(leg)")
      try run.engine.remove(LegSlot(leg), now: now)
    case .readd(let leg): if !run.bringBack(LegSlot(leg)) { throw .notOffline }
    case .add: try run.addLeg()
    case .replace(let leg): try run.addLeg(replacing: LegSlot(leg))
    case .addSpare: try run.addLeg(isSpare: true)
    case .scrub: try run.startScrub()
    case .pauseCopies(let isPaused): run.engine.setCopierPaused(isPaused, now: now)
    case .clearLatch: run.engine.refreshOnlineLegs(now: now)
    case .run, .begin, .unsettled, .completions, .untilWriting, .idle, .second, .converge, .stop,
      .restart, .fault, .heal, .scrubbed, .damage, .badSector, .expectSound:
      preconditionFailure("not a command of an administrator")
    }
  }

  private func begin(_ operations: [ExhaustiveOperation]) {
    for operation in operations { run.submit(operation) }
    run.settle()
  }

  private func waitForCopies() {
    for _ in 0..<60 where run.problem == nil {
      run.runUntilQuiet()
      let snapshot = run.engine.snapshot()
      let isDone = snapshot.legs.allSatisfy {
        $0.replaces == nil && !$0.isJoining && ($0.state != .online || $0.staleBytes == 0)
      }
      if isDone, snapshot.unresolvedRegions == 0, run.engine.isLabelSettled { return }
      run.pass(nanoseconds: Nanoseconds.second)
    }
    run.fail("the legs do not converge: \(run.describeLegs())")
  }

  private func restart(_ how: ExhaustiveRestart) {
    run.note("crash, landed on \(how.landed), power lost by \(how.cut), absent \(how.absent)")
    var state = run.crashed(landed: how.landed, cut: how.cut)
    ioCount += run.ioCount
    points += run.points
    switch context.plan(&state, absent: how.absent, isDegradedAllowed: !how.absent.isEmpty) {
    case .failure(let refusal): problem = "a restart of the scenario is refused: \(refusal)"
    case .success(let plan):
      let old = run
      run = context.start(plan, state, isReadOnly: how.isReadOnly)
      run.points = old.points
      run.mustSucceed = !context.scenario.hasFaults
      run.onPoint = onPoint
      run.settle()
      if !how.isReadOnly { run.bringBackReturning() }
    }
  }
}

extension ExhaustiveRun {
  /// The disks after a crash in which the I/O in flight has landed on `landed` and on no other
  /// leg, and `cut` lost their caches.
  func crashed(landed: LegSet, cut: LegSet = .none) -> ExhaustiveState {
    var after = state
    if let knownBefore { after.oracle = knownBefore }
    let takesBack = takesBack
    for index in 0..<LegSlot.count {
      guard let leg = state.legs[index] else { continue }
      let slot = LegSlot(index)
      var changes: [(unit: Int, value: UInt64)] = []
      if !cut.contains(slot) { changes = leg.lost.map { ($0, leg.stable[$0]) } }
      if landed.contains(slot) {
        for item in pending where item.io.leg == slot && item.changesLeg {
          for position in item.values.indices {
            changes.append((item.unit + position, item.values[position]))
          }
        }
      }
      after.legs[index] = leg.crashed(losingPower: cut.contains(slot), changes)
    }
    if cut.isEmpty, !takesBack { after.oracle.killed() } else { after.oracle.powerLost() }
    return after
  }

  /// A kill is as bad as a power loss: what a leg lost by a failed flush is gone from its file when
  /// it is opened anew, and no label says yet that the leg is out.
  var takesBack: Bool {
    guard state.legs.contains(where: { !($0?.lost.isEmpty ?? true) }) else { return false }
    let snapshot = engine.snapshot()
    for leg in snapshot.legs where !(state.legs[leg.slot.index]?.lost.isEmpty ?? true) {
      if leg.state == .online || !engine.isLabelSettled { return true }
    }
    return false
  }
}

extension Engine {
  /// What an administrator does when flushes fail: `leg refresh` of every leg that is online. A
  /// refusal (the mirror stops, or is read-only) leaves things as they are.
  mutating func refreshOnlineLegs(now: Instant) {
    for leg in snapshot().legs where leg.state == .online {
      do throws(CommandError) { try refresh(leg.slot, now: now) } catch { return }
    }
  }
}
