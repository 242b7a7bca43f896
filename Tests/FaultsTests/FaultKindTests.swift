// Goal: each kind of fault says all that the performer has to do, within the limits of the I/O.
import Base
import Faults
import Testing

@Suite("A fault of each kind")
struct FaultKindTests {
  @Test("error: any errno, EIO where none is said")
  func error() throws {
    var bench = Bench()
    try bench.add("error --op read")
    try bench.add("error --op zero --errno EROFS")
    let found = [bench.effect(.read), bench.effect(.zero), bench.effect(.write)]
    #expect(found == [.error(errno: 5), .error(errno: 30), .none])
  }

  @Test("delay: fixed, uniform with both ends, exponential with the mean that was asked for")
  func delay() throws {
    var fixed = Bench()
    try fixed.add("delay --delay 2ms")
    let once = fixed.decide(.flush)
    #expect(once == FaultDecision(delayNanoseconds: 2_000_000))
    var uniform = Bench()
    try uniform.add("delay --delay 10ns-13ns")
    let drawn = (0..<400).map { _ in uniform.decide(.read).delayNanoseconds }
    #expect(Set(drawn) == [10, 11, 12, 13])
    var exponential = Bench()
    try exponential.add("delay --delay exp:1ms")
    let times = (0..<20_000).map { _ in exponential.decide(.read).delayNanoseconds }
    let mean = Double(times.reduce(0, +)) / 20_000
    #expect(mean > 970_000 && mean < 1_030_000)
    // Of an exponential distribution 1/e is above the mean and e^-4 (1.8 %) above four means.
    #expect((7_000...7_700).contains(times.filter { $0 > 1_000_000 }.count))
    #expect((300...440).contains(times.filter { $0 > 4_000_000 }.count))
  }

  @Test("hang: holds until it is released, removed or over, and then catches nothing more")
  func hang() throws {
    var bench = Bench()
    try bench.add("hang --op write --name h")
    try bench.add("hang --op read --for 10ns --name t")
    try bench.add("hang --op flush --count 1 --name r")
    let effects = [bench.effect(.write), bench.effect(.read), bench.effect(.flush)]
    let ids = effects.compactMap { effect in
      if case .hang(let id) = effect { id } else { nil }
    }
    try #require(ids.count == 3)
    #expect(Set(ids).count == 3)
    #expect(ids.allSatisfy { bench.set.isHolding($0, now: .zero) })
    try bench.set.release(named: "h")
    #expect(!bench.set.isHolding(ids[0], now: .zero))
    let again = bench.effect(.write)
    #expect(again == .none)
    #expect(try bench.report("h").state == .released)
    #expect(!bench.set.isHolding(ids[1], now: Instant(nanoseconds: 10)))
    // Spent, but what it caught is held.
    #expect(try bench.report("r").state == .spent)
    #expect(bench.set.isHolding(ids[2], now: .zero))
    try bench.set.remove(named: "r")
    #expect(!bench.set.isHolding(ids[2], now: .zero))
    try bench.add("error --name e")
    #expect(throws: FaultSetError.notHang("e", .error)) { try bench.set.release(named: "e") }
    #expect(throws: FaultSetError.unknown("no")) { try bench.set.release(named: "no") }
  }

  @Test("bad-sector: bad until rewritten, sector by sector, widened to whole sectors")
  func badSector() throws {
    var bench = Bench()
    try bench.add("bad-sector --range 1025-2559 --name b")
    #expect(try bench.report("b").badBytes == 1536)
    let bad = FaultEffect.error(errno: 5)
    let first = [
      bench.effect(.read, 0, 4096), bench.effect(.read, 1024, 1), bench.effect(.write, 0, 4096),
      bench.effect(.read, 0, 1024), bench.effect(.read, 2560, 512),
    ]
    #expect(first == [bad, bad, .none, .none, .none])
    bench.set.wrote(ByteRange(offset: 1536, count: 512), on: Bench.leg)
    bench.set.wrote(ByteRange(offset: 0, count: 4096), on: LegSlot(0))
    // A part of a sector does not heal it.
    bench.set.wrote(ByteRange(offset: 1024, count: 511), on: Bench.leg)
    let second = [
      bench.effect(.read, 1536, 512), bench.effect(.read, 1024, 512),
      bench.effect(.read, 2048, 512),
    ]
    #expect(second == [.none, bad, bad])
    bench.set.wrote(ByteRange(offset: 0, count: 4096), on: Bench.leg)
    let last = bench.effect(.read, 0, 4096)
    #expect(last == .none)
    let report = try bench.report("b")
    #expect(report.state == .spent)
    #expect(report.badBytes == 0)
  }

