// A bounded list of ranges for people to read: what could not be copied, where legs differ.

import Base

/// A range of the exported device, and the legs that it is about.
public struct NotedRange: BitwiseCopyable, Equatable, Sendable {
  /// Bytes of the exported device.
  public var range: ByteRange
  /// The legs; none where the range is about the mirror as a whole.
  public var legs: LegSet

  /// Names a range.
  public init(range: ByteRange, legs: LegSet) {
    self.range = range
    self.legs = legs
  }
}

/// Neighbouring ranges with the same legs are one entry. Beyond `capacity` entries are only counted.
struct RangeList: ~Copyable {
  static let capacity = 64

  private(set) var entries: [NotedRange] = []
  /// Entries so far, also those that the list had no room for.
  private(set) var count: UInt64 = 0
  /// Where the last entry ends that was only counted, and its legs: it may still grow.
  private var uncounted = NotedRange(range: ByteRange(offset: 0, count: 0), legs: .none)

  init() { entries.reserveCapacity(RangeList.capacity + 1) }

  mutating func removeAll() {
    entries.removeAll(keepingCapacity: true)
    count = 0
    uncounted = NotedRange(range: ByteRange(offset: 0, count: 0), legs: .none)
  }

  func contains(_ range: ByteRange) -> Bool { entries.contains { $0.range.contains(range) } }

  /// Adds a range that no entry overlaps; true if that made a new entry in the list.
  mutating func add(_ range: ByteRange, legs: LegSet) -> Bool {
    for index in entries.indices where entries[index].legs == legs {
      if entries[index].range.end == range.offset {
        entries[index].range.count += range.count
        return false
      }
    }
    if count > UInt64(entries.count), uncounted.legs == legs, uncounted.range.end == range.offset {
      uncounted.range.count += range.count
      return false
    }
    count += 1
    guard entries.count < RangeList.capacity else {
      uncounted = NotedRange(range: range, legs: legs)
      return false
    }
    entries.append(NotedRange(range: range, legs: legs))
    return true
  }

  /// What is said of `range` holds no longer.
  mutating func subtract(_ range: ByteRange) {
    var index = 0
    while index < entries.count {
      let old = entries[index].range
      guard old.overlaps(range) else {
        index += 1
        continue
      }
      let legs = entries[index].legs
      entries.remove(at: index)
      count -= 1
      if old.offset < range.offset {
        let head = ByteRange(offset: old.offset, count: range.offset - old.offset)
        insert(NotedRange(range: head, legs: legs), at: index)
        index += 1
      }
      if old.end > range.end {
        let tail = ByteRange(offset: range.end, count: old.end - range.end)
        insert(NotedRange(range: tail, legs: legs), at: index)
        index += 1
      }
    }
  }

  private mutating func insert(_ entry: NotedRange, at index: Int) {
    count += 1
    if entries.count < RangeList.capacity { entries.insert(entry, at: index) }
  }
}
