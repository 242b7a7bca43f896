// Goal: copying keeps its limits and leaves clients most of their speed (P7). Method: the rate
// control by itself under a simulated legs' speed, then the engine's windows and wake-ups.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Rate control")
struct RateControlTests {
  static let mebi: UInt64 = 1 << 20

  /// Copies for `seconds` with windows that take `took` each; `isBusy` tells whether clients work.
  static func copied(
    _ rate: inout RateControl, seconds: UInt64, windowMilliseconds took: UInt64,
    isBusy: (Instant) -> Bool, jobs: Int = 1
  ) -> UInt64 {
    var now = Instant(nanoseconds: 1)
    let end = now.advanced(byNanoseconds: seconds * Nanoseconds.second)
    var ends: [Instant] = []
    var bytes: UInt64 = 0
    while now < end {
      while let first = ends.first, first <= now {
        ends.removeFirst()
        rate.finished(tookNanoseconds: took * Nanoseconds.millisecond, now: now)
      }
      let open = isBusy(now) ? 1 : 0
      if open > 0 { rate.clientSeen(now: now) }
      let next = rate.nextStart(windowsInFlight: ends.count, openRequests: open, now: now)
      if next <= now, ends.count < jobs {
        rate.started(bytes: rate.windowBytes, now: now)
        bytes += rate.windowBytes
        ends.append(now.advanced(byNanoseconds: took * Nanoseconds.millisecond))
      } else {
        now = now.advanced(byNanoseconds: Nanoseconds.millisecond)
      }
    }
    return bytes
  }

  @Test(
    "the maximum holds with and without clients, and is reached", arguments: [64 << 10, 10 << 20])
  func maximum(max: UInt64) {
    for isBusy in [false, true] {
      var rate = RateControl(min: max, max: max, now: Instant(nanoseconds: 1))
      let bytes = RateControlTests.copied(
        &rate, seconds: 20, windowMilliseconds: 2, isBusy: { _ in isBusy }, jobs: 4)
      #expect(bytes <= max * 20 + max / 4 + rate.windowBytes)
      #expect(bytes >= max * 19)
    }
  }

  @Test("a maximum below one window a second is kept by smaller windows")
  func smallWindows() {
    var rate = RateControl(min: 0, max: 512 << 10, now: .zero)
    #expect(rate.windowBytes == 128 << 10)
    rate.setLimits(min: 0, max: 1, now: .zero)
    #expect(rate.windowBytes == 64 << 10)
    rate.setLimits(min: 0, max: 0, now: .zero)
    #expect(rate.windowBytes == 1 << 20)
  }

  @Test("beside clients copying takes a fifth of the time, whatever a window takes")
  func fifth() {
    for took: UInt64 in [2, 20, 200] {
      var rate = RateControl(min: 0, max: 0, now: Instant(nanoseconds: 1))
      let bytes = RateControlTests.copied(
        &rate, seconds: 60, windowMilliseconds: took, isBusy: { _ in true }, jobs: 4)
      let share = Double(bytes / RateControlTests.mebi * took) / 60_000
      #expect(share > 0.18 && share < 0.22, "\(took) ms: \(share)")
    }
  }

  @Test("the minimum is kept beside clients where the pauses alone would go below it")
  func minimum() {
    var rate = RateControl(min: 4 << 20, max: 0, now: Instant(nanoseconds: 1))
    let bytes = RateControlTests.copied(
      &rate, seconds: 30, windowMilliseconds: 200, isBusy: { _ in true }, jobs: 4)
    #expect(bytes >= (4 << 20) * 29)
    #expect(bytes <= (4 << 20) * 33)
  }

  @Test("what was copied at full speed before buys clients no pause beyond a second")
  func shortMemory() {
    var rate = RateControl(min: 1 << 20, max: 0, now: Instant(nanoseconds: 1))
    var now = Instant(nanoseconds: 1)
    for _ in 0..<1000 {
      rate.started(bytes: 1 << 20, now: now)
      now = now.advanced(byNanoseconds: Nanoseconds.millisecond)
      rate.finished(tookNanoseconds: 10 * Nanoseconds.second, now: now)
    }
    let next = rate.nextStart(windowsInFlight: 0, openRequests: 1, now: now)
    #expect(next > now)
    #expect(next <= now.advanced(byNanoseconds: Nanoseconds.second))
  }

