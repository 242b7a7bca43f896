// Goal: a leg that owes an answer does not keep the client waiting, and late data of either leg
// reaches no client and no memory that is used by somebody else.
// Method: a scripted engine and a clock; every order of completions, failures and returns.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Hedged reads")
struct HedgingTests {
  static func driver(
    legs: Int = 2, _ policy: ReadPolicy = .prefer(LegSlot(0)), writeMostly: Int? = nil
  ) throws -> EngineDriver {
    try EngineDriver.opened(legs: legs, regions: 64) { start in
      start.readPolicy = policy
      start.isHedging = true
      start.requestsMax = 256
      if let writeMostly { start.members[writeMostly].isWriteMostly = true }
    }
  }

  /// Teaches the engine that reads of every leg take so long.
  static func teach(_ driver: EngineDriver, microseconds: UInt64) {
    for leg in 0..<8 {
      for _ in 0..<128 {
        driver.engine.legs[leg].speed.record(
          nanoseconds: microseconds * Nanoseconds.microsecond, bytes: 4096, isContinuing: false)
      }
    }
  }

  static func pass(_ driver: EngineDriver, microseconds: UInt64) {
    driver.now = driver.now.advanced(byNanoseconds: microseconds * Nanoseconds.microsecond)
    driver.engine.tick(now: driver.now)
    driver.drain()
  }

  /// A read that is in flight on legs 0 and 1.
  static func hedged(legs: Int = 2, count: UInt64 = 4096) throws -> (EngineDriver, UInt64) {
    let driver = try HedgingTests.driver(legs: legs)
    HedgingTests.teach(driver, microseconds: 100)
    let token = driver.submit(.read, 1 << 20, count)
    try #require(driver.open.map(\.io.leg.index) == [0])
    HedgingTests.pass(driver, microseconds: 1001)
    try #require(driver.open.map(\.io.leg.index) == [0, 1])
    return (driver, token)
  }

  static func isAtRest(_ driver: EngineDriver) -> Bool {
    let small = driver.engine.units.smallFree
    let windows = driver.engine.units.windowsFree
    let records = driver.engine.recordsInUse
    return small == ScratchUnits.smallCount && windows == ScratchUnits.windowCount && records == 0
      && driver.engine.snapshot().requests == 0
      && (0..<8).allSatisfy {
        driver.engine.legs[$0].oldestRead < 0 && driver.engine.legs[$0].newestRead < 0
          && driver.engine.legs[$0].hedgeNext < 0 && driver.engine.legs[$0].inFlight == 0
      }
  }

  @Test("a read is sent to a second leg once it is too old, not before, and once")
  func timing() throws {
    let driver = try HedgingTests.driver()
    HedgingTests.teach(driver, microseconds: 100)
    let begun = driver.now
    _ = driver.submit(.read, 1 << 20, 4096)
    let wake = driver.engine.nextWake
    #expect(wake == begun.advanced(byNanoseconds: Nanoseconds.millisecond))
    HedgingTests.pass(driver, microseconds: 999)
    #expect(driver.open.count == 1)
    HedgingTests.pass(driver, microseconds: 1)
    #expect(driver.open.count == 2)
    guard case .scratch = driver.open[1].io.buffer else {
      Issue.record("the second leg reads into memory of its own")
      return
    }
    let later = driver.engine.nextWake
    #expect(later == nil)
    HedgingTests.pass(driver, microseconds: 100_000)
    #expect(driver.open.count == 2)
    driver.runToRest()
    #expect(HedgingTests.isAtRest(driver))
  }

  @Test("a leg that is slow as a whole gets its own time; one that is not known gets 50 ms")
  func slowLeg() throws {
    for (microseconds, early, late) in [(8000 as UInt64, 7900 as UInt64, 10_100 as UInt64)] {
      let driver = try HedgingTests.driver()
      HedgingTests.teach(driver, microseconds: microseconds)
      _ = driver.submit(.read, 1 << 20, 4096)
      HedgingTests.pass(driver, microseconds: early)
      #expect(driver.open.count == 1)
      HedgingTests.pass(driver, microseconds: late - early)
      #expect(driver.open.count == 2)
    }
    let driver = try HedgingTests.driver()
    _ = driver.submit(.read, 1 << 20, 4096)
    HedgingTests.pass(driver, microseconds: 49_999)
    #expect(driver.open.count == 1)
    HedgingTests.pass(driver, microseconds: 1)
    #expect(driver.open.count == 2)
  }

