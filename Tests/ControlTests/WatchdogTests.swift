// Goal: the service manager hears a sign of life when one is due, and only if every reactor turned.
import Testing

@testable import nbdmirror

@Suite("watchdog")
struct WatchdogTests {
  private static let second: UInt64 = 1_000_000_000

  /// A macro takes no mutating call.
  private func tell(_ watchdog: inout Watchdog, _ now: UInt64, _ turns: [UInt64]) -> Bool {
    watchdog.isDue(now: now, turns: turns)
  }

  @Test("a sign every third of what the manager waits")
  func interval() {
    var watchdog = Watchdog(microseconds: 30_000_000, now: 0)
    #expect(watchdog.interval == 10 * Self.second)
    #expect(!tell(&watchdog, 9 * Self.second, [1, 1]))
    #expect(tell(&watchdog, 10 * Self.second, [2, 2]))
    #expect(!tell(&watchdog, 19 * Self.second, [9, 9]))
    #expect(tell(&watchdog, 20 * Self.second, [10, 10]))
  }

  @Test("none while one reactor stands still, however busy the others are")
  func stuck() {
    var watchdog = Watchdog(microseconds: 3_000_000, now: 0)
    #expect(tell(&watchdog, Self.second, [5, 5]))
    #expect(!tell(&watchdog, 2 * Self.second, [90, 5]))
    #expect(!tell(&watchdog, 3 * Self.second, [900, 5]))
    #expect(tell(&watchdog, 4 * Self.second, [901, 6]))
  }

  @Test("none before reactors are known")
  func none() {
    var watchdog = Watchdog(microseconds: 3_000_000, now: 0)
    #expect(!tell(&watchdog, 5 * Self.second, []))
  }
}
