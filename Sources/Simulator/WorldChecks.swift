// What must hold of the legs: protection before data, the newest copy kept, and everything at the
// end.

import Base
import MirrorEngine
import MirrorFormat

extension World {
  // MARK: After every step

  /// Every byte written to a leg is written under protection: its region has `intent`, or is
  /// stale on that leg, on the disk of every online leg, and of every other one that its label lists:
  /// started alone that one would not know.
  mutating func checkProtection(_ io: LegIO) {
    guard scenario.logKind == .disk, io.offset >= layout.dataOffset else { return }
    switch io.kind {
    case .read, .flush: return
    case .write, .zero, .discard: break
    }
    let first = Int((io.offset - layout.dataOffset) / layout.regionBytes)
    let last = Int((io.offset - layout.dataOffset + io.count - 1) / layout.regionBytes)
    // Nobody reads what stands in an unwritten region: it is zeroed without an intent.
    let wanted = RegionWord.intent | RegionWord.unwritten | UInt16(LegSet(io.leg).bits)
    var rest = engine.onlineLegs
    if !scenario.has(.rot), let written = legs[io.leg.index] {
      rest = rest.union(written.listedOnDisk())
    }
    while let slot = rest.popFirst() {
      guard let leg = legs[slot.index] else { continue }
      for region in first...last where leg.wordOnDisk(region, setId: setId) & wanted == 0 {
        fail(
          "leg \(io.leg) is written in region \(region), which leg \(slot)'s log does not know")
      }
    }
  }

  /// The copy of a label or page that was written last stays until the next one is durable.
  mutating func checkMetadata(_ io: LegIO, _ leg: SimulatedLeg) {
    guard io.kind == .write, io.offset < layout.dataOffset else { return }
    if !io.isDurable { fail("metadata of leg \(io.leg) are written without being made durable") }
    let (entry, copy) = place(of: io)
    if entry >= 0, !hasLostData, let page = pageNumber(of: entry) { checkClears(io, page: page) }
    if entry < 0, newestLabel[io.leg.index] == copy {
      fail("the newest label of leg \(io.leg) is overwritten")
    }
    if entry >= 0, newestPage[entry] == copy {
      fail("the newest copy of a page of leg \(io.leg)'s region map is overwritten")
    }
  }

  private func pageNumber(of entry: Int) -> Int? {
    scenario.logKind == .disk ? entry % layout.pageCount : nil
  }

  /// Where an image takes the `intent` of a region away, no leg that is good there by the image has
  /// anything of it in its cache.
  private mutating func checkClears(_ io: LegIO, page: Int) {
    guard case .scratch(let offset) = io.buffer, let target = legs[io.leg.index] else { return }
    let first = page * Layout.wordsPerPage
    for region in first..<min(first + Layout.wordsPerPage, layout.regionCount) {
      let place = offset + RegionMapPage.headerBytes + 2 * (region - first)
      let word = engine.scratch.word(at: place)
      let old = target.wordOnDisk(region, setId: setId)
      guard old & RegionWord.intent != 0,
        word & (RegionWord.intent | RegionWord.unwritten) == 0
      else { continue }
      let begin = UInt64(region) * layout.regionBytes
      let count = min(layout.regionBytes, layout.sizeBytes - begin)
      for slot in 0..<LegSlot.count
      where online.contains(LegSlot(slot)) && LegSlot(slot) != liar
        && word & (1 << UInt16(slot)) == 0
      {
        guard let leg = legs[slot] else { continue }
        let from = leg.place(offset: layout.dataOffset + begin, count: count)
        if leg.hasCached(from..<from + Int(count)) {
          fail("intent of region \(region) is cleared, and leg \(slot) has not flushed all of it")
        }
      }
    }
  }

  /// The index in `newestPage`, or -1 for a label; and the copy.
  private func place(of io: LegIO) -> (Int, Int) {
    if io.offset < layout.mapOffset {
      return (-1, io.offset == Layout.labelOffset(copy: 1) ? 1 : 0)
    }
    for page in 0..<layout.pageCount {
      for copy in 0...1 where layout.pageOffset(page: page, copy: copy) == io.offset {
        return (io.leg.index * layout.pageCount + page, copy)
      }
    }
    return (-1, -1)
  }

  /// A write of metadata is durable.
  mutating func learnCopy(_ io: LegIO) {
    guard io.kind == .write, io.offset < layout.dataOffset, online.contains(io.leg) else { return }
    let (entry, copy) = place(of: io)
    if entry >= 0 { newestPage[entry] = copy } else { newestLabel[io.leg.index] = copy }
  }

