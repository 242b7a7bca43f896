// What assembly is given and what it decides, as values.

import Base
import MirrorFormat

/// A PV that was offered for assembly.
public struct AssemblyCandidate: Equatable, Sendable {
  /// The label that the PV goes by, or why it has none.
  public enum Content: Equatable, Sendable {
    /// The elected label.
    case label(ElectedLabel)
    /// A clause that goes after "PV /path: ".
    case noLabel(String)
    /// Made by a later version: a clause as above.
    case laterVersion(String)
  }

  /// Its path, for messages and `--choose-leg`.
  public var path: String
  /// What it carries.
  public var content: Content
  /// Size of the PV.
  public var legBytes: UInt64
  /// What its I/O must be a multiple of.
  public var logicalBlockBytes: UInt32

  /// Describes a PV.
  public init(path: String, content: Content, legBytes: UInt64, logicalBlockBytes: UInt32) {
    self.path = path
    self.content = content
    self.legBytes = legBytes
    self.logicalBlockBytes = logicalBlockBytes
  }

  /// Describes a PV by what reading its label gave.
  public init(
    path: String, label: Result<ElectedLabel, FormatError>, legBytes: UInt64,
    logicalBlockBytes: UInt32
  ) {
    let content: Content =
      switch label {
      case .success(let elected): .label(elected)
      case .failure(let error):
        error.isFromLaterVersion
          ? .laterVersion(error.description) : .noLabel(error.description)
      }
    self.init(
      path: path, content: content, legBytes: legBytes, logicalBlockBytes: logicalBlockBytes)
  }
}

/// What the administrator decided beforehand.
public struct AssemblyOptions: Equatable, Sendable {
  /// Legs that the head lists online may be absent.
  public var isDegradedAllowed: Bool
  /// The leg (path, leg id or slot number) whose history wins a split brain.
  public var chooseLeg: String?

  /// Describes the options.
  public init(isDegradedAllowed: Bool = false, chooseLeg: String? = nil) {
    self.isDegradedAllowed = isDegradedAllowed
    self.chooseLeg = chooseLeg
  }
}

/// What a leg that is present will be.
public enum AssemblyRole: UInt8, CaseIterable, Sendable {
  /// Gets every write from the start; its region map is trusted.
  case online
  /// Was missing, is there again: comes back by itself with the regions that it missed.
  case returning
  /// Failed or removed: stays offline until a command brings it back.
  case offline
  /// Its own history lost by `--choose-leg`: comes back with every region stale.
  case diverged
  /// Waits to replace a failed leg.
  case spare
}

/// A leg that is present.
public struct AssemblyLeg: Equatable, Sendable {
  /// Its place in the head's member table.
  public var slot: LegSlot
  /// Index of its PV in the candidates.
  public var candidate: Int
  /// Path of its PV.
  public var path: String
  /// What it will be.
  public var role: AssemblyRole
  /// Its own label: which copy to write next, and what it last knew.
  public var label: ElectedLabel
}

/// How to start the mirror.
public struct AssemblyPlan: Equatable, Sendable {
  /// The mirror.
  public var setId: Identifier
  /// Its name.
  public var name: String
  /// The head's label: everything that all labels share is taken from it.
  public var head: Label
  /// The legs that are present, by slot; 8 entries.
  public var legs: [AssemblyLeg?]
  /// Legs that get every write from the start.
  public var online: LegSet
  /// Legs that the head lists online and that are absent or diverged: offline from the start
  /// (state `missing`), which the next generation has to record.
  public var lost: LegSet
  /// Every online leg's label has the head's generation and says clean.
  public var wasClean: Bool
  /// With the log in memory: the leg whose data counts from now on although it had not everything,
  /// because the legs that had are absent and were given up by `--choose-leg`.
  public var insistedOn: LegSlot?
  /// A label says that this version must not write.
  public var isReadOnly: Bool
  /// Sequence for the next label on every leg: above all that are there.
  public var nextLabelSequence: UInt64
  /// The reasoning, one line per step.
  public var explanation: [String]

  /// Where things stand on every PV.
  public var layout: Layout { head.layout }
  /// Where the region map lives.
  public var logKind: LogKind { head.logKind }
  /// The head's generation.
  public var lineage: Lineage { head.lineage }
  /// The head's member table, as it stands: `lost` legs are still listed online.
  public var members: [Member] { head.members }
  /// A new generation must be durable before the first write is acked.
  public var isDegradedStart: Bool { !lost.isEmpty }

  /// Slots that hold a leg which gets no writes after the start.
  public var offline: LegSet {
    var set = lost
    for (index, member) in members.enumerated() where member.state.isOffline {
      set.insert(LegSlot(index))
    }
    return set
  }

  /// Slots that hold a leg with data: neither vacant nor spare.
  public var configured: LegSet {
    var set = LegSet.none
    for (index, member) in members.enumerated()
    where member.state != .vacant && member.state != .spare {
      set.insert(LegSlot(index))
    }
    return set
  }

  /// Legs of which the head does not say that they have everything.
  public var incomplete: LegSet {
    var set = offline
    for (index, member) in members.enumerated() where member.isSyncing {
      set.insert(LegSlot(index))
    }
    return set
  }
}
