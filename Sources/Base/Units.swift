// Units: the quantities every room speaks of, as types of their own.
//
// A slot is not a region and a region is not a byte offset; the compiler keeps them apart. Byte
// offsets and counts are UInt64 inside a `ByteRange`, whose arithmetic is checked.

/// A half-open range of bytes of the exported device (or of a leg, where said so).
public struct ByteRange: BitwiseCopyable, Equatable, Hashable, Sendable, CustomStringConvertible {
  /// First byte.
  public var offset: UInt64
  /// Number of bytes.
  public var count: UInt64

  /// - Precondition: `offset + count` does not overflow.
  @inlinable
  public init(offset: UInt64, count: UInt64) {
    precondition(count <= UInt64.max - offset, "a byte range ends beyond 2^64")
    self.offset = offset
    self.count = count
  }

  /// First byte after the range.
  @inlinable public var end: UInt64 { offset &+ count }

  /// Whether the two ranges share a byte. Empty ranges share none.
  @inlinable
  public func overlaps(_ other: ByteRange) -> Bool {
    offset < other.end && other.offset < end && count > 0 && other.count > 0
  }

  /// Whether all of `other` lies inside.
  @inlinable
  public func contains(_ other: ByteRange) -> Bool {
    offset <= other.offset && other.end <= end
  }

  /// `[offset, end)` for messages.
  public var description: String { "[\(offset), \(end))" }
}

/// Index of a region of the mirror; a region is `regionBytes` long (the last may be shorter).
public struct RegionIndex: BitwiseCopyable, Equatable, Hashable, Comparable, Sendable {
  /// Number of the region, from 0.
  public var raw: Int

  /// Wraps a region number.
  @inlinable public init(_ raw: Int) { self.raw = raw }

  /// Orders by position on the device.
  @inlinable
  public static func < (left: RegionIndex, right: RegionIndex) -> Bool { left.raw < right.raw }
}

/// Place of a leg in the mirror: 0...7. The bit of a slot in a region word is `1 << raw`.
public struct LegSlot:
  BitwiseCopyable, Equatable, Hashable, Comparable, Sendable, CustomStringConvertible
{
  /// How many slots a mirror has.
  @inlinable public static var count: Int { 8 }

  /// Number of the slot, 0...7.
  public var raw: UInt8

  /// - Precondition: `raw` is 0...7.
  @inlinable
  public init(_ raw: Int) {
    precondition(raw >= 0 && raw < LegSlot.count, "a mirror has slots 0 to 7")
    self.raw = UInt8(truncatingIfNeeded: raw)
  }

  /// The number as an array index.
  @inlinable public var index: Int { Int(raw) }

  /// Orders by number.
  @inlinable
  public static func < (left: LegSlot, right: LegSlot) -> Bool { left.raw < right.raw }

  /// The number.
  public var description: String { "\(raw)" }
}

/// A set of slots, one bit each: bit n is slot n, as in the region word.
public struct LegSet: BitwiseCopyable, Equatable, Hashable, Sendable, CustomStringConvertible {
  /// The bits.
  public var bits: UInt8

  /// Wraps the bits.
  @inlinable public init(bits: UInt8) { self.bits = bits }

  /// The set of one slot.
  @inlinable public init(_ slot: LegSlot) { bits = 1 << slot.raw }

  /// No slot.
  @inlinable public static var none: LegSet { LegSet(bits: 0) }

  /// Whether no slot is in the set.
  @inlinable public var isEmpty: Bool { bits == 0 }

  /// Number of slots in the set.
  @inlinable public var count: Int { bits.nonzeroBitCount }

  /// Lowest slot of the set.
  @inlinable
  public var first: LegSlot? { bits == 0 ? nil : LegSlot(bits.trailingZeroBitCount) }

  /// Whether `slot` is in the set.
  @inlinable public func contains(_ slot: LegSlot) -> Bool { bits & (1 << slot.raw) != 0 }

  /// Whether every slot of `other` is in the set.
  @inlinable public func isSuperset(of other: LegSet) -> Bool { other.bits & ~bits == 0 }

  /// Puts `slot` into the set.
  @inlinable public mutating func insert(_ slot: LegSlot) { bits |= 1 << slot.raw }

  /// Takes `slot` out of the set.
  @inlinable public mutating func remove(_ slot: LegSlot) { bits &= ~(1 << slot.raw) }

  /// Slots of both.
  @inlinable
  public func intersection(_ other: LegSet) -> LegSet { LegSet(bits: bits & other.bits) }

  /// Slots of either.
  @inlinable public func union(_ other: LegSet) -> LegSet { LegSet(bits: bits | other.bits) }

  /// Slots of this set that are not in `other`.
  @inlinable
  public func subtracting(_ other: LegSet) -> LegSet { LegSet(bits: bits & ~other.bits) }

  /// Takes the lowest slot out and returns it: the loop over a set without an iterator.
  @inlinable
  public mutating func popFirst() -> LegSlot? {
    guard let slot = first else { return nil }
    remove(slot)
    return slot
  }

  /// The slots, comma separated.
  public var description: String {
    var rest = self
    var text = "{"
    while let slot = rest.popFirst() { text += (text == "{" ? "" : ",") + "\(slot)" }
    return text + "}"
  }
}

/// Byte multiples, binary as everywhere in this project.
public enum Bytes {
  /// 1024 bytes.
  @inlinable public static var kibi: UInt64 { 1 << 10 }
  /// 1024 KiB.
  @inlinable public static var mebi: UInt64 { 1 << 20 }
  /// 1024 MiB.
  @inlinable public static var gibi: UInt64 { 1 << 30 }
  /// 1024 GiB.
  @inlinable public static var tebi: UInt64 { 1 << 40 }

  /// `value` rounded down to a multiple of `alignment`, a power of two.
  @inlinable
  public static func alignDown(_ value: UInt64, to alignment: UInt64) -> UInt64 {
    value & ~(alignment &- 1)
  }

  /// `value` rounded up to a multiple of `alignment`, a power of two.
  /// - Precondition: the result fits 64 bits.
  @inlinable
  public static func alignUp(_ value: UInt64, to alignment: UInt64) -> UInt64 {
    (value + (alignment &- 1)) & ~(alignment &- 1)
  }
}