  @Test("the first leg answers first: nothing is delivered, and the second frees its memory")
  func firstWins() throws {
    let (driver, token) = try HedgingTests.hedged()
    driver.complete { $0.leg.index == 0 }
    #expect(driver.replies[token] == 0 && driver.released.contains(token))
    #expect(driver.delivered.isEmpty && driver.replaced.isEmpty)
    let free = driver.engine.units.smallFree
    #expect(free == ScratchUnits.smallCount - 1, "the late read may still write into it")
    driver.runToRest()
    #expect(HedgingTests.isAtRest(driver))
    #expect(driver.leg(0)?.hedgedReads == 1 && driver.leg(0)?.hedgesWon == 0)
  }

  @Test("the second leg answers first: a fresh buffer, the data, the reply; the old one is kept")
  func secondWins() throws {
    for count in [4096 as UInt64, 65536] {
      let (driver, token) = try HedgingTests.hedged(count: count)
      driver.deliversLater = true
      driver.complete { $0.leg.index == 1 }
      #expect(driver.replaced == [token])
      #expect(driver.delivered.map(\.owner) == [token] && driver.delivered[0].count == Int(count))
      #expect(driver.replies[token] == 0 && !driver.released.contains(token))
      #expect(!HedgingTests.isAtRest(driver), "the memory is lent until it was copied")
      let units = driver.engine.units.smallFree + driver.engine.units.windowsFree
      #expect(units == ScratchUnits.count - 1)
      driver.engine.completed(driver.undelivered[0], error: 0, now: driver.now)
      driver.drain()
      let free = driver.engine.units.smallFree + driver.engine.units.windowsFree
      #expect(free == ScratchUnits.count)
      driver.complete { $0.leg.index == 0 }
      #expect(driver.released.contains(token))
      #expect(HedgingTests.isAtRest(driver))
      #expect(driver.leg(0)?.hedgedReads == 1 && driver.leg(0)?.hedgesWon == 1)
      #expect(driver.leg(1)?.hedgedReads == 0)
    }
  }

  @Test("the second leg fails the read: the first one is awaited, and the block is repaired")
  func secondFails() throws {
    let (driver, token) = try HedgingTests.hedged()
    driver.complete(error: 5) { $0.leg.index == 1 }
    #expect(driver.replies[token] == nil && driver.open.count == 1)
    HedgingTests.pass(driver, microseconds: 10_000)
    #expect(driver.open.count == 1, "not sent to it again")
    driver.complete { $0.leg.index == 0 }
    #expect(driver.replies[token] == 0 && driver.delivered.isEmpty)
    #expect(driver.count(driver.isLog) == 2, "the repair begins")
    driver.runToRest()
  }

  @Test("the first leg fails the read: the second one is awaited, into the same buffer")
  func firstFails() throws {
    let (driver, token) = try HedgingTests.hedged()
    driver.complete(error: 5) { $0.leg.index == 0 }
    #expect(driver.replies[token] == nil && driver.open.count == 1)
    driver.complete { $0.leg.index == 1 }
    #expect(driver.replies[token] == 0)
    #expect(driver.replaced.isEmpty, "nobody writes into it any more")
    #expect(driver.delivered.count == 1 && driver.leg(0)?.hedgesWon == 0)
  }

  @Test("both fail: a third leg is asked, or the client hears of it")
  func bothFail() throws {
    for legs in [2, 3] {
      for first in [0, 1] {
        let (driver, token) = try HedgingTests.hedged(legs: legs, count: 512)
        driver.complete(error: 5) { $0.leg.index == first }
        driver.complete(error: 5) { $0.leg.index == 1 - first }
        if legs == 3 {
          #expect(driver.open.map(\.io.leg.index) == [2])
          driver.complete { $0.leg.index == 2 }
          #expect(driver.replies[token] == 0)
        } else {
          #expect(driver.replies[token] == 5)
        }
        #expect(driver.delivered.isEmpty && driver.replaced.isEmpty)
        driver.runToRest()
      }
    }
  }