  /// A leg is brought in: which of its copies is the newest is not known until it is written.
  mutating func forgetCopies(of slot: LegSlot) {
    newestLabel[slot.index] = -1
    for page in 0..<layout.pageCount { newestPage[slot.index * layout.pageCount + page] = -1 }
  }

  /// A server starts: the newest copies of the legs that are online are those that it has elected.
  mutating func learnCopies(_ plan: AssemblyPlan) {
    for index in 0..<LegSlot.count {
      forgetCopies(of: LegSlot(index))
      guard plan.online.contains(LegSlot(index)), let leg = plan.legs[index] else { continue }
      newestLabel[index] = leg.label.copy
      guard let map = legs[index]?.map(setId: setId) else { continue }
      for page in 0..<layout.pageCount {
        newestPage[index * layout.pageCount + page] = map.newest(page: page)?.copy ?? -1
      }
    }
  }

  // MARK: The liveness phase

  /// What a phase waits for.
  enum Goal {
    case answered, healthy, scrubbed, released

    var text: String {
      switch self {
      case .answered: "all requests are answered"
      case .healthy: "all legs are in sync"
      case .scrubbed: "the scrub is done"
      case .released: "all buffers are released"
      }
    }
  }

  /// Faults stop, legs are there again: the set must become healthy, then stop cleanly.
  mutating func calmDown() {
    if otherSide != nil { rejoinLegs() }
    guard violation == nil else { return }
    isCalm = true
    note(.command, "calm")
    // What was asked for before may still fail: the faults were there.
    isStopping = !scenario.mustSucceed
    losesCacheNow()
    endFaults()
    for slot in 0..<LegSlot.count { releaseHeld(on: LegSlot(slot)) }
    engine.setCopierPaused(false, now: now)
    guard run(until: .answered, seconds: 60) else { return }
    if wasFlushLatched { clearLatch() }
    guard run(until: .healthy, seconds: 200) else { return }
    isStopping = false
    if liar != nil { guard repairLies() else { return } }
    guard readEverything() else { return }
    compareLegs()
    guard violation == nil else { return }
    stopAndStart()
    guard violation == nil, readEverything() else { return }
    guard run(until: .released, seconds: 60) else { return }
    compareLegs()
  }

  /// The leg that lies has stopped to: a scrub finds all of it and repairs it by vote.
  private mutating func repairLies() -> Bool {
    guard run(until: .scrubbed, seconds: 60) else { return false }
    for mode in [ScrubOrder.Mode.repair, .check] {
      guard startScrub(mode) else { return false }
      settle(by: 0)
      guard run(until: .scrubbed, seconds: 200), run(until: .healthy, seconds: 200) else {
        return false
      }
    }
    let scrub = engine.snapshot().scrub
    if scrub.mismatchBytes > 0 || !scrub.isComplete {
      fail("after a repair by vote \(scrub.mismatchBytes) bytes still differ")
    }
    isHealed = true
    return violation == nil
  }

  /// Starts a scrub; the last window of one that was stopped may have to end first.
  private mutating func startScrub(_ mode: ScrubOrder.Mode) -> Bool {
    for _ in 0..<1000 where violation == nil {
      do throws(CommandError) {
        try engine.startScrub(ScrubOrder(mode: mode), now: now)
        return true
      } catch {
        turn()
      }
    }
    fail("a scrub of a healthy mirror is refused")
    return false
  }

  private mutating func losesCacheNow() {
    // A leg that is gone with its cache and that the engine still believes in stays so: the
    // fault ends only after the engine has noticed.
    guard !losesCache.isEmpty else { return }
    for _ in 0..<200 where !losesCache.isEmpty {
      let nothing = ByteRange(offset: 0, count: 0)
      submit(
        MirrorRequest(kind: .flush, range: nothing, token: .none), cells: 0..<0, connection: 0)
      settle(by: 0)
      turn()
    }
    // The last good leg: what it acked and did not flush may be gone.
    losesCache = .none
  }

  /// Every leg that is there is online and has everything.
  private mutating func isHealthy() -> Bool {
    guard step % 8 == 0 else { return false }
    let snapshot = engine.snapshot()
    var isHealthy = snapshot.unresolvedRegions == 0 && engine.isLabelSettled
    for leg in snapshot.legs {
      guard legs[leg.slot.index] != nil else { continue }
      if leg.state == .spare, !leg.isJoining { continue }
      if leg.state != .online || leg.staleBytes > 0 { isHealthy = false }
      if leg.state != .online, !leg.isJoining, step % 16 == 0 { bringBack(leg.slot) }
    }
    if snapshot.isFlushLatched { clearLatch() }
    return isHealthy
  }

