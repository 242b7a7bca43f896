// Goal: a fault hits what it says and nothing else. Method: each selector, trigger and action
// against I/O on both sides of its limit.
import Base
import Faults
import Testing

@Suite("A fault set")
struct FaultSetTests {
  let leg = LegSlot(1)

  private func range(_ offset: UInt64, _ count: UInt64) -> ByteRange {
    ByteRange(offset: offset, count: count)
  }

  @Test("selects by leg, kind and byte range, to the byte")
  func selection() {
    var set = FaultSet(seed: 1)
    set.add(
      Fault(
        name: "a", leg: leg, operations: [.read], range: range(4096, 512),
        action: .error(errno: 5)))
    let hit = FaultOutcome.error(errno: 5)
    do {
      let decision = set.decide(.read, on: leg, range: range(4096, 512), now: .zero)
      #expect(decision == hit)
    }
    do {
      let decision = set.decide(.read, on: leg, range: range(4095, 2), now: .zero)
      #expect(decision == hit)
    }
    do {
      let decision = set.decide(.read, on: leg, range: range(4607, 1), now: .zero)
      #expect(decision == hit)
    }
    do {
      let decision = set.decide(.read, on: leg, range: range(4608, 512), now: .zero)
      #expect(decision == .none)
    }
    do {
      let decision = set.decide(.read, on: leg, range: range(3584, 512), now: .zero)
      #expect(decision == .none)
    }
    do {
      let decision = set.decide(.read, on: leg, range: nil, now: .zero)
      #expect(decision == .none)
    }
    do {
      let decision = set.decide(.write, on: leg, range: range(4096, 512), now: .zero)
      #expect(decision == .none)
    }
    do {
      let decision = set.decide(.read, on: LegSlot(0), range: range(4096, 512), now: .zero)
      #expect(decision == .none)
    }
    #expect(set.faults[0].hits == 3)
  }

  @Test("ends a fault at its count, at its nth I/O and at its time")
  func limits() {
    var set = FaultSet(seed: 1)
    set.add(Fault(name: "a", leg: leg, countMax: 2, action: .error(errno: 5)))
    let first = (0..<4).map { _ in set.decide(.write, on: leg, range: nil, now: .zero) }
    #expect(first == [.error(errno: 5), .error(errno: 5), .none, .none])
    set.add(Fault(name: "a", leg: leg, trigger: .nth(3), action: .hang))
    let second = (0..<4).map { _ in set.decide(.write, on: leg, range: nil, now: .zero) }
    #expect(second == [.none, .none, .hang, .none])
    set.add(
      Fault(name: "a", leg: leg, until: Instant(nanoseconds: 10), action: .error(errno: 5)))
    let before = set.decide(.flush, on: leg, range: nil, now: Instant(nanoseconds: 9))
    let after = set.decide(.flush, on: leg, range: nil, now: Instant(nanoseconds: 10))
    #expect(before == .error(errno: 5))
    #expect(after == .none)
  }

  @Test("draws the same outcomes from the same seed, near the probability asked for")
  func probability() {
    func run(_ seed: UInt64) -> [FaultOutcome] {
      var set = FaultSet(seed: seed)
      set.add(
        Fault(
          name: "a", leg: leg, trigger: .probability(millionths: 250_000),
          action: .error(errno: 5)))
      return (0..<4000).map { _ in set.decide(.read, on: leg, range: nil, now: .zero) }
    }
    let once = run(7)
    #expect(once == run(7))
    #expect(once != run(8))
    let hits = once.filter { $0 != .none }.count
    #expect(hits > 900 && hits < 1100)
  }

  @Test("keeps bad sectors bad until they are rewritten, sector by sector")
  func badSectors() {
    var set = FaultSet(seed: 1)
    set.add(Fault(name: "a", leg: leg, range: range(1024, 1536), action: .badSector))
    let bad = FaultOutcome.error(errno: 5)
    do {
      let decision = set.decide(.read, on: leg, range: range(0, 4096), now: .zero)
      #expect(decision == bad)
    }
    do {
      let decision = set.decide(.write, on: leg, range: range(0, 4096), now: .zero)
      #expect(decision == .none)
    }
    set.rewritten(range(1536, 512), on: leg)
    do {
      let decision = set.decide(.read, on: leg, range: range(1536, 512), now: .zero)
      #expect(decision == .none)
    }
    do {
      let decision = set.decide(.read, on: leg, range: range(1024, 512), now: .zero)
      #expect(decision == bad)
    }
    do {
      let decision = set.decide(.read, on: leg, range: range(2048, 512), now: .zero)
      #expect(decision == bad)
    }
    set.rewritten(range(0, 4096), on: leg)
    do {
      let decision = set.decide(.read, on: leg, range: range(0, 4096), now: .zero)
      #expect(decision == .none)
    }
  }

  @Test("adds delays up, lets an error win, and fails everything of a leg that is offline")
  func actions() {
    var set = FaultSet(seed: 1)
    let least: UInt64 = 5
    set.add(
      Fault(
        name: "a", leg: leg, action: .delay(minNanoseconds: least, maxNanoseconds: least)))
    set.add(
      Fault(
        name: "b", leg: leg, action: .delay(minNanoseconds: least, maxNanoseconds: least)))
    do {
      let decision = set.decide(.read, on: leg, range: nil, now: .zero)
      #expect(decision == .delay(nanoseconds: 10))
    }
    set.add(Fault(name: "c", leg: leg, action: .full))
    do {
      let decision = set.decide(.zero, on: leg, range: nil, now: .zero)
      #expect(decision == .error(errno: 28))
    }
    do {
      let decision = set.decide(.flush, on: leg, range: nil, now: .zero)
      #expect(decision == .delay(nanoseconds: 10))
    }
    set.add(Fault(name: "d", leg: leg, operations: [], action: .offline))
    do {
      let decision = set.decide(.flush, on: leg, range: nil, now: .zero)
      #expect(decision == .error(errno: 19))
    }
    let isRemoved = set.remove(named: "d")
    #expect(isRemoved)
    let isRemovedAgain = set.remove(named: "d")
    #expect(!isRemovedAgain)
    set.removeAll(on: leg)
    #expect(set.isEmpty)
  }
}
