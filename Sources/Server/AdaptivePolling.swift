// When a reactor spins before it sleeps.
//
// One request at a time is bound by sleeping and waking: the wake-up alone takes as long as the
// request. Spinning helps exactly when the next event comes within the limit, and that cannot be told
// from how long a sleep took, because the sleep includes the wake-up (QEMU's rule, "poll if the
// last sleep was shorter than the limit", was tried first: on a machine whose wake-ups take as long
// as the limit it never began, and depth 1 ran at a third of the speed). So spinning is judged by
// its own success:
//
//   on  -> off: `failuresMax` spins in a row found nothing
//   off -> on:  after `skips` sleeps that were short enough to hide an event within the limit;
//               each time it was in vain the next try waits twice as long
//
// A client that comes every 200 us costs at most a few spins per thousand sleeps; an idle server
// none at all.

import Base

/// The decision of one reactor; a value without a clock.
struct AdaptivePolling {
  static let failuresMax = 4
  static let skipsMin = 8
  static let skipsMax = 1024

  /// Longest spin, in nanoseconds; 0: never spin.
  let limitNanoseconds: UInt64
  private var isOn = true
  private var failures = 0
  private var skips = 0
  private var nextSkips = skipsMin

  init(limitNanoseconds: UInt64) { self.limitNanoseconds = limitNanoseconds }

  /// How long to spin before the next sleep, in nanoseconds.
  var spinNanoseconds: UInt64 { isOn ? limitNanoseconds : 0 }

  /// A spin has ended.
  mutating func spun(foundWork: Bool) {
    guard !foundWork else {
      failures = 0
      nextSkips = AdaptivePolling.skipsMin
      return
    }
    failures += 1
    guard failures >= AdaptivePolling.failuresMax else { return }
    isOn = false
    skips = nextSkips
    nextSkips = min(2 * nextSkips, AdaptivePolling.skipsMax)
  }

  /// A sleep has ended.
  mutating func slept(nanoseconds: UInt64) {
    guard !isOn, nanoseconds < 4 * limitNanoseconds else { return }
    skips -= 1
    guard skips <= 0 else { return }
    isOn = true
    failures = AdaptivePolling.failuresMax / 2
  }
}
