// The oracle: what clients may see. It knows requests and answers, nothing of legs.
//
// 1. Reads: strict linearizability per cell (OracleCells), across crashes of the server too (P2).
// 2. A power loss may take back what was not flushed, nothing else (P1).
// 3. Time is a counter of invocations and answers, so no two of them are equal.
// 4. It is a value: a copy is kept where a history forks (split brain).

/// A client write as the oracle tracks it.
struct OracleWrite: BitwiseCopyable {
  var write: UInt32
  /// Cells it covers: from, to.
  var first: Int32
  var end: Int32
  var ackedAt: UInt64 = CellValue.never
}

struct Oracle {
  let grain: Int
  private var cells: OracleCells
  private(set) var clock: UInt64 = 1
  private var nextWrite: UInt32 = 1
  /// Invoked and not answered.
  private var open: [OracleWrite] = []
  /// Acked and not covered by a flush, in the order of their acks.
  private var unflushed: [OracleWrite] = []
  /// Starts of the reads that are not answered.
  private var openReads: [UInt64] = []

  init(cellCount: Int, grain: Int) {
    self.grain = grain
    cells = OracleCells(count: cellCount)
  }

  var cellCount: Int { cells.count }

  private mutating func tick() -> UInt64 {
    clock += 1
    return clock
  }

  private var watermark: UInt64 {
    var least = clock
    for start in openReads where start < least { least = start }
    return least
  }

  // MARK: Writes

  /// A write (or zero) of these cells begins; gives its number. The content id is the number, or
  /// 0 for zeros.
  mutating func beginWrite(cells range: Range<Int>, isZero: Bool) -> UInt32 {
    let write = nextWrite
    nextWrite += 1
    let start = tick()
    for cell in range { cells.begin(cell, id: isZero ? 0 : write, write: write, start: start) }
    open.append(
      OracleWrite(write: write, first: Int32(range.lowerBound), end: Int32(range.upperBound)))
    return write
  }

  private mutating func close(_ write: UInt32) -> OracleWrite? {
    guard let index = open.firstIndex(where: { $0.write == write }) else { return nil }
    let done = open[index]
    open.swapAt(index, open.count - 1)
    open.removeLast()
    return done
  }

  mutating func writeAcked(_ write: UInt32, isDurable: Bool) {
    guard var done = close(write) else { return }
    let now = tick()
    let low = watermark
    done.ackedAt = now
    for cell in Int(done.first)..<Int(done.end) {
      cells.acked(cell, write: write, now: now, isDurable: isDurable)
      cells.prune(cell, watermark: low)
    }
    if !isDurable { unflushed.append(done) }
  }

  mutating func writeFailed(_ write: UInt32) {
    guard let done = close(write) else { return }
    cutOff(done, now: tick())
  }

  private mutating func cutOff(_ done: OracleWrite, now: UInt64) {
    for cell in Int(done.first)..<Int(done.end) { cells.cutOff(cell, write: done.write, now: now) }
  }

  // MARK: Flushes

  /// The moment at which a flush is asked for.
  mutating func beginFlush() -> UInt64 { tick() }

  /// A flush that began at `start` was acked.
  mutating func flushAcked(start: UInt64) {
    _ = tick()
    let low = watermark
    var covered = 0
    for write in unflushed {
      guard write.ackedAt < start else { break }
      covered += 1
      for cell in Int(write.first)..<Int(write.end) {
        cells.flushed(cell, write: write.write)
        cells.prune(cell, watermark: low)
      }
    }
    unflushed.removeFirst(covered)
  }

  /// The last leg lost what it had not flushed: later flushes do not vouch for it.
  mutating func flushFailed() { unflushed.removeAll() }

  // MARK: Reads

  mutating func beginRead() -> UInt64 {
    let start = tick()
    openReads.append(start)
    return start
  }

  mutating func endRead(start: UInt64) {
    guard let index = openReads.firstIndex(of: start) else { return }
    openReads.swapAt(index, openReads.count - 1)
    openReads.removeLast()
  }

  /// What a read of `range` that began at `start` returned; nil if it may, else what is wrong.
  mutating func readReturned(
    _ bytes: Memory, cells range: Range<Int>, start: UInt64
  ) -> String? {
    let now = tick()
    endRead(start: start)
    let low = watermark
    var offset = 0
    for cell in range {
      guard let id = Pattern.id(bytes, at: offset, cell: cell, grain: grain) else {
        let word = String(bytes.word(at: offset), radix: 16)
        return "cell \(cell) (byte \(cell * grain)) holds no whole write: 0x\(word)..."
      }
      guard cells.read(cell, id: id, start: start, now: now) else {
        return "cell \(cell) (byte \(cell * grain)) gave write \(id); "
          + "allowed are \(cells.describe(cell))"
      }
      cells.prune(cell, watermark: low)
      offset += grain
    }
    return nil
  }

  /// Whether a read that begins now may return what the leg holds; nothing is learned by it.
  func mayHold(_ leg: SimulatedLeg, cell: Int) -> Bool {
    guard let id = leg.id(cell: cell, grain: grain) else { return false }
    return cells.mayRead(cell, id: id, now: clock + 1)
  }

  // MARK: Crashes

  /// The server died: what was not answered has happened by now or never will.
  mutating func processCrashed() {
    let now = tick()
    for write in open { cutOff(write, now: now) }
    open.removeAll(keepingCapacity: true)
    openReads.removeAll(keepingCapacity: true)
    for cell in 0..<cells.count where cells.isOpen(cell) { cells.prune(cell, watermark: now) }
  }

  /// All disks lost their caches.
  mutating func powerLost() {
    processCrashed()
    let now = tick()
    unflushed.removeAll(keepingCapacity: true)
    for cell in 0..<cells.count { cells.losePower(cell, now: now) }
  }
}
