// Goal: a resync tells honestly how far it is, writes zeros as holes, copies all that can be read
// and says what cannot. Method: a scripted engine and legs that fail chosen ranges.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

extension EngineDriver {
  /// The I/O's range on the exported device.
  func dataRange(_ io: LegIO) -> ByteRange {
    ByteRange(offset: io.offset - layout.dataOffset, count: io.count)
  }

  /// Completes everything in order; data I/O for which `fails` is true with EIO.
  func run(fails: (LegIO) -> Bool = { _ in false }, seen: (LegIO) -> Void = { _ in }) {
    while let io = open.first?.io {
      if isData(io) { seen(io) }
      complete(error: isData(io) && fails(io) ? 5 : 0) { $0.token == io.token }
    }
  }

  /// Counts events of a kind.
  func events(_ kind: MirrorEvent.Kind) -> [MirrorEvent] { events.filter { $0.kind == kind } }
}

@Suite("Copier")
struct CopierTests {
  /// `legs` legs, the last stale in regions, coming back; nothing of its return completed yet.
  static func returned(legs: Int = 2, stale: Range<Int>) throws -> EngineDriver {
    let driver = try EngineDriver.opened(legs: legs)
    let last = LegSlot(legs - 1)
    try driver.engine.fail(last, now: driver.now)
    driver.drain()
    driver.runToRest()
    for region in stale {
      _ = driver.submit(.write, UInt64(region) << 20, 4096)
      driver.runToRest()
    }
    // No intent is left, and no client works any more.
    for _ in 0..<3 {
      driver.pass(seconds: 6)
      driver.runToRest()
    }
    try driver.engine.readd(
      LegTests.returning(driver, legs - 1), to: last, now: driver.now)
    driver.drain()
    return driver
  }

  static func overlaps(_ driver: EngineDriver, _ io: LegIO, _ offset: UInt64) -> Bool {
    driver.dataRange(io).overlaps(ByteRange(offset: offset, count: 512))
  }

