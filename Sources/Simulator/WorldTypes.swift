// The small things a world is made of.

import Base
import MirrorEngine

/// A promise was broken.
public struct Violation: Error, Sendable {
  /// What was seen.
  public var text: String
  /// The step at which it was seen.
  public var step: UInt64
}

/// What a run did.
public struct RunCounts: Sendable {
  /// Client operations that were answered.
  public var operations: UInt64 = 0
  /// Of them with an error.
  public var errors: UInt64 = 0
  /// I/O on legs.
  public var legIO: UInt64 = 0
  /// Crashes of the server.
  public var crashes: UInt64 = 0
  /// Power losses.
  public var powerLosses: UInt64 = 0
  /// Starts, the first one included.
  public var starts: UInt64 = 0
  /// Legs failed, removed, added, readded by command.
  public var commands: UInt64 = 0
  /// Faults of legs that were switched on.
  public var faults: UInt64 = 0

  /// Nothing yet.
  public init() {}

  /// Adds another run's counts.
  public mutating func add(_ other: RunCounts) {
    operations += other.operations
    errors += other.errors
    legIO += other.legIO
    crashes += other.crashes
    powerLosses += other.powerLosses
    starts += other.starts
    commands += other.commands
    faults += other.faults
  }
}

/// A client's request from submission to release.
struct SimulatedRequest {
  var isInUse = false
  var isAnswered = false
  var generation: UInt32 = 0
  var connection = 0
  var request = MirrorRequest(
    kind: .flush, range: ByteRange(offset: 0, count: 0), token: .none)
  /// The oracle's number of the write.
  var write: UInt32 = 0
  /// The oracle's time of the invocation: reads and flushes.
  var start: UInt64 = 0
  /// Cells that it covers.
  var cells = 0..<0
  /// Index of its buffer; -1: none.
  var buffer = -1
  /// Buffers that were replaced and may still be written into.
  var oldBuffers: [Int] = []
  var isAckedEarly = false
}

/// An I/O that a leg has been asked for.
struct PendingIO {
  var io: LegIO
  var due: Instant
  /// Breaks ties of `due`, so that the order is fixed.
  var order: UInt64
  var error: Int32
  /// Place in the leg's memory.
  var place: Int
  /// Index of the request's buffer at the time it was issued; -1: scratch memory or none.
  var buffer: Int
  /// Writes: the bytes, if they are taken at the start. Reads: the bytes, if seen at the start.
  var bytes: [UInt8]?
  /// Flushes: what was in the cache when it was issued.
  var mark: UInt64
  /// The mutation drops it.
  var isDropped = false
}

/// Pending I/O by due time; a binary heap.
struct PendingHeap {
  private(set) var items: [PendingIO] = []

  var first: PendingIO? { items.first }
  var isEmpty: Bool { items.isEmpty }

  private static func precedes(_ left: PendingIO, _ right: PendingIO) -> Bool {
    left.due == right.due ? left.order < right.order : left.due < right.due
  }

  mutating func push(_ item: PendingIO) {
    items.append(item)
    var child = items.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard PendingHeap.precedes(items[child], items[parent]) else { break }
      items.swapAt(child, parent)
      child = parent
    }
  }

  mutating func pop() -> PendingIO? {
    guard let least = items.first else { return nil }
    let last = items.removeLast()
    guard !items.isEmpty else { return least }
    items[0] = last
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < items.count else { break }
      if child + 1 < items.count, PendingHeap.precedes(items[child + 1], items[child]) {
        child += 1
      }
      guard PendingHeap.precedes(items[child], items[parent]) else { break }
      items.swapAt(child, parent)
      parent = child
    }
    return least
  }

  mutating func removeAll() -> [PendingIO] {
    let all = items.sorted(by: PendingHeap.precedes)
    items.removeAll()
    return all
  }
}
