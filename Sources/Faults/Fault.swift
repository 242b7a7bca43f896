// A fault as a value: where, when, what. The same words for the live server and the simulator.
//
// This room decides; it performs nothing. Whoever performs the I/O of a leg asks `FaultSet.decide`
// before each one and does what the decision says. Nothing here knows a clock: the time is an
// argument, and all randomness comes from seeds.

import Base

/// Kinds of I/O, as faults select them.
public enum FaultOperation: UInt8, CaseIterable, BitwiseCopyable, Sendable {
  /// Reads.
  case read
  /// Writes.
  case write
  /// Flushes.
  case flush
  /// Zeroes and discards.
  case zero
}

/// A set of kinds of I/O.
public struct FaultOperations: OptionSet, BitwiseCopyable, Hashable, Sendable {
  /// One bit per kind.
  public var rawValue: UInt8

  /// Wraps the bits.
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// The set of one kind.
  public init(_ operation: FaultOperation) { rawValue = 1 << operation.rawValue }

  /// Reads.
  public static let read = FaultOperations(.read)
  /// Writes.
  public static let write = FaultOperations(.write)
  /// Flushes.
  public static let flush = FaultOperations(.flush)
  /// Zeroes and discards.
  public static let zero = FaultOperations(.zero)
  /// Every kind.
  public static let all: FaultOperations = [.read, .write, .flush, .zero]
}

/// Where on a leg a fault sits.
public enum FaultArea: BitwiseCopyable, Hashable, Sendable {
  /// Everywhere: data, labels, region map, and flushes, which have no place.
  case everywhere
  /// The data area only.
  case data
  /// Labels and the region map only.
  case metadata
  /// These bytes of the exported device; an I/O that touches one of them is selected.
  case range(ByteRange)
}

/// How long an I/O is held up.
public enum FaultDelay: BitwiseCopyable, Hashable, Sendable {
  /// Always so long, in nanoseconds.
  case fixed(UInt64)
  /// Uniform between the two (both included), in nanoseconds.
  case uniform(least: UInt64, most: UInt64)
  /// Exponential with this mean, in nanoseconds; at most 45 times the mean.
  case exponential(mean: UInt64)
}

/// What happens to an I/O that a fault hits.
///
/// `corrupt` and `stale-read` change only the bytes inside the fault's range; all others hit the
/// whole I/O.
public enum FaultAction: BitwiseCopyable, Hashable, Sendable {
  /// It fails with this errno. What of a write reached the leg is not said; the live server writes
  /// nothing of it.
  case error(errno: Int32)
  /// It takes so much longer.
  case delay(FaultDelay)
  /// It does not complete until the fault is released, is removed or ends.
  case hang
  /// Reads of these sectors fail (EIO) until the sectors are rewritten. Needs a range, which is
  /// widened to whole sectors of 512 bytes.
  case badSector
  /// So many bits of what is read or written are inverted.
  case corrupt(bits: UInt16)
  /// Only leading sectors of 512 bytes of a write reach the leg: as many as said (nil: drawn, fewer
  /// than all). With an errno other than 0 the write also fails, else it is acked.
  case torn(sectors: UInt32?, errno: Int32)
  /// It is acked and never done. Of a flush: nothing is flushed.
  case drop
  /// A read or write goes to another place of the leg's data area: to this offset of the exported
  /// device (nil: drawn, a multiple of 4096).
  case misdirect(to: UInt64?)
  /// A read returns what was there before the last write since the fault was added.
  case staleRead
  /// Writes and zeroes fail with ENOSPC.
  case full
  /// No faster than this; each limit is optional.
  case throttle(operationsPerSecond: UInt64?, bytesPerSecond: UInt64?)
  /// Everything fails: the device is gone (ENODEV).
  case offline
  /// Harms nothing by itself: the leg remembers what unflushed writes overwrote, so that a power
  /// cut can take them back.
  case volatileCache
}

extension FaultAction {
  /// The kind as a word.
  public var kind: FaultKind {
    switch self {
    case .error: .error
    case .delay: .delay
    case .hang: .hang
    case .badSector: .badSector
    case .corrupt: .corrupt
    case .torn: .torn
    case .drop: .drop
    case .misdirect: .misdirect
    case .staleRead: .staleRead
    case .full: .full
    case .throttle: .throttle
    case .offline: .offline
    case .volatileCache: .volatileCache
    }
  }
}

/// The kinds of faults, by the words of the command line.
public enum FaultKind: String, CaseIterable, Sendable {
  /// `FaultAction.error`
  case error
  /// `FaultAction.delay`
  case delay
  /// `FaultAction.hang`
  case hang
  /// `FaultAction.badSector`
  case badSector = "bad-sector"
  /// `FaultAction.corrupt`
  case corrupt
  /// `FaultAction.torn`
  case torn
  /// `FaultAction.drop`
  case drop
  /// `FaultAction.misdirect`
  case misdirect
  /// `FaultAction.staleRead`
  case staleRead = "stale-read"
  /// `FaultAction.full`
  case full
  /// `FaultAction.throttle`
  case throttle
  /// `FaultAction.offline`
  case offline
  /// `FaultAction.volatileCache`
  case volatileCache = "volatile-cache"

  /// What such a fault can hit; also what it hits where nothing else is said.
  public var operations: FaultOperations {
    switch self {
    case .error, .delay, .hang, .throttle, .offline: .all
    case .badSector, .staleRead: .read
    case .corrupt, .misdirect: [.read, .write]
    case .torn: .write
    case .drop: [.write, .flush, .zero]
    case .full: [.write, .zero]
    case .volatileCache: []
    }
  }

  /// Whether the kind exists in the data area only.
  var isOfDataOnly: Bool {
    switch self {
    case .badSector, .misdirect, .staleRead: true
    case .error, .delay, .hang, .corrupt, .torn, .drop, .full, .throttle, .offline,
      .volatileCache:
      false
    }
  }
}

/// When a fault hits an I/O that it selects.
public enum FaultTrigger: BitwiseCopyable, Hashable, Sendable {
  /// Each time.
  case always
  /// Each time with this probability, in millionths.
  case probability(millionths: UInt32)
  /// From the nth selected I/O on, counted from 1: that one only, or as many as `countMax` says.
  case nth(UInt64)
}

/// A fault.
public struct Fault: Hashable, Sendable {
  /// Names it for `list`, `remove` and `release`; empty: the set finds one, as `error-1`.
  public var name: String
  /// The slot of the leg.
  public var leg: LegSlot
  /// Kinds of I/O; those that the kind cannot hit are ignored.
  public var operations: FaultOperations
  /// Where.
  public var area: FaultArea
  /// When.
  public var trigger: FaultTrigger
  /// How many times at most; nil: no limit (with `nth`: once).
  public var countMax: UInt64?
  /// For so long after it was added, in nanoseconds; nil: no limit.
  public var durationNanoseconds: UInt64?
  /// Seed of all that the fault draws; nil: from the seed of the set and the name.
  public var seed: UInt64?
  /// What.
  public var action: FaultAction

  /// Describes a fault.
  public init(
    name: String = "", leg: LegSlot, operations: FaultOperations = .all,
    area: FaultArea = .everywhere, trigger: FaultTrigger = .always, countMax: UInt64? = nil,
    durationNanoseconds: UInt64? = nil, seed: UInt64? = nil, action: FaultAction
  ) {
    self.name = name
    self.leg = leg
    self.operations = operations
    self.area = area
    self.trigger = trigger
    self.countMax = countMax
    self.durationNanoseconds = durationNanoseconds
    self.seed = seed
    self.action = action
  }
}
