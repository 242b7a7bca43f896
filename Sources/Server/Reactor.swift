// A reactor: one thread, one ring, its connections, its requests.
//
// One turn of the loop:
//   1. hand what is prepared to the kernel and wait (spin, then sleep)      [waitForWork]
//   2. reap all completions; parse all requests that came                   [dispatch]
//   3. the lock, once: feed the engine, take the effects                    [feedEngine]
//   4. perform the effects; what completes at once goes back to 3           [performEffects]
//   5. let stalled connections go on, prepare sends and receives            [finishTurn]
//
// Invariants
//  1. Everything here belongs to the reactor's thread. Others reach it through its port only.
//  2. In the steady state a turn neither allocates nor counts references per request: slots,
//     lists and buffers are fixed.
//  3. The lists `done`, `submissions` and `effects` never overflow: whoever fills one checks its
//     room first and leaves the rest where it is (completion queue, receive memory, engine).
//
// The state is in this file; what is done with it is in the extensions: ReactorLoop, Receiving,
// Parsing, Sending, EffectRunner, Lifecycle.

import Base
import Glibc
import Legs
import MirrorEngine
import NBDProtocol
import Ring

/// A finished I/O on its way to the engine.
struct FinishedIO {
  var token: IOToken
  var error: Int32
}

/// An I/O on a leg that is in the ring.
struct LegOperation {
  var token = IOToken(raw: 0)
  var kind = IOKind.flush
  var way = ZeroWay.write
  var leg = LegSlot(0)
  var isDurable = false
  /// What is left: it shrinks when the kernel does only a part.
  var offset: UInt64 = 0
  var count: UInt64 = 0
  /// Address of the memory; leased until the engine hears of the completion.
  var address: UInt = 0
  var nextFree: Int32 = -1
  /// A fault of its leg has a hand in it: see FaultyIO.
  var isFaulty = false
}

/// What a completion belongs to: bits 56...63 of the user data; an index in the others.
enum CompletionKind: UInt64 {
  case ignored = 0
  case receive = 1
  case send = 2
  case leg = 3
  case accept = 4
  case wake = 5
  case signal = 6

  @inline(__always)
  func userData(_ index: Int) -> UInt64 { rawValue << 56 | UInt64(index) }
}

/// What a reactor is made of, apart from its thread.
struct ReactorPlan: Sendable {
  var index: Int
  var configuration: ServerConfiguration
  var share: EngineShare
  var legs: LegTable
  var zeros: ZeroPages
  var huge: HugeBudget
  var desk: ObserverDesk
  var holes: HoleDesk
  var faults: FaultDesk
  /// Reactor 0 only: sockets that listen, and a signalfd (-1: none).
  var listeners: [Listener] = []
  var signals: Int32 = -1
}

/// One reactor; lives on its thread's stack.
struct Reactor: ~Copyable {
  // First, and a reference: where a noncopyable value begins with an integer, Swift 6.3 with
  // -sanitize=thread makes code that it then refuses itself ("Invalid bitcast").
  let port: ReactorPort
  let index: Int
  let configuration: ServerConfiguration
  let share: EngineShare
  let legs: LegTable
  let zeros: ZeroPages
  let scratch: Scratch
  let desk: ObserverDesk
  let holes: HoleDesk
  let faults: FaultDesk
  let listeners: [Listener]
  let signals: Int32
  let ring: Ring
  var pool: BufferPool
  let memory: ConnectionMemory
  let connections: FixedTable<Connection>
  var requests: RequestTable
  let operations: FixedTable<LegOperation>
  /// See ReactorCounters.
  let counters: FixedTable<UInt64>
  var freeOperation: Int32 = 0
  var freeConnection: [Int32]
  /// I/O of legs with faults.
  var faulty: FaultyTable
  /// Buffers that an I/O of a failed leg may still write into, by request slot.
  var retired: [(slot: Int, buffer: Buffer)] = []
  /// Block status requests that wait for the files, in the order they came.
  var statusWaits: [StatusWait] = []

  var done: FixedList<FinishedIO>
  var submissions: FixedList<Int32>
  var effects: FixedList<Effect>
  var toSend: FixedList<Int32>
  var toReceive: FixedList<Int32>
  var toParse: FixedList<Int32>
  var toSettle: FixedList<Int32>
  /// Connections that wait for memory or slots of the reactor, in the order they came.
  var waiting: FixedList<Int32>
  /// Connections that wait for large buffers, in the order they came: they are in nobody else's way.
  var waitingHuge: FixedList<Int32>
  /// `HugeBudget.refusalCount` at the last tick.
  var hugeRefusals = 0
  /// Something was given back since those who wait were looked at.
  var somethingFreed = false
  /// The connection whose turn it is to go on; others must not overtake who waits.
  var resuming: Int32 = -1
  /// Payload bytes of the requests that were fed in this turn.
  var fedBytes = 0
  /// The engine has effects that did not fit into `effects`.
  var engineHasMore = false

