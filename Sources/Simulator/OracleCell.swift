// One cell as the oracle knows it: a register that is written with unique values.
//
// A value has an interval in which it was certainly there: from `known` (the earliest moment by
// which its write had taken effect: its ack, or the answer of a read that saw it) to `seen` (the
// latest moment at which it was still the newest: the start of a read that saw it, or of its own
// write). The history of a register is linearizable exactly if for no two values u and w both
// u.known < w.seen and w.known < u.seen (zones of Gibbons and Korach, "Testing shared memories",
// 1997). A write that failed, or that a crash cut off, has taken effect by then or never (strict
// linearizability): `limit` caps its `known` from the moment somebody has seen it.

/// A write as one cell sees it.
struct CellValue {
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

  /// By when it had taken effect, if it ever did.
  var knownAtLatest: UInt64 { min(known, limit) }
}

struct OracleCell {
  var values: [CellValue]

  init() {
    values = [CellValue(id: 0, write: 0, known: 0, seen: 0, isDurable: true)]
  }

  func index(ofWrite write: UInt32) -> Int? { values.firstIndex { $0.write == write } }

  /// A read that started at `start` and is answered at `now` returned `id`: false if it must not.
  mutating func read(id: UInt32, start: UInt64, now: UInt64) -> Bool {
    var match = -1
    var matches = 0
    for index in values.indices where values[index].id == id && values[index].isLive {
      if isLegal(index, start: start, now: now) {
        match = index
        matches += 1
      }
    }
    guard matches > 0 else { return false }
    // Zeros may come from several writes: then nothing was learned.
    guard matches == 1 else { return true }
    values[match].known = min(values[match].knownAtLatest, now)
    values[match].seen = max(values[match].seen, start)
    return true
  }

  private func isLegal(_ index: Int, start: UInt64, now: UInt64) -> Bool {
    let known = min(values[index].knownAtLatest, now)
    let seen = max(values[index].seen, start)
    for other in values.indices where other != index {
      if values[other].known < seen, known < values[other].seen { return false }
    }
    return true
  }

  /// Forgets what no read that starts from `watermark` on may return, and what no power loss may
  /// bring back.
  mutating func prune(watermark: UInt64) {
    guard values.count > 1 else { return }
    for index in values.indices {
      let known = values[index].knownAtLatest
      for other in values.indices where other != index && values[other].seen > known {
        if values[other].known < watermark { values[index].isLive = false }
        if values[other].isDurable { values[index].isOnDisk = false }
      }
    }
    values.removeAll { !$0.isLive && !$0.isOnDisk }
  }

  /// A power loss at `now`: anything that may be on a disk may be there now.
  mutating func losePower(now: UInt64) {
    values.removeAll { !$0.isOnDisk }
    guard values.count > 1 else {
      values[0].isLive = true
      return
    }
    for index in values.indices {
      values[index].isLive = true
      values[index].known = CellValue.never
      values[index].limit = min(values[index].limit, now)
      values[index].seen = 0
    }
  }
}
