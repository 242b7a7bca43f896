// The commands on legs: what the control plane asks becomes opened PVs, labels and engine calls.
//
// One change of a leg at a time (`oneAtATime`): the control plane's thread and the one that brings
// failed legs back both come here.

import Base
import ControlModel
import Glibc
import Legs
import MirrorEngine
import MirrorFormat
import Synchronization

extension MirrorAdapter {
  func failLeg(_ slot: Int) throws(ControlError) {
    let slot = LegSlot(slot)
    try exclusively { () throws(ControlError) in
      // Who asks for what is there already has it.
      if !isIn(slot, .failed) {
        try command("leg \(slot) cannot be failed", slot) { (engine, now) throws(CommandError) in
          try engine.fail(slot, now: now)
        }
      }
      failedByCommand.withLock { $0.insert(slot) }
      try waitUntilRecorded()
    }
  }

  func removeLeg(_ slot: Int) throws(ControlError) {
    let slot = LegSlot(slot)
    try exclusively { () throws(ControlError) in
      try command("leg \(slot) cannot be removed", slot) { (engine, now) throws(CommandError) in
        try engine.remove(slot, now: now)
      }
      try waitUntilRecorded()
    }
  }

  func readdLeg(_ slot: Int, force: Bool) throws(ControlError) {
    let slot = LegSlot(slot)
    try exclusively { () throws(ControlError) in
      if isIn(slot, .online) { return }
      try readdKnown(slot, force: force)
    }
  }

  func refreshLeg(_ slot: Int, whole: Bool) throws(ControlError) {
    let slot = LegSlot(slot)
    try exclusively { () throws(ControlError) in
      if isOffline(slot) {
        try readdKnown(slot, force: false)
        guard whole else { return }
      }
      try command("leg \(slot) cannot be refreshed", slot) {
        (engine, now) throws(CommandError) in
        try engine.refresh(slot, isWhole: whole, now: now)
      }
      try waitUntilRecorded()
      let what =
        whole ? "all that another leg has is copied to it again" : "its errors are forgotten"
      tell(EventRecord(.legChanged, "leg \(slot) is refreshed: \(what)", leg: slot.index))
    }
  }

  func setLeg(_ slot: Int, writeMostly: Bool?) throws(ControlError) {
    guard let writeMostly else { return }
    let slot = LegSlot(slot)
    try exclusively { () throws(ControlError) in
      try command("leg \(slot) cannot be set", slot) { (engine, now) throws(CommandError) in
        try engine.setWriteMostly(slot, writeMostly, now: now)
      }
      try waitUntilRecorded()
      let what = writeMostly ? "is write-mostly" : "is read like others"
      tell(EventRecord(.legChanged, "leg \(slot) \(what)", leg: slot.index))
    }
  }

  func addLeg(path: String, spare: Bool) throws(ControlError) -> Int {
    try exclusively { () throws(ControlError) in
      try add(path: path, what: spare ? "no spare can be added" : "no leg can be added") {
        (engine, legId, slot, now) throws(CommandError) in
        try engine.add(legId: legId, at: slot, isSpare: spare, now: now)
      }
    }
  }

  func replaceLeg(_ slot: Int, path: String) throws(ControlError) -> Int {
    let old = LegSlot(slot)
    let what = "leg \(old) cannot be replaced"
    return try exclusively { () throws(ControlError) in
      try command(what, old) { (engine, _) throws(CommandError) in
        try engine.checkReplaceable(old)
      }
      return try add(path: path, what: what) { (engine, legId, slot, now) throws(CommandError) in
        try engine.add(legId: legId, at: slot, replacing: old, now: now)
      }
    }
  }

  private func exclusively<Result: Sendable>(
    _ body: () throws(ControlError) -> Result
  ) throws(ControlError) -> Result {
    try oneAtATime.withLock { (_) throws(ControlError) in try body() }
  }

  private func isIn(_ slot: LegSlot, _ state: MemberState) -> Bool {
    server.withEngine { engine in
      engine.snapshot().legs.contains { $0.slot == slot && $0.state == state && !$0.isJoining }
    }
  }

