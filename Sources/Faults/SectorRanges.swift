// A set of bytes as sorted, disjoint ranges of whole sectors: what is still bad of a leg.

import Base

/// The size of a sector, below which no disk tears or loses a write.
public enum FaultSector {
  /// Bytes.
  public static let bytes: UInt64 = 512

  /// `range` widened to whole sectors.
  static func cover(_ range: ByteRange) -> ByteRange {
    let first = range.offset / bytes * bytes
    let last = range.end % bytes == 0 ? range.end : (range.end / bytes + 1) * bytes
    return ByteRange(offset: first, count: last - first)
  }
}

/// Whole sectors, as ranges in ascending order.
struct SectorRanges: Sendable {
  private(set) var ranges: [ByteRange]

  /// The sectors that `range` touches.
  init(_ range: ByteRange) {
    ranges = range.count == 0 ? [] : [FaultSector.cover(range)]
  }

  var byteCount: UInt64 { ranges.reduce(0) { $0 + $1.count } }

  /// Whether one of the sectors is touched. Logarithmic.
  func overlaps(_ range: ByteRange) -> Bool {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].end <= range.offset { low = middle + 1 } else { high = middle }
    }
    return low < ranges.count && ranges[low].overlaps(range)
  }

  /// Takes the sectors out that `range` covers wholly.
  mutating func subtract(_ range: ByteRange) {
    let first = Bytes.alignUp(range.offset, to: FaultSector.bytes)
    let end = Bytes.alignDown(range.end, to: FaultSector.bytes)
    guard first < end else { return }
    let whole = ByteRange(offset: first, count: end - first)
    guard overlaps(whole) else { return }
    var left: [ByteRange] = []
    for bad in ranges {
      guard bad.overlaps(whole) else {
        left.append(bad)
        continue
      }
      if bad.offset < first {
        left.append(ByteRange(offset: bad.offset, count: first - bad.offset))
      }
      if end < bad.end { left.append(ByteRange(offset: end, count: bad.end - end)) }
    }
    ranges = left
  }
}
