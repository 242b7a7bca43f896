// The world: virtual time, legs, clients, an administrator, crashes; and the production engine.
//
// Several reactors share one engine, as in the server. One turn of a reactor feeds a random batch of
// what is due for it (completions, requests) into the engine, settles it and takes all effects
// out: its own it performs, at once or at its next turn; those of other reactors go into their
// mailboxes. Everything random comes from one generator in a fixed order, so the same seed gives
// the same run.
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
public struct World: ~Copyable {
  static let tickNanoseconds = Nanoseconds.second / 4
  static let requestsMax = 64
  /// A `submit` event out of turn: the connection's next one is in the queue already.
  static let extra: UInt64 = 1 << 32
  /// No run needs so many; one that does goes round in circles.
  static let stepsMax: UInt64 = 2_000_000

  /// What the run is made of.
  public let scenario: Scenario
  /// The barrier that is taken away, if any.
  public let removed: Barrier?
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

  var reactors: [SimulatedReactor]
  var eventOrder: UInt64 = 0
  var ios: [SimulatedIO] = []
  var freeIO: Int32 = -1
  var iosInFlight = 0
  var buffers = BufferPool()
  var requests = [SimulatedRequest](repeating: SimulatedRequest(), count: World.requestsMax)
  var freeRequests: [Int] = []
  var openRequests = 0
  /// Requests of each connection that are not answered.
  var inside: [Int]
  /// Connections that would send if they had room.
  var isBlocked: [Bool]
  var submitted = 0
  var nextTick = Instant.zero
  var nextUnrest: Instant
  /// A crash that was planned for a moment at which it may hurt.
  var nextCrash: Instant?
  /// Legs of the engine that were last seen online; kept by `look`.
  var online = LegSet.none
  /// Legs that have been online since their PV was made.
  var everOnline = LegSet.none
  /// Its spares.
  var spares = LegSet.none
  /// Its members, online or not.
  var members = LegSet.none
  /// Legs whose file the server holds: from the start or a command that brings it in until the
  /// engine calls the leg idle.
  var attached = LegSet.none
  /// Legs that a fault has made disappear.
  var disappeared = LegSet.none
  /// Legs that were failed by mistake: they are brought back as soon as they are idle.
  var soonBack = LegSet.none
  /// Legs that came back to the set and wait for `readd`.
  var returning: [ReturningLeg?]
  /// Gone legs whose cache dies once the engine has let go of them.
  var losesCache = LegSet.none
  /// Legs whose cache died: until the labels say that they are offline, a crash of the server is as
  /// bad as a power loss, for it makes them equal to the others again.
  var lostCache = LegSet.none
  /// The leg that lies, in scenarios that have one.
  let liar: LegSlot?
  /// The other side of a split brain: its legs and what its clients know.
  var otherSide: OtherSide?
  /// The path of the leg that was chosen, until a label has recorded it.
  var chosenLeg: String?
  /// The legs among which another one is chosen if that one is behind by then.
  var chosenSide = LegSet.none
  /// Legs of the side that was not chosen that were not there when a label recorded the choice: it does
  /// not name their history, and whoever starts with them chooses again.
  var unheard = LegSet.none
  /// The legs that the last start found, whatever their role.
  var found = LegSet.none
  /// While there is another side: this side's own generation is durable.
  var hasRecordedOwn = false
  /// Copies of labels (by slot) and pages (by slot and page) that are known to be the newest; -1:
  /// not known.
  var newestLabel = [Int](repeating: -1, count: LegSlot.count)
  var newestPage: [Int]
  /// Legs whose label was whole, in both copies, when the last server died.
  var wholeLabels = LegSet.none
  /// The leg that lies has stopped to, and what it did is repaired.
  var isHealed = false
  var isCalm = false
  var isStopping = false
  var wasFlushLatched = false
  /// Flushes were latched at some time: what legs lost then, nobody knows.
  var hasLostData = false
  var faultNumber = 0

  /// A world before its first step, which keeps so many of the last events.
  public init(scenario: Scenario, removed: Barrier? = nil, keptEvents: Int = 50) {
    trace = Trace(keptMax: keptEvents)
    self.scenario = scenario
    self.removed = removed
    layout = scenario.layout
    var random = PRNG(seed: scenario.seed)
    setId = Identifier(high: random.next(), low: random.next())
    client = SimulatedClient(scenario: scenario, &random)
    faults = FaultSet(seed: random.next(), deviceBytes: scenario.sizeBytes)
    oracle = Oracle(
      cellCount: Int(scenario.sizeBytes) / scenario.grain, grain: scenario.grain)
    legs = World.createLegs(scenario, setId: setId, removed: removed, &random)
    returning = Array(repeating: nil, count: LegSlot.count)
    newestPage = Array(repeating: -1, count: LegSlot.count * layout.pageCount)
    reactors = Array(repeating: SimulatedReactor(), count: scenario.reactors)
    inside = Array(repeating: 0, count: scenario.connections)
    isBlocked = Array(repeating: false, count: scenario.connections)
    nextUnrest = Instant(nanoseconds: random.below(scenario.unrestNanoseconds))
    liar =
      scenario.has(.liar) ? LegSlot(Int(random.below(UInt64(scenario.legCount)))) : nil
    guard
      case .success(let plan) = World.plan(legs, absent: .none, AssemblyOptions())
    else { preconditionFailure("a mirror that was just created assembles") }
    engine = Engine(
      World.start(plan, legs, scenario, seed: random.next(), removed: removed), now: .zero)
    self.random = random
    attached = plan.online
    counts.starts = 1
    freeRequests = (0..<World.requestsMax).reversed().map { $0 }
    for connection in 0..<scenario.connections { schedule(connection, after: 0) }
    if let liar { makeLiar(liar) }
  }

