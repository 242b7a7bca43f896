// What the engine is started with: the outcome of assembly, and the options.

import Base
import MirrorFormat

/// A leg that takes part from the start.
public struct LegStart: Sendable {
  /// Its place.
  public var slot: LegSlot
  /// The copy (0 or 1) that holds its newest label; the next one goes into the other.
  public var labelCopy: Int

  /// Describes a leg.
  public init(slot: LegSlot, labelCopy: Int) {
    self.slot = slot
    self.labelCopy = labelCopy
  }
}

/// The outcome of assembly and the options of the start.
public struct EngineStart: Sendable {
  /// Identity of the mirror.
  public var setId: Identifier
  /// Its name.
  public var name: String
  /// Where things stand on every PV.
  public var layout: Layout
  /// Whether the region map is kept on disk.
  public var logKind: LogKind
  /// The head's history.
  public var lineage: Lineage
  /// The head's table, 8 entries. A member listed online that is not in `legs` must have been
  /// turned into `missing` by the caller (a degraded start).
  public var members: [Member]
  /// The legs that are online from the start.
  public var legs: [LegStart]
  /// The spares that are present; absent ones stay in the table.
  public var spares: [LegStart] = []
  /// Sequence for the next label, above all that are there.
  public var nextLabelSequence: UInt64
  /// The elected map, one word per region. Where `intent` is, members that the head calls offline are
  /// stale already; those of `lost` are not, that holds only under the next generation.
  public var words: [UInt16]
  /// Highest sequence per page.
  public var pageSequences: [UInt64]
  /// Per page, bit n: copy 1 holds the newest image on slot n (else copy 0).
  public var pageCopies: [UInt8]
  /// Pages that are not identical on all online legs.
  public var pagesToRewrite: [Bool]
  /// Pages of which some copy on a leg that is online from the start calls regions unwritten; empty
  /// if there are none.
  public var unwrittenPages: [Bool] = []
  /// Members that the head lists online and that are not in `legs` (a degraded start, a chosen leg): a
  /// new generation says so before anything is acked.
  public var lost: LegSet
  /// When the mirror was made, seconds since 1970; copied into every label.
  public var createdSeconds: UInt64
  /// What the clock on the wall says at the start, seconds since 1970; 0: unknown. Labels tell by it
  /// when they were written.
  public var wallSeconds: UInt64 = 0
  /// Limits of resync, from the label.
  public var resyncMinBytesPerSecond: UInt64
  /// 0: unlimited.
  public var resyncMaxBytesPerSecond: UInt64
  /// Copying waits for a command, as when the label was written.
  public var isResyncPaused = false
  /// Nothing at all is written, not even labels.
  public var isReadOnly = false
  /// How legs are chosen.
  public var readPolicy = ReadPolicy.adaptive
  /// Reads that a leg owes for too long are sent to a second leg.
  public var isHedging = true
  /// A leg that does not answer for so long fails.
  public var legTimeoutNanoseconds: UInt64 = 8 * Nanoseconds.second
  /// Requests in the engine at once, at most.
  public var requestsMax = 4096
  /// Tests only: the barrier that is taken away.
  public var removedBarrier: Barrier?
  /// Where generation ids come from: 64 random bits in production.
  public var seed: UInt64

  /// Describes a start with the default options.
  public init(
    setId: Identifier, name: String, layout: Layout, logKind: LogKind, lineage: Lineage,
    members: [Member], legs: [LegStart], nextLabelSequence: UInt64, words: [UInt16],
    pageSequences: [UInt64],
    pageCopies: [UInt8], pagesToRewrite: [Bool], lost: LegSet, createdSeconds: UInt64,
    resyncMinBytesPerSecond: UInt64, resyncMaxBytesPerSecond: UInt64, seed: UInt64
  ) {
    self.setId = setId
    self.name = name
    self.layout = layout
    self.logKind = logKind
    self.lineage = lineage
    self.members = members
    self.legs = legs
    self.nextLabelSequence = nextLabelSequence
    self.words = words
    self.pageSequences = pageSequences
    self.pageCopies = pageCopies
    self.pagesToRewrite = pagesToRewrite
    self.lost = lost
    self.createdSeconds = createdSeconds
    self.resyncMinBytesPerSecond = resyncMinBytesPerSecond
    self.resyncMaxBytesPerSecond = resyncMaxBytesPerSecond
    self.seed = seed
  }
}
