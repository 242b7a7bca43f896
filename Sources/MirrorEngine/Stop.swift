// The clean stop: everything answered, everything flushed, no intent left, and a label that says so.
//
// | from       | to         | when                                                                 |
// | running    | draining   | Engine.beginStop                                                     |
// | draining   | flushing   | every request is answered, no copy, commit or round is in flight     |
// | flushing   | committing | the round succeeded: all intents are cleared                         |
// | committing | labelling  | the map is durable                                                   |
// | labelling  | stopped    | the clean label is durable on both copies                            |
// | any        | stopped    | a step failed: the labels then say "not clean", and assembly knows   |

import Base
import MirrorFormat

enum StopState: UInt8 {
  case running, draining, flushing, committing, labelling, stopped
}

extension Engine {
  /// Starts the clean stop; the submitter sends no new requests after the last answer it owes.
  public mutating func beginStop(now: Instant) {
    self.now = max(self.now, now)
    guard stop == .running else { return }
    stop = .draining
    var joining = joiningLegs
    while let leg = joining.popFirst() { failJoin(leg) }
    work()
  }

  /// Nothing is left to do; the legs may be closed.
  public var isStopped: Bool { stop == .stopped }

  mutating func pumpStop() {
    switch stop {
    case .running, .flushing, .stopped: break
    case .draining:
      guard openRequests == 0, copier.jobs.allSatisfy({ !$0.isActive }), repairs.isIdle,
        !scrub.isWindowInFlight, !flushes.isInFlight, !log.isInFlight, !membership.isInFlight
      else { return }
      if start.isReadOnly || !membership.isOpenRecorded {
        stop = .stopped
        return
      }
      stop = .flushing
      flushes.nextPurposes.stops = true
      if !copier.copied.isEmpty { flushes.nextPurposes.finishesCopies = true }
      startFlushRound()
    case .committing:
      guard !log.isInFlight, map.dirtyPages.count == 0 else {
        log.wantsCommit = true
        startLogCommit()
        return
      }
      guard map.intentCount == 0 else {
        // Regions that are still unresolved keep their intent: the next start goes on there.
        stop = .stopped
        return
      }
      stop = .labelling
      membership.wantsClean = true
      membership.needsCommit = true
      membership.retryAt = .zero
      startLabelCommit()
    case .labelling:
      if membership.isCleanRecorded, !membership.isInFlight {
        stop = .stopped
      } else if !membership.isInFlight {
        startLabelCommit()
      }
    }
  }

  mutating func stopFlushed(isGood: Bool) {
    guard isGood else {
      stop = .stopped
      return
    }
    let offline = offlineMembers
    for region in 0..<map.layout.regionCount where map.hasIntent(region) && isQuiet(region) {
      map.clearIntent(in: region, offline: offline)
    }
    if start.logKind == .core {
      // Memory is all that `--log core` has; a clean stop is the moment to keep it.
      for page in 0..<map.layout.pageCount { map.markDirty(page: page) }
    }
    log.wantsCommit = true
    log.retryAt = .zero
    stop = .committing
  }
}
