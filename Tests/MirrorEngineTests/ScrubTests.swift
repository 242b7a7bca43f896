// Goal: a scrub finds exactly what differs, repairs what can be decided and touches nothing else
// (P4). Method: a scripted engine over legs whose blocks are bytes: 0xa5 everywhere but where a test
// says otherwise.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

/// Legs of which every block holds one byte value, behind an engine.
final class ScrubBench {
  let driver: EngineDriver
  /// Blocks (leg, offset / 512) that hold something else than 0xa5.
  var odd: [[UInt64: UInt8]]
  /// Data I/O that shall fail.
  var fails: (LegIO) -> Bool = { _ in false }

  init(legs: Int = 3, regions: Int = 8, logKind: LogKind = .disk) throws {
    driver = try EngineDriver.opened(
      legs: legs, regions: regions, regionBytes: 1 << 18, logKind: logKind)
    odd = Array(repeating: [:], count: legs)
    driver.contents = { [unowned self] io in self.contents(io) }
    driver.pass(seconds: 1)
  }

  func contents(_ io: LegIO) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xa5, count: Int(io.count))
    let range = driver.dataRange(io)
    for (block, value) in odd[io.leg.index] where range.contains(block512(block)) {
      let first = Int(block * 512 - range.offset)
      bytes.replaceSubrange(first..<first + 512, with: repeatElement(value, count: 512))
    }
    return bytes
  }

  func block512(_ block: UInt64) -> ByteRange { ByteRange(offset: block * 512, count: 512) }

  /// One open I/O completes; writes change their leg.
  func step() -> Bool {
    guard let next = driver.open.first else { return false }
    let io = next.io
    let isBad = driver.isData(io) && fails(io)
    if driver.isData(io), io.kind == .write || io.kind == .discard, !isBad {
      let range = driver.dataRange(io)
      for block in range.offset / 512..<range.end / 512 {
        let value: UInt8
        if io.kind == .discard {
          value = 0
        } else if next.bytes.isEmpty {
          value = 0xa5
        } else {
          value = next.bytes[Int(block * 512 - range.offset)]
        }
        odd[io.leg.index][block] = value == 0xa5 ? nil : value
      }
    }
    driver.complete(error: isBad ? 5 : 0) { $0.token == io.token }
    return true
  }

  func run() { while step() {} }

  func scrub(
    _ mode: ScrubOrder.Mode, prefer: Int? = nil, range: ByteRange? = nil
  ) throws -> ScrubSnapshot {
    try driver.engine.startScrub(
      ScrubOrder(mode: mode, preferred: prefer.map { LegSlot($0) }, range: range), now: driver.now)
    driver.drain()
    run()
    return snapshot
  }

  var snapshot: ScrubSnapshot { driver.engine.snapshot().scrub }

  func stale(_ leg: Int) -> UInt64 { driver.leg(leg)?.staleBytes ?? 0 }
}

@Suite("Scrub")
struct ScrubTests {
  static func noted(_ offset: UInt64, _ count: UInt64, _ legs: UInt8) -> NotedRange {
    NotedRange(range: ByteRange(offset: offset, count: count), legs: LegSet(bits: legs))
  }

  @Test("equal legs have no mismatch, and every byte of them was read under a shared lock")
  func clean() throws {
    let bench = try ScrubBench()
    var read: UInt64 = 0
    bench.fails = { io in
      if io.kind == .read { read += io.count }
      return false
    }
    let done = try bench.scrub(.check)
    #expect(done.isComplete && !done.isRunning && done.mode == .check)
    #expect(done.bytesDone == 8 << 18 && done.bytesTotal == 8 << 18 && done.bytesSkipped == 0)
    #expect(read == 3 * 8 << 18)
    #expect(done.mismatchBytes == 0 && done.mismatches.isEmpty && done.mismatchCount == 0)
    #expect(bench.driver.events(.scrubDone).map(\.detail) == [0])
  }