  @Test("a window of zeros becomes a hole on the target, a window with one byte of data does not")
  func holes() throws {
    let driver = try CopierTests.returned(stale: 2..<4)
    driver.contents = { io in
      var bytes = [UInt8](repeating: 0, count: Int(io.count))
      if io.offset == driver.layout.dataOffset + 3 << 20 { bytes[bytes.count - 1] = 1 }
      return bytes
    }
    var kinds: [UInt64: IOKind] = [:]
    driver.run(seen: { io in
      guard io.kind != .read else { return }
      #expect(io.leg.index == 1 && io.count == 1 << 20)
      kinds[driver.dataRange(io).offset] = io.kind
      if io.kind == .discard { #expect(io.buffer == .none) }
    })
    #expect(kinds == [2 << 20: .discard, 3 << 20: .write])
    let snapshot = driver.engine.snapshot()
    #expect(snapshot.resyncBytesDone == 2 << 20 && snapshot.resyncBytesZero == 1 << 20)
    #expect(driver.leg(1)?.staleBytes == 0)
  }

  @Test("around an unreadable block all is copied; the region stays stale, and is reported once")
  func unreadable() throws {
    let driver = try CopierTests.returned(stale: 2..<4)
    let bad: UInt64 = (2 << 20) + 300 * 512
    var copied = [Bool](repeating: false, count: 8 << 11)
    driver.run(
      fails: { $0.kind == .read && CopierTests.overlaps(driver, $0, bad) },
      seen: { io in
        guard io.kind == .write else { return }
        let range = driver.dataRange(io)
        for block in range.offset / 512..<range.end / 512 { copied[Int(block)] = true }
      })
    for block in copied.indices {
      let isWanted = block >> 11 == 2 || block >> 11 == 3
      #expect(copied[block] == (isWanted && block != Int(bad / 512)), "block \(block)")
    }
    #expect(driver.leg(1)?.staleBytes == 1 << 20)
    var snapshot = driver.engine.snapshot()
    #expect(snapshot.unreadable.map(\.range) == [ByteRange(offset: bad, count: 512)])
    #expect(snapshot.unreadableCount == 1)
    #expect(!snapshot.isResyncRunning)
    #expect(snapshot.resyncBytesDone == (2 << 20) - 512)
    #expect(snapshot.resyncBytesTotal == snapshot.resyncBytesDone + 1 << 20)
    #expect(driver.events(.copyFailed).map(\.detail) == [bad])
    #expect(driver.leg(0)?.state == .online)

    // Tried again every half a minute, without a word as long as nothing comes of it.
    for _ in 0..<20 {
      driver.pass(seconds: 31)
      driver.run(fails: { $0.kind == .read && CopierTests.overlaps(driver, $0, bad) })
    }
    #expect(driver.events(.copyFailed).count == 1)
    #expect(driver.events(.resyncStarted).count == 1 && driver.events(.resyncDone).count == 1)
    #expect(driver.leg(1)?.staleBytes == 1 << 20)
    driver.pass(seconds: 31)
    driver.run()
    #expect(driver.leg(1)?.staleBytes == 0)
    snapshot = driver.engine.snapshot()
    #expect(snapshot.unreadable.isEmpty && snapshot.unreadableCount == 0)
    #expect(snapshot.resyncBytesTotal == snapshot.resyncBytesDone)
    #expect(driver.events(.resyncDone).count == 2)
  }

  @Test("sources that each lack another block make one whole copy together")
  func twoSources() throws {
    let driver = try CopierTests.returned(legs: 3, stale: 2..<3)
    let bad: [UInt64] = [(2 << 20) + 512, (3 << 20) - 512]
    var copied: UInt64 = 0
    driver.run(
      fails: { io in
        io.kind == .read && io.leg.index < 2
          && CopierTests.overlaps(driver, io, bad[io.leg.index])
      }, seen: { if $0.kind == .write { copied += $0.count } })
    #expect(copied == 1 << 20)
    #expect(driver.leg(2)?.staleBytes == 0)
    #expect(driver.engine.snapshot().unreadable.isEmpty)
    #expect(driver.leg(0)?.state == .online && driver.leg(1)?.state == .online)
  }

  @Test("neighbouring unreadable blocks are one range, and count little against the leg")
  func runOfBlocks() throws {
    let driver = try CopierTests.returned(legs: 3, stale: 2..<3)
    let bad = ByteRange(offset: (2 << 20) + 5 * 512, count: 20 * 512)
    driver.run(fails: { $0.kind == .read && driver.dataRange($0).overlaps(bad) })
    #expect(driver.engine.snapshot().unreadable.map(\.range) == [bad])
    #expect(driver.leg(0)?.state == .online && driver.leg(1)?.state == .online)
    #expect(driver.events(.copyFailed).count == 1)
  }

  @Test("while paused nothing is copied, nothing ends, the rate is 0; then it goes on")
  func pause() throws {
    let driver = try CopierTests.returned(stale: 0..<8)
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    driver.now = driver.now.advanced(byNanoseconds: Nanoseconds.second)
    driver.engine.setCopierPaused(true, now: driver.now)
    driver.runToRest()
    var snapshot = driver.engine.snapshot()
    #expect(snapshot.isResyncRunning && snapshot.isResyncPaused)
    #expect(snapshot.resyncBytesDone == 4 << 20 && snapshot.resyncBytesTotal == 8 << 20)
    #expect(snapshot.resyncBytesPerSecond == 0)
    #expect(driver.leg(1)?.staleBytes == 4 << 20, "what was copied is flushed and clear")
    driver.pass(seconds: 1000)
    driver.runToRest()
    #expect(driver.engine.snapshot().resyncBytesDone == 4 << 20)
    #expect(driver.events(.resyncDone).isEmpty)
    driver.engine.setCopierPaused(false, now: driver.now)
    snapshot = driver.engine.snapshot()
    #expect(snapshot.resyncBytesPerSecond == Double(4 << 20), "the pause is not in the mean")
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(1)?.staleBytes == 0)
    #expect(driver.events(.resyncDone).map(\.detail) == [8 << 20])
  }

  @Test("a pause without anything left to copy does not hide that the resync is done")
  func pausedAndDone() throws {
    let driver = try CopierTests.returned(stale: 0..<2)
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    driver.engine.setCopierPaused(true, now: driver.now)
    driver.runToRest()
    #expect(!driver.engine.snapshot().isResyncRunning)
    #expect(driver.leg(1)?.staleBytes == 0)
  }

  @Test("the total grows when a leg fails and comes back meanwhile, and is reached in the end")
  func growingTotal() throws {
    let driver = try CopierTests.returned(legs: 3, stale: 0..<6)
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    var snapshot = driver.engine.snapshot()
    #expect(snapshot.resyncBytesTotal == 6 << 20 && snapshot.resyncBytesDone == 0)
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    _ = driver.submit(.write, 7 << 20, 4096)
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) || $0.count == 4096 }
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    snapshot = driver.engine.snapshot()
    #expect(snapshot.resyncBytesTotal == 7 << 20, "\(snapshot.resyncBytesTotal)")
    driver.pass(seconds: 1)
    driver.runToRest()
    snapshot = driver.engine.snapshot()
    #expect(!snapshot.isResyncRunning)
    #expect(snapshot.resyncBytesDone == 7 << 20 && snapshot.resyncBytesTotal == 7 << 20)
  }

  @Test("the stop does not wait for windows that the rate holds back, and does not call it done")
  func stopWhileWaiting() throws {
    let driver = try CopierTests.returned(stale: 0..<8)
    try driver.engine.setResyncLimits(min: 0, max: 1 << 20, now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.leg(1)?.staleBytes ?? 0 > 4 << 20)
    #expect(driver.engine.snapshot().isResyncRunning)
    #expect(driver.nextWake != nil)
    driver.engine.beginStop(now: driver.now)
    driver.drain()
    driver.runToRest()
    #expect(driver.isStopped)
    #expect(driver.events(.resyncDone).isEmpty)
  }
}
