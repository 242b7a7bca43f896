// Threads of the server: plain OS threads, because a ring belongs to one thread for ever.

import Base
import Glibc
import MirrorEngine
import Ring
import Synchronization
import TLS

/// An OS thread that runs one function.
public final class ServerThread: Sendable {
  private let thread: pthread_t

  private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  /// Starts the thread.
  /// - Throws: `ServerError.thread`.
  public convenience init(_ run: @escaping @Sendable () -> Void) throws(ServerError) {
    self.init(started: try ServerThread.start(run))
  }

  private init(started: pthread_t) { thread = started }

  private static func start(
    _ run: @escaping @Sendable () -> Void
  ) throws(ServerError) -> pthread_t {
    var made = pthread_t()
    // The reference that goes to the thread is taken back there.
    let body = unsafe Unmanaged.passRetained(Body(run))
    let result = unsafe pthread_create(
      &made, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, unsafe body.toOpaque())
    guard result == 0 else {
      unsafe body.release()
      throw .thread(result)
    }
    return made
  }

  /// Starts a thread for whose end nobody waits.
  static func detach(_ run: @escaping @Sendable () -> Void) throws(ServerError) {
    pthread_detach(try start(run))
  }

  /// Waits for its end; once.
  public func join() { pthread_join(thread, nil) }
}

/// A thread that runs a reactor.
final class ReactorThread: Sendable {
  private let thread: ServerThread
  private let start: Start

  /// What the thread and its maker share.
  private final class Start: Sendable {
    let plan: ReactorPlan
    let started: Event
    let error = Mutex<ServerError?>(nil)

    init(plan: ReactorPlan, started: Event) {
      self.plan = plan
      self.started = started
    }

    func run() {
      ProcessCalls.nameReactor(plan.index)
      do {
        var reactor = try Reactor.make(plan)
        started.signal()
        reactor.run()
      } catch {
        self.error.withLock { $0 = error }
        started.signal()
      }
    }
  }

  init(_ plan: ReactorPlan) throws(ServerError) {
    let start = Start(
      plan: plan, started: try ServerError.wrap { () throws(RingError) in try Event() })
    self.start = start
    thread = try ServerThread { start.run() }
  }

  /// Waits until the reactor serves; throws why it cannot.
  func waitUntilStarted() throws(ServerError) {
    start.started.wait()
    if let error = start.error.withLock({ $0 }) { throw error }
  }

  /// Waits for the end of the thread.
  func join() { thread.join() }
}

/// Hands what happens in the mirror to its observer, on a thread of its own: an observer that
/// writes to a full pipe or closes a slow file keeps no client waiting.
///
/// At most `eventsMax` events wait; more are counted and dropped. That a leg is idle is never
/// dropped (it happens once per time that a leg goes offline).
final class ObserverDesk: Sendable {
  private static let eventsMax = 1024

  private enum News {
    case event(MirrorEvent)
    case client(ConnectionInfo, isGone: Bool)
    case failed(ConnectionInfo, TLSError)
  }

  private struct State {
    var news: [News] = []
    var idle: [LegSlot] = []
    var dropped: UInt64 = 0
    var isOver = false
  }

  private let state = Mutex(State())
  private let event: Event
  private let observer: (any MirrorObserver)?
  private let thread = Mutex<ServerThread?>(nil)

  /// Starts the desk; without an observer it does nothing.
  init(_ observer: (any MirrorObserver)?) throws(ServerError) {
    self.observer = observer
    event = try ServerError.wrap { () throws(RingError) in try Event() }
    guard observer != nil else { return }
    let made = try ServerThread { [self] in run() }
    thread.withLock { $0 = made }
  }

  /// Tells of an event.
  func post(_ event: MirrorEvent) { post(.event(event)) }

  /// Tells that a client came or went.
  func post(_ connection: ConnectionInfo, isGone: Bool) {
    post(.client(connection, isGone: isGone))
  }

  /// Tells that a client's TLS session failed.
  func post(_ connection: ConnectionInfo, failed error: TLSError) {
    post(.failed(connection, error))
  }

  private func post(_ news: News) {
    guard observer != nil else { return }
    state.withLock { state in
      if state.news.count < ObserverDesk.eventsMax {
        state.news.append(news)
      } else {
        state.dropped += 1
      }
    }
    event.signal()
  }

  /// Tells that a leg is idle.
  func postIdle(_ slot: LegSlot) {
    guard observer != nil else { return }
    state.withLock { $0.idle.append(slot) }
    event.signal()
  }

  /// Ends the desk after everything that was posted is told.
  func close() {
    state.withLock { $0.isOver = true }
    event.signal()
    thread.withLock { thread in
      thread?.join()
      thread = nil
    }
  }

  private func run() {
    var isOver = false
    while !isOver {
      event.wait()
      event.clear()
      var taken = State()
      state.withLock { state in
        swap(&state, &taken)
        state.isOver = taken.isOver
      }
      for news in taken.news {
        switch news {
        case .event(let event): observer?.observe(event)
        case .client(let connection, let isGone):
          observer?.clientChanged(connection, isGone: isGone)
        case .failed(let connection, let error): observer?.clientFailed(connection, error)
        }
      }
      if taken.dropped > 0 { observer?.eventsDropped(taken.dropped) }
      for slot in taken.idle { observer?.legIsIdle(slot) }
      isOver = taken.isOver
    }
  }
}

extension ServerError {
  /// Runs `body`; a ring's error becomes a server's.
  static func wrap<Result>(
    _ body: () throws(RingError) -> Result
  ) throws(ServerError) -> Result {
    do { return try body() } catch { throw .ring(error.description) }
  }
}
