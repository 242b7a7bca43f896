// The life of connections and of the reactor itself: accepting, timers, closing, stopping.
//
// A stop goes through `StopPhase`: reactor 0 moves it on, the others follow when they are woken.
//
//   running  -> draining  [MirrorServer.requestStop, a signal]
//   draining -> settling  no connection is open, or the time is over   [driveStop]
//   settling -> over      the engine is stopped, or the time is over   [driveStop]

import Base
import Glibc
import MirrorEngine
import NBDProtocol
import Ring
import Synchronization

extension Reactor {
  /// The reactor's first submissions.
  mutating func begin() {
    now = Instant(nanoseconds: monotonicNanoseconds())
    nextTick = now.nanoseconds + Reactor.tickNanoseconds
    ring.preparePoll(port.event.descriptor, userData: CompletionKind.wake.userData(0))
    if signals >= 0 { ring.preparePoll(signals, userData: CompletionKind.signal.userData(0)) }
    for place in listeners.indices { armAccept(place) }
    port.connections.withLock { $0.reserveCapacity(configuration.connectionsMax) }
    // Mail that came before the first poll.
    openMail()
    if index == 0 {
      engineHasMore = true
      feedEngine(tick: true)
      workEngine()
    }
  }

  /// Nothing is served any more: sockets that are still open are closed hard.
  mutating func end() {
    for place in 0..<connections.count where connections[place].socket >= 0 {
      close(connections[place].socket)
      freeOutput(place)
    }
  }

  // MARK: Accepting

  private mutating func armAccept(_ place: Int) {
    idleListeners &= ~(1 << UInt64(place))
    ring.prepareAccept(
      listeners[place].descriptor, userData: CompletionKind.accept.userData(place))
  }

  /// An accept has given a connection, or has ended.
  mutating func accepted(_ place: Int, _ completion: Completion) {
    if completion.result >= 0 {
      welcome(completion.result, isTCP: listeners[place].isTCP)
    }
    guard !completion.hasMore, phase == .running else { return }
    if completion.result >= 0 || completion.result == -EINTR || completion.result == -ECONNABORTED {
      armAccept(place)
    } else {
      // No descriptors or memory left: tried again with the next tick.
      idleListeners |= 1 << UInt64(place)
    }
  }

  private mutating func welcome(_ socket: Int32, isTCP: Bool) {
    let open = share.connectionCount.wrappingAdd(1, ordering: .relaxed).newValue
    guard open <= configuration.connectionsMax, phase == .running else {
      share.connectionCount.wrappingSubtract(1, ordering: .relaxed)
      close(socket)
      return
    }
    connectionNumber += 1
    let connection = Accepted(socket: socket, isTCP: isTCP, number: connectionNumber)
    let target = nextReactor
    nextReactor = (nextReactor + 1) % configuration.threads
    if target == index { return adopt(connection) }
    share.ports[target].accepted.withLock { $0.append(connection) }
    share.ports[target].wake()
  }

  /// Takes the connections that reactor 0 accepted for this one.
  mutating func adoptAccepted() {
    var new: [Accepted] = []
    port.accepted.withLock { swap(&new, &$0) }
    for connection in new { adopt(connection) }
  }

  private mutating func adopt(_ new: Accepted) {
    guard phase == .running, let free = freeConnection.popLast() else {
      close(new.socket)
      share.connectionCount.wrappingSubtract(1, ordering: .relaxed)
      return
    }
    let place = Int(free)
    let (isWaiting, isWaitingHuge) =
      (connections[place].isWaiting, connections[place].isWaitingHuge)
    connections[place] = Connection()
    connections[place].isWaiting = isWaiting
    connections[place].isWaitingHuge = isWaitingHuge
    connections[place].phase = .handshake
    connections[place].socket = new.socket
    connections[place].info.number = new.number
    connections[place].info.reactor = index
    connections[place].info.isTCP = new.isTCP
    connections[place].deadline = now.nanoseconds + configuration.handshakeNanoseconds
    tune(new.socket, isTCP: new.isTCP)
    openCount += 1
    let session = ServerSession(
      export: configuration.export, tls: configuration.tlsPolicy(isTCP: new.isTCP))
    session.greet(output: &connections[place].output)
    connections[place].session = session
    sendOutput(place)
  }

