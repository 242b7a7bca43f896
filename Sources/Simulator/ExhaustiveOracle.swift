// What clients may see in an exhaustive run. It knows operations and answers, nothing of legs.
//
// An *atom* is a set of cells of one sector that the same operations of the scenario cover: a
// sector is written whole or not at all, so the cells of an atom always hold one value (no mixture
// inside a sector), and the oracle keeps one register per atom. Cells that no operation covers are
// zeros for ever.
//
// A value of an atom has an interval in which it was certainly there: from `known` (its ack, or the
// answer of a read that saw it) to `seen` (the start of its write, or of a read that saw it). Reads
// are linearizable exactly if for no two values u, w both u.known < w.seen and w.known < u.seen
// (Gibbons and Korach 1997). What a crash cut off took effect before the crash or never.
//
// 1. A kill takes nothing back (P2): only what was open is decided anew.
// 2. A power loss may bring back any value that no durable one came after (P1). That a durable one
//    was read later shows, too, that what a crash cut off before never happened.
// 3. Durable is what was acked with FUA, and what was known before a flush that was acked began.
//    What a power loss has left is known again once it was read, and durable once it was flushed.

import Base

/// Cells of one sector that always are written together.
struct ExhaustiveAtom {
  /// Sector of the device.
  var sector: Int
  /// 16 bits of ones per cell.
  var mask: UInt64
}

/// The atoms of a scenario: fixed before it runs.
struct ExhaustiveAtoms {
  private(set) var atoms: [ExhaustiveAtom] = []
  /// Per sector, its atoms.
  private(set) var bySector: [Range<Int>]

  /// Cuts the device into what the ranges tell apart.
  init(sizeBytes: UInt64, ranges: [ByteRange]) {
    let sectorBytes = UInt64(ExhaustiveLeg.sectorBytes)
    let sectors = Int(sizeBytes / sectorBytes)
    bySector = Array(repeating: 0..<0, count: sectors)
    for sector in 0..<sectors {
      let start = UInt64(sector) * sectorBytes
      let touching = ranges.filter { $0.offset < start + sectorBytes && $0.end > start }
      guard !touching.isEmpty else { continue }
      let first = atoms.count
      var signatures: [[Bool]] = []
      for lane in 0..<4 {
        let cell = start + UInt64(lane * ExhaustiveLeg.cellBytes)
        let signature = touching.map { $0.offset <= cell && $0.end > cell }
        guard signature.contains(true) else { continue }
        let mask: UInt64 = 0xffff << UInt64(16 * lane)
        if let index = signatures.firstIndex(of: signature) {
          atoms[first + index].mask |= mask
        } else {
          signatures.append(signature)
          atoms.append(ExhaustiveAtom(sector: sector, mask: mask))
        }
      }
      bySector[sector] = first..<atoms.count
    }
  }

  /// The atoms that a range covers.
  func covered(by range: ByteRange) -> [Int] {
    guard range.count > 0 else { return [] }
    var result: [Int] = []
    let sectorBytes = UInt64(ExhaustiveLeg.sectorBytes)
    for sector in Int(range.offset / sectorBytes)...Int((range.end - 1) / sectorBytes) {
      for atom in bySector[sector] {
        let lane = UInt64(atoms[atom].mask.trailingZeroBitCount / 16)
        let cell = UInt64(sector) * sectorBytes + lane * UInt64(ExhaustiveLeg.cellBytes)
        if range.offset <= cell, range.end > cell { result.append(atom) }
      }
    }
    return result
  }
}

/// A write as one atom sees it.
struct ExhaustiveValue: Hashable {
  static let never = UInt32.max

  /// What the cells hold; zeros come from several writes.
  var id: UInt16
  var write: UInt16
  var known = never
  var seen: UInt32
  var limit = never
  /// When it was promised to be durable (a flush: when that began).
  var durableAt = never
  var isLive = true
  var isOnDisk = true

  var knownAtLatest: UInt32 { min(known, limit) }
  var isDurable: Bool { durableAt != ExhaustiveValue.never }
}

/// The registers of all atoms.
struct ExhaustiveOracle {
  private struct Open {
    var write: UInt16
    var atoms: [Int]
  }