  private func isOffline(_ slot: LegSlot) -> Bool {
    server.withEngine { engine in
      engine.snapshot().legs.contains {
        $0.slot == slot && $0.state != .online && !$0.isJoining
      }
    }
  }

  /// Brings the leg back from the path it had.
  private func readdKnown(_ slot: LegSlot, force: Bool) throws(ControlError) {
    let path = files.path(of: slot)
    guard !path.isEmpty else {
      throw ControlError(
        .conflict, "the path of leg \(slot) is not known: say it with leg add PATH")
    }
    try readd(slot, path: path, force: force)
  }

  // MARK: Commands

  /// Runs an engine command; a refusal becomes a sentence that begins with `what`.
  func command(
    _ what: String, _ slot: LegSlot?,
    _ body: (inout Engine, Instant) throws(CommandError) -> Void
  ) throws(ControlError) {
    let now = now
    let refusal = server.withEngine { engine -> CommandError? in
      do throws(CommandError) {
        try body(&engine, now)
        return nil
      } catch {
        return error
      }
    }
    if let refusal { throw CommandText.error(what, refusal) }
  }

  /// Waits until the labels say what the command changed.
  func waitUntilRecorded() throws(ControlError) {
    guard waitFor(milliseconds: 20_000, { server.withEngine { $0.isLabelSettled } }) else {
      throw ControlError(
        .failed, "the change is made, but no label that says so could be written yet")
    }
  }

  /// Brings an offline leg back on its PV: `opened`, else the one at `path`.
  func readd(
    _ slot: LegSlot, path: String, opened: PVFile? = nil, force: Bool
  ) throws(ControlError) {
    let what = "leg \(slot) cannot come back"
    guard isOffline(slot) else { throw CommandText.error(what, .notOffline) }
    guard files.waitUntilFree(slot) else { throw CommandText.error(what, .ioInFlight) }
    let file: PVFile
    if let opened { file = opened } else { file = try open(path) }
    try checkGeometry(file)
    guard case .success(let elected) = file.readLabel(), elected.label.setId == facts.setId else {
      throw ControlError(
        .conflict,
        "\(what): \(path) carries no label of this mirror; leg add \(path) makes a new leg"
      )
    }
    var leg = ReturningLeg(
      legId: elected.label.legId, lineage: elected.label.lineage,
      labelSequence: elected.label.sequence, labelCopy: elected.copy, isTreatedAsNew: false)
    if elected.label.isOfAddedPV {
      leg.isTreatedAsNew = true
      try erase(file)
    } else if force {
      let check = leg
      let isDiverged = server.withEngine { engine -> Bool in
        do throws(CommandError) {
          try engine.checkReturn(check, to: slot)
          return false
        } catch {
          return error == .diverged
        }
      }
      if isDiverged {
        try empty(file, &leg, slot)
      }
    }
    failedByCommand.withLock { $0.remove(slot) }
    files.attach(file, to: slot)
    let returning = leg
    do {
      try command(what, slot) { (engine, now) throws(CommandError) in
        try engine.readd(returning, to: slot, now: now)
      }
    } catch {
      files.close(slot)
      throw error
    }
    try waitUntilRecorded()
    let isFailed = server.withEngine { engine in
      engine.snapshot().legs.contains { $0.slot == slot && $0.state == .failed && !$0.isJoining }
    }
    if isFailed {
      throw ControlError(
        .failed, "\(what): its disk failed again as the map and the label were written to it")
    }
  }

  /// Opens, or makes, a PV and adds it by `body`; the leg of a PV that is a member comes back.
  private func add(
    path: String, what: String,
    _ body: (inout Engine, Identifier, LegSlot, Instant) throws(CommandError) -> Void
  ) throws(ControlError) -> Int {
    let file = try openOrMake(path)
    try checkGeometry(file)
    if case .success(let elected) = file.readLabel(), elected.label.setId == facts.setId {
      let legId = elected.label.legId
      if let member = server.withEngine({ $0.snapshot().legs.first { $0.legId == legId } }) {
        return try takeBack(file, member)
      }
      guard elected.label.holdsNothing else {
        throw ControlError(
          .conflict,
          "\(file.path) carries a label of this mirror that the mirror does not know: "
            + "erase it first (wipefs does not know our label; dd the first 2 MiB)")
      }
    } else {
      try refuseForeign(file)
    }
    let legId = Identifier.random()
    var slot: LegSlot?
    try command(what, nil) { (engine, _) throws(CommandError) in
      slot = try engine.slotForNewLeg()
    }
    guard let slot, files.waitUntilFree(slot) else { throw CommandText.error(what, .ioInFlight) }
    try erase(file)
    _ = try writeAddedLabel(file, legId, slot)
    files.attach(file, to: slot)
    do {
      try command(what, slot) { (engine, now) throws(CommandError) in
        try body(&engine, legId, slot, now)
      }
    } catch {
      files.close(slot)
      throw error
    }
    try waitUntilRecorded()
    return slot.index
  }

