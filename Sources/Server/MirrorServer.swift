// A server: listeners, reactors, the engine they share; started, stopped, asked.

import Base
import Glibc
import Legs
import MirrorEngine
import Ring
import Synchronization

/// How a server ended.
public enum ServerOutcome: Sendable, Equatable {
  /// Everything in flight was answered and the engine has stopped: the mirror is clean.
  case clean
  /// The engine did not stop in time (a leg hangs): the next start recovers.
  case unclean
}

/// Signals that end a server.
public enum TerminationSignals {
  /// Blocks SIGTERM and SIGINT for this thread and all that it starts from now on, ignores SIGPIPE,
  /// and returns a descriptor for `MirrorServer.run`. Call it before any other thread exists.
  public static func block() throws(ServerError) -> Int32 {
    let descriptor = SignalCalls.create()
    guard descriptor >= 0 else { throw .thread(-descriptor) }
    return descriptor
  }
}

/// Serves one mirror.
public final class MirrorServer: Sendable {
  private let configuration: ServerConfiguration
  let share: EngineShare
  let legs: LegTable
  private let observer: (any MirrorObserver)?
  /// The faults of the legs; change them through the functions here.
  let faults: FaultDesk
  private let listeners: [Listener]
  private let zeros: ZeroPages
  private let huge: HugeBudget

  /// Binds the listeners; clients can connect from now on and are served by `run`.
  ///
  /// - Parameters:
  ///   - configuration: The options.
  ///   - engine: The mirror, which the server owns from now on.
  ///   - legs: The open files of the engine's legs.
  ///   - faults: The faults that are armed from the start on, as many as there are.
  ///   - observer: Hears of events, from any reactor's thread.
  /// - Throws: `ServerError`, a sentence for the administrator.
  public init(
    _ configuration: ServerConfiguration, engine: consuming sending Engine, legs: LegTable,
    faults: FaultDesk, observer: (any MirrorObserver)? = nil
  ) throws(ServerError) {
    precondition(configuration.threads >= 1 && configuration.threads <= 64, "1 to 64 threads")
    self.configuration = configuration
    self.legs = legs
    self.faults = faults
    self.observer = observer
    huge = HugeBudget(bytesMax: configuration.hugeBytes)
    do {
      zeros = try ZeroPages()
      share = try EngineShare(engine: engine, reactors: configuration.threads)
    } catch {
      throw ServerError.ring(error.description)
    }
    listeners = try MirrorServer.listen(configuration)
  }

  private static func listen(_ configuration: ServerConfiguration) throws(ServerError) -> [Listener]
  {
    var listeners: [Listener] = configuration.inheritedListeners.map { Listener.inherited($0) }
    do {
      for path in configuration.socketPaths {
        listeners += try whenFree { () throws(ServerError) in [try Listener.unix(path: path)] }
      }
      for address in configuration.listenAddresses {
        listeners += try whenFree { () throws(ServerError) in try Listener.tcp(address) }
      }
    } catch {
      abandon(listeners)
      throw error
    }
    guard !listeners.isEmpty, listeners.count <= 64 else {
      abandon(listeners)
      throw .nothingToListenOn
    }
    return listeners
  }

  /// How long a start waits for an address that is in use, in milliseconds.
  ///
  /// The kernel takes a killed server's ring apart in the background, and its listening sockets
  /// with it: for some milliseconds they still take connections.
  private static let addressMillisecondsMax = 3000

  private static func whenFree(
    _ body: () throws(ServerError) -> [Listener]
  ) throws(ServerError) -> [Listener] {
    let stepMilliseconds = 10
    var waited = 0
    while true {
      do throws(ServerError) {
        return try body()
      } catch {
        guard error.isAddressInUse, waited < addressMillisecondsMax else { throw error }
      }
      usleep(UInt32(stepMilliseconds) * 1000)
      waited += stepMilliseconds
    }
  }

  private static func abandon(_ listeners: [Listener]) {
    for listener in listeners {
      listener.refuse()
      listener.end()
    }
  }

  /// The server's clock, in nanoseconds: what the engine is told as the time.
  public static var now: UInt64 { monotonicNanoseconds() }

  /// The ports of the TCP listeners, in the order they were given.
  public var ports: [UInt16] { listeners.compactMap(\.port) }

  /// Serves until a stop is asked for and done. Runs reactor 0 on the calling thread.
  ///
  /// - Parameters:
  ///   - signals: What `TerminationSignals.block` gave; -1: stop by `requestStop` only.
  ///   - onReady: Called once, when all reactors serve.
  /// - Returns: How it ended.
  /// - Throws: `ServerError`, if the reactors cannot start.
  public func run(signals: Int32 = -1, onReady: () -> Void = {}) throws(ServerError)
    -> ServerOutcome
  {
    var hasServed = false
    defer {
      // A stop removes the sockets' files early: by now they may be another server's.
      for listener in listeners {
        if !hasServed { listener.refuse() }
        listener.end()
      }
    }
    let desk = try ObserverDesk(observer)
    defer { desk.close() }
    let holes = try HoleDesk(share)
    defer { holes.close() }
    let plan = ReactorPlan(
      index: 0, configuration: configuration, share: share, legs: legs, zeros: zeros, huge: huge,
      desk: desk, holes: holes, faults: faults, listeners: listeners, signals: signals)
    // First its own, on this thread: what the kernel refuses is refused here already.
    var reactor = try Reactor.make(plan)
    let threads = try startOthers(plan)
    onReady()
    hasServed = true
    reactor.run()
    for thread in threads { thread.join() }
    return share.isStopClean.load(ordering: .relaxed) ? .clean : .unclean
  }

  /// Starts the reactors 1 and up, and waits until they serve.
  private func startOthers(_ first: ReactorPlan) throws(ServerError) -> [ReactorThread] {
    var plan = first
    plan.listeners = []
    plan.signals = -1
    var threads: [ReactorThread] = []
    do {
      for index in 1..<max(1, configuration.threads) {
        plan.index = index
        threads.append(try ReactorThread(plan))
      }
      for thread in threads { try thread.waitUntilStarted() }
    } catch {
      share.phase.store(.over, ordering: .releasing)
      share.wakeAll()
      for thread in threads { thread.join() }
      throw error
    }
    return threads
  }

  /// Begins a clean stop: in-flight requests are answered, then connections close, then the engine
  /// ends. Safe from any thread; `run` returns when it is done.
  public func requestStop() { share.requestStop() }

  /// Runs `body` on the engine, between two batches of requests, and performs what comes out. For
  /// commands and snapshots of the control plane: `body` returns soon, all clients wait for it.
  public func withEngine<Result: Sendable>(
    _ body: (inout Engine) -> Result
  ) -> Result {
    share.withEngine(now: Instant(nanoseconds: monotonicNanoseconds()), body)
  }

  /// The open connections, at most a quarter of a second old, by number.
  public func connections() -> [ConnectionInfo] {
    var all: [ConnectionInfo] = []
    // Copied under the lock: who takes the array along leaves the reactor one to copy.
    for port in share.ports { port.connections.withLock { all.append(contentsOf: $0) } }
    return all.sorted { $0.number < $1.number }
  }
}