  @Test(
    "legs that are failed while a read is hedged, in every order, lose neither answer nor memory")
  func legsFail() throws {
    enum Step: CaseIterable { case failA, failB, ioA, ioB, errorA, errorB }
    for first in Step.allCases {
      for second in Step.allCases {
        for third in Step.allCases {
          let (driver, token) = try HedgingTests.hedged(legs: 3)
          let tokens = driver.open.map(\.io.token)
          for step in [first, second, third] {
            switch step {
            case .failA: try? driver.engine.fail(LegSlot(0), now: driver.now)
            case .failB: try? driver.engine.fail(LegSlot(1), now: driver.now)
            case .ioA: driver.complete { $0.token == tokens[0] }
            case .ioB: driver.complete { $0.token == tokens[1] }
            case .errorA: driver.complete(error: 5) { $0.token == tokens[0] }
            case .errorB: driver.complete(error: 5) { $0.token == tokens[1] }
            }
            driver.drain()
          }
          let late = driver.open.map(\.io.token).filter { tokens.contains($0) }
          driver.completeAll { io in !late.contains(io.token) }
          let isOwed = driver.replies[token] == nil
          let isHung =
            late.contains(tokens[0]) && driver.leg(0)?.state == .online
            || late.contains(tokens[1]) && driver.leg(1)?.state == .online
          #expect(!isOwed || isHung, "\(first) \(second) \(third)")
          driver.runToRest()
          #expect(driver.replies[token] == 0 && driver.released.contains(token))
          let isAtRest = HedgingTests.isAtRest(driver)
          #expect(isAtRest, "\(first) \(second) \(third)")
        }
      }
    }
  }

  @Test("at most one read of 20 is sent twice, after the first 32")
  func budget() throws {
    let driver = try HedgingTests.driver()
    HedgingTests.teach(driver, microseconds: 100)
    var hedges = 0
    for number in 0..<2000 {
      _ = driver.submit(.read, UInt64(number % 64) << 18, 4096)
      // The leg hangs a little longer each time, so that it is never known to be slow.
      HedgingTests.pass(driver, microseconds: 1100)
      hedges += driver.open.count - 1
      driver.completeAll { $0.leg.index == 1 }
      driver.engine.legs[0].speed = driver.engine.legs[1].speed
      driver.runToRest()
    }
    #expect(hedges >= 100 && hedges <= 32 + 100)
    #expect(driver.leg(0)?.hedgedReads == UInt64(hedges))
  }

  @Test("only what one chunk of up to 1 MiB reads is hedged, and only on a leg that owes nothing")
  func whatIsHedged() throws {
    let large = try HedgingTests.driver()
    HedgingTests.teach(large, microseconds: 100)
    _ = large.submit(.read, 0, (1 << 20) + 4096)
    _ = large.submit(.read, 2 << 20, 5 << 20)
    _ = large.submit(.write, 10 << 20, 4096)
    large.completeAll(where: large.isLog)
    let before = large.open.count
    HedgingTests.pass(large, microseconds: 5000)
    #expect(large.open.count == before)
    let slow = try HedgingTests.driver(writeMostly: 1)
    HedgingTests.teach(slow, microseconds: 100)
    _ = slow.submit(.read, 0, 4096)
    HedgingTests.pass(slow, microseconds: 5000)
    #expect(slow.open.count == 1, "write-mostly")
    let both = try HedgingTests.driver(.roundRobin)
    HedgingTests.teach(both, microseconds: 100)
    _ = both.submit(.read, 0, 4096)
    _ = both.submit(.read, 4096, 4096)
    HedgingTests.pass(both, microseconds: 5000)
    #expect(both.open.count == 2, "both owe one")
  }

  @Test("hundreds of reads of a leg that hangs: 32 are hedged, the others go on when it fails")
  func hungLeg() throws {
    let driver = try HedgingTests.driver()
    HedgingTests.teach(driver, microseconds: 100)
    let tokens = (0..<200).map { driver.submit(.read, UInt64($0 % 60) << 20, 65536) }
    HedgingTests.pass(driver, microseconds: 2000)
    let hung = driver.open.filter { $0.io.leg.index == 0 }.map(\.io.token)
    driver.completeAll { $0.leg.index == 1 }
    let early = tokens.filter { driver.replies[$0] == 0 }.count
    #expect(early >= 8 && early <= 32, "windows and tokens are bounded")
    driver.pass(seconds: 9)
    driver.completeAll { io in !hung.contains(io.token) }
    #expect(tokens.allSatisfy { driver.replies[$0] == 0 })
    #expect(driver.leg(0)?.state == .failed)
    driver.runToRest()
    #expect(tokens.allSatisfy { driver.released.contains($0) })
    #expect(HedgingTests.isAtRest(driver))
  }
}