  private var values: [[ExhaustiveValue]]
  private(set) var clock: UInt32 = 1
  private var nextWrite: UInt16 = 1
  private var open: [Open] = []
  /// Starts of the reads that are not answered.
  private var openReads: [UInt32] = []
  /// Flushes vouch for nothing that was known before.
  private var flushedFrom: UInt32 = 0
  /// Sectors that a leg has damaged in silence: reads may give that until it is repaired.
  private(set) var damaged: [Int] = []
  /// Other legs were copied to from the damaged one for a good reason: no repair undoes that.
  private var isDamageSpread = false

  init(atomCount: Int) {
    let zeros = ExhaustiveValue(id: 0, write: 0, known: 0, seen: 0, durableAt: 0)
    values = Array(repeating: [zeros], count: atomCount)
  }

  private mutating func tick() -> UInt32 {
    clock += 1
    return clock
  }

  /// Equal for oracles that allow the same and go on the same way.
  var hash: UInt64 {
    var hash: UInt64 = damaged.isEmpty ? 0 : isDamageSpread ? 2 : 1
    for atom in values.indices where values[atom].count > 1 || values[atom][0].write != 0 {
      // Times count by their order only.
      var times: [UInt32] = []
      for value in values[atom] {
        times += [value.known, value.limit, value.seen, value.durableAt]
      }
      times.sort()
      for value in values[atom] {
        var word = UInt64(value.id) << 32 | UInt64(value.write) << 16 | UInt64(atom)
        word = ExhaustiveLeg.mix(word)
        for time in [value.known, value.limit, value.seen, value.durableAt] {
          let rank = time == ExhaustiveValue.never ? 99 : times.firstIndex(of: time) ?? 0
          word = word &* 131 &+ UInt64(rank)
        }
        word = word &* 2 &+ (value.isLive ? 1 : 0)
        hash ^= ExhaustiveLeg.mix(word &* 2 &+ (value.isOnDisk ? 1 : 0))
      }
    }
    return hash
  }

  // MARK: Writes

  /// A write begins; its number is its content id unless it writes zeros.
  mutating func beginWrite(atoms: [Int], isZero: Bool) -> UInt16 {
    let write = nextWrite
    nextWrite += 1
    let start = tick()
    for atom in atoms {
      values[atom].append(ExhaustiveValue(id: isZero ? 0 : write, write: write, seen: start))
    }
    open.append(Open(write: write, atoms: atoms))
    return write
  }

  private mutating func close(_ write: UInt16) -> Open? {
    guard let index = open.firstIndex(where: { $0.write == write }) else { return nil }
    return open.remove(at: index)
  }

  mutating func writeAnswered(_ write: UInt16, isAcked: Bool, isDurable: Bool) {
    guard let done = close(write) else { return }
    let now = tick()
    for atom in done.atoms {
      guard let index = values[atom].firstIndex(where: { $0.write == write }) else { continue }
      if isAcked {
        values[atom][index].known = min(values[atom][index].known, now)
        if isDurable { values[atom][index].durableAt = now }
        prune(atom)
      } else {
        values[atom][index].limit = now
      }
    }
  }

  // MARK: Flushes

  mutating func beginFlush() -> UInt32 { tick() }

  /// A flush that began at `start` was acked.
  mutating func flushAcked(start: UInt32) {
    for atom in values.indices {
      for index in values[atom].indices {
        let known = values[atom][index].known
        if known < start, known >= flushedFrom { values[atom][index].durableAt = start }
      }
      prune(atom)
    }
  }

  /// The last leg lost what it had not flushed: later flushes vouch for nothing of before.
  mutating func flushFailed() { flushedFrom = tick() }

  // MARK: Reads

  mutating func beginRead() -> UInt32 {
    let start = tick()
    openReads.append(start)
    return start
  }

  mutating func endRead(start: UInt32) { openReads.removeAll { $0 == start } }