  @Test("a check names the blocks that differ and the leg that is alone, and touches nothing")
  func check() throws {
    let bench = try ScrubBench()
    bench.odd[1] = [7: 1, 8: 2, 1024: 3]
    let done = try bench.scrub(.check)
    #expect(
      done.mismatches
        == [ScrubTests.noted(7 * 512, 1024, 0b010), ScrubTests.noted(2 << 18, 512, 0b010)])
    #expect(done.mismatchBytes == 3 * 512 && done.unrepairedBytes == 3 * 512)
    #expect(done.mismatchCount == 2)
    #expect(bench.driver.events(.scrubMismatch).map(\.leg) == [LegSlot(1), LegSlot(1)])
    #expect(bench.driver.events(.scrubMismatch).map(\.detail) == [7 * 512, 2 << 18])
    #expect(bench.odd[1].count == 3 && bench.stale(1) == 0)
  }

  @Test("of two legs both are named")
  func twoLegs() throws {
    let bench = try ScrubBench(legs: 2)
    bench.odd[0] = [1: 1]
    let done = try bench.scrub(.check)
    #expect(done.mismatches == [ScrubTests.noted(512, 512, 0b011)])
    #expect(bench.driver.events(.scrubMismatch).map(\.leg) == [nil])
  }

  @Test("a repair copies the majority's block to the leg that is alone; a second check is clean")
  func repair() throws {
    let bench = try ScrubBench()
    bench.odd[1] = [7: 1]
    bench.odd[0] = [1024: 9]
    bench.odd[2] = [3999: 0]
    let done = try bench.scrub(.repair)
    #expect(done.isComplete && done.mismatchBytes == 3 * 512 && done.unrepairedBytes == 0)
    #expect(bench.odd.allSatisfy { $0.isEmpty })
    #expect((0..<3).allSatisfy { bench.stale($0) == 0 })
    let copied = bench.driver.events(.resyncDone).reduce(0) { $0 + $1.detail }
    #expect(copied == 3 << 18)
    #expect(try bench.scrub(.check).mismatchBytes == 0)
  }

  @Test("what lost is stale in the durable log before it is written")
  func durable() throws {
    let bench = try ScrubBench()
    bench.odd[1] = [7: 1]
    try bench.driver.engine.startScrub(ScrubOrder(mode: .repair), now: bench.driver.now)
    bench.driver.drain()
    while bench.driver.count(bench.driver.isLog) == 0 { try #require(bench.step()) }
    #expect(bench.stale(1) == 1 << 18)
    #expect(try #require(bench.driver.openWords(on: 0))[0] & 0xff == 2)
    #expect(bench.driver.count { bench.driver.isData($0) && $0.kind != .read } == 0)
    #expect(bench.snapshot.isRunning, "it waits for the copier")
    for _ in 0..<8 {
      _ = bench.driver.submit(.read, 7 * 512, 512)
      #expect(bench.driver.open.last?.io.leg.index != 1, "what lost is not read")
    }
    bench.driver.pass(seconds: 1)
    bench.run()
    bench.driver.pass(seconds: 1)
    bench.run()
    #expect(bench.snapshot.isComplete && bench.odd[1].isEmpty)
  }

  @Test("two legs are repaired from the preferred one, and not at all without")
  func preferred() throws {
    let bench = try ScrubBench(legs: 2)
    bench.odd[0] = [7: 1]
    let undecided = try bench.scrub(.repair)
    #expect(undecided.isComplete && undecided.unrepairedBytes == 512)
    #expect(bench.odd[0] == [7: 1] && bench.odd[1].isEmpty)
    let done = try bench.scrub(.repair, prefer: 0)
    #expect(done.isComplete && done.unrepairedBytes == 0 && done.mismatchBytes == 512)
    #expect(bench.odd[0] == [7: 1] && bench.odd[1] == [7: 1], "the preferred leg's content")
  }

  @Test("a majority beats the preferred leg; where there is none the preferred leg decides")
  func majorityFirst() throws {
    let bench = try ScrubBench()
    bench.odd[0] = [7: 1, 2100: 1]
    bench.odd[1] = [2100: 2]
    let done = try bench.scrub(.repair, prefer: 0)
    #expect(done.isComplete && done.unrepairedBytes == 0)
    #expect(bench.odd == [[2100: 1], [2100: 1], [2100: 1]])
    #expect(
      done.mismatches
        == [ScrubTests.noted(7 * 512, 512, 0b001), ScrubTests.noted(2100 * 512, 512, 0b111)])
  }

  @Test("where every leg loses somewhere in a region nothing of it is touched")
  func allLose() throws {
    let bench = try ScrubBench()
    bench.odd[0] = [1: 1, 700: 1]
    bench.odd[1] = [2: 1]
    bench.odd[2] = [3: 1]
    let done = try bench.scrub(.repair)
    #expect(done.isComplete && done.mismatchBytes == 4 * 512 && done.unrepairedBytes == 3 * 512)
    #expect(bench.odd == [[1: 1], [2: 1], [3: 1]], "the other region is repaired")
  }

  @Test("an undecided block protects its whole region")
  func undecided() throws {
    let bench = try ScrubBench(legs: 4)
    bench.odd[3] = [1: 1, 5: 1]
    bench.odd[2] = [5: 1]
    let done = try bench.scrub(.repair)
    #expect(done.unrepairedBytes == 1024)
    #expect(bench.odd[3] == [1: 1, 5: 1] && bench.odd[2] == [5: 1])
  }

  @Test(
    "a leg that cannot be read has no vote, and no region is repaired in which it might be source")
  func unreadable() throws {
    let bench = try ScrubBench()
    bench.odd[1] = [7: 1]
    bench.odd[2] = [7: 1, 1100: 4]
    // Until it is written again: the read repair does that.
    var isBad = true
    bench.fails = { io in
      guard io.leg.index == 2, bench.driver.isData(io),
        bench.driver.dataRange(io).overlaps(ByteRange(offset: 8192, count: 512))
      else { return false }
      if io.kind == .write { isBad = false }
      return isBad
    }
    let done = try bench.scrub(.repair)
    #expect(done.readErrors == 1)
    #expect(bench.driver.events(.scrubReadFailed).map(\.leg) == [LegSlot(2)])
    #expect(done.mismatches.first == ScrubTests.noted(7 * 512, 512, 0b011), "two legs are left")
    #expect(done.unrepairedBytes == 512)
    #expect(bench.odd[2] == [7: 1], "the region that could be read is repaired")
    #expect(bench.driver.leg(2)?.repairedBlocks == 8)
    #expect(!isBad)
  }

  @Test("the only leg that can be read somewhere in a region never turns stale there")
  func lastReadable() throws {
    let bench = try ScrubBench()
    bench.odd[2] = [7: 1]
    bench.fails = { io in
      io.kind == .read && io.leg.index < 2
        && bench.driver.dataRange(io).overlaps(ByteRange(offset: 1 << 17, count: 512))
    }
    let done = try bench.scrub(.repair)
    #expect(done.unrepairedBytes == 512)
    #expect(bench.stale(2) == 0 && bench.odd[2] == [7: 1])
  }

  @Test("a check takes its range to the block, a repair to whole regions")
  func ranges() throws {
    let bench = try ScrubBench()
    bench.odd[1] = [7: 1, 520: 1, 1100: 1]
    let range = ByteRange(offset: (1 << 18) + 1000, count: 100)
    let check = try bench.scrub(.check, range: range)
    #expect(check.bytesTotal == 1024 && check.mismatchBytes == 0)
    let repair = try bench.scrub(.repair, range: range)
    #expect(repair.bytesTotal == 1 << 18 && repair.mismatchBytes == 512)
    #expect(bench.odd[1] == [7: 1, 1100: 1])
    var refusal: CommandError?
    do throws(CommandError) {
      try bench.driver.engine.startScrub(
        ScrubOrder(mode: .check, range: ByteRange(offset: 8 << 18, count: 1)),
        now: bench.driver.now)
    } catch {
      refusal = error
    }
    #expect(refusal == .badRange)
  }

  @Test(
    "stale legs and unresolved regions have no part; fewer than two legs are nothing to compare")
  func leftOut() throws {
    let driver = try CopierTests.returned(stale: 2..<4)
    driver.completeAll { driver.isLog($0) || driver.isLabel($0) }
    driver.engine.setCopierPaused(true, now: driver.now)
    driver.runToRest()
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.runToRest()
    _ = driver.submit(.write, 5 << 20, 4096)
    driver.runToRest()
    try driver.engine.readd(LegTests.returning(driver, 1), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    driver.pass(seconds: 1)
    try driver.engine.startScrub(ScrubOrder(mode: .check), now: driver.now)
    driver.drain()
    driver.run(seen: { #expect(!CopierTests.overlaps(driver, $0, 5 << 20)) })
    let done = driver.engine.snapshot().scrub
    #expect(done.isComplete && done.bytesDone == 8 << 20 && done.bytesSkipped == 1 << 20)
  }

  @Test("after a crash the scrub waits until recovery has made the legs equal")
  func afterCrash() throws {
    let words: [UInt16] = [RegionWord.intent, 0, RegionWord.intent, 0]
    let driver = try EngineDriver(regions: 4, words: words)
    var recovered: Set<UInt64> = []
    try driver.engine.startScrub(ScrubOrder(mode: .check), now: driver.now)
    driver.run(seen: { io in
      let region = driver.dataRange(io).offset >> 20
      if io.kind == .write { recovered.insert(region) }
      if io.kind == .read, io.count < 1 << 20 { #expect(recovered == [0, 2]) }
    })
    let done = driver.engine.snapshot().scrub
    #expect(done.isComplete && done.bytesSkipped == 0 && done.mismatchBytes == 0)
  }

  @Test("writers wait for the window under comparison, readers do not")
  func lock() throws {
    let bench = try ScrubBench()
    try bench.driver.engine.startScrub(ScrubOrder(mode: .check), now: bench.driver.now)
    bench.driver.drain()
    #expect(bench.driver.open.count == 3)
    let read = bench.driver.submit(.read, 0, 4096)
    bench.driver.complete { $0.count == 4096 }
    #expect(bench.driver.replies[read] == 0)
    let write = bench.driver.submit(.write, 4096, 4096)
    #expect(bench.driver.open.count == 3, "it waits for the lock, before its intent even")
    for _ in 0..<3 { _ = bench.step() }
    #expect(bench.driver.count(bench.driver.isLog) == 3)
    bench.run()
    #expect(bench.driver.replies[write] == 0)
    #expect(bench.snapshot.isComplete && bench.snapshot.mismatchBytes == 0)
  }

  @Test("beside clients one window runs and pauses follow")
  func polite() throws {
    let bench = try ScrubBench()
    _ = bench.driver.submit(.read, 5 << 18, 4096)
    try bench.driver.engine.startScrub(ScrubOrder(mode: .check), now: bench.driver.now)
    bench.driver.drain()
    bench.driver.now = bench.driver.now.advanced(byNanoseconds: Nanoseconds.millisecond)
    bench.driver.completeAll { $0.count != 4096 }
    #expect(bench.snapshot.bytesDone == 128 << 10)
    #expect(
      bench.driver.nextWake
        == bench.driver.now.advanced(byNanoseconds: 4 * Nanoseconds.millisecond))
  }

  @Test("a leg that fails while it is compared drops out; the others are compared on")
  func legFails() throws {
    let bench = try ScrubBench()
    bench.odd[1] = [7: 1]
    try bench.driver.engine.startScrub(ScrubOrder(mode: .repair), now: bench.driver.now)
    bench.driver.drain()
    bench.driver.complete { $0.leg.index == 0 }
    bench.driver.complete { $0.leg.index == 1 }
    try bench.driver.engine.fail(LegSlot(2), now: bench.driver.now)
    bench.driver.drain()
    let late = try #require(bench.driver.open.first { $0.io.leg.index == 2 && $0.io.kind == .read })
    bench.driver.completeAll { $0.token != late.io.token }
    #expect(bench.snapshot.isComplete)
    #expect(bench.snapshot.unrepairedBytes == 512, "of the two that are left none is right")
    bench.run()
    #expect(bench.driver.idle == [LegSlot(2)])
    #expect(bench.odd[1] == [7: 1])
  }

  @Test("a stopped scrub is over at once and not complete; another one may follow")
  func stop() throws {
    let bench = try ScrubBench()
    bench.odd[1] = [7: 1]
    try bench.driver.engine.startScrub(ScrubOrder(mode: .repair), now: bench.driver.now)
    bench.driver.drain()
    for _ in 0..<4 { _ = bench.step() }
    var refusal: CommandError?
    do throws(CommandError) {
      try bench.driver.engine.startScrub(ScrubOrder(mode: .check), now: bench.driver.now)
    } catch {
      refusal = error
    }
    #expect(refusal == .scrubRunning)
    try bench.driver.engine.stopScrub(now: bench.driver.now)
    bench.run()
    #expect(!bench.snapshot.isRunning && !bench.snapshot.isComplete)
    #expect(bench.snapshot.unrepairedBytes == 512 && bench.odd[1] == [7: 1])
    #expect(try bench.scrub(.repair).unrepairedBytes == 0)
    #expect(bench.odd[1].isEmpty)
  }

  @Test("a clean stop does not wait for a scrub")
  func engineStop() throws {
    let bench = try ScrubBench()
    try bench.driver.engine.startScrub(ScrubOrder(mode: .check), now: bench.driver.now)
    bench.driver.drain()
    bench.driver.engine.beginStop(now: bench.driver.now)
    bench.driver.drain()
    #expect(!bench.driver.isStopped)
    bench.run()
    #expect(bench.driver.isStopped)
  }

  @Test("with a log in memory the last complete leg keeps a repair from marking the others")
  func coreLog() throws {
    let bench = try ScrubBench(logKind: .core)
    bench.odd[1] = [7: 1]
    bench.odd[2] = [700: 1]
    #expect(try bench.scrub(.repair).unrepairedBytes == 0)
    bench.odd[0] = [7: 1]
    bench.odd[1] = [700: 1]
    bench.odd[2] = [1100: 1]
    let done = try bench.scrub(.repair)
    #expect(done.unrepairedBytes == 0 && bench.odd.allSatisfy { $0.isEmpty }, "one after the other")
  }

  @Test("more ranges than the list holds are counted, and told no more")
  func bounded() throws {
    let bench = try ScrubBench()
    for block in 0..<200 { bench.odd[1][UInt64(block) * 2] = 1 }
    let done = try bench.scrub(.check)
    #expect(done.mismatches.count == 64 && done.mismatchCount == 200)
    #expect(done.mismatchBytes == 200 * 512)
    #expect(bench.driver.events(.scrubMismatch).count == 64)
  }
}
