// Cells as the oracle knows them: registers that are written with unique values.
//
// A value has an interval in which it was certainly there: from `known` (the earliest moment by
// which its write had taken effect: its ack, or the answer of a read that saw it) to `seen` (the
// latest moment at which it was still the newest: the start of a read that saw it, or of its own
// write). The history of a register is linearizable exactly if for no two values u and w both
// u.known < w.seen and w.known < u.seen (zones of Gibbons and Korach, "Testing shared memories",
// 1997). A write that failed, or that a crash cut off, has taken effect by then or never (strict
// linearizability): `limit` caps its `known` from the moment somebody has seen it.
//
// The values of a cell are a list in one pool for all cells; most cells have one.

/// A write as one cell sees it.
struct CellValue: BitwiseCopyable {
  static let never = UInt64.max

  /// The write; 0: zeros, which are not unique.
  var id: UInt32
  /// Which write of zeros, or the same as `id`.
  var write: UInt32
  /// It had taken effect by then.
  var known: UInt64 = never
  /// It was still the newest then.
  var seen: UInt64
  /// It took effect by then or never.
  var limit: UInt64 = never
  /// A flush or FUA promised it.
  var isDurable = false
  /// A read may return it.
  var isLive = true
  /// A power loss may bring it back.
  var isOnDisk = true
  /// The next value of the cell, or of the free list; -1: none.
  var next: Int32 = -1

  /// By when it had taken effect, if it ever did.
  var knownAtLatest: UInt64 { min(known, limit) }
}

struct OracleCells {
  private var heads: [Int32]
  private var pool: [CellValue]
  private var free: Int32 = -1

  init(count: Int) {
    heads = (0..<Int32(count)).map { $0 }
    let first = CellValue(id: 0, write: 0, known: 0, seen: 0, isDurable: true)
    pool = Array(repeating: first, count: count)
    pool.reserveCapacity(2 * count + 256)
  }

  var count: Int { heads.count }

  private mutating func take(_ value: CellValue) -> Int32 {
    guard free >= 0 else {
      pool.append(value)
      return Int32(pool.count - 1)
    }
    let index = free
    free = pool[Int(index)].next
    pool[Int(index)] = value
    return index
  }

  /// A write of the cell begins at `start`.
  mutating func begin(_ cell: Int, id: UInt32, write: UInt32, start: UInt64) {
    var value = CellValue(id: id, write: write, seen: start)
    value.next = heads[cell]
    heads[cell] = take(value)
  }

  private func find(_ cell: Int, write: UInt32) -> Int? {
    var index = heads[cell]
    while index >= 0 {
      if pool[Int(index)].write == write { return Int(index) }
      index = pool[Int(index)].next
    }
    return nil
  }

  /// The write was acked at `now`.
  mutating func acked(_ cell: Int, write: UInt32, now: UInt64, isDurable: Bool) {
    guard let index = find(cell, write: write) else { return }
    pool[index].known = min(pool[index].known, now)
    if isDurable { pool[index].isDurable = true }
  }

  /// The write has taken effect by `now` or never will.
  mutating func cutOff(_ cell: Int, write: UInt32, now: UInt64) {
    guard let index = find(cell, write: write) else { return }
    pool[index].limit = min(pool[index].limit, now)
    if pool[index].known != CellValue.never { pool[index].known = min(pool[index].known, now) }
  }

  /// A flush promised the write.
  mutating func flushed(_ cell: Int, write: UInt32) {
    if let index = find(cell, write: write) { pool[index].isDurable = true }
  }

  /// A read that started at `start` and is answered at `now` returned `id`: false if it must not.
  mutating func read(_ cell: Int, id: UInt32, start: UInt64, now: UInt64) -> Bool {
    let head = Int(heads[cell])
    if pool[head].next < 0 {
      // The usual case: only one value may be there, and it is certain.
      guard pool[head].id == id, pool[head].isLive else { return false }
      pool[head].known = min(pool[head].knownAtLatest, now)
      pool[head].seen = max(pool[head].seen, start)
      return true
    }
    var match = -1
    var matches = 0
    var index = heads[cell]
    while index >= 0 {
      let value = pool[Int(index)]
      if value.id == id, value.isLive, isLegal(cell, Int(index), start: start, now: now) {
        match = Int(index)
        matches += 1
      }
      index = value.next
    }
    guard matches > 0 else { return false }
    // Zeros may come from several writes: then nothing was learned.
    guard matches == 1 else { return true }
    pool[match].known = min(pool[match].knownAtLatest, now)
    pool[match].seen = max(pool[match].seen, start)
    return true
  }

