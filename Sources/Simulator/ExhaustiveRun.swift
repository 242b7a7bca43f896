// One run of the production engine over exhaustive legs: clients, effects, completions, time.
//
// Everything has a fixed order: requests are submitted one by one, each I/O that completes is fed,
// settled and its effects performed before the next. `onPoint` is called at every event after which
// a crash would find another disk or another knowledge of clients: an I/O was issued, an I/O
// has landed and was fed, a client got its answer.

import Base
import MirrorEngine
import MirrorFormat

/// In which order I/O completes.
enum ExhaustiveOrder: UInt8, CaseIterable, Sendable {
  /// As it was issued.
  case oldest
  /// The highest leg first.
  case lastLeg
  /// The last issued first.
  case newest
}

/// An I/O in flight.
struct ExhaustiveIO {
  var io: LegIO
  var unit: Int
  /// What a write or zero puts there, by unit.
  var values: [UInt64] = []
  /// A flush persists what was in the cache by then.
  var mark: UInt32
  /// Which buffer of its request a read goes to.
  var bufferNumber = 0
  var error: Int32 = 0
  var remains = ExhaustiveFault.Remains.nothing
  /// It never completes.
  var isHeld = false
  /// It is said to have been done.
  var isDropped = false

  var changesLeg: Bool {
    switch io.kind {
    case .write, .zero, .discard: !isDropped
    case .read, .flush: false
    }
  }
}

extension ExhaustiveIO {
  var isDataWrite: Bool { changesLeg && unit >= ExhaustiveLeg.metaUnits }
}

/// A client's request.
struct ExhaustiveRequest {
  var token: RequestToken
  var operation: ExhaustiveOperation
  var write: UInt16 = 0
  var start: UInt32 = 0
  /// Sectors from `origin` on.
  var buffer: [UInt64]
  var bufferNumber = 0
  var isAnswered = false

  var origin: UInt64 {
    Bytes.alignDown(operation.range.offset, to: UInt64(ExhaustiveLeg.sectorBytes))
  }

  /// Word of the buffer that holds the byte `offset` after the start of the range.
  func word(at offset: UInt64) -> Int {
    Int(operation.range.offset + offset - origin) / ExhaustiveLeg.sectorBytes
  }
}

/// A part of the engine's scratch memory that holds data, as sectors.
struct ExhaustiveScratch {
  var offset: Int
  var words: [UInt64]
  var end: Int { offset + words.count * ExhaustiveLeg.sectorBytes }
}

/// What all runs of a scenario share.
final class ExhaustiveContext {
  let scenario: ExhaustiveScenario
  let layout: Layout
  let atoms: ExhaustiveAtoms
  let order: ExhaustiveOrder
  let mutation: ExhaustiveMutation?
  let removed: Barrier?
  let setId = Identifier(high: 0x5e7, low: 1)
  let isTracing: Bool
  var starts = 0

  init(
    _ scenario: ExhaustiveScenario, order: ExhaustiveOrder, mutation: ExhaustiveMutation?,
    removed: Barrier?, isTracing: Bool
  ) {
    self.scenario = scenario
    layout = scenario.layout
    atoms = scenario.atoms
    self.order = order
    self.mutation = mutation
    self.removed = removed
    self.isTracing = isTracing
  }
}

/// Everything that outlives a server: disks, and what clients know.
struct ExhaustiveState {
  var legs: [ExhaustiveLeg?]
  var pages: ExhaustivePages
  var oracle: ExhaustiveOracle
  var startNumber: UInt64
  var now: Instant
  var trace: [String]
}

/// A mirror that runs.
final class ExhaustiveRun {
  static let requestsMax = 8
  /// No run needs so many completions between two steps.
  static let completionsMax = 20_000

  let context: ExhaustiveContext
  var state: ExhaustiveState
  var engine: Engine
  var plan: AssemblyPlan
  var pending: [ExhaustiveIO] = []
  var requests: [ExhaustiveRequest] = []
  var scratch: [ExhaustiveScratch] = []
  var faults: [ExhaustiveFault] = []
  var nextToken: UInt64 = 1
  /// A read-only server cannot make good what it reads in an unresolved region: as long as it
  /// runs it says one thing, but another start may find another. What clients knew before it.
  var knownBefore: ExhaustiveOracle?
  /// Requests must not fail.
  var mustSucceed = true
  var wasFlushLatched = false
  var isStopping = false
  var lastError: Int32 = 0
  private var dropped = 0
  /// The first broken promise.
  var problem: String?
  /// Events so far.
  var points = 0
  var ioCount = 0
  var onPoint: ((ExhaustiveRun) -> Void)?

