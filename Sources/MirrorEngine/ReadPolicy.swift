// Which leg answers a read.
//
// Every policy first leaves out, as long as another leg is left: legs that just failed something,
// legs on which a read is stuck, write-mostly legs. Then:
//
// | policy       | the leg                                                                        |
// | adaptive     | least expected completion time: (I/O in flight + 1) x what a read takes there, |
// |              | which is its smoothed latency, or the age of the oldest read in flight on it   |
// | prefer       | that leg; adaptive where it is not good                                        |
// | leastPending | fewest I/O in flight                                                           |
// | roundRobin   | in turn, as in all ties                                                        |
//
// Adaptive, too: a read that continues a stream stays on the stream's leg where that is clearly
// cheaper and the leg's queue is not much longer than the shortest (LegSpeed says where: rotating
// disks). A large read is split over legs that are nearly idle and about as fast, unless one of them
// is better off with streams.
//
// Reads in flight stand in one list per leg, in the order in which they were issued.

import Base
import MirrorFormat

/// How a leg is chosen for a read.
public enum ReadPolicy: BitwiseCopyable, Equatable, Hashable, Sendable {
  /// The good leg that is expected to answer first; streams and large reads are looked after.
  case adaptive
  /// The good legs in turn.
  case roundRobin
  /// The good leg with the fewest I/Os in flight; in turn where they are equal.
  case leastPending
  /// This leg wherever it is good, else as `adaptive`.
  case prefer(LegSlot)
}

/// What the engine remembers to choose legs for reads.
struct ReadChoice: ~Copyable {
  /// The leg that was chosen last.
  var lastLeg: UInt8 = 0
  var streams = ReadStreams()
  /// Legs on which a read has been in flight for much longer than it should: read elsewhere.
  var stuck = LegSet.none
  var writeMostly = LegSet.none
  var fadedAt = Instant.zero
  /// Each read brings one, a hedged read costs `hedgeEvery`; at first all that can be saved.
  var hedgeTokens = Engine.hedgeEvery * Engine.hedgesMax
}

extension Engine {
  /// A read that is in flight for so long, and four times longer than 99 of 100 reads of its leg,
  /// is stuck.
  static let stuckNanosecondsMin = 100 * Nanoseconds.millisecond
  /// A stream leaves its leg if so many more I/Os are in flight there than on the idlest.
  static let streamQueueMax = 4
  /// Reads of at least so many bytes may be split, in pieces whose borders are multiples of
  /// `pieceAlignBytes` of the device.
  static let splitBytesMin: UInt64 = 512 << 10
  static let pieceAlignBytes: UInt64 = 64 << 10

  /// The leg for a read of `chunk`; nil if there is none.
  mutating func chooseLeg(_ candidates: LegSet, for chunk: ByteRange) -> LegSlot? {
    guard !candidates.isEmpty else { return nil }
    let best = preferable(candidates)
    let leg: LegSlot?
    switch start.readPolicy {
    case .adaptive: leg = fastest(best, for: chunk)
    case .roundRobin: leg = inTurn(best)
    case .leastPending: leg = leastPending(best)
    case .prefer(let wanted): leg = best.contains(wanted) ? wanted : fastest(best, for: chunk)
    }
    return leg
  }

  /// What is left of `candidates` without those that are read only if nothing else can.
  func preferable(_ candidates: LegSet) -> LegSet {
    let avoided = suspects.union(choice.stuck)
    var best = candidates.subtracting(avoided)
    if best.isEmpty { best = candidates }
    let preferred = best.subtracting(choice.writeMostly)
    return preferred.isEmpty ? best : preferred
  }

  /// The first above the last one that was chosen, else the first of all.
  private mutating func inTurn(_ best: LegSet) -> LegSlot? {
    let above = LegSet(
      bits: best.bits & ~UInt8(truncatingIfNeeded: (UInt16(2) << UInt16(choice.lastLeg)) - 1))
    let leg = above.first ?? best.first
    if let leg { choice.lastLeg = leg.raw }
    return leg
  }

  private mutating func leastPending(_ best: LegSet) -> LegSlot? {
    var least = Int.max
    var idle = LegSet.none
    var rest = best
    while let leg = rest.popFirst() {
      let pending = legs[leg.index].inFlight
      if pending < least {
        least = pending
        idle = LegSet(leg)
      } else if pending == least {
        idle.insert(leg)
      }
    }
    return inTurn(idle)
  }

  // MARK: Adaptive

  private mutating func fastest(_ best: LegSet, for chunk: ByteRange) -> LegSlot? {
    let stream = choice.streams.leg(at: chunk.offset)
    var least = UInt64.max
    var ties = LegSet.none
    var shortest = Int.max
    var rest = best
    while let leg = rest.popFirst() {
      shortest = min(shortest, legs[leg.index].inFlight)
      let expected = expectedNanoseconds(leg, isContinuing: leg == stream)
      if expected < least {
        least = expected
        ties = LegSet(leg)
      } else if expected == least {
        ties.insert(leg)
      }
    }
    var leg = inTurn(ties)
    if let stream, best.contains(stream), legs[stream.index].speed.isSticky,
      legs[stream.index].inFlight <= shortest + Engine.streamQueueMax,
      oldestReadNanoseconds(stream) <= 2 * legs[stream.index].speed.other
    {
      leg = stream
    }
    if let leg { choice.streams.note(end: chunk.end, on: leg) }
    return leg
  }