  /// Whether a read from `now` to `now` may return `id`.
  func mayRead(_ cell: Int, id: UInt32, now: UInt64) -> Bool {
    var index = heads[cell]
    let isAlone = pool[Int(index)].next < 0
    while index >= 0 {
      let value = pool[Int(index)]
      if value.id == id, value.isLive, isAlone || isLegal(cell, Int(index), start: now, now: now) {
        return true
      }
      index = value.next
    }
    return false
  }

  private func isLegal(_ cell: Int, _ match: Int, start: UInt64, now: UInt64) -> Bool {
    let known = min(pool[match].knownAtLatest, now)
    let seen = max(pool[match].seen, start)
    var index = heads[cell]
    while index >= 0 {
      let other = pool[Int(index)]
      if Int(index) != match, other.known < seen, known < other.seen { return false }
      index = other.next
    }
    return true
  }

  /// Forgets what no read that starts from `watermark` on may return, and what no power loss may
  /// bring back.
  mutating func prune(_ cell: Int, watermark: UInt64) {
    let head = heads[cell]
    guard pool[Int(head)].next >= 0 else { return }
    // A value is gone when another one was surely the newest after it was surely there. Of all
    // others only the one that was seen last counts.
    var live = Newest()
    var durable = Newest()
    var index = head
    while index >= 0 {
      let value = pool[Int(index)]
      if value.known < watermark { live.add(index, seen: value.seen) }
      if value.isDurable { durable.add(index, seen: value.seen) }
      index = value.next
    }
    var previous: Int32 = -1
    index = head
    while index >= 0 {
      let place = Int(index)
      let next = pool[place].next
      let known = pool[place].knownAtLatest
      if live.seen(besides: index) > known { pool[place].isLive = false }
      if durable.seen(besides: index) > known { pool[place].isOnDisk = false }
      if pool[place].isLive || pool[place].isOnDisk {
        previous = index
      } else {
        unlink(cell, index, after: previous)
      }
      index = next
    }
  }

  private mutating func unlink(_ cell: Int, _ index: Int32, after previous: Int32) {
    if previous < 0 {
      heads[cell] = pool[Int(index)].next
    } else {
      pool[Int(previous)].next = pool[Int(index)].next
    }
    pool[Int(index)].next = free
    free = index
  }

  /// A power loss at `now`: anything that may be on a disk may be there now.
  mutating func losePower(_ cell: Int, now: UInt64) {
    var previous: Int32 = -1
    var index = heads[cell]
    while index >= 0 {
      let next = pool[Int(index)].next
      if pool[Int(index)].isOnDisk {
        previous = index
      } else {
        unlink(cell, index, after: previous)
      }
      index = next
    }
    let head = Int(heads[cell])
    if pool[head].next < 0 {
      pool[head].isLive = true
      return
    }
    index = heads[cell]
    while index >= 0 {
      let place = Int(index)
      pool[place].isLive = true
      pool[place].known = CellValue.never
      pool[place].limit = min(pool[place].limit, now)
      pool[place].seen = 0
      index = pool[place].next
    }
  }

  /// More than one value may be there, or may come back.
  func isOpen(_ cell: Int) -> Bool { pool[Int(heads[cell])].next >= 0 }

  func describe(_ cell: Int) -> String {
    var parts: [String] = []
    var index = heads[cell]
    while index >= 0 {
      let value = pool[Int(index)]
      parts.append(
        "\(value.id)\(value.write != value.id ? "(\(value.write))" : "")"
          + "[\(value.known == CellValue.never ? "-" : "\(value.known)")..\(value.seen)"
          + (value.limit == CellValue.never ? "" : " until \(value.limit)")
          + (value.isDurable ? " durable" : "") + (value.isLive ? "" : " dead") + "]")
      index = value.next
    }
    return parts.joined(separator: " ")
  }
}

/// The two values that were seen last.
private struct Newest {
  var index: Int32 = -1
  var first: UInt64 = 0
  var second: UInt64 = 0

  mutating func add(_ index: Int32, seen: UInt64) {
    if self.index < 0 || seen > first {
      if self.index >= 0 { second = first }
      self.index = index
      first = seen
    } else {
      second = max(second, seen)
    }
  }

  /// When another value than `index` was seen last.
  func seen(besides index: Int32) -> UInt64 { index == self.index ? second : first }
}
