// The member table: what the label says of each slot.

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
  /// Counter of the first generation that had it offline, kept while it stays offline for
  /// whatever reason; 0 if it never was. A leg that comes online keeps the number until the next
  /// change of its state: a label of its own older than that is an ancestor, not a stranger.
  public var offlineSince: UInt64

  /// Describes a member.
  @inlinable
  public init(
    legId: Identifier, state: MemberState, isWriteMostly: Bool = false, isSyncing: Bool = false,
    offlineSince: UInt64 = 0
  ) {
    self.legId = legId
    self.state = state
    self.isWriteMostly = isWriteMostly
    self.isSyncing = isSyncing
    self.offlineSince = offlineSince
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