  /// When a read that is given to `leg` now should be back, in nanoseconds from now.
  func expectedNanoseconds(_ leg: LegSlot, isContinuing: Bool) -> UInt64 {
    let inFlight = UInt64(legs[leg.index].inFlight)
    var each = legs[leg.index].speed.nextNanoseconds(isContinuing: isContinuing)
    if each == 0, inFlight > 0 { each = LegSpeed.unknownNanoseconds }
    if legs[leg.index].oldestRead >= 0 { each = max(each, oldestReadNanoseconds(leg)) }
    return each.multipliedReportingOverflow(by: inFlight + 1).partialValue
  }

  /// Age of the oldest read in flight on `leg`; 0 if there is none.
  func oldestReadNanoseconds(_ leg: LegSlot) -> UInt64 {
    guard legs[leg.index].oldestRead >= 0 else { return 0 }
    return now.nanoseconds(since: legs[leg.index].oldestReadStart)
  }

  /// Looks which legs are read only if nothing else can: once per batch, not once per read.
  mutating func lookWhomToAvoid() {
    choice.stuck = .none
    choice.writeMostly = .none
    var rest = online
    while let leg = rest.popFirst() {
      if legs[leg.index].isWriteMostly { choice.writeMostly.insert(leg) }
      let age = oldestReadNanoseconds(leg)
      guard age >= Engine.stuckNanosecondsMin else { continue }
      if age >= 4 * (legs[leg.index].speed.recent.p99Nanoseconds ?? 0) { choice.stuck.insert(leg) }
    }
  }

  /// What was not measured lately is believed less.
  mutating func fadeSpeeds() {
    guard now.nanoseconds(since: choice.fadedAt) >= LegSpeed.fadeNanoseconds else { return }
    choice.fadedAt = now
    var rest = online
    while let leg = rest.popFirst() {
      if legs[leg.index].oldestRead < 0 { legs[leg.index].speed.fade() }
    }
  }

  // MARK: Large reads

  /// The legs that share the read of a chunk; fewer than two: it is not split.
  func sharers(of chunk: ByteRange, _ candidates: LegSet) -> LegSet {
    guard start.readPolicy == .adaptive, chunk.count >= Engine.splitBytesMin else { return .none }
    var fast = LegSet.none
    var least = UInt64.max
    var rest = preferable(candidates)
    while let leg = rest.popFirst() {
      let speed = legs[leg.index].speed.other
      if legs[leg.index].speed.isSticky { return .none }
      guard speed > 0, legs[leg.index].inFlight <= 1 else { continue }
      least = min(least, speed)
      fast.insert(leg)
    }
    var shared = LegSet.none
    while let leg = fast.popFirst() {
      let each = max(legs[leg.index].speed.other, oldestReadNanoseconds(leg))
      if each / 2 <= least { shared.insert(leg) }
    }
    return shared
  }

  /// Reads a chunk in pieces, one on each of `shared`.
  mutating func issuePieces(_ index: Int, to shared: LegSet) {
    let operation = operations[index]
    let chunk = operation.chunk
    operations[index].phase = .reading
    operations[index].asked = shared
    operations[index].awaited = shared
    let pieceBytes = chunk.count / UInt64(shared.count)
    var position = chunk.offset
    var rest = shared
    while let leg = rest.popFirst() {
      let end =
        rest.isEmpty
        ? chunk.end : Bytes.alignDown(position + pieceBytes, to: Engine.pieceAlignBytes)
      issueRead(
        index, on: leg, ByteRange(offset: position, count: end - position),
        buffer: .request(operation.token, offset: operation.cursor + position - chunk.offset))
      choice.streams.note(end: end, on: leg)
      position = end
    }
  }

  /// A piece is back. The chunk is read once all are; else as a whole, elsewhere.
  mutating func pieceFinished(_ index: Int, _ leg: LegSlot, error: Int32) {
    if error == 0 {
      operations[index].written.insert(leg)
    } else {
      operations[index].tried.insert(leg)
      noteReadError(index, leg, error: error)
    }
    guard operations[index].awaited.isEmpty else { return }
    let operation = operations[index]
    operations[index].asked = .none
    if operation.written == operation.asked {
      readDone(index)
    } else if operation.written.union(operation.tried).isSuperset(of: operation.asked) {
      operations[index].written = .none
      askAgain(index)
    } else {
      // A piece is still with a leg that was failed.
      operations[index].written = .none
      readOrphaned(index)
    }
  }

  // MARK: Reads in flight

  /// Issues a client's read, or a piece of it, and puts it into the list of its leg.
  @discardableResult
  mutating func issueRead(
    _ index: Int, on leg: LegSlot, _ range: ByteRange, buffer: BufferReference, unit: Int32 = -1
  ) -> Int32 {
    let isContinuing = choice.streams.leg(at: range.offset) == leg
    let record = issue(
      .read, on: leg, offset: start.layout.dataOffset + range.offset, count: range.count,
      buffer: buffer, purpose: .operation, subject: index, owner: operations[index].token,
      unit: unit)
    let newest = legs[leg.index].link(Int32(record), start: now)
    records[record].list(bytes: range.count, isContinuing: isContinuing, older: newest)
    if newest >= 0 { records[Int(newest)].newer = Int32(record) }
    return Int32(record)
  }

  /// Takes a read out of its leg's list.
  mutating func unlink(_ record: Int) {
    let leg = records[record].leg.index
    let older = records[record].older
    let newer = records[record].newer
    if legs[leg].hedgeNext == Int32(record) { legs[leg].hedgeNext = newer }
    if older >= 0 {
      records[Int(older)].newer = newer
    } else {
      legs[leg].oldestRead = newer
      if newer >= 0 { legs[leg].oldestReadStart = records[Int(newer)].start }
    }
    if newer >= 0 { records[Int(newer)].older = older } else { legs[leg].newestRead = older }
    records[record].isListed = false
  }
}