  private func tune(_ socket: Int32, isTCP: Bool) {
    var one: Int32 = 1
    // Room for a whole batch of replies; the kernel cuts it to net.core.wmem_max.
    var bytes: Int32 = 1 << 20
    let size = socklen_t(MemoryLayout<Int32>.size)
    // Addresses of locals that live through the calls; a refusal costs speed only.
    unsafe setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, size)
    if isTCP { unsafe setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, size) }
  }

  // MARK: Ending connections

  /// No more requests; what is in flight is answered, then the connection closes.
  mutating func drain(_ place: Int) {
    connections[place].phase = .draining
    connections[place].stall = .none
    connections[place].deadline = now.nanoseconds + configuration.stuckNanoseconds
    if connections[place].receiving != .idle {
      ring.prepareCancel(
        CompletionKind.receive.userData(place), userData: CompletionKind.ignored.userData(0))
    }
    dropPayload(place)
    wantSettle(place)
  }

  /// Ends our side of a drained connection, once all is sent, and waits for the client's end.
  private mutating func leave(_ place: Int) {
    guard !connections[place].isSending, connections[place].receiving == .idle else { return }
    sayGoodbye(place)
    guard !connections[place].isSending, connections[place].phase == .draining else { return }
    shutdown(connections[place].socket, Int32(SHUT_WR))
    connections[place].phase = .lingering
    connections[place].deadline = now.nanoseconds + ServerConfiguration.lingerNanoseconds
    armReceive(place)
  }

  /// Gives a connection up: nothing more is sent; what is in flight in the engine goes on.
  mutating func abort(_ place: Int) {
    let phase = connections[place].phase
    guard phase != .closing, phase != .free else { return }
    connections[place].phase = .closing
    connections[place].stall = .none
    connections[place].session = nil
    shutdown(connections[place].socket, Int32(SHUT_RDWR))
    var slot = connections[place].queueFirst
    connections[place].queueFirst = -1
    connections[place].queueLast = -1
    while slot >= 0 {
      let next = requests[Int(slot)].next
      replied(Int(slot))
      slot = next
    }
    dropPayload(place)
    wantSettle(place)
  }

  /// Notes that a connection may be over.
  mutating func wantSettle(_ place: Int) {
    guard !connections[place].isListedToSettle else { return }
    connections[place].isListedToSettle = true
    toSettle.append(Int32(place))
  }

  /// Closes what is drained, frees what is closed.
  mutating func settleConnections() {
    while let listed = toSettle.pop() {
      let place = Int(listed)
      if connections[place].phase == .draining, connections[place].outstanding == 0 {
        leave(place)
      }
      // Only now: what gives it up meanwhile must not list it again, the list has room for all once.
      connections[place].isListedToSettle = false
      releaseIfIdle(place)
    }
  }

  private mutating func releaseIfIdle(_ place: Int) {
    guard connections[place].phase == .closing, connections[place].receiving == .idle,
      !connections[place].isSending
    else { return }
    freeOutput(place)
    if connections[place].socket >= 0 {
      close(connections[place].socket)
      connections[place].socket = -1
    }
    guard connections[place].outstanding == 0 else { return }
    if connections[place].info.isTransmitting { desk.post(connections[place].info, isGone: true) }
    connections[place].phase = .free
    connections[place].info = ConnectionInfo()
    connections[place].tls = nil
    connections[place].deadline = 0
    memory.discard(place)
    freeConnection.append(Int32(place))
    openCount -= 1
    share.connectionCount.wrappingSubtract(1, ordering: .relaxed)
    if phase != .running { share.ports[0].wake() }
  }

  // MARK: Time

  /// Four times a second: the engine's clock, timers of connections, what `connections` shows.
  mutating func tick() {
    let interval =
      phase == .running ? Reactor.tickNanoseconds : 5 * Nanoseconds.millisecond
    nextTick = now.nanoseconds + interval
    if index == 0 {
      feedEngine(tick: true)
      for place in listeners.indices where idleListeners & (1 << UInt64(place)) != 0 {
        if phase == .running { armAccept(place) }
      }
      driveStop()
    }
    releaseHeld()
    expire()
    expireStatus()
    publish()
    publishCounters()
  }

  private mutating func expire() {
    // Other reactors' connections may wait for what large buffers here take up.
    let refusals = pool.hugeRefusalCount
    let isHugeWanted = refusals != hugeRefusals
    hugeRefusals = refusals
    guard openCount > 0 else { return }
    for place in 0..<connections.count {
      switch connections[place].phase {
      case .handshake, .draining, .lingering:
        if isOver(connections[place].deadline) { abort(place) }
      case .transmission:
        // A client that stands still is in nobody's way until memory is short.
        guard !waiting.isEmpty || (isHugeWanted && holdsHuge(place)) else { continue }
        if isOver(connections[place].sendDeadline) {
          abort(place)
        } else if connections[place].payloadSlot >= 0,
          isOver(connections[place].payloadDeadline)
        {
          lookAtPayload(place)
        }
      case .free, .closing: break
      }
    }
  }

  private func holdsHuge(_ place: Int) -> Bool {
    connections[place].chargedBytes > quotaBytes
  }

  func isOver(_ deadline: UInt64) -> Bool {
    deadline != 0 && now.nanoseconds > deadline
  }

  private func publish() {
    port.connections.withLock { list in
      list.removeAll(keepingCapacity: true)
      guard openCount > 0 else { return }
      for place in 0..<connections.count where connections[place].info.number != 0 {
        connections[place].info.requestsInFlight = connections[place].outstanding
        list.append(connections[place].info)
      }
    }
  }

  // MARK: Stopping

  /// A signal asks the server to stop.
  mutating func signalled() {
    if SignalCalls.take(signals) != 0 {
      share.requestStop()
    }
    ring.preparePoll(signals, userData: CompletionKind.signal.userData(0))
  }

  /// Follows the server into a later phase of its end.
  mutating func enter(_ phase: StopPhase) {
    self.phase = phase
    guard phase == .draining else { return }
    stopDeadline = now.nanoseconds + configuration.stopNanoseconds
    nextTick = now.nanoseconds
    if index == 0 { Systemd.notify("STOPPING=1") }
    for place in listeners.indices {
      listeners[place].refuse()
      ring.prepareCancel(
        CompletionKind.accept.userData(place), userData: CompletionKind.ignored.userData(0))
    }
    for place in 0..<connections.count {
      switch connections[place].phase {
      case .handshake: abort(place)
      case .transmission: drain(place)
      case .free, .draining, .lingering, .closing: break
      }
    }
  }

  /// Moves the stop on; reactor 0 only.
  private mutating func driveStop() {
    let isLate = now.nanoseconds > stopDeadline
    switch phase {
    case .running, .over: break
    case .draining:
      let open = share.connectionCount.load(ordering: .relaxed)
      guard open == 0 || isLate else { return }
      stopDeadline = now.nanoseconds + configuration.stopNanoseconds
      move(to: .settling)
      feedEngine(tick: false, beginStop: true)
    case .settling:
      let isStopped = share.state.withLock { $0.engine.isStopped }
      guard isStopped || isLate else { return }
      share.isStopClean.store(isStopped, ordering: .relaxed)
      move(to: .over)
    }
  }

  private mutating func move(to next: StopPhase) {
    share.phase.store(next, ordering: .releasing)
    phase = next
    share.wakeAll()
  }
}
