// Read repair: blocks that a leg failed to read and another leg could are written again.
//
// The client has its answer by then. A job looks for the blocks of the range that the leg really
// fails to read (in halves, without a lock: nothing is done with what it reads), and rewrites each:
//
//   probing -> (lock) -> (log durable) -> source -> writing -> verifying -> next piece ... -> done
//
// | from      | to        | performed by                                                            |
// | probing   | probing   | repairProbed: the piece can be read (the next one), or is halved        |
// | probing   | source    | startRepair: the piece fails, the lock is granted, `intent` is durable   |
// | source    | writing   | repairRead: another leg has read the piece under the lock                |
// | writing   | verifying | repairWritten                                                           |
// | verifying | next      | repairVerified                                                          |
//
// 1. What is written was read under the same exclusive lock from a leg that is not stale there, and
//    the region is not unresolved (what is there, is the copier's): the leg gets what it already
//    should have. So a write that is torn by a crash leaves old or new sectors of the same data.
// 2. A write that fails is a write error like any other (decideWrite). A block that cannot be read
//    back, or reads back differently, fails the leg, unless it holds the only good copy of some
//    region; then it is stale where it differs.
// 3. The pool is small: what does not find a place is counted and forgotten; the next read of the
//    block meets the error again.
//
// Pieces are at least 4 KiB, the physical sector of today's disks: a part of one cannot be written
// without reading the rest. Only where no source can read all of it, single blocks are tried.

import Base
import MirrorFormat

struct RepairJob: BitwiseCopyable {
  enum Step: UInt8 {
    case probing, source, writing, verifying
  }

  var isActive = false
  /// The leg that failed to read.
  var leg = LegSlot(0)
  /// What has not been looked at yet.
  var range = ByteRange(offset: 0, count: 0)
  /// Size of the next piece, and the smallest.
  var pieceBytes: UInt64 = 0
  var grainBytes: UInt64 = 0
  var step = Step.probing
  /// The piece is locked.
  var isLocked = false
  /// What is read back; -1: none.
  var backUnit: Int32 = -1
  var operation: Int32 = -1
}

struct ReadRepair: ~Copyable {
  static let jobCount = 4
  static let grainBytes: UInt64 = 4096

  var jobs = [RepairJob](repeating: RepairJob(), count: jobCount)
  /// Errors that found no free job.
  var dropped: UInt64 = 0

  var isIdle: Bool {
    for job in jobs where job.isActive { return false }
    return true
  }

  /// Whether `range` of `leg` is being repaired.
  func covers(_ range: ByteRange, on leg: LegSlot) -> Bool {
    for job in jobs where job.isActive && job.leg == leg && job.range.overlaps(range) {
      return true
    }
    return false
  }

  func job(of operation: Int) -> Int {
    guard let job = jobs.firstIndex(where: { $0.isActive && $0.operation == operation })
    else { preconditionFailure("a repair operation belongs to a job") }
    return job
  }
}

extension Engine {
  /// Read errors count so much; of one that was repaired little is left. Half of it is forgotten
  /// each hour. At the maximum (64 errors that were not repaired) the leg fails: a disk that keeps
  /// failing reads costs a retry each time and will fail writes soon.
  static let readErrorScore: UInt64 = 4
  static let repairedScore: UInt64 = 3
  static let readErrorScoreMax: UInt64 = 64 * readErrorScore
  static let readErrorHalfLife = 3600 * Nanoseconds.second

  /// Counts the error of a client's read against its leg.
  mutating func noteReadError(_ index: Int, _ leg: LegSlot, error: Int32) {
    note(MirrorEvent(.readRedirected, leg: leg, detail: UInt64(error)))
    // One bad block fails each of the halves that it is looked for in.
    guard operations[index].readLimit == 0 else { return }
    countReadError(leg, error: error)
  }

  /// Counts a read error; one too many fails the leg.
  mutating func countReadError(_ leg: LegSlot, error: Int32) {
    let hours = now.nanoseconds(since: legs[leg.index].readErrorsAgedAt) / Engine.readErrorHalfLife
    if hours > 0 {
      legs[leg.index].readErrorScore >>= min(hours, 63)
      legs[leg.index].readErrorsAgedAt = now
    }
    legs[leg.index].readErrorScore += Engine.readErrorScore
    if legs[leg.index].readErrorScore >= Engine.readErrorScoreMax {
      failLeg(leg, .failed, errno: error)
    }
  }

  /// A chunk was read in spite of errors: those legs shall be able to read it, too.
  mutating func repair(_ chunk: ByteRange, on failed: LegSet) {
    guard !start.isReadOnly, stop == .running else { return }
    var rest = failed.intersection(map.good(online, in: chunk))
    while let leg = rest.popFirst() {
      let first = Bytes.alignDown(chunk.offset, to: ReadRepair.grainBytes)
      let end = min(Bytes.alignUp(chunk.end, to: ReadRepair.grainBytes), start.layout.sizeBytes)
      let range = ByteRange(offset: first, count: end - first)
      guard !repairs.covers(range, on: leg) else { continue }
      guard let job = repairs.jobs.firstIndex(where: { !$0.isActive }) else {
        repairs.dropped += 1
        continue
      }
      let index = takeOperation()
      operations[index].kind = .repair
      repairs.jobs[job] = RepairJob(
        isActive: true, leg: leg, range: range, pieceBytes: range.count / 2,
        grainBytes: max(ReadRepair.grainBytes, blockBytes), operation: Int32(index))
      if range.count <= repairs.jobs[job].grainBytes {
        lockRepair(job, range)
      } else {
        probeNext(job)
      }
    }
  }

