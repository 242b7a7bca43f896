// What comes out of `FaultSet.decide`: everything that the performer of the I/O has to do, with all
// that was drawn, so that the live server and the simulator do the same thing.

import Base

/// Errno values that faults give by themselves.
public enum FaultErrno {
  /// EIO of Linux.
  public static let io: Int32 = 5
  /// ENODEV of Linux.
  public static let noDevice: Int32 = 19
  /// ENOSPC of Linux.
  public static let noSpace: Int32 = 28
}

/// An I/O of a leg, as faults see it.
public struct FaultIO: BitwiseCopyable, Hashable, Sendable {
  /// Its kind.
  public var operation: FaultOperation
  /// The slot of the leg.
  public var leg: LegSlot
  /// Whether it is of labels or the region map; a flush is neither that nor data.
  public var isMetadata: Bool
  /// Data: bytes of the exported device. Metadata: bytes of the PV. Flush: empty.
  public var range: ByteRange

  /// Describes an I/O of data, or of metadata.
  public init(
    _ operation: FaultOperation, leg: LegSlot, range: ByteRange, isMetadata: Bool = false
  ) {
    self.operation = operation
    self.leg = leg
    self.range = range
    self.isMetadata = isMetadata
  }

  /// A flush.
  public static func flush(leg: LegSlot) -> FaultIO {
    FaultIO(.flush, leg: leg, range: ByteRange(offset: 0, count: 0))
  }
}

/// Bits to invert in an I/O: as many as drawn, all different.
public struct FaultFlips: BitwiseCopyable, Hashable, Sendable {
  /// Number of bits.
  public var count: Int
  /// Bytes of the I/O (offsets in its buffer) that may be changed.
  public var part: ByteRange
  /// Fixes which bits.
  public var seed: UInt64

  /// The `index`th bit: offset of its byte in the I/O's buffer, and a mask with that bit set.
  /// - Precondition: `index` is in `0..<count`.
  public func bit(_ index: Int) -> (byte: UInt64, mask: UInt8) {
    precondition(index >= 0 && index < count, "no such bit")
    // One bit out of each of `count` equal shares, so that no two are the same.
    let bits = part.count * 8
    let first = bits / UInt64(count) * UInt64(index)
    let end = index + 1 == count ? bits : bits / UInt64(count) * UInt64(index + 1)
    var random = PRNG(seed: seed &+ UInt64(index))
    let place = first + random.below(end - first)
    return (part.offset + place / 8, 1 << UInt8(place % 8))
  }

  /// Inverts the bits in a whole I/O's bytes.
  public func apply(to bytes: inout [UInt8]) {
    for index in 0..<count {
      let (byte, mask) = bit(index)
      bytes[Int(byte)] ^= mask
    }
  }
}

/// What is done instead of, or to, an I/O.
public enum FaultEffect: BitwiseCopyable, Hashable, Sendable {
  /// Nothing unusual.
  case none
  /// Complete it with this errno, without doing anything.
  case error(errno: Int32)
  /// Hold it until `FaultSet.isHolding` of this fault is false, then do it as usual.
  case hang(fault: UInt32)
  /// Invert bits: of a read in what it returns, of a write in what reaches the leg.
  case corrupt(FaultFlips)
  /// Only so many leading sectors of 512 bytes reach the leg (always fewer than all); then complete
  /// it with this errno (0: as if it were done).
  case torn(sectors: UInt32, errno: Int32)
  /// Complete it without an error and without doing anything.
  case drop
  /// Do it at this offset of the exported device instead.
  case misdirect(offset: UInt64)
  /// Return what was there before the last write, for these bytes of the I/O (offsets in its
  /// buffer).
  case stale(part: ByteRange)
}

/// What is to be done with an I/O: first wait, then the effect.
public struct FaultDecision: BitwiseCopyable, Hashable, Sendable {
  /// So much later than usual.
  public var delayNanoseconds: UInt64
  /// What then.
  public var effect: FaultEffect

  /// A decision.
  public init(delayNanoseconds: UInt64 = 0, effect: FaultEffect = .none) {
    self.delayNanoseconds = delayNanoseconds
    self.effect = effect
  }

  /// Nothing unusual.
  public static let none = FaultDecision()
}

/// A power cut: which legs lose unflushed writes, and which of them.
///
/// A leg whose cache is volatile has, per sector of 512 bytes, the states that unflushed writes
/// overwrote, oldest first. `survivor` chooses one of them or the newest, each with the same
/// probability; for one leg in four everything is taken back.
public struct PowerCut: BitwiseCopyable, Hashable, Sendable {
  /// Legs whose caches lose power; the server dies in any case.
  public var legs: LegSet
  /// Fixes what is lost.
  public var seed: UInt64

  /// Describes a power cut.
  public init(legs: LegSet, seed: UInt64) {
    self.legs = legs
    self.seed = seed
  }

  /// Which state of a sector is there after the cut: `0..<overwritten` is an overwritten one
  /// (0: what was last flushed), `overwritten` is the newest, which is as good as flushed.
  public func survivor(leg: LegSlot, sector: UInt64, overwritten: Int) -> Int {
    guard legs.contains(leg), overwritten > 0 else { return overwritten }
    var ofLeg = PRNG(seed: seed ^ (UInt64(leg.raw) + 1) << 56)
    if ofLeg.chance(1, in: 4) { return 0 }
    var random = PRNG(seed: ofLeg.next() &+ sector)
    return Int(random.below(UInt64(overwritten) + 1))
  }
}
