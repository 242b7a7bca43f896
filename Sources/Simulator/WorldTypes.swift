// The small things a world is made of.

import Base
import Faults
import MirrorEngine

/// A promise was broken.
public struct Violation: Error, Sendable {
  /// What was seen.
  public var text: String
  /// The step at which it was seen.
  public var step: UInt64
}

/// What troubles a leg or the mirror; counted in the report of a campaign.
public enum Trouble: Int, CaseIterable, Sendable {
  /// I/O fails with EIO.
  case error
  /// Sectors cannot be read until they are rewritten.
  case badSector
  /// Writes fail with ENOSPC.
  case noSpace
  /// I/O does not end until it is released.
  case hang
  /// I/O takes much longer.
  case delay
  /// The leg is gone.
  case offline
  /// A write or flush was acked and not done.
  case drop
  /// Bits flipped on their way to the leg, or from it.
  case corrupt
  /// A read or write went to another place.
  case misdirect
  /// Only a part of a write was done.
  case torn
  /// A read gave what was there before.
  case staleRead
  /// A sector of the metadata rotted.
  case rot
  /// The server was killed.
  case crash
  /// Disks lost their caches.
  case powerLoss
  /// Two parts of the mirror ran separately.
  case splitBrain
}

/// What a run did.
public struct RunCounts: Sendable {
  /// Client operations that were answered.
  public var operations: UInt64 = 0
  /// Of them with an error.
  public var errors: UInt64 = 0
  /// I/O on legs.
  public var legIO: UInt64 = 0
  /// Starts, the first one included.
  public var starts: UInt64 = 0
  /// Commands that the engine took.
  public var commands: UInt64 = 0
  /// Commands that the engine refused.
  public var refused: UInt64 = 0
  /// Scrubs that came to their end.
  public var scrubs: UInt64 = 0
  /// Regions that were copied to their end, bytes.
  public var resyncs: UInt64 = 0
  /// Blocks that were repaired after read errors.
  public var repairs: UInt64 = 0
  /// Hits of each kind of trouble.
  public var troubles = [UInt64](repeating: 0, count: Trouble.allCases.count)

  /// Nothing yet.
  public init() {}

  mutating func hit(_ trouble: Trouble) { troubles[trouble.rawValue] += 1 }

  /// Hits of one kind.
  public subscript(_ trouble: Trouble) -> UInt64 { troubles[trouble.rawValue] }

  /// Adds another run's counts.
  public mutating func add(_ other: RunCounts) {
    operations += other.operations
    errors += other.errors
    legIO += other.legIO
    starts += other.starts
    commands += other.commands
    refused += other.refused
    scrubs += other.scrubs
    resyncs += other.resyncs
    repairs += other.repairs
    for index in troubles.indices { troubles[index] += other.troubles[index] }
  }

  /// Two lines for people.
  public var description: String {
    let kinds = Trouble.allCases.map { "\($0) \(self[$0])" }.joined(separator: ", ")
    return "\(operations) operations (\(errors) failed), \(legIO) leg I/O, \(starts) starts, "
      + "\(commands) commands (\(refused) refused), \(resyncs) resyncs, \(scrubs) scrubs, "
      + "\(repairs) repairs\n\(kinds)"
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
  /// A leg that lies has answered a part of it.
  var isTainted = false
  /// The socket still takes the data of the answer; what they were when it was given.
  var isSending = false
  var isReleased = false
  var answer: UInt64 = 0
}

/// An I/O that a leg has been asked for.
struct SimulatedIO {
  var io: LegIO
  /// Who performs it.
  var reactor: Int
  var error: Int32 = 0
  /// Place in the leg's memory.
  var place: Int
  /// Index of the request's buffer at the time it was issued; -1: scratch memory or none.
  var buffer: Int
  /// Flushes: what was in the cache when it was issued.
  var mark: UInt64
  /// Reads: the bytes were taken when it was issued.
  var isTaken = false
  /// What a fault does to it.
  var effect = FaultEffect.none
  var isHeld = false
  /// It hung until its leg was given up.
  var isLate = false
  var isInUse = true
  var nextFree: Int32 = -1
}

/// Something that is due at a time, for one reactor.
struct Event: BitwiseCopyable {
  enum Kind: UInt8 {
    /// An I/O ends: its index in the table.
    case io
    /// A delivery was performed: its token.
    case delivered
    /// A connection may send: its number.
    case submit
    /// There is mail.
    case mail
    /// The socket has taken the data of a read: its slot.
    case sent
  }