  /// A PV of this mirror was named: its leg comes back if it is offline.
  private func takeBack(_ file: PVFile, _ member: LegSnapshot) throws(ControlError) -> Int {
    try readd(member.slot, path: file.path, opened: file, force: false)
    return member.slot.index
  }

  // MARK: Files

  private func open(_ path: String) throws(ControlError) -> PVFile {
    do throws(PVError) {
      return try PVFile.openWhenFree(path: path, cache: facts.cache)
    } catch {
      throw ControlError(error)
    }
  }

  /// Opens a PV, or makes a sparse file of the needed size where nothing is.
  private func openOrMake(_ path: String) throws(ControlError) -> PVFile {
    do throws(PVError) {
      return try PVFile.openWhenFree(path: path, cache: facts.cache)
    } catch .cannotOpen(path: _, errno: 2) {
      do throws(PVError) {
        try PVFile.make(path: path, bytes: facts.layout.pvBytes, isPreallocated: false)
      } catch {
        throw ControlError(error)
      }
      return try open(path)
    } catch {
      throw ControlError(error)
    }
  }

  private func checkGeometry(_ file: PVFile) throws(ControlError) {
    guard file.legBytes >= facts.layout.pvBytes else {
      throw ControlError(
        .conflict,
        "\(file.path) has \(file.legBytes) bytes, a leg of this mirror needs \(facts.layout.pvBytes)"
      )
    }
    guard file.logicalBlockBytes <= facts.layout.blockBytes else {
      throw ControlError(
        .conflict,
        "\(file.path) has sectors of \(file.logicalBlockBytes) bytes, the mirror's blocks are "
          + "\(facts.layout.blockBytes)")
    }
  }

  private func refuseForeign(_ file: PVFile) throws(ControlError) {
    do throws(PVError) {
      if let found = try file.findForeign().first {
        throw PVError.foreign(path: file.path, what: found.what)
      }
    } catch {
      throw ControlError(.conflict, error.description)
    }
  }

  /// A PV whose own history was given up becomes an empty one that says so.
  func empty(_ file: PVFile, _ leg: inout ReturningLeg, _ slot: LegSlot) throws(ControlError) {
    try erase(file)
    let label = try writeAddedLabel(file, leg.legId, slot)
    leg.isTreatedAsNew = true
    leg.labelSequence = label.sequence
    leg.labelCopy = 0
  }

  /// Writes the label that says that the PV is being added.
  private func writeAddedLabel(
    _ file: PVFile, _ legId: Identifier, _ slot: LegSlot
  ) throws(ControlError) -> Label {
    let label = server.withEngine { $0.labelForAddedPV(legId: legId, at: slot) }
    do throws(PVError) {
      return try file.writeFirstLabels(label)
    } catch {
      throw ControlError(error)
    }
  }

  /// Makes the map area hold nothing that was true before.
  func erase(_ file: PVFile) throws(ControlError) {
    do throws(PVError) {
      try file.writeMap(layout: facts.layout, setId: facts.setId, word: 0)
      try file.flush()
    } catch {
      throw ControlError(error)
    }
  }
}

extension ControlError {
  /// What is wrong with a PV: a state of things that somebody can change, or I/O that failed.
  init(_ error: PVError) {
    switch error {
    case .io: self.init(.failed, error.description)
    case .cannotOpen, .inUse, .notFileOrDevice, .foreign, .tooSmall, .noLabel, .samePV:
      self.init(.conflict, error.description)
    }
  }
}
