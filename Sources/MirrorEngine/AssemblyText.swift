// What assembly tells of each leg, for somebody woken up at 3 a.m.: what is, what will happen, and
// what to type if there is something to do. Pure.

import Base
import MirrorFormat

enum AssemblyText {
  /// The label of a PV.
  static func label(_ elected: ElectedLabel, path: String) -> String {
    let label = elected.label
    return "PV \(path): leg \(label.slot) (\(label.legId)) of mirror \(label.name), "
      + "\(name(of: label.lineage.current)), \(label.isClean ? "clean" : "not clean")"
      + (label.writtenSeconds > 0 ? ", last written \(time(label.writtenSeconds))" : "")
      + (elected.isOtherCopyValid
        ? "" : ", one label copy is not valid (the next label makes it valid again)")
  }

  /// A generation for people.
  static func name(of generation: Generation) -> String {
    "generation \(generation.counter) (\(generation.id.short))"
  }

  /// What becomes of a leg that is here. `isCurrent`: its label is of the head's generation.
  static func verdict(_ leg: AssemblyLeg, _ member: Member, isCurrent: Bool) -> String {
    "leg \(leg.slot) (PV \(leg.path)): "
      + role(leg, member, isCurrent: isCurrent)
      + (member.replaces.map { "; it replaces leg \($0), which is removed when it is in sync" }
        ?? "")
      + (member.isWriteMostly && leg.role == .online ? "; write-mostly" : "")
  }

  private static func role(_ leg: AssemblyLeg, _ member: Member, isCurrent: Bool) -> String {
    switch leg.role {
    case .online:
      if leg.label.label.holdsNothing {
        return "online; it was being brought in when the server died, everything is copied to it"
      }
      if !isCurrent {
        return "online; its label is older because a crash came between the label writes, its data "
          + "is current"
      }
      return member.isSyncing ? "online; what it has not got yet is copied to it" : "online"
    case .returning:
      return "missing\(since(member)), comes back by itself and copies what it missed"
    case .offline:
      if member.state == .removed {
        return "removed\(since(member)), stays out and need not be named; to take it back: "
          + "nbdmirror leg readd \(leg.slot)"
      }
      return "\(member.state)\(since(member)), stays offline; if its disk is well again: "
        + "nbdmirror leg readd \(leg.slot), for a new one: nbdmirror leg replace \(leg.slot) PV"
    case .diverged:
      if leg.label.label.holdsNothing {
        return "was being added, comes back by itself, everything is copied to it"
      }
      return "what it has was given up; it comes back by itself, every region is stale, everything "
        + "is copied to it"
    case .spare:
      return "spare; it holds no data and takes the place of the next leg that fails"
    }
  }

  /// What becomes of a leg that is not here.
  static func absent(_ slot: LegSlot, _ member: Member) -> String {
    let start = "leg \(slot) (\(member.legId)): "
    switch member.state {
    case .online:
      return start + "should be online and is not here: name its PV; without it the mirror starts "
        + "only with --degraded"
    case .missing, .failed:
      return start
        + "\(member.state)\(since(member)), not here; the mirror starts without it. For a "
        + "new disk: nbdmirror leg replace \(slot) PV"
    case .removed: return start + "removed\(since(member)), not needed"
    case .spare:
      return start + "spare, not here: it takes over from nobody; name its PV next time, or now: "
        + "nbdmirror leg readd \(slot)"
    case .vacant, .adding: return start + "never came in"
    }
  }

  /// Why a PV that carries the mirror's label is no part of it.
  static func leftOut(path: String, _ label: Label) -> String {
    label.isOfSpare
      ? "PV \(path): was a spare and is none any more; it is left out. To use it again: "
        + "nbdmirror leg add \(path)"
      : "PV \(path): was being added when the server stopped; no leg knows of it, it is left out. "
        + "To add it: nbdmirror leg add \(path)"
  }

  /// How the mirror was stopped, and what follows.
  static func stop(wasClean: Bool, _ logKind: LogKind) -> String {
    if wasClean { return "the mirror was stopped cleanly" }
    switch logKind {
    case .disk:
      return
        "the mirror was not stopped cleanly: where it was being written its legs are made equal "
        + "while it is served"
    case .core:
      return "the mirror was not stopped cleanly and its log was in memory: all of it is compared "
        + "and made equal while it is served"
    }
  }

  private static func since(_ member: Member) -> String {
    member.offlineSince > 0 ? " since generation \(member.offlineSince)" : ""
  }

  /// Seconds since 1970 as `2026-11-23 04:05:06 UTC`; beyond the year 9999 the number itself.
  /// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
  static func time(_ seconds: UInt64) -> String {
    guard seconds < 253_402_300_800 else { return "\(seconds) s after 1970" }
    let days = seconds / 86400 + 719_468
    let era = days / 146_097
    let dayOfEra = days % 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shifted + 2) / 5 + 1
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    let rest = seconds % 86400
    func two(_ number: UInt64) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return "\(year)-\(two(month))-\(two(day)) \(two(rest / 3600)):\(two(rest / 60 % 60)):"
      + "\(two(rest % 60)) UTC"
  }
}
