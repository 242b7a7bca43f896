// Goal: a fault hits what it says and nothing else. Method: each selector and trigger against I/O
// on both sides of its limit.
import Base
import Faults
import Testing

/// A device of 1 MiB and its faults on leg 1.
struct Bench {
  var set: FaultSet
  var now = Instant.zero
  static let leg = LegSlot(1)

  init(seed: UInt64 = 1, deviceBytes: UInt64 = 1 << 20) {
    set = FaultSet(seed: seed, deviceBytes: deviceBytes)
  }

  /// Adds a fault from its words.
  @discardableResult
  mutating func add(_ words: String) throws -> String {
    let parts = words.split(separator: " ").map(String.init)
    return try set.add(Fault.parse(parts, leg: Bench.leg), now: now)
  }

  mutating func decide(
    _ operation: FaultOperation, _ offset: UInt64 = 0, _ count: UInt64 = 4096,
    leg: LegSlot = Bench.leg, isMetadata: Bool = false
  ) -> FaultDecision {
    let io =
      operation == .flush
      ? FaultIO.flush(leg: leg)
      : FaultIO(
        operation, leg: leg, range: ByteRange(offset: offset, count: count),
        isMetadata: isMetadata)
    return set.decide(io, now: now)
  }

  mutating func effect(
    _ operation: FaultOperation, _ offset: UInt64 = 0, _ count: UInt64 = 4096,
    leg: LegSlot = Bench.leg, isMetadata: Bool = false
  ) -> FaultEffect {
    decide(operation, offset, count, leg: leg, isMetadata: isMetadata).effect
  }

  func report(_ name: String) throws -> FaultReport {
    try #require(set.reports(now: now).first { $0.fault.name == name })
  }
}

@Suite("A fault set")
struct FaultSetTests {
  let eio = FaultEffect.error(errno: 5)

  @Test("selects by leg, kind and byte range, to the byte")
  func selection() throws {
    var bench = Bench()
    try bench.add("error --op read --range 4096-4608 --name a")
    let hits = [
      bench.effect(.read, 4096, 512), bench.effect(.read, 4095, 2), bench.effect(.read, 4607, 1),
    ]
    #expect(hits == [eio, eio, eio])
    let misses = [
      bench.effect(.read, 4608, 512), bench.effect(.read, 3584, 512),
      bench.effect(.write, 4096, 512), bench.effect(.flush),
      bench.effect(.read, 4096, 512, isMetadata: true),
      bench.effect(.read, 4096, 512, leg: LegSlot(0)),
    ]
    #expect(misses.allSatisfy { $0 == .none })
    let report = try bench.report("a")
    #expect(report.fired == 3)
    #expect(report.matched == 3)
    #expect(report.state == .armed)
  }

  @Test("tells data, metadata and flushes apart")
  func areas() throws {
    for (area, hits) in [
      ("all", [true, true, true]), ("data", [true, false, false]),
      ("metadata", [false, true, false]),
    ] {
      var bench = Bench()
      try bench.add("error --area \(area)")
      let found = [
        bench.effect(.write), bench.effect(.write, isMetadata: true), bench.effect(.flush),
      ]
      #expect(found.map { $0 == eio } == hits, "\(area)")
    }
  }

  @Test("ends a fault at its count, at its nth I/O and at its time, and says so")
  func limits() throws {
    var bench = Bench()
    try bench.add("error --count 2 --name a")
    let first = (0..<4).map { _ in bench.effect(.write) }
    #expect(first == [eio, eio, .none, .none])
    #expect(try bench.report("a").state == .spent)
    #expect(try bench.report("a").matched == 2)
    try bench.add("error --nth 3 --name b")
    let second = (0..<5).map { _ in bench.effect(.write) }
    #expect(second == [.none, .none, eio, .none, .none])
    try bench.add("error --nth 2 --count 2 --name c")
    let third = (0..<5).map { _ in bench.effect(.write) }
    #expect(third == [.none, eio, eio, .none, .none])
    bench.now = Instant(nanoseconds: 7)
    try bench.add("error --for 10ns --name d")
    bench.now = Instant(nanoseconds: 16)
    let before = bench.effect(.flush)
    bench.now = Instant(nanoseconds: 17)
    let after = bench.effect(.flush)
    #expect(before == eio)
    #expect(after == .none)
    #expect(try bench.report("d").state == .expired)
  }

  @Test("draws the same decisions from the same seed, near the probability asked for")
  func probability() throws {
    func run(_ seed: UInt64, _ words: String) throws -> [Bool] {
      var bench = Bench(seed: seed)
      try bench.add(words)
      return (0..<4000).map { _ in bench.effect(.read) == eio }
    }
    let once = try run(7, "error --probability 0.25")
    #expect(once == (try run(7, "error --probability 0.25")))
    #expect(once != (try run(8, "error --probability 0.25")))
    #expect(once != (try run(7, "error --probability 0.25 --name other")))
    let hits = once.filter { $0 }.count
    #expect(hits > 900 && hits < 1100)
    // A seed of its own makes a fault independent of the set's.
    #expect(
      try run(7, "error --probability 0.25 --seed 3")
        == run(8, "error --probability 0.25 --seed 3 --name x"))
  }

  @Test("what a fault draws does not depend on other faults")
  func independence() throws {
    func run(_ others: [String]) throws -> [Bool] {
      var bench = Bench()
      for other in others { try bench.add(other) }
      try bench.add("error --op write --probability 0.5 --name mine")
      return (0..<200).map { _ in
        _ = bench.decide(.read)
        return bench.effect(.write) == eio
      }
    }
    #expect(
      try run([]) == run(["delay --delay 1ms-9ms --name a", "corrupt --op read --name b"]))
  }

  @Test("the first fault decides the effect; delays of all add up before it")
  func precedence() throws {
    var bench = Bench()
    try bench.add("delay --delay 5ns")
    try bench.add("error --op write --errno ENOSPC --count 1")
    try bench.add("drop --op write --count 1")
    try bench.add("delay --delay 7ns")
    let first = bench.decide(.write)
    #expect(first == FaultDecision(delayNanoseconds: 12, effect: .error(errno: 28)))
    let second = bench.decide(.write)
    #expect(second == FaultDecision(delayNanoseconds: 12, effect: .drop))
    let third = bench.decide(.write)
    #expect(third == FaultDecision(delayNanoseconds: 12))
    #expect(bench.set.reports(now: .zero).map(\.fired) == [3, 1, 1, 3])
  }

  @Test("names are unique, found where none is given, and free again after a removal")
  func names() throws {
    var bench = Bench()
    #expect(try bench.add("error") == "error-1")
    #expect(try bench.add("error") == "error-2")
    #expect(try bench.add("bad-sector --range 0-512") == "bad-sector-1")
    #expect(throws: FaultSetError.nameInUse("error-2")) { try bench.add("hang --name error-2") }
    try bench.set.remove(named: "error-1")
    #expect(throws: FaultSetError.unknown("error-1")) { try bench.set.remove(named: "error-1") }
    #expect(try bench.add("error") == "error-1")
    bench.set.removeAll(on: LegSlot(0))
    #expect(bench.set.reports(now: .zero).count == 3)
    bench.set.removeAll(on: Bench.leg)
    #expect(bench.set.isEmpty)
    #expect(bench.set.legs.isEmpty)
    for _ in 0..<FaultSet.countMax { try bench.add("drop") }
    #expect(throws: FaultSetError.tooMany(FaultSet.countMax)) { try bench.add("drop") }
  }
}
