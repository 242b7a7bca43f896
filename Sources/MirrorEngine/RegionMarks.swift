// The region map at a glance: a few marks for many regions. Reads only.

import Base
import MirrorFormat

/// What is to be said of some neighbouring regions; of several the worst.
public enum RegionMark: UInt8, Comparable, Sendable {
  /// Never written.
  case unwritten
  /// Equal on all legs.
  case clean
  /// Written lately: the legs may differ by a write that is not known flushed.
  case dirty
  /// The legs may differ since a crash.
  case unresolved
  /// Some member lacks something.
  case stale

  /// The milder mark is less.
  public static func < (left: RegionMark, right: RegionMark) -> Bool {
    left.rawValue < right.rawValue
  }
}

extension Engine {
  /// At most `countMax` marks for the whole device, each for the same number of regions (the last for
  /// fewer); and that number. Cost: one pass over the region map.
  public func regionMarks(countMax: Int) -> (marks: [RegionMark], regionsPerMark: Int) {
    let regions = map.layout.regionCount
    let share = (regions + max(countMax, 1) - 1) / max(countMax, 1)
    var members = LegSet.none
    for index in 0..<LegSlot.count
    where legs[index].phase != .vacant && legs[index].phase != .spare
      && !(legs[index].phase == .offline && legs[index].offlineState == .removed)
    {
      members.insert(LegSlot(index))
    }
    var marks: [RegionMark] = []
    marks.reserveCapacity((regions + share - 1) / share)
    var first = 0
    while first < regions {
      var worst = RegionMark.unwritten
      for region in first..<min(first + share, regions) {
        worst = max(worst, mark(region, members))
      }
      marks.append(worst)
      first += share
    }
    return (marks, share)
  }

  private func mark(_ region: Int, _ members: LegSet) -> RegionMark {
    if map.isUnwritten(region) { return .unwritten }
    if !map.stale(region).intersection(members).isEmpty { return .stale }
    if map.unresolved.contains(region) { return .unresolved }
    return map.hasIntent(region) ? .dirty : .clean
  }
}
