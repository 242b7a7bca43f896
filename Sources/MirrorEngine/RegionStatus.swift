// What the map says of a range, for clients that ask (block status).

import Base
import MirrorFormat

/// What the mirror has to make good in a region; the bits of the metadata context
/// `x-nbdmirror:state`, which keep their meaning for ever.
public struct RegionStatus: OptionSet, Equatable, Sendable, BitwiseCopyable {
  /// The bits as clients see them.
  public let rawValue: UInt32
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// A write may be in flight, or not yet known to be flushed.
  @inlinable public static var dirty: Self { Self(rawValue: 1 << 0) }
  /// At least one member, online or not, lacks the newest data.
  @inlinable public static var stale: Self { Self(rawValue: 1 << 1) }
  /// The legs may differ after a crash.
  @inlinable public static var unresolved: Self { Self(rawValue: 1 << 2) }
  /// Never written: reads as zeros without asking a leg.
  @inlinable public static var unwritten: Self { Self(rawValue: 1 << 3) }
}

/// A part of the device in which status and good legs are the same.
public struct StatusRun: Equatable, Sendable, BitwiseCopyable {
  /// The part.
  public var range: ByteRange
  /// What the map says of it.
  public var status: RegionStatus
  /// Online legs that have its data; all hold the same unless it is unresolved.
  public var good: LegSet
}

extension Engine {
  /// Where the device's first byte stands on every leg, in bytes.
  public var dataOffset: UInt64 { start.layout.dataOffset }

  /// The run at the start of `range`, not beyond its end.
  /// - Precondition: `range` is not empty and inside the device.
  public func statusRun(at range: ByteRange) -> StatusRun {
    let regions = map.regions(of: range)
    let (status, good) = regionStatus(regions.lowerBound)
    var last = regions.lowerBound
    while last < regions.upperBound, regionStatus(last + 1) == (status, good) { last += 1 }
    let end = min(range.end, map.range(of: last).end)
    return StatusRun(
      range: ByteRange(offset: range.offset, count: end - range.offset), status: status, good: good)
  }

  private func regionStatus(_ region: Int) -> (RegionStatus, LegSet) {
    if map.isUnwritten(region) { return (.unwritten, online) }
    let stale = map.stale(region)
    var status: RegionStatus = []
    if map.hasIntent(region) { status.insert(.dirty) }
    if !stale.isEmpty { status.insert(.stale) }
    if map.unresolved.contains(region) { status.insert(.unresolved) }
    return (status, online.subtracting(stale))
  }
}