  /// Runs to the end, or to the first violation.
  public mutating func run() {
    while violation == nil, submitted < scenario.operations { turn() }
    if violation == nil { calmDown() }
  }

  // MARK: One turn

  mutating func turn() {
    step += 1
    if step > World.stepsMax {
      fail("the run does not end: \(World.stepsMax) steps; \(describeState())")
    }
    if let reactor = advance() {
      var left = 1 + random.below(UInt64(scenario.batchMax))
      while left > 0, violation == nil, let event = reactors[reactor].queue.pop(due: now) {
        feed(event, reactor)
        left -= 1
      }
      settle(by: reactor)
    }
    if now >= nextTick {
      engine.tick(now: now)
      nextTick = now.advanced(byNanoseconds: World.tickNanoseconds)
      settle(by: anyReactor())
    } else if let wake = engine.nextWake, now >= wake {
      engine.tick(now: now)
      settle(by: anyReactor())
    }
    if !isCalm, let due = nextCrash, now >= due {
      crashAsPlanned()
    } else if !isCalm, now >= nextUnrest {
      let gap = 1 + random.below(2 * scenario.unrestNanoseconds)
      nextUnrest = now.advanced(byNanoseconds: gap)
      unrest()
      settle(by: anyReactor())
    }
  }

  func anyReactorCount() -> UInt64 { UInt64(reactors.count) }

  mutating func anyReactor() -> Int {
    reactors.count == 1 ? 0 : Int(random.below(anyReactorCount()))
  }

  mutating func settle(by reactor: Int) {
    engine.settle(now: now)
    look()
    drain(by: reactor)
  }

  /// Moves the time to the next moment at which something is due; the reactor for which it is.
  private mutating func advance() -> Int? {
    var next = min(nextTick, engine.nextWake ?? nextTick)
    if !isCalm { next = min(next, nextUnrest, nextCrash ?? nextUnrest) }
    next = max(next, now)
    var chosen: Int?
    var least = next
    for reactor in reactors.indices {
      guard let due = reactors[reactor].queue.first?.due, due <= least else { continue }
      if due < least || chosen == nil { chosen = reactor }
      least = due
    }
    now = max(now, least)
    guard chosen != nil else { return nil }
    // A turn that begins late finds more to do; so do other reactors.
    if random.chance(1, in: 8) {
      now = now.advanced(byNanoseconds: random.below(scenario.ioNanoseconds))
    }
    guard reactors.count > 1, random.chance(1, in: 2) else { return chosen }
    let other = anyReactor()
    if let due = reactors[other].queue.first?.due, due <= now { return other }
    return chosen
  }

  private mutating func feed(_ event: Event, _ reactor: Int) {
    switch event.kind {
    case .io: complete(Int(event.value))
    case .delivered: engine.completed(IOToken(raw: event.value), error: 0, now: now)
    case .submit:
      submitNext(
        connection: Int(event.value & ~World.extra), isExtra: event.value & World.extra != 0)
    case .mail: reactors[reactor].isWoken = false
    case .sent: sent(Int(event.value))
    }
  }

  mutating func push(_ kind: Event.Kind, _ value: UInt64, to reactor: Int, after delay: UInt64) {
    eventOrder += 1
    reactors[reactor].queue.push(
      Event(
        due: now.advanced(byNanoseconds: delay), order: eventOrder, kind: kind, value: value))
  }

  // MARK: Legs as the engine sees them

  /// Looks at what the engine thinks of its legs.
  mutating func look() {
    let before = online
    let seen = engine.glance()
    online = seen.online
    if online != before {
      planCrash(1, in: 4)
      releaseGivenUp(before.subtracting(online))
    }
    everOnline = everOnline.union(online)
    members = seen.members
    spares = seen.spares
    let isLatched = seen.isFlushLatched
    if isLatched, !wasFlushLatched {
      oracle.flushFailed()
      hasLostData = true
    }
    wasFlushLatched = isLatched
    if seen.isOpen {
      if otherSide != nil { hasRecordedOwn = true }
      if chosenLeg != nil { unheard = rejectedLegs() }
      unheard = unheard.subtracting(found)
      chosenLeg = nil
    }
    if isLatched {
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
    // They are excluded, or listed as what they are: nobody believes what they lost.
    if seen.isLabelSettled { lostCache = .none }
  }

  /// The legs with a label that are not of the chosen side.
  private func rejectedLegs() -> LegSet {
    var set = LegSet.none
    for slot in 0..<LegSlot.count where !chosenSide.contains(LegSlot(slot)) {
      if let leg = legs[slot], case .success = leg.label() { set.insert(LegSlot(slot)) }
    }
    return set
  }

  // MARK: Notes

  mutating func fail(_ text: String) {
    if violation == nil { violation = Violation(text: text, step: step) }
  }

  mutating func note(
    _ kind: TraceEvent.Kind, _ what: StaticString, leg: Int = -1, name: UInt64 = 0,
    range: ByteRange = ByteRange(offset: 0, count: 0), value: Int64 = 0
  ) {
    trace.add(
      TraceEvent(
        kind: kind, step: step, now: now, what: what, leg: leg, name: name, range: range,
        value: value))
  }
}
