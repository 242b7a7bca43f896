// Goal: a region that was never written reads as zeros, and its first write can be cut off anywhere
// without showing what the disks held before. Method: step through the I/O of single requests.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Unwritten regions")
struct UnwrittenTests {
  static let mebi: UInt64 = 1 << 20
  private let mebi = UnwrittenTests.mebi

  /// A mirror of 8 regions of 1 MiB, of which those of `unwritten` were never written.
  private func lazy(
    legs: Int = 2, unwritten: Range<Int> = 0..<8, logKind: LogKind = .disk
  ) throws -> EngineDriver {
    let words = (0..<8).map { unwritten.contains($0) ? RegionWord.unwritten : 0 }
    let driver = try EngineDriver(legs: legs, logKind: logKind, words: words)
    driver.runToRest()
    return driver
  }

  private func isZeroing(_ io: LegIO) -> Bool { io.kind == .discard || io.kind == .zero }

  private func unwrittenBytes(_ driver: EngineDriver) -> UInt64 {
    driver.engine.snapshot().unwrittenBytes
  }

  @Test("a read gives zeros without I/O")
  func readIsZeros() throws {
    let driver = try lazy()
    #expect(unwrittenBytes(driver) == 8 * mebi)
    let read = driver.submit(.read, 512, 7 * mebi)
    #expect(driver.replies[read] == 0 && driver.open.isEmpty)
    #expect(driver.filled[read] == [ByteRange(offset: 0, count: 7 * mebi)])
  }

  @Test("a read ends a chunk at each border between written and unwritten regions")
  func readAcrossBorders() throws {
    let driver = try lazy(unwritten: 2..<4)
    let read = driver.submit(.read, mebi + 512, 4 * mebi)
    #expect(driver.count { $0.kind == .read && $0.count == mebi - 512 } == 1)
    driver.complete { $0.kind == .read }
    #expect(driver.filled[read] == [ByteRange(offset: mebi - 512, count: 2 * mebi)])
    #expect(driver.count { $0.kind == .read && $0.count == mebi + 512 } == 1)
    #expect(driver.replies[read] == nil)
    driver.runToRest()
    #expect(driver.replies[read] == 0)
  }

  @Test("zeroes and trims find nothing to do, and end where written regions begin")
  func zeroes() throws {
    let driver = try lazy(unwritten: 0..<4)
    let zero = driver.submit(.zero, 100, 3 * mebi)
    let trim = driver.submit(.trim, 0, 4 * mebi)
    #expect(driver.replies[zero] == 0 && driver.replies[trim] == 0 && driver.open.isEmpty)
    #expect(unwrittenBytes(driver) == 4 * mebi)
    let both = driver.submit(.zero, 3 * mebi, 2 * mebi, fua: true)
    driver.completeAll { driver.isLog($0) }
    #expect(driver.count { isZeroing($0) } == 2)
    #expect(driver.count { isZeroing($0) && $0.offset == driver.layout.dataOffset + 4 * mebi } == 2)
    driver.completeAll { isZeroing($0) }
    #expect(driver.replies[both] == nil && driver.count { $0.kind == .flush } == 2)
    driver.runToRest()
    #expect(driver.replies[both] == 0)
  }

  @Test("the first write: zeros everywhere, a flush, both copies of the page, then the data")
  func firstWrite() throws {
    let driver = try lazy()
    let write = driver.submit(.write, 3 * mebi + 4096, 4096)
    #expect(driver.open.count == 2)
    #expect(
      driver.count {
        $0.kind == .discard && $0.offset == driver.layout.dataOffset + 3 * mebi && $0.count == mebi
      } == 2)
    driver.complete { isZeroing($0) }
    #expect(driver.count { $0.kind == .flush } == 0, "one leg has no zeros yet")
    driver.complete { isZeroing($0) }
    #expect(driver.open.count == 2 && driver.count { $0.kind == .flush } == 2)
    driver.complete { $0.kind == .flush }
    #expect(driver.count { driver.isLog($0) } == 0, "one leg's zeros are in its cache")
    driver.complete { $0.kind == .flush }

