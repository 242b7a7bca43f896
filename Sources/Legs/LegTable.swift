// Which file is in which slot, for all reactors at once.
//
// Invariants
//  1. A slot is filled before the engine issues I/O on it, and emptied only after the engine said
//     that none is in flight (`Effect.legIdle`); so a word that a reactor loaded stays valid for
//     the I/O it was loaded for.
//  2. The table does not own the files: whoever attached one closes it after `detach`.

import Base
import Synchronization

/// Eight places for legs; safe from any thread, loads are one relaxed atomic read.
public final class LegTable: Sendable {
  private let slot0 = Atomic<UInt64>(FileLeg.none.word)
  private let slot1 = Atomic<UInt64>(FileLeg.none.word)
  private let slot2 = Atomic<UInt64>(FileLeg.none.word)
  private let slot3 = Atomic<UInt64>(FileLeg.none.word)
  private let slot4 = Atomic<UInt64>(FileLeg.none.word)
  private let slot5 = Atomic<UInt64>(FileLeg.none.word)
  private let slot6 = Atomic<UInt64>(FileLeg.none.word)
  private let slot7 = Atomic<UInt64>(FileLeg.none.word)

  /// An empty table.
  public init() {}

  /// Puts an open file into a slot; the caller keeps owning it.
  /// - Precondition: the slot is empty.
  public func attach(_ slot: LegSlot, descriptor: Int32) {
    precondition(!leg(slot).isAttached, "slot \(slot) holds a leg already")
    store(FileLeg(descriptor: descriptor), in: slot)
  }

  /// Empties a slot.
  public func detach(_ slot: LegSlot) { store(.none, in: slot) }

  /// Notes that the leg's file refused a way of zeroing, and says what to try next.
  public func refused(_ way: ZeroWay, on slot: LegSlot, mayPunchHoles: Bool) -> ZeroWay {
    // Two reactors may note different refusals at the same time and lose one: it is met again.
    let leg = leg(slot).refusing(way)
    store(leg, in: slot)
    return leg.zeroWay(mayPunchHoles: mayPunchHoles)
  }

  /// Whether zeroing is sure to be faster than writing on every leg.
  public func zeroFast(mayPunchHoles: Bool) -> Bool {
    for slot in 0..<LegSlot.count {
      let leg = leg(LegSlot(slot))
      if leg.isAttached, !leg.isZeroingFast(mayPunchHoles: mayPunchHoles) { return false }
    }
    return true
  }

  /// The leg in a slot.
  public func leg(_ slot: LegSlot) -> FileLeg {
    switch slot.raw {
    case 0: FileLeg(word: slot0.load(ordering: .acquiring))
    case 1: FileLeg(word: slot1.load(ordering: .acquiring))
    case 2: FileLeg(word: slot2.load(ordering: .acquiring))
    case 3: FileLeg(word: slot3.load(ordering: .acquiring))
    case 4: FileLeg(word: slot4.load(ordering: .acquiring))
    case 5: FileLeg(word: slot5.load(ordering: .acquiring))
    case 6: FileLeg(word: slot6.load(ordering: .acquiring))
    default: FileLeg(word: slot7.load(ordering: .acquiring))
    }
  }

  private func store(_ leg: FileLeg, in slot: LegSlot) {
    switch slot.raw {
    case 0: slot0.store(leg.word, ordering: .releasing)
    case 1: slot1.store(leg.word, ordering: .releasing)
    case 2: slot2.store(leg.word, ordering: .releasing)
    case 3: slot3.store(leg.word, ordering: .releasing)
    case 4: slot4.store(leg.word, ordering: .releasing)
    case 5: slot5.store(leg.word, ordering: .releasing)
    case 6: slot6.store(leg.word, ordering: .releasing)
    default: slot7.store(leg.word, ordering: .releasing)
    }
  }
}
