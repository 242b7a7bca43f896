// What writes to a leg overwrote, in the order they began: the memory of a leg that has a fault of
// kind volatile-cache or stale-read. Pure.
//
// Invariants
//  1. Overlapping writes of a leg never run at the same time, so the order of beginning is the
//     order in which they changed a sector.
//  2. At most `bytesMax` of overwritten data is kept. What is beyond it goes, oldest first: a cache
//     may write back whenever it likes, and then a power cut cannot take the write back.

import Base
import Faults

/// Writes of one leg that can be taken back, or looked behind.
struct WriteLog {
  static let bytesMax = 64 << 20

  private struct Record {
    var number: UInt64
    /// Byte offset on the PV.
    var range: ByteRange
    /// What was there before.
    var before: [UInt8]
    /// When it completed, in the count of completions; nil: it is in flight.
    var completed: UInt64?
    /// Durable by itself: what it covers, and what lies below, cannot be taken back.
    var isDurable = false
  }

  private var records: [Record] = []
  private var bytes = 0
  private var nextNumber: UInt64 = 1
  private var completions: UInt64 = 0

  /// What overwrote nothing is not listed.
  var isEmpty: Bool { records.isEmpty }

  /// A write of `before.count` bytes at `offset` of the PV begins; returns its number.
  mutating func begin(offset: UInt64, before: [UInt8]) -> UInt64 {
    let number = nextNumber
    nextNumber += 1
    let range = ByteRange(offset: offset, count: UInt64(before.count))
    records.append(Record(number: number, range: range, before: before))
    bytes += before.count
    guard bytes > WriteLog.bytesMax else { return number }
    // Somewhat more than has to, so that the rest is not moved for each write.
    var first = 0
    while bytes > WriteLog.bytesMax / 8 * 7, first < records.count {
      bytes -= records[first].before.count
      first += 1
    }
    records.removeFirst(first)
    return number
  }

  /// The write is done.
  mutating func complete(_ number: UInt64, isDurable: Bool) {
    guard let index = records.lastIndex(where: { $0.number == number }) else { return }
    completions += 1
    records[index].completed = completions
    guard isDurable else { return }
    records[index].isDurable = true
    bytes -= records[index].before.count
    records[index].before = []
    if index == 0 { records.removeFirst() }
  }

  /// A flush that begins now covers what this mark covers.
  var mark: UInt64 { completions }

  /// A flush that began at `mark` is done.
  mutating func flushed(_ mark: UInt64) {
    records.removeAll { record in
      guard let completed = record.completed, completed <= mark else { return false }
      return true
    }
    bytes = records.reduce(0) { $0 + $1.before.count }
  }

  /// Puts what was there before the last write over `buffer`, which holds `range` of the PV, as far
  /// as it lies in `part` (offsets in the buffer).
  func overlay(_ range: ByteRange, part: ByteRange, into buffer: UnsafeMutableRawBufferPointer) {
    let first = range.offset + part.offset
    let end = first + part.count
    for record in records {
      let low = max(first, record.range.offset)
      let high = min(end, record.range.offset + UInt64(record.before.count))
      guard low < high else { continue }
      let source = record.before[
        Int(low - record.range.offset)..<Int(high - record.range.offset)]
      // The caller lends a buffer of `range.count` bytes.
      for (index, byte) in source.enumerated() {
        unsafe buffer[Int(low - range.offset) + index] = byte
      }
    }
  }

  /// Sectors that lose their newest state in a power cut: number (offset on the PV in sectors) and
  /// the bytes that are there afterwards, in ascending order; and how many could have.
  func losses(_ cut: PowerCut, leg: LegSlot) -> (lost: [(sector: UInt64, bytes: [UInt8])], of: Int)
  {
    let size = FaultSector.bytes
    var states: [UInt64: [[UInt8]]] = [:]
    for record in records {
      let count = Int(record.range.count / size)
      for index in 0..<count {
        let sector = record.range.offset / size + UInt64(index)
        if record.isDurable {
          states[sector] = nil
        } else {
          let start = index * Int(size)
          states[sector, default: []].append(Array(record.before[start..<start + Int(size)]))
        }
      }
    }
    var lost: [(sector: UInt64, bytes: [UInt8])] = []
    for sector in states.keys.sorted() {
      guard let overwritten = states[sector] else { continue }
      let survivor = cut.survivor(leg: leg, sector: sector, overwritten: overwritten.count)
      if survivor < overwritten.count { lost.append((sector, overwritten[survivor])) }
    }
    return (lost, states.count)
  }
}
