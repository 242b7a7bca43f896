// Goal: reads go where they are expected to be answered first, and never only to one leg for ever.
// Method: a scripted engine and a clock; the test gives each leg its latency.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Read policies")
struct ReadPolicyTests {
  static func driver(
    legs: Int = 2, _ policy: ReadPolicy = .adaptive, writeMostly: Int? = nil
  ) throws -> EngineDriver {
    try EngineDriver.opened(legs: legs, regions: 64) { start in
      start.readPolicy = policy
      if let writeMostly { start.members[writeMostly].isWriteMostly = true }
    }
  }

  static func wait(_ driver: EngineDriver, microseconds: UInt64) {
    driver.now = driver.now.advanced(byNanoseconds: microseconds * Nanoseconds.microsecond)
  }

  /// Reads one after another; each takes as long as `latency` says for its leg. Returns how many
  /// each leg answered.
  static func readSingly(
    _ driver: EngineDriver, _ count: Int, latency: [UInt64], stride: UInt64 = 1 << 18
  ) -> [Int] {
    var reads = [Int](repeating: 0, count: latency.count)
    for number in 0..<count {
      _ = driver.submit(.read, (UInt64(number) * stride) % (60 << 20), 4096)
      guard let io = driver.open.first?.io else { break }
      reads[io.leg.index] += 1
      wait(driver, microseconds: latency[io.leg.index])
      driver.complete { $0.token == io.token }
    }
    return reads
  }

  @Test("the faster leg answers reads that come one at a time")
  func fasterLeg() throws {
    let driver = try ReadPolicyTests.driver()
    let reads = ReadPolicyTests.readSingly(driver, 100, latency: [400, 100])
    #expect(reads[0] >= 1 && reads[0] <= 3, "it is tried, then left alone")
    #expect(reads[1] >= 97)
  }

  @Test("with many in flight both legs work, in proportion to their speed")
  func proportion() throws {
    let driver = try ReadPolicyTests.driver()
    _ = ReadPolicyTests.readSingly(driver, 10, latency: [400, 100])
    for number in 0..<40 { _ = driver.submit(.read, UInt64(number) << 18, 4096) }
    let slow = driver.count { $0.leg.index == 0 }
    #expect(slow >= 6 && slow <= 10, "8 of 40")
  }