  /// What a read that began at `start` found in a sector; nil if it may, else what is wrong.
  mutating func read(
    _ word: UInt64, sector: Int, start: UInt32, _ atoms: ExhaustiveAtoms
  ) -> String? {
    if word == ExhaustiveLeg.damage, damaged.contains(sector) { return nil }
    var rest = word
    for atom in atoms.bySector[sector] {
      let mask = atoms.atoms[atom].mask
      let lane = UInt64(mask.trailingZeroBitCount)
      let id = UInt16(truncatingIfNeeded: word >> lane)
      guard isSame(word, mask, id) else {
        return "sector \(sector) holds a mixture: 0x\(String(word, radix: 16))"
      }
      rest &= ~mask
      let now = tick()
      guard take(atom, id: id, start: start, now: now) else {
        return "sector \(sector) gave write \(id); allowed are \(describe(atom))"
      }
    }
    guard rest == 0 else {
      return "sector \(sector), which nobody wrote, holds 0x\(String(word, radix: 16))"
    }
    return nil
  }

  private func isSame(_ word: UInt64, _ mask: UInt64, _ id: UInt16) -> Bool {
    for lane in stride(from: 0, to: 64, by: 16) where mask >> UInt64(lane) & 1 == 1 {
      if UInt16(truncatingIfNeeded: word >> UInt64(lane)) != id { return false }
    }
    return true
  }

  private mutating func take(_ atom: Int, id: UInt16, start: UInt32, now: UInt32) -> Bool {
    var match = -1
    var matches = 0
    for index in values[atom].indices where values[atom][index].id == id {
      if values[atom][index].isLive, isLegal(atom, index, start: start, now: now) {
        match = index
        matches += 1
      }
    }
    guard matches > 0 else { return false }
    // Zeros may come from several writes: then nothing was learned.
    guard matches == 1 else { return true }
    values[atom][match].known = min(values[atom][match].knownAtLatest, now)
    values[atom][match].seen = max(values[atom][match].seen, start)
    prune(atom)
    return true
  }

  private func isLegal(_ atom: Int, _ index: Int, start: UInt32, now: UInt32) -> Bool {
    let value = values[atom][index]
    let known = min(value.knownAtLatest, now)
    let seen = max(value.seen, start)
    for other in values[atom].indices where other != index {
      if values[atom][other].known < seen, known < values[atom][other].seen { return false }
    }
    return true
  }

  /// Forgets what no later read may return and no power loss may bring back.
  private mutating func prune(_ atom: Int) {
    guard values[atom].count > 1 else { return }
    let watermark = openReads.min() ?? clock + 1
    for index in values[atom].indices {
      let known = values[atom][index].knownAtLatest
      for other in values[atom].indices where other != index && values[atom][other].seen > known {
        guard values[atom][other].known < watermark else { continue }
        values[atom][index].isLive = false
        if values[atom][other].isDurable { values[atom][index].isOnDisk = false }
      }
    }
    values[atom].removeAll { !$0.isLive && !$0.isOnDisk }
  }

  func describe(_ atom: Int) -> String {
    values[atom].map { value in
      "\(value.id)[\(value.known == ExhaustiveValue.never ? "-" : "\(value.known)")..\(value.seen)"
        + (value.limit == ExhaustiveValue.never ? "" : " until \(value.limit)")
        + (value.isDurable ? " durable" : "") + (value.isLive ? "" : " dead") + "]"
    }.joined(separator: " ")
  }

  // MARK: Damage

  mutating func damage(sector: Int) { damaged.append(sector) }

  mutating func damageMaySpread() { isDamageSpread = true }

  /// A repair is through: nobody sees damage any more.
  mutating func repaired() { if !isDamageSpread { damaged.removeAll() } }

  // MARK: Crashes

  /// The server died: what was not answered has happened by now or never will.
  mutating func killed() {
    let now = tick()
    for write in open {
      for atom in write.atoms {
        guard let index = values[atom].firstIndex(where: { $0.write == write.write }) else {
          continue
        }
        values[atom][index].limit = now
        prune(atom)
      }
    }
    open.removeAll()
    openReads.removeAll()
  }

  /// Some disks lost their caches.
  mutating func powerLost() {
    killed()
    let now = tick()
    for atom in values.indices {
      values[atom].removeAll { !$0.isOnDisk }
      guard values[atom].count > 1 else {
        values[atom][0].isLive = true
        continue
      }
      for index in values[atom].indices {
        values[atom][index].isLive = true
        // Whichever of them is there now was perhaps never flushed.
        values[atom][index].durableAt = ExhaustiveValue.never
        values[atom][index].known = ExhaustiveValue.never
        values[atom][index].limit = min(values[atom][index].limit, now)
        values[atom][index].seen = 0
      }
    }
  }
}