  @Test("corrupt: as many different bits as said, all inside I/O and range")
  func corrupt() throws {
    var bench = Bench()
    try bench.add("corrupt --range 4608-4610 --bits 5")
    for operation in [FaultOperation.read, .write] {
      let effect = bench.effect(operation, 4096, 4096)
      guard case .corrupt(let flips) = effect else {
        Issue.record("\(effect)")
        continue
      }
      var bytes = [UInt8](repeating: 0, count: 4096)
      flips.apply(to: &bytes)
      let changed = bytes.indices.filter { bytes[$0] != 0 }
      #expect(changed.allSatisfy { $0 == 512 || $0 == 513 })
      #expect(bytes.reduce(0) { $0 + $1.nonzeroBitCount } == 5)
    }
    var tiny = Bench()
    try tiny.add("corrupt --bits 65535")
    let effect = tiny.effect(.write, 0, 1)
    guard case .corrupt(let flips) = effect else { return #expect(Bool(false), "\(effect)") }
    var byte: [UInt8] = [0x0f]
    flips.apply(to: &byte)
    #expect(byte == [0xf0])
    let others = [tiny.effect(.flush), tiny.effect(.zero)]
    #expect(others == [.none, .none])
  }

  @Test("torn: fewer sectors than the write has, all numbers of them")
  func torn() throws {
    var bench = Bench()
    try bench.add("torn --errno EIO --name t")
    var seen: Set<UInt32> = []
    for _ in 0..<200 {
      let effect = bench.effect(.write, 0, 2048)
      guard case .torn(let sectors, let errno) = effect else {
        return #expect(Bool(false), "\(effect)")
      }
      #expect(errno == 5)
      seen.insert(sectors)
    }
    #expect(seen == [0, 1, 2, 3])
    var fixed = Bench()
    try fixed.add("torn --sectors 3 --name t")
    let found = [fixed.effect(.write, 0, 2048), fixed.effect(.write, 0, 1536)]
    #expect(found == [.torn(sectors: 3, errno: 0), .none])
    #expect(try fixed.report("t").fired == 1)
    #expect(try fixed.report("t").matched == 2)
    let read = fixed.effect(.read, 0, 2048)
    #expect(read == .none)
  }

  @Test("drop: writes, zeroes and flushes, never reads")
  func drop() throws {
    var bench = Bench()
    try bench.add("drop")
    let found = FaultOperation.allCases.map { bench.effect($0) }
    #expect(found == [.none, .drop, .drop, .drop])
    var lying = Bench()
    try lying.add("drop --op flush")
    let one = FaultOperation.allCases.map { lying.effect($0) }
    #expect(one == [.none, .none, .drop, .none])
  }

  @Test("misdirect: another place inside the device, on the same grid; none where there is none")
  func misdirect() throws {
    var bench = Bench(deviceBytes: 64 << 10)
    try bench.add("misdirect")
    var seen: Set<UInt64> = []
    for _ in 0..<400 {
      let effect = bench.effect(.write, 8192, 4096)
      guard case .misdirect(let offset) = effect else { return #expect(Bool(false), "\(effect)") }
      seen.insert(offset)
    }
    #expect(seen == Set((0..<16).map { $0 * 4096 }).subtracting([8192]))
    let metadata = bench.effect(.write, 8192, 4096, isMetadata: true)
    #expect(metadata == .none)
    let odd = bench.effect(.read, 512, 512)
    guard case .misdirect(let offset) = odd else { return #expect(Bool(false), "\(odd)") }
    #expect(offset % 4096 == 512)
    let whole = bench.effect(.read, 0, 64 << 10)
    #expect(whole == .none)
    var fixed = Bench(deviceBytes: 64 << 10)
    try fixed.add("misdirect --to 60K")
    let found = [
      fixed.effect(.write, 0, 8192), fixed.effect(.write, 0, 4096), fixed.effect(.write, 61440),
    ]
    #expect(found == [.misdirect(offset: 57344), .misdirect(offset: 61440), .none])
  }

  @Test(
    "stale-read: the bytes of the read that the range covers, and the writes before it are kept")
  func staleRead() throws {
    var bench = Bench()
    #expect(!bench.set.keepsOverwritten(Bench.leg))
    try bench.add("stale-read --range 4096-8192")
    #expect(bench.set.keepsOverwritten(Bench.leg))
    #expect(!bench.set.keepsOverwritten(LegSlot(0)))
    let found = [bench.effect(.read, 2048, 4096), bench.effect(.write, 4096, 4096)]
    #expect(found == [.stale(part: ByteRange(offset: 2048, count: 2048)), .none])
  }

  @Test("full: writes and zeroes get ENOSPC")
  func full() throws {
    var bench = Bench()
    try bench.add("full")
    let found = FaultOperation.allCases.map { bench.effect($0) }
    #expect(found == [.none, .error(errno: 28), .none, .error(errno: 28)])
  }

  @Test("offline: everything gets ENODEV")
  func offline() throws {
    var bench = Bench()
    try bench.add("offline")
    let found = FaultOperation.allCases.map { bench.effect($0) }
    #expect(found.allSatisfy { $0 == .error(errno: 19) })
  }

  @Test("throttle: the tighter of both limits holds, and idle time is not saved up")
  func throttle() throws {
    var bench = Bench()
    try bench.add("throttle --iops 1000 --rate 1M")
    // 4 KiB cost 3.9 ms at 1 MiB/s, a flush 1 ms.
    let first = bench.decide(.write).delayNanoseconds
    let second = bench.decide(.write).delayNanoseconds
    let third = bench.decide(.flush).delayNanoseconds
    #expect(first == 3_906_250)
    #expect(second == 7_812_500)
    #expect(third == 8_812_500)
    bench.now = Instant(nanoseconds: Nanoseconds.second)
    let later = bench.decide(.write).delayNanoseconds
    #expect(later == 3_906_250)
  }

  @Test("volatile-cache: changes nothing, but lets a power cut take writes back")
  func volatileCache() throws {
    var bench = Bench()
    try bench.add("volatile-cache")
    let found = FaultOperation.allCases.map { bench.decide($0) }
    #expect(found.allSatisfy { $0 == .none })
    #expect(bench.set.hasVolatileCache(Bench.leg))
    #expect(!bench.set.hasVolatileCache(LegSlot(0)))
  }

  @Test("power-cut: seeded, only of its legs; every state of a sector may survive")
  func powerCut() {
    let leg = Bench.leg
    var all: Set<Int> = []
    var wholeLosses = 0
    for seed in UInt64(0)..<200 {
      let cut = PowerCut(legs: LegSet(leg), seed: seed)
      let fates = (UInt64(0)..<32).map { cut.survivor(leg: leg, sector: $0, overwritten: 2) }
      #expect(fates == (UInt64(0)..<32).map { cut.survivor(leg: leg, sector: $0, overwritten: 2) })
      #expect(fates.allSatisfy { (0...2).contains($0) })
      all.formUnion(fates)
      wholeLosses += fates.allSatisfy { $0 == 0 } ? 1 : 0
      #expect(cut.survivor(leg: LegSlot(0), sector: 3, overwritten: 2) == 2)
      #expect(cut.survivor(leg: leg, sector: 3, overwritten: 0) == 0)
    }
    #expect(all == [0, 1, 2])
    #expect((30...75).contains(wholeLosses))
  }
}