  // MARK: Looking for the blocks

  /// Reads the next piece on the leg, or ends the job.
  private mutating func probeNext(_ job: Int) {
    let work = repairs.jobs[job]
    guard work.range.count > 0, stop == .running, online.contains(work.leg) else {
      endRepair(job)
      return
    }
    let bytes = min(max(work.pieceBytes, work.grainBytes), UInt64(ScratchUnits.windowBytes))
    let grained = Bytes.alignDown(bytes, to: work.grainBytes)
    let piece = ByteRange(offset: work.range.offset, count: min(grained, work.range.count))
    let index = Int(work.operation)
    guard let unit = takeRepairUnit(bytes: piece.count) else {
      repairs.dropped += 1
      endRepair(job)
      return
    }
    operations[index].chunk = piece
    operations[index].scratchBlock = unit
    repairs.jobs[job].pieceBytes = piece.count
    repairs.jobs[job].step = .probing
    readForRepair(index, on: work.leg, unit)
  }

  private mutating func takeRepairUnit(bytes: UInt64) -> Int32? {
    if bytes > UInt64(ScratchUnits.smallBytes) { return units.takeWindow() }
    return units.smallFree > ScratchUnits.smallReserved ? units.takeSmall() : nil
  }

  private mutating func readForRepair(_ index: Int, on leg: LegSlot, _ unit: Int32) {
    operations[index].phase = .reading
    operations[index].awaited = LegSet(leg)
    let chunk = operations[index].chunk
    issue(
      .read, on: leg, offset: start.layout.dataOffset + chunk.offset, count: chunk.count,
      buffer: .scratch(offset: ScratchUnits.offset(unit)), purpose: .operation, subject: index,
      owner: .none, unit: unit)
  }

  private mutating func repairProbed(_ job: Int, error: Int32) {
    let work = repairs.jobs[job]
    let index = Int(work.operation)
    dropRepairUnits(job)
    if error == 0 {
      skipPiece(job)
    } else if operations[index].chunk.count > work.grainBytes {
      repairs.jobs[job].pieceBytes = operations[index].chunk.count / 2
      probeNext(job)
    } else {
      lockRepair(job, operations[index].chunk)
    }
  }

  /// The piece is done with; the next ones may be longer again.
  private mutating func skipPiece(_ job: Int) {
    let done = operations[Int(repairs.jobs[job].operation)].chunk
    let range = repairs.jobs[job].range
    let left = range.end > done.end ? range.end - done.end : 0
    repairs.jobs[job].range = ByteRange(offset: done.end, count: left)
    repairs.jobs[job].pieceBytes *= 2
    probeNext(job)
  }

  // MARK: Rewriting a piece

  private mutating func lockRepair(_ job: Int, _ piece: ByteRange) {
    let index = Int(repairs.jobs[job].operation)
    operations[index].chunk = piece
    operations[index].isExclusive = true
    operations[index].error = 0
    repairs.jobs[job].isLocked = true
    repairs.jobs[job].step = .source
    enterLock(index)
  }

  /// The lock is granted, or the log is durable.
  mutating func startRepair(_ index: Int) {
    let job = repairs.job(of: index)
    let leg = repairs.jobs[job].leg
    let chunk = operations[index].chunk
    guard stop == .running, membership.isOpenRecorded, !map.isUnresolved(chunk),
      map.good(online, in: chunk).contains(leg)
    else {
      endRepair(job)
      return
    }
    retainRegions(index)
    guard requireBits(RegionWord.intent, in: chunk) else {
      park(index, .awaitingLog)
      return
    }
    readRepairSource(index)
  }

  private mutating func readRepairSource(_ index: Int) {
    let job = repairs.job(of: index)
    let chunk = operations[index].chunk
    var sources = map.good(online, in: chunk).subtracting(operations[index].tried)
    sources.remove(repairs.jobs[job].leg)
    guard let source = preferable(sources).first else {
      // Nobody has all of it; perhaps somebody has some of its blocks.
      unlockRepair(job)
      if chunk.count > blockBytes {
        repairs.jobs[job].grainBytes = blockBytes
        repairs.jobs[job].pieceBytes = chunk.count / 2
        probeNext(job)
      } else {
        skipPiece(job)
      }
      return
    }
    if operations[index].scratchBlock < 0 {
      guard let unit = takeRepairUnit(bytes: chunk.count) else {
        repairs.dropped += 1
        endRepair(job)
        return
      }
      operations[index].scratchBlock = unit
    }
    repairs.jobs[job].step = .source
    readForRepair(index, on: source, operations[index].scratchBlock)
  }

