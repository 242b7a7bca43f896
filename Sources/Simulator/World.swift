// The world: virtual time, legs, clients, an administrator, crashes; and the production engine.
//
// One turn (`step`) does what the server's loop turn does: move to the next moment at which
// something is due, feed a random batch of what is due then (completions, requests, commands) into
// the engine, settle it, and perform all its effects. Everything random comes from one generator
// in a fixed order, so the same seed gives the same run.
//
// | phase    | what goes on                                                                  |
// | chaos    | clients, faults, commands, crashes, until the operations are used up          |
// | calm     | faults stop, legs are there again; the set must become healthy in bounded time |
// | stop     | a clean stop; all labels say clean; the next start finds it so                |

import Base
import Faults
import MirrorEngine
import MirrorFormat

/// One simulated run.
public final class World {
  static let tickNanoseconds = Nanoseconds.second / 4
  static let requestsMax = 64
  /// No run needs so many; one that does goes round in circles.
  static let stepsMax: UInt64 = 300_000

  /// What the run is made of.
  public let scenario: Scenario
  /// The barrier that is taken away, if any.
  public let mutation: Mutation?
  /// What happened.
  public internal(set) var trace: Trace
  /// How much of it.
  public internal(set) var counts = RunCounts()
  /// The first broken promise.
  public internal(set) var violation: Violation?

  let layout: Layout
  let setId: Identifier
  var random: PRNG
  var now = Instant.zero
  var step: UInt64 = 0
  var engine: Engine
  /// PVs by the slot they were given; a slot may lose its PV for good.
  var legs: [SimulatedLeg?]
  var oracle: Oracle
  var faults: FaultSet
  var client: SimulatedClient

  var pending = PendingHeap()
  var held: [PendingIO] = []
  var ioOrder: UInt64 = 0
  var buffers: [[UInt8]] = []
  var freeBuffers: [Int] = []
  var requests = [SimulatedRequest](repeating: SimulatedRequest(), count: World.requestsMax)
  var submitAt: [Instant]
  var submitted = 0
  var nextTick = Instant.zero
  var nextUnrest: Instant
  /// Legs of the engine that were last seen online; kept by `look`.
  var online = LegSet.none
  /// Its members, online or not.
  var members = LegSet.none
  /// Legs that came back to the set and wait for `readd`.
  var returning: [ReturningLeg?]
  /// Gone legs whose cache dies once the engine has let go of them.
  var losesCache = LegSet.none
  /// Legs whose cache died: until the labels say that they are offline, a crash of the server is as
  /// bad as a power loss, for it makes them equal to the others again.
  var lostCache = LegSet.none
  var isCalm = false
  var isStopping = false
  var wasFlushLatched = false
  var faultNumber = 0

  /// A world before its first step, which keeps so many of the last events.
  public init(scenario: Scenario, mutation: Mutation? = nil, keptEvents: Int = 50) {
    trace = Trace(keptMax: keptEvents)
    self.scenario = scenario
    self.mutation = mutation
    layout = scenario.layout
    var random = PRNG(seed: scenario.seed)
    setId = Identifier(high: random.next(), low: random.next())
    client = SimulatedClient(scenario: scenario, &random)
    faults = FaultSet(seed: random.next(), deviceBytes: scenario.sizeBytes)
    oracle = Oracle(
      cellCount: Int(scenario.sizeBytes) / scenario.grain, grain: scenario.grain)
    legs = World.createLegs(scenario, setId: setId, &random)
    returning = Array(repeating: nil, count: LegSlot.count)
    submitAt = Array(repeating: .zero, count: scenario.connections)
    nextUnrest = Instant(nanoseconds: random.below(scenario.unrestNanoseconds))
    guard
      case .success(let plan) = World.plan(legs, absent: .none, isDegradedAllowed: false)
    else { preconditionFailure("a mirror that was just created assembles") }
    engine = Engine(World.start(plan, legs, scenario, seed: random.next()), now: .zero)
    self.random = random
    counts.starts = 1
  }

  /// Runs to the end, or to the first violation.
  public func run() {
    while violation == nil, submitted < scenario.operations { turn() }
    if violation == nil { calmDown() }
  }

  // MARK: One turn

  func turn() {
    step += 1
    if step > World.stepsMax {
      fail("the run does not end: \(World.stepsMax) steps; \(describeState())")
    }
    advance()
    let batch = random.int(in: 1...scenario.batchMax)
    for _ in 0..<batch where violation == nil {
      guard feedOne() else { break }
    }
    if now >= nextTick {
      engine.tick(now: now)
      nextTick = now.advanced(byNanoseconds: World.tickNanoseconds)
    } else if let wake = engine.nextWake, now >= wake {
      engine.tick(now: now)
    }
    settle()
    if !isCalm, now >= nextUnrest {
      let gap = 1 + random.below(2 * scenario.unrestNanoseconds)
      nextUnrest = now.advanced(byNanoseconds: gap)
      unrest()
      settle()
    }
  }

  func settle() {
    engine.settle(now: now)
    look()
    drain()
  }

  /// Moves the time to the next moment at which something is due.
  private func advance() {
    var next = min(nextTick, engine.nextWake ?? nextTick)
    if let due = pending.first?.due { next = min(next, due) }
    if !isCalm {
      next = min(next, nextUnrest)
      for connection in submitAt.indices where canSubmit(connection) {
        next = min(next, submitAt[connection])
      }
    }
    now = max(now, next)
  }

  /// Feeds one thing that is due into the engine; false if nothing is.
  private func feedOne() -> Bool {
    let hasIO = pending.first.map { $0.due <= now } ?? false
    var ready: [Int] = []
    if !isCalm {
      for connection in submitAt.indices where canSubmit(connection) {
        if submitAt[connection] <= now { ready.append(connection) }
      }
    }
    if hasIO, ready.isEmpty || random.chance(2, in: 3) {
      if let io = pending.pop() { complete(io) }
      return true
    }
    guard !ready.isEmpty else { return false }
    submit(connection: ready[Int(random.below(UInt64(ready.count)))])
    return true
  }

  // MARK: Legs as the engine sees them

  /// Looks at what the engine thinks of its legs.
  func look() {
    let snapshot = engine.snapshot()
    online = .none
    members = .none
    for leg in snapshot.legs {
      members.insert(leg.slot)
      if leg.state == .online { online.insert(leg.slot) }
    }
    if snapshot.isFlushLatched, !wasFlushLatched { oracle.flushFailed() }
    wasFlushLatched = snapshot.isFlushLatched
    if wasFlushLatched {
      // The last good leg stays whatever it loses; that it lost something is no longer known once
      // the latch is cleared, and no mirror could make it good. So it loses nothing for good.
      for slot in 0..<LegSlot.count where online.contains(LegSlot(slot)) { legs[slot]?.keepLost() }
    }
    var gone = losesCache.subtracting(online)
    while let slot = gone.popFirst() {
      legs[slot.index]?.losePower(&random)
      losesCache.remove(slot)
      lostCache.insert(slot)
    }
  }

  // MARK: Notes

  func fail(_ text: String) {
    if violation == nil { violation = Violation(text: text, step: step) }
  }

  func note(
    _ kind: TraceEvent.Kind, _ what: StaticString, leg: Int = -1, name: UInt64 = 0,
    range: ByteRange = ByteRange(offset: 0, count: 0), value: Int64 = 0
  ) {
    trace.add(
      TraceEvent(
        kind: kind, step: step, now: now, what: what, leg: leg, name: name, range: range,
        value: value))
  }
}
