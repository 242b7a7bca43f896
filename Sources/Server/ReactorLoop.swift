// The loop of a reactor: waiting, dispatching completions, the engine's turn.

import Base
import Glibc
import Legs
import MirrorEngine
import Ring
import Synchronization

extension Reactor {
  /// Serves until the server is over.
  mutating func run() {
    begin()
    while phase != .over {
      waitForWork()
      counters[Counter.turns] &+= 1
      if faults.isPowerCut { parkForPowerCut() }
      now = Instant(nanoseconds: monotonicNanoseconds())
      reapAll()
      if faults.mayHaveNews(faulty, now) { workFaults() }
      if port.hasMail.load(ordering: .relaxed) { openMail() }
      if now.nanoseconds >= nextTick { tick() }
      if now.nanoseconds >= nextWake { wakeEngine() }
      if isAnyoneWaiting, now.nanoseconds >= nextRetry {
        nextRetry = now.nanoseconds + Reactor.retryNanoseconds
        somethingFreed = true
      }
      workEngine()
      sendReplies()
      armReceives()
      settleConnections()
    }
    end()
  }

  // MARK: Waiting

  /// Hands everything prepared over; returns when there is something to do, or it is time to tick.
  private mutating func waitForWork() {
    if ring.preparedCount > 0 { ring.submit() }
    if !submissions.isEmpty, effects.isEmpty { return }
    if ring.hasWork {
      ring.submit()
      return
    }
    let before = monotonicNanoseconds()
    let next = min(nextTick, nextWake, faulty.nextDue)
    if before >= next { return }
    let limit = isAnyoneWaiting ? min(next - before, Reactor.retryNanoseconds) : next - before
    if polling.spinNanoseconds > 0 {
      let foundWork = ring.spin(nanoseconds: min(polling.spinNanoseconds, limit))
      polling.spun(foundWork: foundWork)
      if foundWork {
        ring.submit()
        return
      }
    }
    ring.submitAndWait(timeoutNanoseconds: limit)
    polling.slept(nanoseconds: monotonicNanoseconds() - before)
  }

  // MARK: Completions

  private mutating func reapAll() {
    var count: Int
    repeat {
      // What one batch can bring must fit: at most one entry per completion.
      guard done.room >= Ring.batchCount else { return }
      count = ring.reap()
      for index in 0..<count { dispatch(ring.completion(at: index)) }
    } while count == Ring.batchCount
  }

  private mutating func dispatch(_ completion: Completion) {
    let place = Int(completion.userData & 0x00ff_ffff_ffff_ffff)
    switch CompletionKind(rawValue: completion.userData >> 56) {
    case .receive: received(place, completion)
    case .send: sent(place, completion.result)
    case .leg: finishOperation(place, completion.result)
    case .accept: accepted(place, completion)
    case .wake:
      port.event.clear()
      ring.preparePoll(port.event.descriptor, userData: CompletionKind.wake.userData(0))
      openMail()
    case .signal: signalled()
    case .ignored, nil: break
    }
  }

  // MARK: The engine

  private var hasInput: Bool {
    !done.isEmpty || !submissions.isEmpty || (engineHasMore && effects.isEmpty)
  }

  /// Feeds the engine and performs what it wants until nothing is left to feed, or until
  /// `turnBytes` of requests were fed: then their replies go out before the next are worked on,
  /// while the data is still in the processor's caches and the client can begin.
  mutating func workEngine() {
    fedBytes = 0
    while true {
      if hasInput { feedEngine(tick: false) }
      performEffects()
      if !toParse.isEmpty { resumeParsing() }
      if isAnyoneWaiting, somethingFreed { resumeWaiting() }
      if !hasInput { return }
      let isEngineWaiting = engineHasMore && effects.isEmpty
      if fedBytes >= Reactor.turnBytes, done.isEmpty, !isEngineWaiting { return }
    }
  }

  /// One turn under the lock.
  mutating func feedEngine(tick: Bool, beginStop: Bool = false) {
    var wake: UInt64 = 0
    let share = share
    let now = now
    effects.compact()
    share.state.withLock { state in
      while let finished = done.pop() {
        state.engine.completed(finished.token, error: finished.error, now: now)
      }
      while fedBytes < Reactor.turnBytes, let slot = submissions.pop() {
        fedBytes += requests[Int(slot)].chargedBytes
        state.engine.submit(engineRequest(Int(slot)), now: now)
      }
      submissions.compact()
      if tick { state.engine.tick(now: now) }
      if beginStop { state.engine.beginStop(now: now) }
      state.engine.settle(now: now)
      state.waker = index
      nextWake = state.engine.nextWake?.nanoseconds ?? UInt64.max
      engineHasMore = true
      // What came before must be taken before: no room for the mail, no effects either.
      guard effects.room >= Mailboxes.capacity else { return }
      state.mailboxes.empty(index, into: &effects)
      while effects.room > 0 {
        guard let effect = state.nextEffect(own: index, wake: &wake) else {
          engineHasMore = false
          break
        }
        effects.append(effect)
      }
    }
    if wake != 0 { share.wake(wake) }
  }

  /// The time has come that the engine named when this reactor last fed it. Meanwhile another one
  /// may have fed it, and then looks after the time that was named then; so an idle reactor sleeps
  /// however busy the others are.
  private mutating func wakeEngine() {
    let index = index
    let (wake, isMine) = share.state.withLock { state in
      (state.engine.nextWake?.nanoseconds ?? UInt64.max, state.waker == index)
    }
    if now.nanoseconds >= wake {
      feedEngine(tick: true)
    } else {
      nextWake = isMine ? wake : UInt64.max
    }
  }

  private func engineRequest(_ slot: Int) -> MirrorRequest {
    MirrorRequest(
      kind: requests[slot].kind, range: requests[slot].engineRange,
      isFUA: requests[slot].isFUA, mayPunchHoles: requests[slot].mayPunchHoles,
      token: requests.token(slot, reactor: index))
  }

  // MARK: Mail

  /// Looks after everything that others left for this reactor.
  mutating func openMail() {
    _ = port.hasMail.exchange(false, ordering: .acquiringAndReleasing)
    engineHasMore = true
    adoptAccepted()
    takeHoles()
    let phase = share.phase.load(ordering: .acquiring)
    if phase != self.phase { enter(phase) }
  }
}
