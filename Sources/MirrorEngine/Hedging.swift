// Hedged reads: a client's read that a leg owes for too long is sent to a second leg, too.
//
//   in flight on A -> (older than hedgeAfter) -> in flight on A and B -> answered by whoever is first
//
// | first            | what happens                                                               |
// | A, good          | the answer; B's I/O is let go: it only frees its scratch unit              |
// | B, good          | a fresh buffer if A's I/O may still write into the old one, B's data is     |
// |                  | delivered into it, the answer; A's I/O keeps the old buffer leased          |
// | A, error or      | B is awaited                                                               |
// | A's leg failed   |                                                                            |
// | B, error or      | A is awaited, as if nothing had been                                       |
// | B's leg failed   |                                                                            |
// | both             | as a read that failed, or that was orphaned                                |
//
// 1. A read is too old after 1 ms or after what 99 of 100 reads of its leg take lately, whichever is
//    longer: a leg that is slow as a whole is not hedged but read less (ReadPolicy).
// 2. At most one of 20 reads, with a reserve of 32: a leg that hangs must not double the load on
//    the others.
// 3. Only requests that are one chunk of at most 1 MiB, under a shared lock; one leg more at most.
// 4. B reads into a scratch unit, for A may write into the request's buffer at any moment. The unit
//    is lent until the delivery was performed.
//
// Reads of a leg stand in a list by age; `hedgeNext` is the oldest that was not yet looked at, so
// nothing is ever searched.

import Base
import MirrorFormat

extension Engine {
  /// No read is hedged before.
  static let hedgeNanosecondsMin = Nanoseconds.millisecond
  /// When a read is hedged on a leg of which too little is known.
  static let hedgeNanosecondsUnknown = 50 * Nanoseconds.millisecond
  static let hedgeBytesMax: UInt64 = 1 << 20
  /// One read more per so many.
  static let hedgeEvery = 20
  /// Most that are saved up.
  static let hedgesMax = 32
  /// Windows that hedged reads leave to copies and repairs.
  static let hedgeWindowsReserved = Copier.jobCount + ReadRepair.jobCount

  /// How long a read of `leg` may take before it is hedged.
  func hedgeAfter(_ leg: LegSlot) -> UInt64 {
    max(
      Engine.hedgeNanosecondsMin,
      legs[leg.index].speed.recent.p99Nanoseconds ?? Engine.hedgeNanosecondsUnknown)
  }

  /// A client's read was given to a leg.
  mutating func saveForHedges() {
    choice.hedgeTokens = min(choice.hedgeTokens + 1, Engine.hedgeEvery * Engine.hedgesMax)
  }

  /// Sends what is overdue to a second leg, and sees to it that the next one is not forgotten.
  mutating func hedgeReads() {
    guard start.isHedging, online.count > 1 else { return }
    var rest = online
    while let leg = rest.popFirst() {
      guard legs[leg.index].hedgeNext >= 0 else { continue }
      let after = hedgeAfter(leg)
      while legs[leg.index].hedgeNext >= 0 {
        let record = Int(legs[leg.index].hedgeNext)
        if canBeHedged(record) {
          let due = records[record].start.advanced(byNanoseconds: after)
          guard now >= due else {
            wake(at: due)
            break
          }
          // Only new reads bring new tokens, and they bring their own `settle`.
          guard choice.hedgeTokens >= Engine.hedgeEvery else { break }
          hedge(record)
        }
        legs[leg.index].hedgeNext = records[record].newer
      }
    }
  }

  private func canBeHedged(_ record: Int) -> Bool {
    guard records[record].purpose == .operation, !records[record].isHedge else { return false }
    let index = Int(records[record].subject)
    return operations[index].kind == .read && operations[index].phase == .reading
      && !operations[index].isExclusive && !map.isUnresolved(operations[index].chunk)
      && operations[index].asked.isEmpty
      && operations[index].awaited == LegSet(records[record].leg)
      && operations[index].chunk.count <= Engine.hedgeBytesMax
      && operations[index].chunk == operations[index].range
      && operations[index].scratchBlock < 0 && operations[index].hedgeRecord < 0
  }

