// Legs that hold something else than they should, and bad blocks.

import Base
import MirrorEngine
import MirrorFormat

extension ExhaustiveRun {
  /// A sector of a leg becomes `value` without a write.
  func spoil(_ slot: Int, sector: Int, _ value: UInt64) {
    note("spoil  leg \(slot) sector \(sector) = \(String(value, radix: 16))")
    state.legs[slot]?.preset(value, unit: ExhaustiveLeg.metaUnits + sector)
  }

  /// Whether a region of `words` that a sector lies in reads as zeros, whatever legs hold.
  func isUnwritten(_ sector: Int, _ words: [UInt16]) -> Bool {
    let region = sector * ExhaustiveLeg.sectorBytes / Int(context.layout.regionBytes)
    return words[region] & RegionWord.unwritten != 0
  }

  /// Whether some leg of this start can read each bad block of the others.
  func everySectorIsReadable(_ words: [UInt16]) -> Bool {
    var online: [Int] = []
    for case let leg? in plan.legs where leg.role == .online { online.append(leg.slot.index) }
    for slot in online {
      guard let leg = state.legs[slot] else { continue }
      for unit in leg.image.indices where leg.image[unit] == ExhaustiveLeg.unreadable {
        let sector = unit - ExhaustiveLeg.metaUnits
        let region = sector * ExhaustiveLeg.sectorBytes / Int(context.layout.regionBytes)
        let isHeld = online.contains { other in
          let isStale = words[region] & (1 << UInt16(other)) != 0
          return !isStale && state.legs[other]?.image[unit] != ExhaustiveLeg.unreadable
        }
        if !isHeld { return false }
      }
    }
    return true
  }

  /// No leg has a bad block or damage.
  func expectSound() {
    for index in 0..<LegSlot.count {
      guard let leg = state.legs[index] else { continue }
      for value in [ExhaustiveLeg.unreadable, ExhaustiveLeg.damage] where leg.image.contains(value)
      {
        fail("leg \(index) still holds \(String(value, radix: 16))")
      }
    }
    compare()
  }

  // MARK: Scrubs

  /// Starts the scenario's repair.
  func startScrub() throws(CommandError) {
    note("scrub")
    let preferred = context.scenario.preferred.map { LegSlot($0) }
    try engine.startScrub(
      ScrubOrder(mode: .repair, preferred: preferred), now: state.now)
  }

  /// Lets time pass until the repair is through: damage may not be seen from then on.
  func finishScrub() {
    for _ in 0..<60 where problem == nil {
      runUntilQuiet()
      let snapshot = engine.snapshot()
      let isCopied = snapshot.legs.allSatisfy { $0.state != .online || $0.staleBytes == 0 }
      guard snapshot.scrub.isRunning || !isCopied else {
        if snapshot.scrub.unrepairedBytes > 0 { fail("the scrub has not repaired all") }
        if snapshot.scrub.bytesSkipped > 0 { fail("the scrub has not compared all") }
        state.oracle.repaired()
        return
      }
      pass(nanoseconds: Nanoseconds.second)
    }
    fail("the scrub does not end: \(describeLegs())")
  }

  /// What a crash has interrupted is begun anew: scrubs do not survive a start.
  func repairDamage() {
    guard problem == nil, !state.oracle.damaged.isEmpty else { return }
    do throws(CommandError) {
      if !engine.snapshot().scrub.isRunning { try startScrub() }
      settle()
      finishScrub()
    } catch {
      fail("the scrub is refused: \(error)")
    }
  }
}
