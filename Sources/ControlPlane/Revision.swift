// The revision of a mirror: a number that is another one whenever legs, states or options are
// others. Counters (errors, bytes, latencies) and progress do not count.
//
// `GET /v1/mirror` carries it as `revision` and as ETag; a command with `If-Match` is performed
// only if it still holds. Source: RFC 9110, sections 8.8.3, 13.1.1, 13.1.2.

import ControlModel
import Synchronization

/// Counts the revisions of one mirror; safe from any thread.
final class RevisionCounter: Sendable {
  private struct State {
    var revision: UInt64
    var essence: MirrorStatus?
  }

  private let state: Mutex<State>

  /// - Parameter first: the first revision, larger than any that an earlier server gave out.
  init(first: UInt64) { state = Mutex(State(revision: first, essence: nil)) }

  /// `status` with its revision.
  func stamp(_ status: MirrorStatus) -> MirrorStatus {
    let essence = status.essence
    var stamped = status
    stamped.revision = state.withLock { state in
      if let known = state.essence, known != essence { state.revision += 1 }
      state.essence = essence
      return state.revision
    }
    return stamped
  }
}

extension MirrorStatus {
  /// What a revision is of: everything but counters and progress.
  fileprivate var essence: MirrorStatus {
    var rest = self
    rest.revision = 0
    rest.syncPercent = 0
    rest.dirtyRegions = 0
    rest.unresolvedRegions = 0
    rest.unwrittenBytes = 0
    rest.uptimeSeconds = 0
    rest.resync = ResyncStatus(
      running: resync.running, paused: resync.paused,
      minBytesPerSecond: resync.minBytesPerSecond, maxBytesPerSecond: resync.maxBytesPerSecond)
    rest.scrub = ScrubStatus(mode: scrub.mode, running: scrub.running)
    for index in rest.legs.indices {
      rest.legs[index].staleBytes = 0
      rest.legs[index].readErrors = 0
      rest.legs[index].writeErrors = 0
      rest.legs[index].repairedBlocks = 0
      rest.legs[index].latency = LegStatus.Latency()
    }
    return rest
  }

  /// The entity tag of the revision.
  var entityTag: String { "\"\(revision)\"" }
}

/// What a request says about the revision it is for.
struct Conditions: Equatable, Sendable {
  /// `If-Match`: tags of which one has to hold; nil: not said.
  var match: String?
  /// `If-None-Match`: tags of which none may hold; nil: not said.
  var noneMatch: String?

  /// Whether one of the listed tags is `tag`.
  ///
  /// Tags here are numbers in quotes, so a list is split at commas. `*` stands for any. A weak tag
  /// is none of ours.
  static func lists(_ field: String, _ tag: String) -> Bool {
    field.split(separator: ",").contains { part in
      let name = String(part).filter { $0 != " " && $0 != "\t" }
      return name == "*" || name == tag
    }
  }
}
