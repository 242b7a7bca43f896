// Rate control: how fast the copier and the scrub may go.
//
// Both ask for each window when it may start (`nextStart`), say that it has (`started`) and how
// long it took (`finished`). Three things decide:
//
// - `max`: a window starts when the bytes of those before it are paid for at `max`; a late start
//   may be made up for by up to a quarter of a second. Holds always.
// - Clients. While requests are inside, or were within the last 100 ms, one window is under way at
//   a time, and after one that took T nothing is started for 4 T: copying takes a fifth of the
//   time. Under load windows take longer, so the pauses grow with the load and the latency of the
//   legs by themselves, and shrink with them. Without clients all jobs run.
// - `min`: whatever clients do, a window starts when less than `min` would be copied otherwise.
//   What was done beyond `min` buys no pause longer than a second (or one window's worth).
//
//   next start = later of (paid for at max, earlier of (pause over, due by min, clients gone))
//
// 1. All times are the engine's; `nextStart` is exact, so the engine can ask to be woken then.
// 2. Nothing here decides whether there is something to copy.

import Base

struct RateControl: BitwiseCopyable {
  /// How long after its last request a client counts as working.
  static let clientNanoseconds = 100 * Nanoseconds.millisecond
  /// The pause after a window, in windows: copying takes one part of five.
  static let pauseFactor: UInt64 = 4
  /// A start that was late by no more than this is made up for.
  static let burstNanoseconds = Nanoseconds.second / 4
  /// What lies ahead of `min`, or behind it, counts up to this.
  static let memoryNanoseconds = Nanoseconds.second
  static let windowBytesMin: UInt64 = 64 << 10
  static let never = Instant(nanoseconds: UInt64.max)

  /// Bytes per second; 0: no minimum.
  private(set) var min: UInt64
  /// Bytes per second; 0: unlimited.
  private(set) var max: UInt64
  /// When the bytes so far are paid for at `max`.
  private var paidAt: Instant
  /// When the next window has to start to keep `min`.
  private var dueAt: Instant
  private var pauseEnd: Instant
  /// When a client's request was last inside; nil: never.
  private var clientAt: Instant?

  init(min: UInt64, max: UInt64, now: Instant) {
    self.min = min
    self.max = max
    paidAt = now
    dueAt = now
    pauseEnd = now
  }

  /// New limits, at once: what was copied under the old ones is forgotten.
  mutating func setLimits(min: UInt64, max: UInt64, now: Instant) {
    self.min = min
    self.max = max
    paidAt = now
    dueAt = now
  }

  /// A client's request is inside, or just left.
  mutating func clientSeen(now: Instant) { clientAt = now }

  /// Bytes of one window, at most: with a low `max` small ones, so that it is no series of bursts.
  var windowBytes: UInt64 {
    let full = UInt64(ScratchUnits.windowBytes)
    guard max > 0 else { return full }
    let quarter = Bytes.alignDown(max / 4, to: RateControl.windowBytesMin)
    return Swift.min(full, Swift.max(quarter, RateControl.windowBytesMin))
  }

  /// Whether clients work: requests are inside, or were lately.
  func hasClients(openRequests: Int, now: Instant) -> Bool {
    if openRequests > 0 { return true }
    guard let clientAt else { return false }
    return now < clientAt.advanced(byNanoseconds: RateControl.clientNanoseconds)
  }

  /// When the next window may start: at once if that is not after `now`; `never` as long as
  /// nothing changes (a window ends, a request leaves).
  func nextStart(windowsInFlight: Int, openRequests: Int, now: Instant) -> Instant {
    var polite = now
    if hasClients(openRequests: openRequests, now: now) {
      polite = windowsInFlight > 0 ? RateControl.never : pauseEnd
      if min > 0 { polite = Swift.min(polite, dueAt) }
      if openRequests == 0, let clientAt {
        let gone = clientAt.advanced(byNanoseconds: RateControl.clientNanoseconds)
        polite = Swift.min(polite, gone)
      }
    }
    return max > 0 ? Swift.max(polite, paidAt) : polite
  }

  /// A window of so many bytes starts.
  mutating func started(bytes: UInt64, now: Instant) {
    if max > 0 {
      let base = Swift.max(paidAt, now.earlier(byNanoseconds: RateControl.burstNanoseconds))
      paidAt = base.advanced(byNanoseconds: RateControl.nanoseconds(bytes, at: max))
    }
    if min > 0 {
      let share = RateControl.nanoseconds(bytes, at: min)
      let base = Swift.max(dueAt, now.earlier(byNanoseconds: RateControl.memoryNanoseconds))
      let ahead = now.advanced(
        byNanoseconds: Swift.max(RateControl.memoryNanoseconds, share))
      dueAt = Swift.min(base.advanced(byNanoseconds: share), ahead)
    }
  }

  /// A window has ended that kept the legs busy for so long.
  mutating func finished(tookNanoseconds: UInt64, now: Instant) {
    let end = now.advanced(byNanoseconds: tookNanoseconds * RateControl.pauseFactor)
    pauseEnd = Swift.max(pauseEnd, end)
  }

  private static func nanoseconds(_ bytes: UInt64, at rate: UInt64) -> UInt64 {
    let (high, low) = bytes.multipliedFullWidth(by: Nanoseconds.second)
    // A window has at most 2^20 bytes, so `high` is 0.
    precondition(high == 0, "a window's bytes")
    return low / rate
  }
}

extension Instant {
  /// The instant `nanoseconds` before, or the origin.
  func earlier(byNanoseconds nanoseconds: UInt64) -> Instant {
    Instant(nanoseconds: self.nanoseconds - Swift.min(self.nanoseconds, nanoseconds))
  }
}

extension Engine {
  /// Sets the limits of resync and scrub in bytes per second, at once; the next label keeps them.
  /// `max` 0: unlimited.
  public mutating func setResyncLimits(
    min: UInt64, max: UInt64, now: Instant
  ) throws(CommandError) {
    self.now = Swift.max(self.now, now)
    guard !start.isReadOnly, stop == .running else { throw .notWritable }
    guard max == 0 || min <= max else { throw .badLimits }
    rate.setLimits(min: min, max: max, now: self.now)
    membership.needsCommit = true
  }

  /// Windows of copier and scrub that are under way.
  var windowsInFlight: Int {
    var count = scrub.isWindowInFlight ? 1 : 0
    for job in copier.jobs where job.isActive && !job.isWaiting { count += 1 }
    return count
  }

  /// Whether a window may start now; if not, and a time will come, asks to be woken then.
  mutating func mayStartWindow() -> Bool {
    let at = rate.nextStart(
      windowsInFlight: windowsInFlight, openRequests: openRequests, now: now)
    if at <= now { return true }
    if at != RateControl.never { wake(at: at) }
    return false
  }
}