    var offsets: Set<UInt64> = []
    for _ in 0..<2 {
      #expect(driver.open.count == 2 && driver.count { driver.isLog($0) } == 2)
      let words = try #require(driver.openWords(on: 0))
      #expect(words[3] == RegionWord.intent && words[2] == RegionWord.unwritten)
      offsets.formUnion(driver.open.map(\.io.offset))
      let legs = driver.open.map(\.io.leg)
      for leg in legs { driver.complete { $0.leg == leg && driver.isLog($0) } }
    }
    #expect(offsets.count == 2, "both copies")
    #expect(driver.open.count == 2 && driver.count { driver.isData($0) && $0.kind == .write } == 2)
    driver.runToRest()
    #expect(driver.replies[write] == 0 && unwrittenBytes(driver) == 7 * mebi)

    // From now on it is a region like any other.
    let second = driver.submit(.write, 3 * mebi, 512)
    #expect(driver.count { driver.isData($0) && $0.kind == .write } == 2)
    let read = driver.submit(.read, 3 * mebi + 512, 512)
    #expect(driver.count { $0.kind == .read } == 1)
    driver.runToRest()
    #expect(driver.replies[second] == 0 && driver.replies[read] == 0)
  }

  @Test("a write over a border prepares what it touches, in one go")
  func writeAcrossRegions() throws {
    let driver = try lazy(unwritten: 1..<8)
    let write = driver.submit(.write, mebi - 4096, 2 * mebi)
    #expect(driver.open.count == 2)
    #expect(driver.count { isZeroing($0) && $0.count == 2 * mebi } == 2)
    driver.runToRest()
    #expect(driver.replies[write] == 0 && unwrittenBytes(driver) == 5 * mebi)
  }

  @Test("two first writes of a region zero it once; the second comes after the first's zeros")
  func preparedOnce() throws {
    let driver = try lazy()
    let first = driver.submit(.write, 0, 4096)
    let second = driver.submit(.write, 8192, 4096)
    let read = driver.submit(.read, 65_536, 4096)
    #expect(driver.open.count == 2 && driver.replies[read] == nil)
    driver.completeAll { isZeroing($0) }
    #expect(driver.count { isZeroing($0) } == 0)
    driver.runToRest()
    #expect([first, second, read].allSatisfy { driver.replies[$0] == 0 })
    #expect(unwrittenBytes(driver) == 7 * mebi)
  }

  @Test("a region larger than an I/O may be is zeroed in windows, with one flush")
  func largeRegion() throws {
    let words = [UInt16](repeating: RegionWord.unwritten, count: 2)
    let driver = try EngineDriver(regions: 2, regionBytes: 256 << 20, words: words)
    driver.runToRest()
    let write = driver.submit(.write, 0, 512)
    for window in 0..<4 {
      let offset = driver.layout.dataOffset + UInt64(window) * Engine.zeroBytesMax
      #expect(driver.open.count == 2)
      driver.complete { isZeroing($0) && $0.offset == offset && $0.leg.index == 0 }
      driver.complete { isZeroing($0) && $0.offset == offset && $0.leg.index == 1 }
    }
    #expect(driver.count { $0.kind == .flush } == 2)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
  }

  @Test("a partial block is merged into zeros, not into what the disk held")
  func partialBlock() throws {
    let driver = try lazy()
    let write = driver.submit(.write, 100, 50)
    #expect(driver.count { $0.kind == .read } == 0)
    driver.completeAll { isZeroing($0) || $0.kind == .flush || driver.isLog($0) }
    #expect(driver.count { $0.kind == .read } == 1 && driver.open.count == 1)
    driver.runToRest()
    #expect(driver.replies[write] == 0 && driver.merges == 1)
  }

  // MARK: Legs that fail

  @Test("a leg that fails the zeros is offline, and stale in the very image that clears the bit")
  func failedZeros() throws {
    let driver = try lazy()
    let write = driver.submit(.write, 0, 4096)
    driver.complete(error: Errno.eio) { isZeroing($0) && $0.leg.index == 1 }
    driver.complete { isZeroing($0) }
    #expect(driver.leg(1)?.state == .failed)
    driver.completeAll { $0.kind == .flush }
    #expect(driver.count { driver.isLog($0) } == 0, "a label still lists the leg")
    driver.completeAll { driver.isLabel($0) }
    let words = try #require(driver.openWords(on: 0))
    #expect(words[0] == RegionWord.intent | 2 && words[1] == RegionWord.unwritten)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
    #expect(driver.leg(1)?.staleBytes == mebi, "it lacks nothing of the other regions")
  }

  @Test("a leg that fails after its zeros and before the flush has no zeros")
  func failedBeforeFlush() throws {
    let driver = try lazy(legs: 3)
    let write = driver.submit(.write, 0, 4096)
    driver.completeAll { isZeroing($0) }
    try driver.engine.fail(LegSlot(2), now: driver.now)
    driver.drain()
    driver.completeAll { $0.kind == .flush || driver.isLabel($0) }
    let words = try #require(driver.openWords(on: 0))
    #expect(words[0] == RegionWord.intent | 4)
    driver.runToRest()
    #expect(driver.replies[write] == 0 && driver.leg(2)?.staleBytes == mebi)
  }

  @Test("no leg takes the zeros: the client is told, and the region stays unwritten")
  func nobodyTakesZeros() throws {
    let driver = try lazy(legs: 1)
    let write = driver.submit(.write, 0, 4096)
    driver.complete(error: Errno.eio) { isZeroing($0) }
    driver.runToRest()
    #expect(driver.replies[write] == Errno.eio && unwrittenBytes(driver) == 8 * mebi)
    let full = driver.submit(.write, 0, 4096)
    driver.complete(error: Errno.enospc) { isZeroing($0) }
    #expect(driver.replies[full] == Errno.enospc && driver.leg(0)?.state == .online)
    let again = driver.submit(.write, 0, 4096)
    driver.runToRest()
    #expect(driver.replies[again] == 0)
  }

  @Test(
    "the last leg's flush fails: nothing is cleared, and nothing prepared while that is latched")
  func failedFlush() throws {
    let driver = try lazy(legs: 1)
    let write = driver.submit(.write, 0, 4096)
    driver.completeAll { isZeroing($0) }
    driver.complete(error: Errno.eio) { $0.kind == .flush }
    driver.runToRest()
    #expect(driver.replies[write] == Errno.eio && unwrittenBytes(driver) == 8 * mebi)
    let second = driver.submit(.write, 0, 4096)
    #expect(driver.replies[second] == Errno.eio && driver.open.isEmpty)
    try driver.engine.refresh(LegSlot(0), now: driver.now)
    let third = driver.submit(.write, 0, 4096)
    driver.runToRest()
    #expect(driver.replies[third] == 0)
  }

  @Test("a log that fails keeps data away from where a page may still say unwritten")
  func failedLog() throws {
    let driver = try lazy(legs: 1)
    let write = driver.submit(.write, 0, 4096)
    driver.completeAll { isZeroing($0) || $0.kind == .flush }
    driver.complete { driver.isLog($0) }
    driver.complete(error: Errno.eio) { driver.isLog($0) }
    #expect(driver.replies[write] == Errno.eio)
    #expect(driver.count { driver.isData($0) } == 0)
    // The image that failed may be there or not: it says nothing of unwritten, nor does the other.
    let second = driver.submit(.write, 0, 4096)
    driver.completeAll { driver.isLog($0) }
    #expect(driver.count { driver.isData($0) && $0.kind == .write } == 1)
    driver.runToRest()
    #expect(driver.replies[second] == 0)
  }

  @Test("an offline leg is stale in every image that does not say unwritten")
  func staleInSameImage() throws {
    let driver = try lazy(legs: 3)
    try driver.engine.fail(LegSlot(2), now: driver.now)
    driver.drain()
    driver.runToRest()
    // The read takes the lock between the zeros and the data; the other write commits meanwhile.
    let first = driver.submit(.write, 0, 4096)
    let read = driver.submit(.read, 0, 4096)
    let other = driver.submit(.write, mebi, 4096)
    driver.completeAll { isZeroing($0) || $0.kind == .flush }
    #expect(driver.count { $0.kind == .read } == 1)
    let words = try #require(driver.openWords(on: 0))
    #expect(words[0] == 4 && words[1] == RegionWord.intent | 4)
    driver.runToRest()
    #expect([first, read, other].allSatisfy { driver.replies[$0] == 0 })
  }

  @Test("a leg that fails after its zeros and is back before the flush is zeroed again")
  func backBeforeFlush() throws {
    let driver = try lazy(legs: 3)
    let write = driver.submit(.write, 0, 4096)
    driver.complete { isZeroing($0) && $0.leg.index == 2 }
    try driver.engine.fail(LegSlot(2), now: driver.now)
    driver.drain()
    driver.completeAll { !isZeroing($0) }
    try readd(2, driver)
    #expect(driver.leg(2)?.state == .online)
    driver.complete { isZeroing($0) && $0.leg.index == 0 }
    driver.complete { isZeroing($0) && $0.leg.index == 1 }
    driver.completeAll { $0.kind == .flush }
    #expect(driver.count { isZeroing($0) && $0.leg.index == 2 } == 1)
    driver.runToRest()
    #expect(driver.replies[write] == 0 && driver.leg(2)?.staleBytes == 0)
  }

  // MARK: Legs that come

  /// Brings a leg back up to its label; data I/O stays open.
  private func readd(_ slot: Int, _ driver: EngineDriver) throws {
    let label = Generation(counter: 1, id: Identifier(high: 7, low: 7))
    try driver.engine.readd(
      ReturningLeg(
        legId: EngineDriver.legId[slot], lineage: Lineage(current: label, parents: []),
        labelSequence: 1, labelCopy: 0, isTreatedAsNew: false), to: LegSlot(slot), now: driver.now)
    driver.drain()
    driver.completeAll { !isZeroing($0) }
  }

  @Test("a leg that comes while a region is zeroed gets the zeros too")
  func joinsMeanwhile() throws {
    let driver = try lazy(legs: 3)
    try driver.engine.fail(LegSlot(2), now: driver.now)
    driver.drain()
    driver.runToRest()
    let write = driver.submit(.write, 0, 4096)
    driver.complete { isZeroing($0) && $0.leg.index == 0 }
    try readd(2, driver)
    #expect(driver.leg(2)?.state == .online)
    driver.complete { isZeroing($0) && $0.leg.index == 1 }
    driver.completeAll { $0.kind == .flush }
    #expect(driver.count { isZeroing($0) && $0.leg.index == 2 } == 1)
    driver.runToRest()
    #expect(driver.replies[write] == 0 && driver.leg(2)?.staleBytes == 0)
  }

  @Test(
    "a leg that comes while a region is zeroed takes over when those that were asked go",
    arguments: [false, true])
  func joinsAndStaysAlone(isFlushing: Bool) throws {
    let driver = try lazy(legs: 2)
    try driver.engine.fail(LegSlot(1), now: driver.now)
    driver.drain()
    driver.runToRest()
    let write = driver.submit(.write, 0, 4096)
    if isFlushing { driver.complete { isZeroing($0) } }
    let label = Generation(counter: 1, id: Identifier(high: 7, low: 7))
    try driver.engine.readd(
      ReturningLeg(
        legId: EngineDriver.legId[1], lineage: Lineage(current: label, parents: []),
        labelSequence: 1, labelCopy: 0, isTreatedAsNew: false), to: LegSlot(1), now: driver.now)
    driver.drain()
    driver.completeAll { !isZeroing($0) && $0.kind != .flush }
    #expect(driver.leg(1)?.state == .online)
    try driver.engine.fail(LegSlot(0), now: driver.now)
    driver.drain()
    #expect(driver.leg(0)?.state == .failed && driver.replies[write] == nil)
    driver.runToRest()
    #expect(driver.replies[write] == 0 && driver.leg(1)?.staleBytes == 0)
    #expect(unwrittenBytes(driver) == 7 * mebi)
  }

  @Test("a new leg of a mirror that was never written is in sync at once, without a copy")
  func newLeg() throws {
    let driver = try lazy(unwritten: 1..<8)
    try driver.engine.add(
      legId: EngineDriver.legId[2], at: LegSlot(2), now: driver.now)
    driver.drain()
    driver.completeAll { !driver.isData($0) }
    #expect(driver.leg(2)?.staleBytes == mebi)
    #expect(driver.open.allSatisfy { $0.io.offset == driver.layout.dataOffset })
    driver.runToRest()
    #expect(driver.leg(2)?.staleBytes == 0 && unwrittenBytes(driver) == 7 * mebi)
    #expect(driver.engine.snapshot().resyncBytesDone == mebi)
  }

  // MARK: The log

  @Test("with a log in memory the pages that clear the bit are written before data all the same")
  func coreLog() throws {
    let driver = try lazy(logKind: .core)
    let write = driver.submit(.write, 0, 4096)
    driver.completeAll { isZeroing($0) || $0.kind == .flush }
    for _ in 0..<2 {
      #expect(driver.open.count == 2 && driver.count { driver.isLog($0) } == 2)
      driver.complete { driver.isLog($0) && $0.leg.index == 0 }
      driver.complete { driver.isLog($0) && $0.leg.index == 1 }
    }
    #expect(driver.open.count == 2 && driver.count { driver.isData($0) } == 2)
    driver.runToRest()
    #expect(driver.replies[write] == 0)
    let second = driver.submit(.write, 8192, 4096)
    #expect(driver.open.count == 2 && driver.count { driver.isLog($0) } == 0)
    driver.runToRest()
    #expect(driver.replies[second] == 0)
  }

  @Test("a copy found at the start that says unwritten is written over before data")
  func suspectedPages() throws {
    for logKind in [LogKind.disk, .core] {
      let driver = try EngineDriver(logKind: logKind, unwrittenPages: [true])
      driver.runToRest()
      let write = driver.submit(.write, 0, 4096)
      for _ in 0..<2 {
        #expect(driver.open.count == 2 && driver.count { driver.isLog($0) } == 2)
        driver.complete { driver.isLog($0) && $0.leg.index == 0 }
        driver.complete { driver.isLog($0) && $0.leg.index == 1 }
      }
      #expect(driver.open.count == 2 && driver.count { driver.isData($0) } == 2)
      driver.runToRest()
      #expect(driver.replies[write] == 0)
    }
  }

  @Test("words of the disk that say more than unwritten are unwritten and nothing else")
  func normalized() throws {
    let words = [UInt16](repeating: RegionWord.unwritten | RegionWord.intent | 2, count: 8)
    let driver = try EngineDriver(words: words)
    driver.runToRest()
    let snapshot = driver.engine.snapshot()
    #expect(snapshot.unresolvedRegions == 0 && snapshot.dirtyRegions == 0)
    #expect(driver.leg(1)?.staleBytes == 0 && snapshot.unwrittenBytes == 8 * mebi)
    #expect(snapshot.syncPercent == 100)
  }
}
