// One word per region: which legs are stale there, and whether a write may be in flight.

import Base

/// The word of one region, on disk and in memory.
///
/// Arrays hold the raw `UInt16`; this type names the bits.
public struct RegionWord: BitwiseCopyable, Hashable, Sendable {
  /// Bits 0...7: slots whose leg lacks data of this region.
  @inlinable public static var staleMask: UInt16 { 0x00ff }
  /// Bit 14: never written; reads give zeros without I/O.
  @inlinable public static var unwritten: UInt16 { 1 << 14 }
  /// Bit 15: legs may differ: writes in flight, or not yet known flushed.
  @inlinable public static var intent: UInt16 { 1 << 15 }
  /// The bits that have a meaning; the others are 0 and ignored.
  @inlinable public static var known: UInt16 { staleMask | unwritten | intent }

  /// The bits.
  public var raw: UInt16

  /// Wraps the bits.
  @inlinable public init(raw: UInt16) { self.raw = raw }

  /// The stale legs.
  @inlinable public var stale: LegSet {
    get { LegSet(bits: UInt8(truncatingIfNeeded: raw)) }
    set { raw = raw & ~RegionWord.staleMask | UInt16(newValue.bits) }
  }

  /// Whether writes may be in flight.
  @inlinable public var hasIntent: Bool { raw & RegionWord.intent != 0 }

  /// Whether the region was never written.
  @inlinable public var isUnwritten: Bool { raw & RegionWord.unwritten != 0 }
}