  private mutating func isReached(_ goal: Goal) -> Bool {
    switch goal {
    case .answered: openRequests == 0
    case .healthy: isHealthy()
    case .scrubbed: step % 8 == 0 && !engine.snapshot().scrub.isRunning
    case .released: freeRequests.count == requests.count
    }
  }

  private mutating func run(until goal: Goal, seconds: UInt64) -> Bool {
    let end = now.advanced(byNanoseconds: seconds * Nanoseconds.second)
    while violation == nil {
      if isReached(goal) { return true }
      guard now < end else {
        fail("\(seconds) s after the last fault it is not so that \(goal.text); \(describeState())")
        return false
      }
      turn()
    }
    return false
  }

  func describeState() -> String {
    let snapshot = engine.snapshot()
    var open = ""
    for request in requests where request.isInUse {
      open +=
        " \(String(request.request.token.raw, radix: 16)) \(request.request.kind)"
        + " \(request.request.range)\(request.isAnswered ? " answered" : "")"
    }
    return "requests \(snapshot.requests):\(open), intent \(snapshot.dirtyRegions), unresolved "
      + "\(snapshot.unresolvedRegions), in flight \(iosInFlight), legs "
      + snapshot.legs.map { leg in
        "\(leg.slot) \(leg.state)\(leg.isJoining ? " joining" : "") stale \(leg.staleBytes) "
          + "in flight \(leg.inFlight)"
      }.joined(separator: ", ")
  }

  /// Reads the whole device; false if something was wrong.
  private mutating func readEverything() -> Bool {
    let grain = UInt64(scenario.grain)
    let step = max(scenario.grain, 64 << 10) / scenario.grain
    var cell = 0
    while cell < oracle.cellCount, violation == nil {
      let end = min(cell + step, oracle.cellCount)
      while openRequests >= World.requestsMax / 2 || freeRequests.isEmpty {
        turn()
        if violation != nil { return false }
      }
      submit(
        MirrorRequest(
          kind: .read,
          range: ByteRange(offset: UInt64(cell) * grain, count: UInt64(end - cell) * grain),
          token: .none),
        cells: cell..<end, connection: 0)
      cell = end
    }
    settle(by: 0)
    return run(until: .answered, seconds: 60)
  }

  /// All online legs hold the same bytes (P4), but for what was never written.
  private mutating func compareLegs() {
    var first: Int?
    for slot in 0..<LegSlot.count where online.contains(LegSlot(slot)) {
      guard let leg = legs[slot] else { continue }
      guard let reference = first, let other = legs[reference] else {
        first = slot
        continue
      }
      let words = leg.map(setId: setId).words
      let difference = leg.firstDifference(other) { words[$0] & RegionWord.unwritten != 0 }
      if let difference { fail("legs \(reference) and \(slot) differ at byte \(difference)") }
    }
  }

  // MARK: The clean stop

  /// Stops the engine cleanly and starts it again.
  mutating func stopAndStart() {
    note(.command, "stop")
    let hadFaults = !faults.isEmpty || ios.contains { $0.isInUse && $0.isHeld }
    let wasCalm = isCalm
    isCalm = true
    let wasStopping = isStopping
    isStopping = true
    engine.beginStop(now: now)
    settle(by: 0)
    let end = now.advanced(byNanoseconds: 120 * Nanoseconds.second)
    while violation == nil, !engine.isStopped || iosInFlight > 0 {
      if now >= end {
        if hadFaults { break }
        fail("the stop takes more than 120 s; \(describeState())")
        return
      }
      turn()
    }
    isCalm = wasCalm
    isStopping = wasStopping
    guard violation == nil else { return }
    if wasCalm { checkCleanLabels() }
    crash(losingPower: hadFaults ? .none : LegSet(bits: 0xff))
  }

  private mutating func checkCleanLabels() {
    switch World.plan(legs, absent: .none, AssemblyOptions()) {
    case .success(let plan):
      if !plan.wasClean { fail("a label is not clean after a clean stop") }
      if plan.online != online { fail("the labels list \(plan.online), online are \(online)") }
    case .failure(let refusal):
      if dropStrays() {
        checkCleanLabels()
        return
      }
      fail("it does not assemble after a clean stop: \(refusal)")
    }
    guard scenario.logKind == .disk || violation == nil else { return }
    for slot in 0..<LegSlot.count where online.contains(LegSlot(slot)) {
      guard let leg = legs[slot] else { continue }
      for region in 0..<layout.regionCount
      where leg.wordOnDisk(region, setId: setId) & RegionWord.intent != 0 {
        fail("leg \(slot)'s map has intent in region \(region) after a clean stop")
      }
    }
  }
}
