// Clearing intent, lazily: a region that was not written for a while, after a flush of all legs.
//
//   aging -> candidates chosen -> (flush round) -> cleared in the map -> (log commit, in time)
//
// A candidate has no write in flight and was not touched for a whole period. The flush round begins
// after it was chosen, so after its last write completed; if anything touches it meanwhile it keeps
// its intent. Offline legs turn stale there in the same word update: until then `intent` stood for
// that.

import Base
import MirrorFormat

struct IntentClearing: ~Copyable {
  /// A region keeps its intent at least so long after its last write began.
  static let periodNanoseconds = 5 * Nanoseconds.second

  var candidates: RegionBits
  /// Candidates wait for a flush round, or for its end.
  var isWaiting = false
  var agedAt: Instant

  init(regions: Int, now: Instant) {
    candidates = RegionBits(regions: regions)
    agedAt = now
  }
}

extension Engine {
  mutating func ageIntents() {
    guard now.nanoseconds(since: clearing.agedAt) >= IntentClearing.periodNanoseconds,
      !clearing.isWaiting, stop == .running
    else { return }
    clearing.agedAt = now
    clearing.candidates.removeAll()
    if map.intentCount > 0, !flushes.isLatched {
      for region in 0..<map.layout.regionCount
      where map.hasIntent(region) && !map.touched.contains(region) && isQuiet(region) {
        clearing.candidates.insert(region)
      }
    }
    map.touched.removeAll()
    if clearing.candidates.count > 0, !keeps(.flushBeforeIntentIsCleared) {
      intentsFlushed(isGood: true)
    } else if clearing.candidates.count > 0 {
      clearing.isWaiting = true
      flushes.nextPurposes.clearsIntent = true
    }
  }

  /// Nothing is written there, and an online leg knows what stands there.
  func isQuiet(_ region: Int) -> Bool {
    map.pendingWrites[region] == 0 && !map.unresolved.contains(region)
      && map.isCovered(map.range(of: region), by: online)
  }

  /// The round that began after the candidates were chosen is done.
  mutating func intentsFlushed(isGood: Bool) {
    clearing.isWaiting = false
    guard isGood else { return }
    let offline = keeps(.staleBitsOfAbsentLegs) ? offlineMembers : .none
    var from = 0
    while let region = clearing.candidates.first(from: from) {
      if !map.touched.contains(region) || !keeps(.quietBeforeIntentIsCleared), isQuiet(region) {
        map.clearIntent(in: region, offline: offline)
        log.wantsCommit = true
      }
      from = region + 1
      if from >= map.layout.regionCount { break }
    }
    clearing.candidates.removeAll()
  }
}
