// Goal: spinning begins where it helps, ends where it does not, and costs next to nothing else.
// Method: the decision is a value; clients are sequences of intervals.

import Base
import Testing

@testable import Server

@Suite("Adaptive polling")
struct AdaptivePollingTests {
  static let limit = 50 * Nanoseconds.microsecond

  /// Runs a client whose next event comes `interval` after the reactor is done; a sleep takes
  /// `wakeUp` longer. Returns how many of `events` events were met by a spin, and the spins.
  static func run(
    _ polling: inout AdaptivePolling, interval: UInt64, wakeUp: UInt64, events: Int
  ) -> (met: Int, spins: Int) {
    var (met, spins) = (0, 0)
    for _ in 0..<events {
      if polling.spinNanoseconds > 0 {
        spins += 1
        let isMet = interval < polling.spinNanoseconds
        polling.spun(foundWork: isMet)
        if isMet {
          met += 1
          continue
        }
      }
      polling.slept(nanoseconds: interval + wakeUp)
    }
    return (met, spins)
  }

  @Test("a client that asks again at once is met by spinning, however long wake-ups take")
  func busy() {
    var polling = AdaptivePolling(limitNanoseconds: AdaptivePollingTests.limit)
    // An idle second turns it off.
    _ = AdaptivePollingTests.run(
      &polling, interval: 250 * Nanoseconds.millisecond, wakeUp: 0, events: 8)
    let result = AdaptivePollingTests.run(
      &polling, interval: 10 * Nanoseconds.microsecond, wakeUp: 60 * Nanoseconds.microsecond,
      events: 1000)
    #expect(result.met > 980)
  }

  @Test("a client that comes too late for the limit costs few spins")
  func late() {
    var polling = AdaptivePolling(limitNanoseconds: AdaptivePollingTests.limit)
    let result = AdaptivePollingTests.run(
      &polling, interval: 120 * Nanoseconds.microsecond, wakeUp: 20 * Nanoseconds.microsecond,
      events: 10_000)
    #expect(result.met == 0)
    #expect(result.spins < 60)
  }

  @Test("an idle server does not spin")
  func idle() {
    var polling = AdaptivePolling(limitNanoseconds: AdaptivePollingTests.limit)
    let result = AdaptivePollingTests.run(
      &polling, interval: 250 * Nanoseconds.millisecond, wakeUp: 0, events: 1000)
    #expect(result.spins == AdaptivePolling.failuresMax)
  }

  @Test("a limit of 0 never spins")
  func off() {
    var polling = AdaptivePolling(limitNanoseconds: 0)
    let result = AdaptivePollingTests.run(&polling, interval: 1000, wakeUp: 0, events: 100)
    #expect(result.spins == 0)
  }
}