  init(
    _ context: ExhaustiveContext, _ state: ExhaustiveState, plan: AssemblyPlan, start: EngineStart
  ) {
    self.context = context
    self.state = state
    self.plan = plan
    context.starts += 1
    engine = Engine(start, now: state.now)
  }

  func fail(_ text: String) { if problem == nil { problem = text } }

  func note(_ text: @autoclosure () -> String) {
    if context.isTracing { state.trace.append(text()) }
  }

  func point() {
    points += 1
    guard problem == nil else { return }
    onPoint?(self)
  }

  // MARK: The loop

  func settle() {
    engine.settle(now: state.now)
    if context.scenario.hasFaults { look() }
    drain()
  }

  private func drain() { while problem == nil, let effect = engine.popEffect() { perform(effect) } }

  /// What a last leg that lost something means for clients.
  private func look() {
    let snapshot = engine.snapshot()
    if snapshot.isFlushLatched, !wasFlushLatched { state.oracle.flushFailed() }
    wasFlushLatched = snapshot.isFlushLatched
    guard wasFlushLatched else { return }
    // The last good leg stays whatever it loses, and no mirror could make it good: so that the
    // oracle need not know what clearing the latch accepts, it loses nothing for good.
    for leg in snapshot.legs where leg.state == .online { state.legs[leg.slot.index]?.keepLost() }
  }

  /// Completes the next I/O; false if there is none.
  func completeNext() -> Bool {
    var next: Int?
    for index in pending.indices where !pending[index].isHeld {
      guard let best = next else {
        next = index
        continue
      }
      switch context.order {
      case .oldest: break
      case .lastLeg: if pending[index].io.leg > pending[best].io.leg { next = index }
      case .newest: next = index
      }
    }
    guard let next, problem == nil else { return false }
    state.now = state.now.advanced(byNanoseconds: 50 * Nanoseconds.microsecond)
    var item = pending.remove(at: next)
    if item.error == 0, hitsBadSector(item) { item.error = 5 }
    note("done   leg \(item.io.leg) \(name(item))\(item.error != 0 ? " error \(item.error)" : "")")
    apply(item)
    engine.completed(item.io.token, error: item.error, now: state.now)
    point()
    settle()
    return true
  }

  private func hitsBadSector(_ item: ExhaustiveIO) -> Bool {
    guard item.io.kind == .read, let leg = state.legs[item.io.leg.index] else { return false }
    let units = item.unit..<item.unit + max(1, Int(item.io.count) / ExhaustiveLeg.sectorBytes)
    return item.unit >= ExhaustiveLeg.metaUnits
      && leg.image[units].contains(ExhaustiveLeg.unreadable)
  }

  func runUntilQuiet() {
    var left = ExhaustiveRun.completionsMax
    while completeNext() || wakeEngine() {
      left -= 1
      if left == 0 { fail("I/O without end") }
    }
  }

  /// Goes to the moment at which the engine wants to go on by itself, if that is soon: a copier that
  /// makes room for clients.
  private func wakeEngine() -> Bool {
    guard problem == nil, let wake = engine.nextWake,
      wake.nanoseconds(since: state.now) < Nanoseconds.second
    else { return false }
    state.now = max(state.now, wake)
    engine.tick(now: state.now)
    settle()
    return true
  }

  /// Lets time pass, and completes what that brings.
  func pass(nanoseconds: UInt64) {
    state.now = state.now.advanced(byNanoseconds: nanoseconds)
    engine.tick(now: state.now)
    settle()
    runUntilQuiet()
  }

  var openRequests: Int {
    var count = 0
    for request in requests where !request.isAnswered { count += 1 }
    return count
  }

