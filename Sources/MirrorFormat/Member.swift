// The member table: what the label says of each slot.

import Base

/// What the label says of a slot.
public enum MemberState: UInt8, CaseIterable, BitwiseCopyable, Sendable {
  /// No leg.
  case vacant = 0
  /// Gets every write.
  case online
  /// Was absent at a start; comes back by itself when it is there again.
  case missing
  /// Failed by errors or by time; comes back by command.
  case failed
  /// Taken out by command; comes back by command.
  case removed
  /// Waits to replace a failed leg.
  case spare
  /// Only in the label of that PV itself: it is being added and holds nothing yet. Such a label
  /// never speaks for the mirror; whether the PV is a leg is what the labels of the legs say.
  case adding

  /// Whether a leg stands here that gets no writes.
  @inlinable public var isOffline: Bool { self == .missing || self == .failed || self == .removed }
}

/// A slot of the member table.
public struct Member: BitwiseCopyable, Hashable, Sendable {
  /// The leg; zero if vacant.
  public var legId: Identifier
  /// Whether it gets writes, and if not why.
  public var state: MemberState
  /// Read only if nothing else can.
  public var isWriteMostly: Bool
  /// Online, but some region is or was stale since it came online: what to think of the regions
  /// of a map page that is lost. Set by the commit that brings a leg online with stale regions,
  /// cleared by a later one, after the last stale bit.
  public var isSyncing: Bool
  /// Its history was given up by `--choose-leg` or by force: a label of generation `offeredId`
  /// on it is that history. Whatever stands on it is stale.
  public var isGivenUp: Bool
  /// The leg in whose place it is: that one is removed when this one is in sync.
  public var replaces: LegSlot?
  /// The lowest counter that a generation made by this leg alone could have: one above that of
  /// the newest label that it is known to hold, 0 if none is known. For a leg that is offline this
  /// is, as a rule, the first generation without it.
  public var offlineSince: UInt64
  /// The newest generation whose label went to this leg, known to have arrived or not: with this
  /// id the leg's own label is no stranger, however long ago that was. Zero if there is none.
  public var offeredId: Identifier

  /// Describes a member.
  @inlinable
  public init(
    legId: Identifier, state: MemberState, isWriteMostly: Bool = false, isSyncing: Bool = false,
    isGivenUp: Bool = false, replaces: LegSlot? = nil, offlineSince: UInt64 = 0,
    offeredId: Identifier = .zero
  ) {
    self.legId = legId
    self.state = state
    self.isWriteMostly = isWriteMostly
    self.isSyncing = isSyncing
    self.isGivenUp = isGivenUp
    self.replaces = replaces
    self.offlineSince = offlineSince
    self.offeredId = offeredId
  }

  /// A slot without a leg.
  @inlinable public static var vacant: Member { Member(legId: .zero, state: .vacant) }
}

/// Where the region map lives between starts.
public enum LogKind: UInt8, CaseIterable, BitwiseCopyable, Sendable {
  /// On every PV: a crash costs the regions with writes in flight.
  case disk = 0
  /// In memory: an unclean stop costs a comparison of everything.
  case core = 1
}

/// Feature bits, as in ext4.
public struct Features: BitwiseCopyable, Hashable, Sendable {
  /// Who does not know one of these may use the PV; its next label drops them.
  public var compatible: UInt32
  /// Who does not know one of these may only read.
  public var readOnlyCompatible: UInt32
  /// Who does not know one of these must not use the PV.
  public var incompatible: UInt32

  /// Describes a set of features.
  @inlinable
  public init(compatible: UInt32 = 0, readOnlyCompatible: UInt32 = 0, incompatible: UInt32 = 0) {
    self.compatible = compatible
    self.readOnlyCompatible = readOnlyCompatible
    self.incompatible = incompatible
  }

  /// What this version knows: nothing beyond the base format yet.
  public static let known = Features()

  /// Whether the PV may be written by this version.
  public var allowsWriting: Bool {
    readOnlyCompatible & ~Features.known.readOnlyCompatible == 0
  }
}
