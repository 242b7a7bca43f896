// systemd's watchdog: it is told that the server lives, as long as every reactor turns.
//
// Source: sd_watchdog_enabled(3).

import Base
import Glibc
import Server

/// Decides when the service manager hears `WATCHDOG=1`.
struct Watchdog {
  /// Nanoseconds between two signs of life: a third of what the manager waits.
  let interval: UInt64
  private var turns: [UInt64] = []
  private var toldAt: UInt64

  /// - Parameters:
  ///   - microseconds: what the manager waits for a sign of life (`WATCHDOG_USEC`).
  ///   - now: nanoseconds of the monotonic clock.
  init(microseconds: UInt64, now: UInt64) {
    interval = microseconds * Nanoseconds.microsecond / 3
    toldAt = now
  }

  /// The watchdog that this process' manager keeps; nil: it keeps none.
  static func ofThisProcess(now: UInt64) -> Watchdog? {
    guard let text = value("WATCHDOG_USEC"), let microseconds = UInt64(text),
      (1...1 << 50).contains(microseconds),
      value("WATCHDOG_PID").map({ $0 == "\(getpid())" }) ?? true
    else { return nil }
    return Watchdog(microseconds: microseconds, now: now)
  }

  /// Whether a sign of life is due and deserved: each reactor has turned since the last one.
  ///
  /// A reactor turns at least four times a second, also without work.
  mutating func isDue(now: UInt64, turns: [UInt64]) -> Bool {
    guard now - toldAt >= interval, !turns.isEmpty else { return false }
    if self.turns.count == turns.count {
      guard zip(self.turns, turns).allSatisfy({ $0 != $1 }) else { return false }
    }
    self.turns = turns
    toldAt = now
    return true
  }

  private static func value(_ name: String) -> String? {
    // No other thread changes the environment.
    guard let value = unsafe getenv(name) else { return nil }
    return unsafe String(cString: value)
  }
}
