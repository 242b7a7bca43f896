// Time as a value: the cores never ask for the time, they are told.

/// A point in monotonic time, in nanoseconds since an origin the caller chose (boot in
/// production, the start of the run in the simulator).
public struct Instant: BitwiseCopyable, Equatable, Hashable, Comparable, Sendable {
  /// Nanoseconds since the origin.
  public var nanoseconds: UInt64

  /// Wraps a nanosecond count.
  @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// The origin.
  @inlinable public static var zero: Instant { Instant(nanoseconds: 0) }

  /// Earlier is less.
  @inlinable
  public static func < (left: Instant, right: Instant) -> Bool {
    left.nanoseconds < right.nanoseconds
  }

  /// The instant `nanoseconds` later.
  @inlinable
  public func advanced(byNanoseconds nanoseconds: UInt64) -> Instant {
    Instant(nanoseconds: self.nanoseconds &+ nanoseconds)
  }

  /// Nanoseconds from `earlier` to this instant; 0 if `earlier` is later.
  @inlinable
  public func nanoseconds(since earlier: Instant) -> UInt64 {
    nanoseconds > earlier.nanoseconds ? nanoseconds &- earlier.nanoseconds : 0
  }
}

/// Durations in nanoseconds, spelled out.
public enum Nanoseconds {
  /// One microsecond.
  @inlinable public static var microsecond: UInt64 { 1_000 }
  /// One millisecond.
  @inlinable public static var millisecond: UInt64 { 1_000_000 }
  /// One second.
  @inlinable public static var second: UInt64 { 1_000_000_000 }
}
