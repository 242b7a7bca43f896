// Flush rounds: one fdatasync on every online leg serves every flush that waited for it.
//
// A round covers every write that was acked before the round began, on any connection; whoever
// comes while it runs waits for the next one. A failed fdatasync is never retried: the leg is good
// only up to its last good flush and goes offline, or, if it is the last one, flushes fail until
// it is cleared by command. A round none of whose legs is left is run again on those that came.

import Base
import MirrorFormat

extension Engine {
  mutating func beginFlush(_ index: Int) {
    if start.isReadOnly {
      answer(index)
      return
    }
    if flushes.isLatched {
      operations[index].error = Errno.eio
      answer(index)
      return
    }
    operations[index].phase = .flushing
    if flushes.isInFlight, !keeps(.ownFlushRound) {
      flushes.current.push(Int32(index))
      return
    }
    flushes.next.push(Int32(index))
  }

  mutating func startFlushRound() {
    guard !flushes.isInFlight, !flushes.next.isEmpty || !flushes.nextPurposes.isEmpty else {
      return
    }
    precondition(flushes.current.isEmpty, "a round takes over an empty list")
    while let index = flushes.next.pop() { flushes.current.push(index) }
    flushes.currentPurposes = flushes.nextPurposes
    flushes.nextPurposes = FlushRounds.Purposes()
    if flushes.currentPurposes.finishesCopies { copier.flushStarted() }
    flushes.isInFlight = true
    flushes.awaited = online
    flushes.flushed = .none
    flushes.failed = .none
    // A leg that is neither online nor recorded has no part in what the round covers. One that
    // is recorded but offline by now must be excluded by a label before the ack.
    flushes.excused = LegSet(bits: 0xff).subtracting(online)
      .subtracting(membership.recordedOnline)
    var rest = online
    while let leg = rest.popFirst() {
      issue(
        .flush, on: leg, offset: 0, count: 0, buffer: .none, purpose: .flush, subject: 0,
        owner: .none)
    }
  }

  mutating func flushCompleted(_ leg: LegSlot, error: Int32) {
    guard flushes.isInFlight, flushes.awaited.contains(leg) else { return }
    flushes.awaited.remove(leg)
    let isGood = error == 0 || !keeps(.failedFlushFailsLeg)
    if isGood { flushes.flushed.insert(leg) } else { flushes.failed.insert(leg) }
    if flushes.awaited.isEmpty { flushRoundFinished() }
  }

  mutating func flushRoundFinished() {
    flushes.isInFlight = false
    var failed = flushes.failed
    while let leg = failed.popFirst() {
      failLeg(leg, .failed, errno: Errno.eio)
      if online.contains(leg) {
        // The only good copy of something: what it acked and had not flushed may be gone.
        flushes.isLatched = true
        flushes.latchedLegs.insert(leg)
        note(MirrorEvent(.flushLatched, leg: leg))
      }
    }
    guard flushes.isLatched || !flushes.flushed.isEmpty || online.isEmpty else {
      repeatFlushRound()
      return
    }
    let isGood = !flushes.isLatched && !flushes.flushed.isEmpty
    while let index = flushes.current.pop() {
      let operation = Int(index)
      if operations[operation].isPreparing {
        zeroesFlushed(operation, isGood: isGood)
        continue
      }
      operations[operation].written = flushes.flushed
      operations[operation].excused = flushes.excused
      if isGood {
        tryAck(operation)
      } else {
        operations[operation].error = Errno.eio
        answer(operation)
      }
    }
    let purposes = flushes.currentPurposes
    flushes.currentPurposes = FlushRounds.Purposes()
    if purposes.clearsIntent { intentsFlushed(isGood: isGood) }
    if purposes.finishesCopies { copiesFlushed(isGood: isGood, flushed: flushes.flushed) }
    if purposes.resolvesAlone, isGood { aloneFlushed() }
    if purposes.stops { stopFlushed(isGood: isGood) }
  }
  /// All legs of the round went offline before they had flushed, which they may because others that
  /// came meanwhile have everything: those are asked, for the first time, by the next round.
  private mutating func repeatFlushRound() {
    while let index = flushes.current.pop() { flushes.next.push(index) }
    if flushes.currentPurposes.finishesCopies {
      // Their copies are made again.
      copiesFlushed(isGood: false, flushed: .none)
      flushes.currentPurposes.finishesCopies = false
    }
    flushes.nextPurposes.formUnion(flushes.currentPurposes)
    flushes.currentPurposes = FlushRounds.Purposes()
  }
}
