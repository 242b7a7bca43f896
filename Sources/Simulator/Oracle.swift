// The oracle: what clients may see. It knows requests and answers, nothing of legs.
//
// 1. Reads: strict linearizability per cell (OracleCell), across crashes of the server too (P2).
// 2. A power loss may take back what was not flushed, nothing else (P1).
// 3. Time is a counter of invocations and answers, so no two of them are equal.

import Base

/// A client operation as the oracle tracks it.
struct OracleWrite {
  var write: UInt32
  var id: UInt32
  /// Cells it covers.
  var cells: Range<Int>
  var ackedAt: UInt64 = CellValue.never
}

struct Oracle {
  let grain: Int
  private var cells: [OracleCell]
  private(set) var clock: UInt64 = 1
  private var nextWrite: UInt32 = 1
  /// Invoked and not answered.
  private var open: [OracleWrite] = []
  /// Acked and not covered by a flush.
  private var unflushed: [OracleWrite] = []
  /// Starts of the reads that are not answered.
  private var openReads: [UInt64] = []

  init(cellCount: Int, grain: Int) {
    self.grain = grain
    cells = Array(repeating: OracleCell(), count: cellCount)
  }

  var cellCount: Int { cells.count }

  private mutating func tick() -> UInt64 {
    clock += 1
    return clock
  }

  private var watermark: UInt64 { openReads.min() ?? clock }

  // MARK: Writes

  /// A write (or zero) of these cells begins; gives its number. The content id is the number, or
  /// 0 for zeros.
  mutating func beginWrite(cells range: Range<Int>, isZero: Bool) -> UInt32 {
    let write = nextWrite
    nextWrite += 1
    let start = tick()
    let id = isZero ? 0 : write
    for cell in range {
      cells[cell].values.append(CellValue(id: id, write: write, seen: start))
    }
    open.append(OracleWrite(write: write, id: id, cells: range))
    return write
  }

  private mutating func close(_ write: UInt32) -> OracleWrite? {
    guard let index = open.firstIndex(where: { $0.write == write }) else { return nil }
    return open.remove(at: index)
  }

  mutating func writeAcked(_ write: UInt32, isDurable: Bool) {
    guard var done = close(write) else { return }
    let now = tick()
    done.ackedAt = now
    for cell in done.cells {
      guard let index = cells[cell].index(ofWrite: write) else { continue }
      cells[cell].values[index].known = min(cells[cell].values[index].known, now)
      if isDurable { cells[cell].values[index].isDurable = true }
      cells[cell].prune(watermark: watermark)
    }
    if !isDurable { unflushed.append(done) }
  }

  mutating func writeFailed(_ write: UInt32) {
    guard let done = close(write) else { return }
    cutOff(done, now: tick())
  }

  private mutating func cutOff(_ write: OracleWrite, now: UInt64) {
    for cell in write.cells {
      guard let index = cells[cell].index(ofWrite: write.write) else { continue }
      cells[cell].values[index].limit = now
      if cells[cell].values[index].known != CellValue.never {
        cells[cell].values[index].known = min(cells[cell].values[index].known, now)
      }
    }
  }

  // MARK: Flushes

  /// The moment at which a flush is asked for.
  mutating func beginFlush() -> UInt64 { tick() }

  /// A flush that began at `start` was acked.
  mutating func flushAcked(start: UInt64) {
    _ = tick()
    let covered = unflushed.filter { $0.ackedAt < start }
    unflushed.removeAll { $0.ackedAt < start }
    for write in covered {
      for cell in write.cells {
        guard let index = cells[cell].index(ofWrite: write.write) else { continue }
        cells[cell].values[index].isDurable = true
      }
    }
    for write in covered {
      for cell in write.cells { cells[cell].prune(watermark: watermark) }
    }
  }

  /// The last leg lost what it had not flushed: later flushes do not vouch for it.
  mutating func flushFailed() { unflushed.removeAll() }

  // MARK: Reads

  mutating func beginRead() -> UInt64 {
    let start = tick()
    openReads.append(start)
    return start
  }

  mutating func endRead(start: UInt64) { openReads.removeAll { $0 == start } }

  /// What a read of `range` that began at `start` returned; nil if it may, else what is wrong.
  mutating func readReturned(
    _ bytes: [UInt8], cells range: Range<Int>, start: UInt64
  ) -> String? {
    let now = tick()
    endRead(start: start)
    let low = watermark
    let grain = grain
    return bytes.withRawSpan { span in
      for cell in range {
        let offset = (cell - range.lowerBound) * grain
        guard let id = Pattern.id(span, at: offset, cell: cell, grain: grain) else {
          let word = String(span.littleEndianUInt64(at: offset), radix: 16)
          return "cell \(cell) (byte \(cell * grain)) holds no whole write: 0x\(word)..."
        }
        guard cells[cell].read(id: id, start: start, now: now) else {
          return "cell \(cell) (byte \(cell * grain)) gave write \(id); "
            + "allowed are \(describe(cell))"
        }
        cells[cell].prune(watermark: low)
      }
      return nil
    }
  }

  func describe(_ cell: Int) -> String {
    cells[cell].values.map { value in
      "\(value.id)\(value.write != value.id ? "(\(value.write))" : "")"
        + "[\(value.known == CellValue.never ? "-" : "\(value.known)")..\(value.seen)"
        + (value.limit == CellValue.never ? "" : " until \(value.limit)")
        + (value.isDurable ? " durable" : "") + (value.isLive ? "" : " dead") + "]"
    }.joined(separator: " ")
  }

  // MARK: Crashes

  /// The server died: what was not answered has happened by now or never will.
  mutating func processCrashed() {
    let now = tick()
    for write in open { cutOff(write, now: now) }
    open.removeAll()
    openReads.removeAll()
    for cell in cells.indices { cells[cell].prune(watermark: now) }
  }

  /// All disks lost their caches.
  mutating func powerLost() {
    processCrashed()
    let now = tick()
    unflushed.removeAll()
    for cell in cells.indices { cells[cell].losePower(now: now) }
  }
}