  var due: Instant
  /// Breaks ties of `due`, so that the order is fixed.
  var order: UInt64
  var kind: Kind
  var value: UInt64

  static func precedes(_ left: Event, _ right: Event) -> Bool {
    left.due == right.due ? left.order < right.order : left.due < right.due
  }
}

/// Events by due time; a binary heap.
struct EventQueue {
  private(set) var items: [Event] = []

  var first: Event? { items.first }

  mutating func push(_ item: Event) {
    items.append(item)
    var child = items.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard Event.precedes(items[child], items[parent]) else { break }
      items.swapAt(child, parent)
      child = parent
    }
  }

  /// The first event if it is due.
  mutating func pop(due now: Instant) -> Event? {
    guard let least = items.first, least.due <= now else { return nil }
    let last = items.removeLast()
    guard !items.isEmpty else { return least }
    items[0] = last
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < items.count else { break }
      if child + 1 < items.count, Event.precedes(items[child + 1], items[child]) { child += 1 }
      guard Event.precedes(items[child], items[parent]) else { break }
      items.swapAt(child, parent)
      parent = child
    }
    return least
  }

  mutating func removeAll() { items.removeAll(keepingCapacity: true) }
}

/// A thread of the server: what is due for it, and the effects that others left for it.
struct SimulatedReactor {
  var queue = EventQueue()
  var mail: [Effect] = []
  /// First effect of `mail` that is not performed.
  var mailHead = 0
  /// A `mail` event is in the queue.
  var isWoken = false
}

/// Buffers of requests, by size, each with the number of I/O that use it.
struct BufferPool {
  private static let classes: [Int] = [4 << 10, 64 << 10, 1 << 20, 16 << 20]
  private(set) var memories: [Memory] = []
  private var uses: [Int] = []
  private var sizes: [Int] = []
  private var free: [[Int]] = Array(repeating: [], count: classes.count)

  private static func index(of count: Int) -> Int {
    classes.firstIndex { count <= $0 } ?? classes.count - 1
  }

  mutating func take(_ count: Int, grain: Int) -> Int {
    let kind = BufferPool.index(of: count)
    let buffer: Int
    if let index = free[kind].popLast() {
      buffer = index
    } else {
      let bytes = kind == BufferPool.classes.count - 1 ? count : BufferPool.classes[kind]
      memories.append(Memory(count: max(bytes, count)))
      uses.append(0)
      sizes.append(0)
      buffer = memories.count - 1
    }
    if memories[buffer].count < count { memories[buffer] = Memory(count: count) }
    sizes[buffer] = count
    Pattern.poison(memories[buffer], count: count, grain: grain)
    return buffer
  }

  /// Bytes that were asked for.
  func size(_ buffer: Int) -> Int { sizes[buffer] }

  mutating func use(_ buffer: Int) { uses[buffer] += 1 }

  mutating func unuse(_ buffer: Int) { uses[buffer] -= 1 }

  func isUsed(_ buffer: Int) -> Bool { uses[buffer] > 0 }

  mutating func give(_ buffer: Int, grain: Int) {
    // Whoever still uses it shall notice.
    Pattern.poison(memories[buffer], count: sizes[buffer], grain: grain)
    free[BufferPool.index(of: sizes[buffer])].append(buffer)
  }

  /// The server died: nobody uses any.
  mutating func reset() {
    for kind in free.indices { free[kind].removeAll(keepingCapacity: true) }
    for index in memories.indices {
      uses[index] = 0
      free[BufferPool.index(of: sizes[index])].append(index)
    }
  }
}
