// Goal: the engine names the time at which it wants to be ticked, and takes it back with the reason.
// Method: a scripted engine; wishes are made by hand.

import Base
import Testing

@testable import MirrorEngine

@Suite("Wake-ups")
struct WakeTests {
  @Test("an engine at rest names no time")
  func rest() throws {
    let driver = try EngineDriver.opened()
    let wake = driver.engine.nextWake
    #expect(wake == nil)
  }

  @Test("the earliest wish counts, never the present, and only until the next settle")
  func earliest() throws {
    let driver = try EngineDriver.opened()
    let later = driver.now.advanced(byNanoseconds: Nanoseconds.second)
    let soon = driver.now.advanced(byNanoseconds: Nanoseconds.millisecond)
    driver.engine.wake(at: later)
    driver.engine.wake(at: soon)
    driver.engine.wake(at: later)
    let earliest = driver.engine.nextWake
    #expect(earliest == soon)
    driver.engine.wake(at: .zero)
    let clamped = driver.engine.nextWake ?? later
    #expect(clamped > driver.now && clamped < soon)
    driver.drain()
    let wake = driver.engine.nextWake
    #expect(wake == nil)
  }

  @Test("ticks that come quickly one after another do not walk through the I/O table each time")
  func overdueIsLookedForSeldom() throws {
    let driver = try EngineDriver.opened()
    _ = driver.submit(.read, 0, 4096)
    driver.pass(seconds: 7.99)
    #expect(!driver.events.contains { $0.kind == .legFailed })
    driver.pass(seconds: 0.02)
    #expect(!driver.events.contains { $0.kind == .legFailed }, "looked at a moment ago")
    driver.pass(seconds: 0.1)
    #expect(driver.events.contains { $0.kind == .legFailed && $0.detail == 110 })
  }
}