  var now = Instant.zero
  /// The time of answers of the present batch of effects; 0: not yet looked at.
  var replyClock: UInt64 = 0
  var nextTick: UInt64 = 0
  /// When the engine wants to be ticked, if this reactor has to see to it; else `UInt64.max`.
  var nextWake = UInt64.max
  var nextRetry: UInt64 = 0
  var polling: AdaptivePolling
  var openCount = 0
  var phase = StopPhase.running
  var stopDeadline: UInt64 = 0
  /// Listeners whose accept is not armed, one bit each.
  var idleListeners: UInt64 = 0
  var nextReactor = 0
  var connectionNumber: UInt64 = 0
  /// Memory of requests that were answered and whose buffer a hung leg still holds.
  var pinnedBytes = 0
  let baseLimitBytes: Int
  let quotaBytes: Int
  /// Slots that are kept for the modest.
  let reserveSlots: Int

  static let tickNanoseconds: UInt64 = 250 * Nanoseconds.millisecond
  /// How soon a connection that waits for memory of all reactors tries again.
  static let retryNanoseconds: UInt64 = 2 * Nanoseconds.millisecond
  /// Payload bytes that are worked on before replies go out: 64 requests of 4 KiB, or one large.
  static let turnBytes = 256 << 10
  static let listCapacity = 4096
  static let operationCount = 8192

  /// Makes the reactor on its own thread.
  ///
  /// `ring`, `pool` and `memory` are made by `make`: whatever can fail has happened by now.
  private init(
    _ plan: ReactorPlan, ring: consuming Ring, pool: consuming BufferPool,
    memory: consuming ConnectionMemory
  ) {
    index = plan.index
    configuration = plan.configuration
    share = plan.share
    port = plan.share.ports[plan.index]
    legs = plan.legs
    zeros = plan.zeros
    scratch = plan.share.scratch
    desk = plan.desk
    holes = plan.holes
    faults = plan.faults
    faulty = FaultyTable(items: Array(repeating: nil, count: Reactor.operationCount))
    polling = AdaptivePolling(limitNanoseconds: plan.configuration.pollNanosecondsMax)
    listeners = plan.listeners
    signals = plan.signals
    baseLimitBytes = pool.limitBytes
    quotaBytes = max(pool.limitBytes / 4, BufferPool.pageBytes)
    self.ring = ring
    self.pool = pool
    self.memory = memory
    let places = plan.configuration.connectionsMax
    connections = FixedTable(count: places, filler: Connection())
    freeConnection = (0..<Int32(places)).reversed()
    let slots = max(1, plan.share.requestsMax / plan.configuration.threads)
    requests = RequestTable(count: slots)
    reserveSlots = slots / 4
    counters = FixedTable(count: Counter.count, filler: 0)
    operations = FixedTable(count: Reactor.operationCount, filler: LegOperation())
    done = FixedList(
      capacity: 2 * Reactor.listCapacity, filler: FinishedIO(token: IOToken(raw: 0), error: 0))
    submissions = FixedList(capacity: Reactor.listCapacity, filler: -1)
    effects = FixedList(capacity: Reactor.listCapacity, filler: .legIdle(LegSlot(0)))
    toSend = FixedList(capacity: places, filler: -1)
    toReceive = FixedList(capacity: places, filler: -1)
    toParse = FixedList(capacity: places, filler: -1)
    toSettle = FixedList(capacity: places, filler: -1)
    waiting = FixedList(capacity: 2 * places, filler: -1)
    waitingHuge = FixedList(capacity: 2 * places, filler: -1)
    for place in 0..<Reactor.operationCount {
      operations[place].nextFree = Int32(place + 1)
    }
    operations[Reactor.operationCount - 1].nextFree = -1
  }

  /// Makes a reactor; to be called on the thread that runs it.
  static func make(_ plan: ReactorPlan) throws(ServerError) -> Reactor {
    do {
      let ring = try Ring(entries: 1024)
      let base = plan.configuration.arenaBytes / plan.configuration.threads
      // Twice the limit: what hung legs pin is made up for (`pinnedBytes`).
      var pool = try BufferPool(arenaBytes: 2 * base, huge: plan.huge)
      pool.limitBytes = min(base, pool.arenaBytes)
      pool.reserveBytes = pool.limitBytes / 4
      let memory = try ConnectionMemory(count: plan.configuration.connectionsMax)
      return Reactor(plan, ring: ring, pool: pool, memory: memory)
    } catch {
      throw ServerError.ring(error.description)
    }
  }
}