  @Test("a tenth of a second after the last request nothing is held back any more")
  func clientsGone() {
    var rate = RateControl(min: 0, max: 0, now: .zero)
    let now = Instant(nanoseconds: Nanoseconds.second)
    rate.clientSeen(now: now)
    rate.finished(tookNanoseconds: Nanoseconds.second, now: now)
    let gone = now.advanced(byNanoseconds: RateControl.clientNanoseconds)
    #expect(rate.nextStart(windowsInFlight: 3, openRequests: 0, now: now) == gone)
    #expect(
      rate.nextStart(windowsInFlight: 0, openRequests: 1, now: now)
        == now.advanced(byNanoseconds: 4 * Nanoseconds.second))
    #expect(rate.nextStart(windowsInFlight: 3, openRequests: 1, now: now) == RateControl.never)
    #expect(rate.nextStart(windowsInFlight: 3, openRequests: 0, now: gone) == gone)
  }

  // MARK: In the engine

  @Test("beside a request one window runs, the next after a pause the engine asks to be woken from")
  func engineWaits() throws {
    let driver = try CopierTests.returned(stale: 0..<4)
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    let isWindow = { (io: LegIO) in driver.isData(io) && io.count == 1 << 20 }
    #expect(driver.count(isWindow) == 4, "nobody works: all jobs")
    driver.completeAll { $0.kind != .flush }
    driver.runToRest()
    #expect(driver.leg(1)?.staleBytes == 0)

    let busy = try CopierTests.returned(stale: 0..<4)
    let request = busy.submit(.read, 6 << 20, 4096)
    busy.completeAll { busy.isLog($0) || busy.isLabel($0) }
    #expect(busy.count { busy.isData($0) && $0.count == 1 << 20 } == 1)
    busy.now = busy.now.advanced(byNanoseconds: 10 * Nanoseconds.millisecond)
    busy.complete { $0.count == 1 << 20 && $0.kind == .read }
    busy.complete { $0.count == 1 << 20 && $0.kind == .write }
    #expect(busy.count { $0.count == 1 << 20 } == 0, "the pause")
    let wake = try #require(busy.nextWake)
    #expect(wake == busy.now.advanced(byNanoseconds: 40 * Nanoseconds.millisecond))
    busy.now = wake.earlier(byNanoseconds: 1)
    busy.drain()
    #expect(busy.count { $0.count == 1 << 20 } == 0)
    busy.now = wake
    busy.drain()
    #expect(busy.count { $0.count == 1 << 20 } == 1)
    busy.complete { $0.count == 4096 }
    #expect(busy.replies[request] == 0)
    busy.now = busy.now.advanced(byNanoseconds: RateControl.clientNanoseconds)
    busy.drain()
    #expect(busy.count { $0.count == 1 << 20 } == 3, "the client is gone: all jobs")
  }

  @Test("a pause stands in the next label, and the next start is paused until it is resumed")
  func pause() throws {
    var (driver, pvs) = try LabelledPVs.opened(legs: 2)
    #expect(pvs.labels[0]?.isResyncPaused == false)
    driver.engine.setCopierPaused(true, now: driver.now)
    driver.drain()
    #expect(!driver.isLabelSettled)
    try pvs.runToRest(driver)
    #expect(driver.isLabelSettled)
    #expect(pvs.labels[0]?.isResyncPaused == true && pvs.labels[1]?.isResyncPaused == true)
    // Region 3 is stale on leg 1.
    let next = EngineDriver(
      plan: try pvs.plan([0, 1]).get(), words: [0, 0, 0, 2, 0, 0, 0, 0])
    next.runToRest()
    next.pass(seconds: 60)
    next.runToRest()
    let held = next.engine.snapshot()
    #expect(held.isResyncPaused && held.isResyncRunning && held.resyncBytesDone == 0)
    #expect(held.resyncBytesTotal == 1 << 20)
    #expect(next.leg(1)?.staleBytes == 1 << 20, "nothing was copied")
    next.engine.setCopierPaused(false, now: next.now)
    next.drain()
    #expect(try next.openLabel(on: 0)?.isResyncPaused == false)
    next.runToRest()
    #expect(next.leg(1)?.staleBytes == 0)
  }

  @Test("limits hold at once, stand in the next label, and are refused upside down")
  func limits() throws {
    let driver = try EngineDriver.opened()
    #expect(driver.engine.snapshot().resyncMaxBytesPerSecond == 0)
    try driver.engine.setResyncLimits(min: 1 << 20, max: 5 << 20, now: driver.now)
    driver.drain()
    #expect(!driver.isLabelSettled)
    let label = try #require(try driver.openLabel(on: 1))
    #expect(label.resyncMinBytesPerSecond == 1 << 20 && label.resyncMaxBytesPerSecond == 5 << 20)
    driver.runToRest()
    #expect(driver.isLabelSettled)
    #expect(driver.engine.snapshot().resyncMinBytesPerSecond == 1 << 20)
    #expect(driver.engine.snapshot().resyncMaxBytesPerSecond == 5 << 20)
    var refusal: CommandError?
    do throws(CommandError) {
      try driver.engine.setResyncLimits(min: 2, max: 1, now: driver.now)
    } catch {
      refusal = error
    }
    #expect(refusal == .badLimits)
  }
}