  private mutating func hedge(_ record: Int) {
    let index = Int(records[record].subject)
    let slow = records[record].leg
    let chunk = operations[index].chunk
    guard let leg = secondLeg(for: index, besides: slow), let unit = takeHedgeUnit(chunk.count)
    else { return }
    choice.hedgeTokens -= Engine.hedgeEvery
    legs[slow.index].hedgedReads += 1
    operations[index].scratchBlock = unit
    operations[index].hedgedLeg = slow
    operations[index].awaited.insert(leg)
    operations[index].hedgeRecord = issueRead(
      index, on: leg, chunk, buffer: .scratch(offset: ScratchUnits.offset(unit)), unit: unit)
    records[Int(operations[index].hedgeRecord)].isHedge = true
  }

  /// The leg that is expected to answer first, of those that do not owe an answer themselves.
  private func secondLeg(for index: Int, besides slow: LegSlot) -> LegSlot? {
    var rest = map.good(online, in: operations[index].chunk)
      .subtracting(operations[index].tried).subtracting(suspects).subtracting(choice.stuck)
    rest.remove(slow)
    var best: LegSlot?
    var least = UInt64.max
    while let leg = rest.popFirst() {
      guard !choice.writeMostly.contains(leg), oldestReadNanoseconds(leg) < hedgeAfter(leg) else {
        continue
      }
      let expected = expectedNanoseconds(leg, isContinuing: false)
      if expected < least {
        least = expected
        best = leg
      }
    }
    return best
  }

  private mutating func takeHedgeUnit(_ bytes: UInt64) -> Int32? {
    if bytes <= UInt64(ScratchUnits.smallBytes) {
      return units.smallFree > ScratchUnits.smallReserved ? units.takeSmall() : nil
    }
    return units.windowsFree > Engine.hedgeWindowsReserved ? units.takeWindow() : nil
  }

  // MARK: Completions

  /// A read that is or was in flight on two legs: one of them has answered.
  mutating func hedgedFinished(_ index: Int, _ record: IORecord, error: Int32) {
    if error != 0 {
      operations[index].tried.insert(record.leg)
      noteReadError(index, record.leg, error: error)
      if record.isHedge { dropHedgeUnit(index) }
      // The other one decides.
      guard operations[index].awaited.isEmpty else { return }
      let mayWrite = operations[index].pendingIO > (operations[index].hedgeRecord >= 0 ? 1 : 0)
      letHedgeGo(index)
      if mayWrite { readOrphaned(index) } else { askAgain(index) }
    } else if record.isHedge {
      deliver(index)
      operations[index].awaited = .none
      readDone(index)
    } else {
      letHedgeGo(index)
      operations[index].awaited = .none
      readDone(index)
    }
  }

  /// The second leg was first: its data goes into the request's buffer.
  private mutating func deliver(_ index: Int) {
    let operation = operations[index]
    if operation.awaited.contains(operation.hedgedLeg) {
      legs[operation.hedgedLeg.index].hedgesWon += 1
    }
    if operation.pendingIO > 0 { emit(.replaceBuffer(operation.token)) }
    let record = takeRecord(.delivery, .read, on: operation.hedgedLeg, unit: operation.scratchBlock)
    emit(
      .deliver(
        ioToken(record), owner: operation.token, requestOffset: operation.cursor,
        scratchOffset: ScratchUnits.offset(operation.scratchBlock),
        count: Int(operation.chunk.count)))
    dropHedgeUnit(index)
  }

  /// Nobody waits for the second leg any more; its I/O is no longer the operation's.
  mutating func letHedgeGo(_ index: Int) {
    dropHedgeUnit(index)
    let record = Int(operations[index].hedgeRecord)
    guard record >= 0 else { return }
    operations[index].hedgeRecord = -1
    operations[index].awaited.remove(records[record].leg)
    operations[index].pendingIO -= 1
    records[record].purpose = .spent
  }

  /// The unit is the I/O's, or the delivery's, alone.
  private mutating func dropHedgeUnit(_ index: Int) {
    guard operations[index].kind == .read, operations[index].scratchBlock >= 0 else { return }
    units.release(operations[index].scratchBlock)
    operations[index].scratchBlock = -1
  }
}
