// The one engine, shared by all reactors and the control plane behind one lock.
//
// The lock is taken once per loop turn around a batch. What the engine wants done for a request
// of another reactor goes into that reactor's mailbox, under the same lock, and the reactor is
// woken once.
//
// Invariants
//  1. Effects leave the engine in order. If the mailbox of the next effect's reactor is full, the
//     effect is held back and with it all that follow, until that reactor empties its mailbox and
//     goes on draining; nobody waits while holding the lock.
//  2. Effects of one owner are performed by one reactor, in order.

import Base
import MirrorEngine
import Ring
import Synchronization

/// What the lock protects.
struct EngineState: ~Copyable {
  var engine: Engine
  /// An effect whose mailbox was full.
  var held: Effect?
  /// One per reactor.
  var mailboxes: Mailboxes
  /// The reactor that fed the engine last: it calls `tick` at `nextWake`.
  var waker = 0

  /// The next effect that can be delivered: nil if there is none, or if its mailbox is full.
  ///
  /// Effects of other reactors than `own` (nil: of all reactors) go into their mailboxes; the
  /// bits of those to wake are set in `wake`.
  mutating func nextEffect(own: Int?, wake: inout UInt64) -> Effect? {
    while true {
      let effect: Effect
      if let kept = held {
        effect = kept
        held = nil
      } else if let next = engine.popEffect() {
        effect = next
      } else {
        return nil
      }
      let target = EngineShare.reactor(of: effect) ?? own ?? 0
      if target == own { return effect }
      guard mailboxes.post(effect, to: target) else {
        held = effect
        return nil
      }
      wake |= 1 << UInt64(target)
    }
  }
}

/// A bounded mailbox for each reactor.
struct Mailboxes: ~Copyable {
  static let capacity = 2048
  private let effects: FixedTable<Effect>
  private let counts: FixedTable<Int>

  init(reactors: Int) {
    effects = FixedTable(count: reactors * Mailboxes.capacity, filler: .legIdle(LegSlot(0)))
    counts = FixedTable(count: reactors, filler: 0)
  }

  /// Puts an effect into a mailbox; false if it is full.
  func post(_ effect: Effect, to reactor: Int) -> Bool {
    let count = counts[reactor]
    guard count < Mailboxes.capacity else { return false }
    effects[reactor * Mailboxes.capacity + count] = effect
    counts[reactor] = count + 1
    return true
  }

  /// Moves the whole mailbox into `list`, which has room for it.
  func empty(_ reactor: Int, into list: inout FixedList<Effect>) {
    for index in 0..<counts[reactor] {
      list.append(effects[reactor * Mailboxes.capacity + index])
    }
    counts[reactor] = 0
  }
}

/// How others reach a reactor. Safe from any thread.
final class ReactorPort: Sendable {
  /// Wakes the reactor.
  let event: Event
  /// Whether there is mail; set before `event` is signalled.
  let hasMail = Atomic<Bool>(false)
  /// Sockets that were accepted for the reactor.
  let accepted = Mutex<[Accepted]>([])
  /// What files said of their holes.
  let holes = Mutex<[HoleAnswer]>([])
  /// The connections of the reactor as it published them last.
  let connections = Mutex<[ConnectionInfo]>([])

  /// What the reactor counted, as it published it last.
  let counters = Mutex([UInt64](repeating: 0, count: Counter.count))

  init() throws(RingError) { event = try Event() }

  /// Tells the reactor that there is mail; one system call for any number of calls before it looks.
  func wake() {
    if !hasMail.exchange(true, ordering: .acquiringAndReleasing) { event.signal() }
  }
}

/// A new connection on its way to its reactor.
struct Accepted: Sendable {
  var socket: Int32
  var isTCP: Bool
  var number: UInt64
}

/// How far a stop has come.
enum StopPhase: UInt8, AtomicRepresentable {
  /// Serving.
  case running
  /// No new requests; what is in flight is answered, then connections close.
  case draining
  /// Connections are gone (or given up); the engine ends its work.
  case settling
  /// Threads end.
  case over
}

/// What all threads of a server share.
final class EngineShare: Sendable {
  let state: EngineLock<EngineState>
  let ports: [ReactorPort]
  let scratch: Scratch
  /// Requests that the engine takes at once; split over the reactors.
  let requestsMax: Int
  let phase = Atomic<StopPhase>(.running)
  /// Whether the engine had stopped when the server was over.
  let isStopClean = Atomic<Bool>(false)
  /// Connections that are open, on all reactors.
  let connectionCount = Atomic<Int>(0)

  init(engine: consuming sending Engine, reactors: Int) throws(RingError) {
    precondition(reactors >= 1 && reactors <= 64, "1 to 64 reactors")
    scratch = engine.scratch
    requestsMax = engine.requestsMax
    var ports: [ReactorPort] = []
    for _ in 0..<reactors { ports.append(try ReactorPort()) }
    self.ports = ports
    state = EngineLock(
      EngineState(engine: engine, held: nil, mailboxes: Mailboxes(reactors: reactors)))
  }

  /// Wakes the reactors whose bits are set.
  func wake(_ bits: UInt64) {
    var rest = bits
    while rest != 0 {
      ports[rest.trailingZeroBitCount].wake()
      rest &= rest - 1
    }
  }

  /// Wakes all reactors.
  func wakeAll() { for port in ports { port.wake() } }

  /// Begins the end; later calls change nothing.
  func requestStop() {
    _ = phase.compareExchange(
      expected: .running, desired: .draining, ordering: .acquiringAndReleasing)
    wakeAll()
  }

  /// Runs `body` on the engine and delivers what comes out. For the control plane.
  func withEngine<Result: Sendable>(
    now: Instant, _ body: (inout Engine) -> Result
  ) -> Result {
    var wake: UInt64 = 0
    let result = state.withLock { state in
      let result = body(&state.engine)
      state.engine.settle(now: now)
      // Nothing is for this thread: every effect goes to a mailbox.
      _ = state.nextEffect(own: nil, wake: &wake)
      return result
    }
    self.wake(wake)
    return result
  }

  /// The reactor that has to perform an effect; nil: any.
  static func reactor(of effect: Effect) -> Int? {
    switch effect {
    case .io(let io): Token.reactor(of: io.owner)
    case .merge(let owner, _, _, _): Token.reactor(of: owner)
    case .mergeZeros(let owner, _, _): Token.reactor(of: owner)
    case .deliver(_, let owner, _, _, _): Token.reactor(of: owner)
    case .fillZeros(let owner, _, _): Token.reactor(of: owner)
    case .reply(let token, _): Token.reactor(of: token)
    case .replaceBuffer(let token): Token.reactor(of: token)
    case .release(let token): Token.reactor(of: token)
    case .event, .legIdle: nil
    }
  }
}

/// Request tokens: reactor + 1 in bits 56...63, slot in 32...55, generation in 0...31.
enum Token {
  static func pack(reactor: Int, slot: Int, generation: UInt32) -> RequestToken {
    RequestToken(raw: UInt64(reactor + 1) << 56 | UInt64(slot) << 32 | UInt64(generation))
  }

  /// The reactor that a token belongs to; nil for `.none`.
  static func reactor(of token: RequestToken) -> Int? {
    token.raw == 0 ? nil : Int(token.raw >> 56) - 1
  }

  static func slot(of token: RequestToken) -> Int { Int(token.raw >> 32 & 0xff_ffff) }

  static func generation(of token: RequestToken) -> UInt32 {
    UInt32(truncatingIfNeeded: token.raw)
  }
}
