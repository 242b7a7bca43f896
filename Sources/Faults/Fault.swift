// A fault as a value: where, when, what. The same words for the live server and the simulator.
//
// This room decides; it performs nothing. Whoever performs the I/O of a leg asks `FaultSet.decide`
// before each one and does what the outcome says.
//
// Not here yet: corrupt, torn, drop, misdirect, stale-read, throttle.

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

/// What happens to an I/O that a fault hits.
public enum FaultAction: BitwiseCopyable, Hashable, Sendable {
  /// It fails with this errno; nothing is said about what of a write reached the leg.
  case error(errno: Int32)
  /// It takes so much longer: uniform between the two, in nanoseconds.
  case delay(minNanoseconds: UInt64, maxNanoseconds: UInt64)
  /// It does not complete until the fault is released.
  case hang
  /// Reads of the sectors fail (EIO) until they are rewritten.
  case badSector
  /// Writes and zeroes fail with ENOSPC.
  case full
  /// Everything fails: the device is gone (ENODEV).
  case offline
}

/// When a fault applies to an I/O that it selects.
public enum FaultTrigger: BitwiseCopyable, Hashable, Sendable {
  /// Each time.
  case always
  /// Each time with this probability, in millionths.
  case probability(millionths: UInt32)
  /// Only the nth selected I/O, counted from 1.
  case nth(UInt64)
}

/// A fault.
public struct Fault: Hashable, Sendable {
  /// Names it for `list`, `remove` and `release`.
  public var name: String
  /// The leg.
  public var leg: LegSlot
  /// Kinds of I/O.
  public var operations: FaultOperations
  /// Bytes of the exported device; nil: everything, labels and region map too.
  public var range: ByteRange?
  /// When.
  public var trigger: FaultTrigger
  /// How many times at most; nil: no limit.
  public var countMax: UInt64?
  /// From then on it no longer applies; nil: no limit.
  public var until: Instant?
  /// What.
  public var action: FaultAction

  /// Describes a fault.
  public init(
    name: String, leg: LegSlot, operations: FaultOperations = .all, range: ByteRange? = nil,
    trigger: FaultTrigger = .always, countMax: UInt64? = nil, until: Instant? = nil,
    action: FaultAction
  ) {
    self.name = name
    self.leg = leg
    self.operations = operations
    self.range = range
    self.trigger = trigger
    self.countMax = countMax
    self.until = until
    self.action = action
  }
}

/// What is to be done with an I/O.
public enum FaultOutcome: BitwiseCopyable, Hashable, Sendable {
  /// Nothing unusual.
  case none
  /// Complete it with this errno.
  case error(errno: Int32)
  /// Complete it so many nanoseconds later.
  case delay(nanoseconds: UInt64)
  /// Hold it until the fault is removed.
  case hang
}