  /// A read of a repair is back.
  mutating func repairRead(_ index: Int, _ leg: LegSlot, error: Int32) {
    let job = repairs.job(of: index)
    switch repairs.jobs[job].step {
    case .probing: repairProbed(job, error: error)
    case .source:
      guard error == 0 else {
        operations[index].tried.insert(leg)
        readRepairSource(index)
        return
      }
      operations[index].written = LegSet(leg)
      let target = repairs.jobs[job].leg
      guard map.good(online, in: operations[index].chunk).contains(target) else {
        endRepair(job)
        return
      }
      repairs.jobs[job].step = .writing
      issueWrites(index, to: LegSet(target))
    case .verifying: repairVerified(job, error: error)
    case .writing: preconditionFailure("a write is no read")
    }
  }

  /// The write is decided: the leg has it, or was failed, or is stale there.
  mutating func repairWritten(_ index: Int) {
    let job = repairs.job(of: index)
    let leg = repairs.jobs[job].leg
    guard operations[index].written.contains(leg), online.contains(leg),
      let unit = takeRepairUnit(bytes: operations[index].chunk.count)
    else {
      endRepair(job)
      return
    }
    repairs.jobs[job].backUnit = unit
    repairs.jobs[job].step = .verifying
    readForRepair(index, on: leg, unit)
  }

  private mutating func repairVerified(_ job: Int, error: Int32) {
    let work = repairs.jobs[job]
    let index = Int(work.operation)
    let chunk = operations[index].chunk
    if error == 0, isEqual(operations[index].scratchBlock, work.backUnit, Int(chunk.count)) {
      legs[work.leg.index].repairedBlocks += chunk.count / blockBytes
      let score = legs[work.leg.index].readErrorScore
      legs[work.leg.index].readErrorScore = score - min(score, Engine.repairedScore)
      note(MirrorEvent(.readRepaired, leg: work.leg, detail: chunk.offset))
      unlockRepair(job)
      skipPiece(job)
      return
    }
    // The disk takes a write and does not hold it: nothing on it can be trusted.
    failLeg(work.leg, .failed, errno: Errno.eio)
    if error == 0, online.contains(work.leg), isLogged {
      // The only good copy of something else. Here it shall not be asked.
      operations[index].written.remove(work.leg)
      operations[index].failed = LegSet(work.leg)
      membership.needsCommit = true
      staleRecorded(index)
    } else {
      endRepair(job)
    }
  }

  private func isEqual(_ left: Int32, _ right: Int32, _ count: Int) -> Bool {
    var differences: UInt64 = 0
    // Both units are the engine's own: no I/O uses them any more. Blocks are multiples of 8 bytes.
    scratch.withBytes(at: ScratchUnits.offset(left), count: count) { left in
      scratch.withBytes(at: ScratchUnits.offset(right), count: count) { right in
        for offset in stride(from: 0, to: count, by: 8) {
          differences |=
            left.bytes.littleEndianUInt64(at: offset) ^ right.bytes.littleEndianUInt64(at: offset)
        }
      }
    }
    return differences == 0
  }

  // MARK: Ends

  /// Its last awaited leg was failed.
  mutating func repairOrphaned(_ index: Int) {
    let job = repairs.job(of: index)
    if repairs.jobs[job].step == .source {
      // The unit stays lent to the late I/O; another source reads into another one.
      units.release(operations[index].scratchBlock)
      operations[index].scratchBlock = -1
      readRepairSource(index)
    } else {
      endRepair(job)
    }
  }

  /// A leg was failed: probes on it, which hold no lock, end.
  mutating func dropProbes(of slot: LegSlot) {
    for job in repairs.jobs where job.isActive && !job.isLocked && job.leg == slot {
      let index = Int(job.operation)
      if operations[index].awaited.contains(slot) {
        operations[index].awaited = .none
        orphaned.push(Int32(index))
      }
    }
  }

  private mutating func dropRepairUnits(_ job: Int) {
    let index = Int(repairs.jobs[job].operation)
    if operations[index].scratchBlock >= 0 {
      units.release(operations[index].scratchBlock)
      operations[index].scratchBlock = -1
    }
    if repairs.jobs[job].backUnit >= 0 {
      units.release(repairs.jobs[job].backUnit)
      repairs.jobs[job].backUnit = -1
    }
  }

  private mutating func unlockRepair(_ job: Int) {
    dropRepairUnits(job)
    guard repairs.jobs[job].isLocked else { return }
    repairs.jobs[job].isLocked = false
    let index = Int(repairs.jobs[job].operation)
    leaveChunk(index)
    operations[index].tried = .none
    operations[index].isExclusive = false
  }

  /// The job ends: done, or it cannot go on.
  mutating func endRepair(_ job: Int) {
    unlockRepair(job)
    let index = Int(repairs.jobs[job].operation)
    repairs.jobs[job].isActive = false
    // A failed leg may still hold I/O of it; the slot is free when that is back.
    operations[index].phase = .answered
    releaseIfAnswered(index)
  }
}
