// The log commit: dirty pages of the region map, one batch in flight, the rest gathers.
//
// Every page of a batch goes to every online leg (and to joining ones), durable, into the copy that
// does not hold the leg's newest image. A leg that fails a page goes offline; if one that failed
// has to stay online, the whole batch counts as failed: a bit is durable in the log of *every*
// online leg or not at all.
//
// A leg that is gone counts as well as long as a label on some online leg may list it: started
// alone it would go on without knowing what the others have written since, and they would come back
// to it as if they had not. So the log waits for the label that excludes it.
//
// A degraded start. Who was offline before lacks what the legs have got that are only absent now:
// that follows from the head's label, which still lists them online, and from no later one. So
// the pages that say it go out as they were elected, and before the label does. What makes the
// absent legs stale goes out behind it: it holds only under the new generation (two starts that
// died before their labels would make each other's legs stale), and follows from that.

import Base
import MirrorFormat

extension Engine {
  /// No batch can be durable before another label is.
  var isLogBehindLabel: Bool {
    !online.union(joiningLegs).isSuperset(of: membership.mayBeListed) && keeps(.logOnListedLegs)
  }

  mutating func startLogCommit() {
    guard !log.isInFlight else { return }
    guard nextPage(from: 0) != nil else {
      wakeLogWaiters()
      return
    }
    let isOpening = log.openingPages.count > 0
    guard isOpening || membership.isOpenRecorded && !isLogBehindLabel else { return }
    guard
      !log.waiters.isEmpty || (isOpening && !labelWaiters.isEmpty)
        || (log.wantsCommit && now >= log.retryAt)
    else { return }
    let targets = isOpening ? online : online.union(joiningLegs)
    log.batch.removeAll(keepingCapacity: true)
    log.batchUnits.removeAll(keepingCapacity: true)
    var from = 0
    while log.batch.count < RegionLog.batchPagesMax, units.smallFree > 2 * LegSlot.count,
      let page = nextPage(from: from)
    {
      guard let unit = units.takeSmall() else { break }
      log.batch.append(Int32(page))
      log.batchUnits.append(unit)
      from = page + 1
    }
    guard !log.batch.isEmpty else { return }
    log.isInFlight = true
    log.legs = targets
    log.awaited = targets
    log.failed = .none
    for slot in 0..<LegSlot.count { log.outstanding[slot] = 0 }
    for position in log.batch.indices { writePage(position, to: targets) }
    if map.dirtyPages.count == 0 { log.wantsCommit = false }
  }

  /// The next page to be written. With a log in memory only what has to be on the disk: all pages
  /// at a stop and for a leg that joins, and those that call regions unwritten which are to be
  /// written.
  private func nextPage(from page: Int) -> Int? {
    if log.openingPages.count > 0 { return log.openingPages.first(from: page) }
    return isLogged || stop == .committing || log.joinPages.count > 0
      ? map.dirtyPages.first(from: page) : map.clearingPages.first(from: page)
  }

  private mutating func writePage(_ position: Int, to targets: LegSet) {
    let page = Int(log.batch[position])
    let unit = log.batchUnits[position]
    if log.openingPages.count > 0 {
      map.stage(page: page, start.words)
    } else {
      map.stage(page: page)
    }
    log.sequences[page] += 1
    let sequence = log.sequences[page]
    let offset = ScratchUnits.offset(unit)
    let setId = start.setId
    scratch.withBytes(at: offset, count: Layout.pageBytes) { bytes in
      RegionMapPage.encode(
        page: page, sequence: sequence, setId: setId, words: map.staged,
        firstWord: page * Layout.wordsPerPage, into: &bytes)
    }
    var rest = targets
    while let leg = rest.popFirst() {
      let newest = log.copies[page] & (1 << leg.raw) == 0 ? 0 : 1
      let copy = keeps(.alternatePageCopies) ? 1 - newest : newest
      log.outstanding[leg.index] += 1
      issue(
        .write, on: leg, offset: start.layout.pageOffset(page: page, copy: copy),
        count: UInt64(Layout.pageBytes), buffer: .scratch(offset: offset), isDurable: true,
        purpose: .log, subject: page, owner: .none, unit: unit)
    }
  }

  mutating func logPageCompleted(page: Int, _ leg: LegSlot, error: Int32) {
    guard log.isInFlight, log.awaited.contains(leg) else { return }
    if error == 0 {
      if keeps(.alternatePageCopies) { log.copies[page] ^= 1 << leg.raw }
    } else {
      log.failed.insert(leg)
    }
    log.outstanding[leg.index] -= 1
    if log.outstanding[leg.index] == 0 {
      log.awaited.remove(leg)
      if log.awaited.isEmpty { logBatchFinished() }
    }
  }

  mutating func logBatchFinished() {
    log.isInFlight = false
    for unit in log.batchUnits { units.release(unit) }
    var failed = log.failed
    let isBatchOnOthers = failed.intersection(online).count == 1
    while let leg = failed.popFirst() {
      if legs[leg.index].phase == .joining {
        failJoin(leg)
      } else {
        failLeg(leg, .failed, errno: Errno.eio, isBatchOnOthers: isBatchOnOthers)
      }
    }
    let isGood = log.failed.intersection(online).isEmpty
    let isCommitted = isGood && (log.openingPages.count > 0 || !isLogBehindLabel)
    for page in log.batch {
      if isCommitted { map.commit(page: Int(page)) } else { map.fail(page: Int(page)) }
    }
    if isCommitted {
      countJoined(pages: log.batch)
      for page in log.batch { log.openingPages.remove(Int(page)) }
      wakeLogWaiters()
    } else if isGood {
      log.wantsCommit = true  // Once more, behind the label.
    } else {
      // The last good leg takes no log: nothing may be written. The next write tries again.
      log.retryAt = now.advanced(byNanoseconds: Nanoseconds.second)
      log.wantsCommit = true
      if stop == .committing { stop = .stopped }
      failLogWaiters()
      if log.openingPages.count > 0 { failLabelWaiters() }
    }
  }

  /// Everybody looks again whether its bits are durable; who finds them not parks again.
  private mutating func wakeLogWaiters() {
    while let index = log.waiters.pop() { ready.push(index) }
  }

  mutating func failLogWaiters() {
    while let index = log.waiters.pop() {
      let operation = Int(index)
      switch operations[operation].kind {
      case .copy: failCopyWindow(operation)
      case .repair: endRepair(repairs.job(of: operation))
      case .scrub: preconditionFailure("a scrub waits for no log")
      case .read, .write, .zero, .trim, .flush: failChunk(operation, error: Errno.eio)
      }
    }
  }

  var joiningLegs: LegSet {
    var set = LegSet.none
    for index in 0..<LegSlot.count where legs[index].phase == .joining {
      set.insert(LegSlot(index))
    }
    return set
  }
}