  @Test("equal legs are read in turn before anything is known of them")
  func ties() throws {
    let driver = try ReadPolicyTests.driver(legs: 4)
    for number in 0..<8 { _ = driver.submit(.read, UInt64(number) << 18, 4096) }
    for leg in 0..<4 { #expect(driver.count { $0.leg.index == leg } == 2) }
  }

  @Test("a leg that was slow is tried again after some seconds, and used again if it is fast")
  func probing() throws {
    let driver = try ReadPolicyTests.driver()
    _ = ReadPolicyTests.readSingly(driver, 20, latency: [10_000, 100])
    var isBack = false
    for _ in 0..<40 where !isBack {
      driver.pass(seconds: 0.25)
      let reads = ReadPolicyTests.readSingly(driver, 20, latency: [50, 100])
      isBack = reads[0] > 15
    }
    #expect(isBack, "within 10 s")
  }

  @Test("a leg that stays slow costs one read each time it is tried")
  func probingCosts() throws {
    let driver = try ReadPolicyTests.driver()
    _ = ReadPolicyTests.readSingly(driver, 20, latency: [10_000, 100])
    var reads = [0, 0]
    for _ in 0..<400 {
      driver.pass(seconds: 0.25)
      let more = ReadPolicyTests.readSingly(driver, 20, latency: [10_000, 100])
      reads = [reads[0] + more[0], reads[1] + more[1]]
    }
    #expect(reads[0] >= 10, "it is tried")
    #expect(reads[0] <= 60, "of 8000 reads in 100 s")
  }

  @Test("a read that does not come back sends the next ones elsewhere, with every policy")
  func stuck() throws {
    for policy in [ReadPolicy.adaptive, .roundRobin, .leastPending, .prefer(LegSlot(0))] {
      let driver = try ReadPolicyTests.driver(policy)
      // The leg that is preferred, or was the faster one, hangs.
      _ = ReadPolicyTests.readSingly(driver, 300, latency: [100, 110])
      while driver.count({ $0.leg.index == 0 }) == 0 { _ = driver.submit(.read, 1 << 18, 4096) }
      driver.completeAll { $0.leg.index != 0 }
      driver.pass(seconds: 0.3)
      driver.completeAll { $0.leg.index != 0 }
      for number in 0..<20 {
        _ = driver.submit(.read, UInt64(number + 8) << 18, 4096)
        #expect(driver.count { $0.leg.index == 0 } == 1, "\(policy): none goes to the hung leg")
        driver.completeAll { $0.leg.index != 0 }
      }
    }
  }

  @Test("a write-mostly leg is read only if nothing else can, also when it is preferred")
  func writeMostly() throws {
    for policy in [ReadPolicy.adaptive, .roundRobin, .leastPending, .prefer(LegSlot(0))] {
      let driver = try ReadPolicyTests.driver(policy, writeMostly: 0)
      let reads = ReadPolicyTests.readSingly(driver, 20, latency: [10, 1000])
      #expect(reads == [0, 20])
      try driver.engine.fail(LegSlot(1), now: driver.now)
      driver.drain()
      driver.runToRest()
      #expect(ReadPolicyTests.readSingly(driver, 4, latency: [10, 1000]) == [4, 0])
    }
  }

  @Test("the preferred leg is read wherever it is good")
  func prefer() throws {
    let driver = try ReadPolicyTests.driver(legs: 3, .prefer(LegSlot(2)))
    #expect(ReadPolicyTests.readSingly(driver, 20, latency: [10, 10, 1000]) == [0, 0, 20])
    try driver.engine.fail(LegSlot(2), now: driver.now)
    driver.drain()
    driver.runToRest()
    let reads = ReadPolicyTests.readSingly(driver, 20, latency: [10, 1000, 10])
    #expect(reads[0] > 15 && reads[2] == 0)
  }

  // MARK: Streams

  /// Two streams and some random reads on rotating disks: whoever goes on where it is, is fast.
  @Test("on rotating disks a stream stays on its leg, and two streams on two legs")
  func streams() throws {
    let driver = try ReadPolicyTests.driver()
    var heads: [UInt64] = [0, 0]
    var positions: [UInt64] = [0, 30 << 20]
    var moves = 0
    for step in 0..<400 {
      let stream = step % 2
      _ = driver.submit(.read, positions[stream], 65536)
      let io = try #require(driver.open.first?.io)
      let offset = io.offset - driver.layout.dataOffset
      let isHere = heads[io.leg.index] == offset
      if !isHere, step >= 100 { moves += 1 }
      heads[io.leg.index] = offset + io.count
      ReadPolicyTests.wait(driver, microseconds: isHere ? 500 : 9000)
      driver.complete { $0.token == io.token }
      positions[stream] += 65536
    }
    #expect(moves < 30, "of 300 reads only a few moved a head")
  }

  @Test("a stream leaves its leg when the queue there is much longer than elsewhere")
  func streamLeaves() throws {
    var speed = LegSpeed()
    for _ in 0..<20 { speed.record(nanoseconds: 9_000_000, bytes: 65536, isContinuing: false) }
    #expect(!speed.isSticky)
    for _ in 0..<20 { speed.record(nanoseconds: 500_000, bytes: 65536, isContinuing: true) }
    #expect(speed.isSticky)
    let driver = try ReadPolicyTests.driver()
    driver.engine.legs[0].speed = speed
    driver.engine.legs[1].speed = speed
    driver.engine.choice.streams.note(end: 65536, on: LegSlot(1))
    for number in 0..<40 { _ = driver.submit(.read, 65536 * UInt64(1 + number), 65536) }
    let first = try #require(driver.open.firstIndex { $0.io.leg.index == 0 })
    #expect(first >= 16 && first <= 20, "18 short reads here take as long as coming there")
  }

  @Test("where continuing is no cheaper, streams are spread like other reads")
  func noStreams() throws {
    let driver = try ReadPolicyTests.driver()
    _ = ReadPolicyTests.readSingly(driver, 100, latency: [100, 100], stride: 4096)
    for number in 0..<8 { _ = driver.submit(.read, (50 << 20) + 4096 * UInt64(number), 4096) }
    #expect(driver.count { $0.leg.index == 0 } == 4)
  }

  // MARK: Large reads

  @Test("a large read is split over idle legs at 64 KiB borders, and answered when all is there")
  func split() throws {
    let driver = try ReadPolicyTests.driver(legs: 3)
    _ = ReadPolicyTests.readSingly(driver, 30, latency: [100, 100, 100])
    for leg in 0..<3 {
      driver.engine.legs[leg].speed.record(nanoseconds: 100_000, bytes: 4096, isContinuing: false)
    }
    let token = driver.submit(.read, 4096, 1 << 20)
    #expect(Set(driver.open.map(\.io.leg.index)) == [0, 1, 2])
    var position: UInt64 = 4096
    for io in driver.open.map(\.io) {
      #expect(io.offset == driver.layout.dataOffset + position)
      #expect(io.buffer == .request(RequestToken(raw: token), offset: position - 4096))
      #expect(position == 4096 || position % 65536 == 0)
      position += io.count
    }
    #expect(position == (1 << 20) + 4096)
    driver.complete { $0.leg.index == 1 }
    driver.complete { $0.leg.index == 0 }
    #expect(driver.replies[token] == nil)
    driver.complete { $0.leg.index == 2 }
    #expect(driver.replies[token] == 0 && driver.replaced.isEmpty)
  }

  static func readySplit() throws -> (EngineDriver, UInt64) {
    let driver = try ReadPolicyTests.driver()
    for leg in 0..<2 {
      driver.engine.legs[leg].speed.record(nanoseconds: 100_000, bytes: 4096, isContinuing: false)
    }
    let token = driver.submit(.read, 0, 1 << 20)
    try #require(driver.open.count == 2)
    return (driver, token)
  }

  @Test("a piece that fails makes the other leg read the whole chunk")
  func splitFails() throws {
    let (driver, token) = try ReadPolicyTests.readySplit()
    driver.complete(error: 5) { $0.leg.index == 0 }
    #expect(driver.open.count == 1, "the other piece is awaited")
    driver.complete { $0.leg.index == 1 }
    let again = try #require(driver.open.first?.io)
    #expect(again.leg.index == 1 && again.count == 1 << 20)
    driver.complete { $0.token == again.token }
    #expect(driver.replies[token] == 0 && driver.replaced.isEmpty)
  }

  @Test("a piece that hangs: its leg fails, and the chunk is read into a fresh buffer")
  func splitHangs() throws {
    for isFirst in [true, false] {
      let (driver, token) = try ReadPolicyTests.readySplit()
      let hung = driver.open[0].io
      if isFirst { driver.complete { $0.leg.index == 1 } }
      try driver.engine.fail(LegSlot(0), now: driver.now)
      driver.drain()
      if !isFirst {
        #expect(driver.count { driver.isData($0) } == 2, "the other piece is awaited")
        driver.complete { driver.isData($0) && $0.leg.index == 1 }
      }
      #expect(driver.replaced == [token])
      let again = try #require(
        driver.open.first { driver.isData($0.io) && $0.io.leg.index == 1 }?.io)
      #expect(again.count == 1 << 20)
      driver.complete { $0.token == again.token }
      #expect(driver.replies[token] == 0)
      #expect(!driver.released.contains(token), "the leg may still write into the old buffer")
      driver.complete { $0.token == hung.token }
      #expect(driver.released.contains(token))
    }
  }

  @Test("a busy, a slow or a stale leg takes no piece, and small reads are not split")
  func splitNot() throws {
    let (busy, _) = try ReadPolicyTests.readySplit()
    _ = busy.submit(.read, 8 << 20, 4096)
    _ = busy.submit(.read, 9 << 20, 4096)
    let token = busy.submit(.read, 2 << 20, 1 << 20)
    #expect(busy.count { $0.owner.raw == token } == 1)
    let (small, _) = try ReadPolicyTests.readySplit()
    small.runToRest()
    let read = small.submit(.read, 2 << 20, (512 << 10) - 4096)
    #expect(small.count { $0.owner.raw == read } == 1)
    let slow = try ReadPolicyTests.driver()
    for leg in 0..<2 {
      slow.engine.legs[leg].speed.record(
        nanoseconds: 100_000 * UInt64(1 + 2 * leg), bytes: 4096, isContinuing: false)
    }
    _ = slow.submit(.read, 2 << 20, 1 << 20)
    #expect(slow.open.map(\.io.leg.index) == [0])
  }
}
