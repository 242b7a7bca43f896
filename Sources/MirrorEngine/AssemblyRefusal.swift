// Why a mirror is not started: each reason is one sentence for somebody woken up at 3 a.m.

import Base
import MirrorFormat

/// A refusal with its reasoning.
public struct AssemblyRefusal: Error, Equatable, Sendable, CustomStringConvertible {
  /// PVs that belong together.
  public struct Group: Equatable, Sendable {
    /// Name of the mirror.
    public var name: String
    /// The mirror.
    public var setId: Identifier
    /// Its PVs.
    public var paths: [String]
  }

  /// One of several histories.
  public struct Head: Equatable, Sendable {
    /// The newest generation of this history, with its ancestors.
    public var lineage: Lineage
    /// The PVs that end in it.
    public var paths: [String]
  }

  /// A leg that should be there.
  public struct MissingLeg: Equatable, Sendable {
    /// Its slot.
    public var slot: LegSlot
    /// The leg.
    public var legId: Identifier
  }

  /// What stands in the way.
  public enum Reason: Equatable, Sendable {
    /// No PV was named.
    case noCandidates
    /// A PV has no label; `why` is a clause.
    case noLabel(path: String, why: String)
    /// A PV is of a later format; `why` is a clause.
    case laterVersion(path: String, why: String)
    /// The PVs belong to more than one mirror.
    case foreignSet([Group])
    /// Two PVs say that they are the same leg.
    case duplicateLeg(path: String, other: String, legId: Identifier)
    /// Legs went on separately.
    case splitBrain([Head])
    /// `--choose-leg` names no leg that is here, or more than one.
    case unknownChoice(String)
    /// `--choose-leg` names a leg whose history is an ancestor of another one's.
    case staleChoice(path: String, newer: String)
    /// A PV is of this mirror but no longer in its member table.
    case notMember(path: String, name: String)
    /// The label of a PV describes another layout than the head's.
    case geometryMismatch(path: String, other: String)
    /// A PV is shorter than its label says.
    case tooSmall(path: String, bytes: UInt64, neededBytes: UInt64)
    /// A PV's sectors are larger than the mirror's blocks.
    case blockTooLarge(path: String, bytes: UInt32, blockBytes: UInt32)
    /// Legs that the head lists online are absent.
    case missingLegs([MissingLeg])
    /// With the log in memory: the legs that had everything are absent, those present had not.
    case onlyCompleteLeg([MissingLeg], present: [String])
    /// None of the PVs is online in the head's member table.
    case nothingOnline(paths: [String])
  }

  /// What stands in the way.
  public var reason: Reason
  /// The reasoning up to here, one line per step.
  public var explanation: [String]

  /// Describes a refusal.
  public init(_ reason: Reason, explanation: [String] = []) {
    self.reason = reason
    self.explanation = explanation
  }

  /// One sentence without a full stop.
  public var description: String {
    switch reason {
    case .noCandidates:
      "no PV was named"
    case .noLabel(let path, let why):
      "PV \(path): \(why); name the PVs of the mirror only. If this is one, leave it out, start "
        + "with --degraded, and replace its leg"
    case .laterVersion(let path, let why):
      "PV \(path): \(why); use the nbdmirror that wrote it"
    case .foreignSet(let groups):
      "the PVs belong to different mirrors: "
        + groups.map { "\($0.name) (\($0.setId)): \(list($0.paths))" }.joined(separator: "; ")
        + "; name those of one of them"
    case .duplicateLeg(let path, let other, let legId):
      "PV \(path) and PV \(other) both are leg \(legId): one is a copy of the other, name only "
        + "the right one"
    case .splitBrain(let heads):
      "split brain: the legs went on separately: "
        + heads.map { "\(list($0.paths)) at \(describe($0.lineage.current))" }
        .joined(separator: "; ")
        + "; --choose-leg LEG keeps that leg's data and overwrites the others. To see what "
        + "each has: serve --read-only --degraded with its PVs alone"
    case .unknownChoice(let text):
      "--choose-leg \(text) names none of these PVs (give a path, a leg id or a slot number)"
    case .staleChoice(let path, let newer):
      "--choose-leg cannot choose PV \(path): its data is older than that of PV \(newer), no "
        + "history is in doubt"
    case .notMember(let path, let name):
      "PV \(path) was a leg of mirror \(name) once and has been replaced: leave it out, or add it "
        + "as a new leg"
    case .geometryMismatch(let path, let other):
      "PV \(path) and PV \(other) are of one mirror but their labels describe different sizes or "
        + "offsets: one of the labels is damaged; leave one of them out and start with --degraded"
    case .tooSmall(let path, let bytes, let needed):
      "PV \(path) has \(bytes) bytes, its label says \(needed): it was cut off; give "
        + "it its size back, or leave it out, start with --degraded, and replace its leg"
    case .blockTooLarge(let path, let bytes, let block):
      "PV \(path) has sectors of \(bytes) bytes, the mirror has blocks of \(block) bytes: it "
        + "cannot be a leg of this mirror; leave it out, start with --degraded, and replace its leg"
    case .missingLegs(let legs):
      (legs.count == 1 ? "leg " : "legs ")
        + legs.map { "\($0.slot) (\($0.legId))" }.joined(separator: ", ")
        + (legs.count == 1 ? " is" : " are")
        + " missing: name every PV, or start without with --degraded"
    case .onlyCompleteLeg(let legs, let present):
      (legs.count == 1 ? "leg " : "legs ")
        + legs.map { "\($0.slot) (\($0.legId))" }.joined(separator: ", ")
        + (legs.count == 1 ? " is" : " are") + " missing and alone had all data: the log is in "
        + "memory, so what \(list(present)) had not yet got would be lost for good. Name the missing "
        + "PV; to give its data up, add --choose-leg with the PV that is to count"
    case .nothingOnline(let paths):
      "none of the PVs holds current data: \(list(paths)); name those that were online last"
    }
  }

  private func list(_ paths: [String]) -> String { paths.joined(separator: ", ") }

  private func describe(_ generation: Generation) -> String {
    "generation \(generation.counter) (\(generation.id.short))"
  }
}
