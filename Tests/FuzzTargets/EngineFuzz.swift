// The engine, started with whatever was assembled: every I/O succeeds; it records its label and its
// map, copies what is stale, and stops cleanly. The labels that it writes assemble again.

import Base
import MirrorEngine
import MirrorFormat

enum EngineFuzz {
  /// Some more than most starts with 2100 small regions take.
  private static let stepsMax = 8_000

  static func run(_ plan: AssemblyPlan, _ map: AssemblyMap) throws(FuzzProblem) {
    var start = EngineStart(plan: plan, map: map, seed: 1)
    start.requestsMax = 4
    start.isReadOnly = plan.isReadOnly
    start.readPolicy = .roundRobin
    var engine = Engine(start, now: Instant(nanoseconds: 1))
    var now = Instant(nanoseconds: 1)
    var steps = 0
    // Some seconds of its life, until it is stopped.
    for second in 0..<30 {
      try settle(&engine, now, plan, &steps)
      now = now.advanced(byNanoseconds: Nanoseconds.second)
      if second == 8 { engine.beginStop(now: now) }
      if engine.isStopped { break }
      engine.tick(now: now)
    }
    try require(
      engine.isStopped || engine.snapshot().isResyncRunning || steps >= stepsMax,
      "the engine does not stop although all is well")
  }

  private static func settle(
    _ engine: inout Engine, _ now: Instant, _ plan: AssemblyPlan, _ steps: inout Int
  ) throws(FuzzProblem) {
    repeat {
      engine.settle(now: now)
      var done: [IOToken] = []
      while let effect = engine.popEffect() {
        switch effect {
        case .io(let io):
          try check(io, plan, &engine)
          done.append(io.token)
        case .deliver(let token, _, _, _, _): done.append(token)
        case .merge, .mergeZeros, .fillZeros, .replaceBuffer, .reply, .release, .event, .legIdle:
          break
        }
      }
      if done.isEmpty { return }
      for token in done { engine.completed(token, error: 0, now: now) }
      steps += done.count
    } while steps < stepsMax
  }

  private static func check(
    _ io: LegIO, _ plan: AssemblyPlan, _ engine: inout Engine
  ) throws(FuzzProblem) {
    try require(plan.members[io.leg.index].state != .vacant, "I/O on a leg that is none")
    try require(
      io.offset <= plan.layout.pvBytes && io.count <= plan.layout.pvBytes - io.offset,
      "I/O beyond the PV")
    guard io.kind == .write, case .scratch(let scratch) = io.buffer else { return }
    try require(!plan.isReadOnly, "a read-only mirror is written")
    guard io.offset < plan.layout.mapOffset else { return }
    var bytes: [UInt8] = []
    engine.scratch.withBytes(at: scratch, count: Int(io.count)) {
      bytes = $0.bytes.copied(0..<$0.byteCount)
    }
    guard case .success(let label) = LabelFuzz.decode(bytes) else {
      throw FuzzProblem("a label is written that nobody can read")
    }
    try require(label.setId == plan.setId && label.layout == plan.layout, "another mirror's label")
    try require(label.sequence >= plan.nextLabelSequence, "a label that is not the newest")
  }
}
