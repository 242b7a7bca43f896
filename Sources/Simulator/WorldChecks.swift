// What must hold of the legs: protection before data, and everything at the end.

import Base
import MirrorEngine
import MirrorFormat

extension World {
  /// Every byte written to a leg is written under protection: its region has `intent`, or is
  /// stale on that leg, on the disk of every online leg.
  func checkProtection(_ io: LegIO) {
    guard scenario.logKind == .disk, io.offset >= layout.dataOffset else { return }
    switch io.kind {
    case .read, .flush: return
    case .write, .zero, .discard: break
    }
    let first = Int((io.offset - layout.dataOffset) / layout.regionBytes)
    let last = Int((io.offset - layout.dataOffset + io.count - 1) / layout.regionBytes)
    // Nobody reads what stands in an unwritten region: it is zeroed without an intent.
    let wanted = RegionWord.intent | RegionWord.unwritten | UInt16(LegSet(io.leg).bits)
    var rest = online
    while let slot = rest.popFirst() {
      guard let words = legs[slot.index]?.wordsOnDisk(setId: setId) else { continue }
      for region in first...last where words[region] & wanted == 0 {
        fail(
          "leg \(io.leg) is written in region \(region), which leg \(slot)'s log does not know")
      }
    }
  }

  // MARK: The liveness phase

  /// Faults stop, legs are there again: the set must become healthy, then stop cleanly.
  func calmDown() {
    isCalm = true
    note(.command, "calm")
    // What was asked for before may still fail: the faults were there.
    isStopping = !scenario.mustSucceed
    losesCacheNow()
    faults.removeAll()
    for slot in 0..<LegSlot.count { releaseHeld(on: LegSlot(slot)) }
    engine.setCopierPaused(false, now: now)
    guard runUntil(seconds: 60, "all requests are answered", { self.openRequests == 0 }) else {
      return
    }
    if wasFlushLatched { clearLatch() }
    guard runUntil(seconds: 200, "all legs are in sync", { self.isHealthy }) else { return }
    isStopping = false
    readEverything()
    guard violation == nil,
      runUntil(seconds: 60, "everything is read", { self.openRequests == 0 })
    else { return }
    compareLegs()
    guard violation == nil else { return }
    stopAndStart()
    guard violation == nil else { return }
    readEverything()
    guard runUntil(seconds: 60, "everything is read again", { self.openRequests == 0 }) else {
      return
    }
    guard
      runUntil(seconds: 60, "all buffers are released", { !self.requests.contains { $0.isInUse } })
    else { return }
    compareLegs()
  }

  private func losesCacheNow() {
    // A leg that is gone with its cache and that the engine still believes in stays so: the
    // fault ends only after the engine has noticed.
    guard !losesCache.isEmpty else { return }
    for _ in 0..<200 where !losesCache.isEmpty {
      let nothing = ByteRange(offset: 0, count: 0)
      if requests.contains(where: { !$0.isInUse }) {
        submit(
          MirrorRequest(kind: .flush, range: nothing, token: .none), cells: 0..<0, connection: 0)
      }
      turn()
    }
    if !losesCache.isEmpty {
      // The last good leg: what it acked and did not flush may be gone.
      losesCache = .none
    }
  }

  /// Every leg that is there is online and has everything.
  private var isHealthy: Bool {
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

  private func runUntil(seconds: UInt64, _ what: String, _ isDone: () -> Bool) -> Bool {
    let end = now.advanced(byNanoseconds: seconds * Nanoseconds.second)
    while violation == nil {
      if isDone() { return true }
      guard now < end else {
        fail("\(seconds) s after the last fault it is not so that \(what); \(describeState())")
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
      + "\(snapshot.unresolvedRegions), pending \(pending.items.count), legs "
      + snapshot.legs.map { leg in
        "\(leg.slot) \(leg.state)\(leg.isJoining ? " joining" : "") stale \(leg.staleBytes) "
          + "in flight \(leg.inFlight)"
      }.joined(separator: ", ")
  }

  private func readEverything() {
    let step = max(scenario.grain, 64 << 10) / scenario.grain
    var cell = 0
    while cell < oracle.cellCount, violation == nil {
      let end = min(cell + step, oracle.cellCount)
      while openRequests >= World.requestsMax / 2 || !requests.contains(where: { !$0.isInUse }) {
        turn()
        if violation != nil { return }
      }
      let grain = UInt64(scenario.grain)
      submit(
        MirrorRequest(
          kind: .read,
          range: ByteRange(offset: UInt64(cell) * grain, count: UInt64(end - cell) * grain),
          token: .none),
        cells: cell..<end, connection: 0)
      cell = end
    }
  }

  /// All online legs hold the same bytes (P4), but for what was never written.
  private func compareLegs() {
    var first: (slot: Int, leg: SimulatedLeg)?
    for slot in 0..<LegSlot.count where online.contains(LegSlot(slot)) {
      guard let leg = legs[slot] else { continue }
      guard let reference = first else {
        first = (slot, leg)
        continue
      }
      if reference.leg.dataChecksum != leg.dataChecksum {
        let left = Array(reference.leg.data)
        let right = Array(leg.data)
        let words = leg.map(setId: setId).words
        let offset = left.indices.first {
          left[$0] != right[$0]
            && words[$0 / Int(layout.regionBytes)] & RegionWord.unwritten == 0
        }
        guard let offset else { continue }
        fail("legs \(reference.slot) and \(slot) differ at byte \(offset)")
      }
    }
  }

  // MARK: The clean stop

  /// Stops the engine cleanly and starts it again.
  func stopAndStart() {
    note(.command, "stop")
    let hadFaults = !faults.isEmpty || !held.isEmpty
    let wasCalm = isCalm
    isCalm = true
    let wasStopping = isStopping
    isStopping = true
    engine.beginStop(now: now)
    settle()
    let end = now.advanced(byNanoseconds: 120 * Nanoseconds.second)
    while violation == nil, !engine.isStopped || !pending.isEmpty {
      if now >= end {
        if hadFaults || !held.isEmpty { break }
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

  private func checkCleanLabels() {
    switch World.plan(legs, absent: .none, isDegradedAllowed: false) {
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
      guard let words = legs[slot]?.wordsOnDisk(setId: setId) else { continue }
      for region in words.indices where words[region] & RegionWord.intent != 0 {
        fail("leg \(slot)'s map has intent in region \(region) after a clean stop")
      }
    }
  }
}
