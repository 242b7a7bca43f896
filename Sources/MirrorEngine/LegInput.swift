// Issuing I/O and accounting for its completion: the only place where `io` effects are made.

import Base

extension Engine {
  /// Makes an `io` effect. `offset` is on the PV. A scratch unit is lent until the completion.
  /// Returns the record.
  @discardableResult
  mutating func issue(
    _ kind: IOKind, on leg: LegSlot, offset: UInt64, count: UInt64, buffer: BufferReference,
    isDurable: Bool = false, purpose: IORecord.Purpose, subject: Int, owner: RequestToken,
    unit: Int32 = -1
  ) -> Int {
    let phase = legs[leg.index].phase
    precondition(
      phase == .online || phase == .joining || phase == .spare && purpose == .label,
      "an offline leg gets no I/O, a spare labels only")
    let index = takeRecord(purpose, kind, on: leg, unit: unit)
    records[index].subject = Int32(subject)
    if purpose == .operation { operations[subject].pendingIO += 1 }
    legs[leg.index].inFlight += 1
    emit(
      .io(
        LegIO(
          token: ioToken(index), leg: leg, kind: kind, isDurable: isDurable, offset: offset,
          count: count, buffer: buffer, owner: owner)))
    return index
  }

  /// A record in use; the unit, if any, is lent to it.
  mutating func takeRecord(
    _ purpose: IORecord.Purpose, _ kind: IOKind, on leg: LegSlot, unit: Int32
  ) -> Int {
    precondition(freeRecord >= 0, "the record table covers every I/O that can be in flight")
    let index = Int(freeRecord)
    freeRecord = records[index].nextFree
    recordsInUse += 1
    records[index].take(purpose, kind, on: leg, unit: unit, now: now)
    if unit >= 0 { units.retain(unit) }
    return index
  }

  func ioToken(_ record: Int) -> IOToken {
    IOToken(raw: UInt64(records[record].generation & 0xff_ffff) << 32 | UInt64(record))
  }

  /// Frees the record of a completed I/O and what it was lent.
  mutating func giveBack(_ index: Int) {
    let leg = records[index].leg.index
    let unit = records[index].scratchUnit
    if unit >= 0 { units.release(unit) }
    if records[index].purpose != .delivery { legs[leg].inFlight -= 1 }
    if records[index].isListed { unlink(index) }
    if records[index].purpose == .operation {
      operations[Int(records[index].subject)].pendingIO -= 1
    }
    records[index].purpose = .free
    records[index].generation &+= 1
    records[index].nextFree = freeRecord
    freeRecord = Int32(index)
    recordsInUse -= 1
  }

  /// Counts errors and latencies of the leg.
  mutating func account(_ record: IORecord, error: Int32) {
    guard record.purpose != .delivery else { return }
    let leg = record.leg.index
    guard error == 0 else {
      if record.kind == .read {
        legs[leg].readErrors += 1
      } else {
        legs[leg].writeErrors += 1
      }
      return
    }
    switch record.kind {
    case .read:
      let nanoseconds = now.nanoseconds(since: record.start)
      legs[leg].readLatency.record(nanoseconds: nanoseconds)
      guard record.isListed else { return }
      legs[leg].speed.record(
        nanoseconds: nanoseconds, bytes: UInt64(record.bytes), isContinuing: record.isContinuing)
    case .write, .zero, .discard:
      legs[leg].writeLatency.record(nanoseconds: now.nanoseconds(since: record.start))
    case .flush: break
    }
  }

  // MARK: Operations

  mutating func takeOperation() -> Int {
    guard let index = freeOperations.popLast() else {
      preconditionFailure("the operation table has room for requestsMax requests and the copies")
    }
    operations[Int(index)] = Operation()
    operations[Int(index)].phase = .locking
    return Int(index)
  }

  mutating func freeOperation(_ index: Int) {
    precondition(operations[index].pendingIO == 0, "I/O in flight keeps the slot")
    precondition(!operations[index].holdsRegions, "regions are released first")
    operations[index].phase = .free
    freeOperations.append(Int32(index))
  }

  /// An I/O of an operation is back.
  mutating func operationCompleted(_ index: Int, record: IORecord, error: Int32) {
    if record.isHedge { operations[index].hedgeRecord = -1 }
    guard operations[index].awaited.contains(record.leg) else {
      // A leg that was failed meanwhile: nobody waits for it; only the buffer did.
      releaseIfAnswered(index)
      return
    }
    operations[index].awaited.remove(record.leg)
    switch operations[index].phase {
    case .reading:
      if record.isHedge || operations[index].hedgeRecord >= 0 {
        hedgedFinished(index, record, error: error)
      } else {
        readFinished(index, record.leg, error: error)
      }
    case .writing: writeFinished(index, record.leg, error: error)
    case .free, .locking, .awaitingOpen, .awaitingLog, .awaitingScratch, .awaitingStale,
      .awaitingAck, .flushing, .answered:
      preconditionFailure("no I/O is awaited in this phase")
    }
  }

  /// The last awaited leg was failed: the operation goes on without it.
  mutating func orphanDecided(_ index: Int) {
    guard operations[index].awaited.isEmpty else { return }
    switch operations[index].phase {
    case .reading: readOrphaned(index)
    case .writing: decideWrite(index)
    case .free, .locking, .awaitingOpen, .awaitingLog, .awaitingScratch, .awaitingStale,
      .awaitingAck, .flushing, .answered:
      break
    }
  }

  /// The answer has gone out: gives the buffer back once the kernel has.
  mutating func releaseIfAnswered(_ index: Int) {
    guard operations[index].phase == .answered else { return }
    if operations[index].pendingIO > 0 {
      // Only what the client knows of is too early then: the slot stays.
      if !keeps(.releaseAfterIO), !operations[index].isInternal {
        emit(.release(operations[index].token))
      }
      return
    }
    let token = operations[index].token
    let isInternal = operations[index].isInternal
    freeOperation(index)
    guard !isInternal else { return }
    requestCount -= 1
    emit(.release(token))
  }

  /// Answers the client and is done with the request but for I/O that hangs.
  mutating func answer(_ index: Int) {
    precondition(!operations[index].isInternal, "copies, repairs and scrubs have no client")
    rate.clientSeen(now: now)
    emit(.reply(operations[index].token, error: operations[index].error))
    operations[index].phase = .answered
    openRequests -= 1
    releaseIfAnswered(index)
  }
}