  /// Runs until all requests are answered and nothing is in flight.
  func finish() {
    runUntilQuiet()
    for _ in 0..<60 where problem == nil && openRequests > 0 {
      pass(nanoseconds: Nanoseconds.second)
    }
    if problem == nil, openRequests > 0 {
      fail("a request is not answered after 60 s: \(requests.filter { !$0.isAnswered })")
    }
  }

  // MARK: Clients

  func submit(_ operation: ExhaustiveOperation) {
    let sector = UInt64(ExhaustiveLeg.sectorBytes)
    let range = operation.range
    let words =
      Int(Bytes.alignUp(range.end, to: sector) - Bytes.alignDown(range.offset, to: sector))
      / ExhaustiveLeg.sectorBytes
    let token = RequestToken(raw: nextToken)
    nextToken += 1
    var request = ExhaustiveRequest(
      token: token, operation: operation,
      buffer: Array(repeating: ExhaustiveLeg.garbage, count: words))
    switch operation.kind {
    case .read: request.start = state.oracle.beginRead()
    case .flush: request.start = state.oracle.beginFlush()
    case .write, .zero, .trim:
      let changed = operation.changed(blockBytes: UInt64(context.layout.blockBytes))
      let atoms = changed.map { context.atoms.covered(by: $0) } ?? []
      request.write = state.oracle.beginWrite(atoms: atoms, isZero: operation.kind != .write)
      let id = UInt64(request.write)
      if operation.kind == .write {
        request.buffer = Array(
          repeating: id | id << 16 | id << 32 | id << 48, count: request.buffer.count)
      }
    }
    note("client \(operation.kind) \(range)\(operation.isFUA ? " FUA" : "") as \(request.write)")
    requests.append(request)
    if context.mutation == .ackBeforeWrite, operation.kind == .write {
      replied(token, error: 0)
    }
    engine.submit(
      MirrorRequest(
        kind: operation.kind, range: range, isFUA: operation.isFUA,
        mayPunchHoles: operation.mayPunchHoles, token: token),
      now: state.now)
  }

  func index(of token: RequestToken) -> Int? { requests.firstIndex { $0.token == token } }

  func replied(_ token: RequestToken, error: Int32) {
    guard let index = index(of: token), !requests[index].isAnswered else {
      if context.mutation != .ackBeforeWrite { fail("an answer to nobody") }
      return
    }
    requests[index].isAnswered = true
    let request = requests[index]
    note("answer \(request.operation.kind) \(request.write) error \(error)")
    if error != 0 {
      lastError = error
      if mustSucceed {
        fail("\(request.operation.kind) \(request.operation.range): errno \(error)")
      }
    }
    switch request.operation.kind {
    case .read:
      if error == 0 { check(request) }
      state.oracle.endRead(start: request.start)
    case .flush: if error == 0 { state.oracle.flushAcked(start: request.start) }
    case .write, .zero, .trim:
      state.oracle.writeAnswered(
        request.write, isAcked: error == 0, isDurable: request.operation.isFUA)
    }
    point()
  }

  private func check(_ request: ExhaustiveRequest) {
    let first = Int(request.origin) / ExhaustiveLeg.sectorBytes
    for index in request.buffer.indices {
      let wrong = state.oracle.read(
        request.buffer[index], sector: first + index, start: request.start, context.atoms)
      if let wrong {
        fail("read \(request.operation.range): " + wrong)
        return
      }
    }
  }

  func released(_ token: RequestToken) { requests.removeAll { $0.token == token } }

  // MARK: Dropped on purpose

  func mutate(_ item: inout ExhaustiveIO) {
    guard let mutation = context.mutation else { return }
    let isData = item.unit >= ExhaustiveLeg.metaUnits
    let isWrite = item.io.kind == .write
    switch mutation {
    case .dropLogPages: item.isDropped = isWrite && (item.unit == 2 || item.unit == 3)
    case .dropLabels: item.isDropped = isWrite && item.unit < 2
    case .skipFlush: item.isDropped = item.io.kind == .flush
    case .dropWrites:
      guard isData, isWrite, item.io.leg.index == 1 else { return }
      dropped += 1
      item.isDropped = dropped % 2 == 0
    case .ackBeforeWrite, .ignoreDurable, .forgetIntent, .forgetStale, .dropMerges, .readAnyLeg:
      break
    }
  }
}
