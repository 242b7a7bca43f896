// What `status` and `legs` print for people. Pure, so that it can be looked at in tests.
//
// In the spirit of `lvs` (one row per volume, Cpy%Sync) and `zpool status` (a table of the disks,
// then what to do). Fits 80 columns up to the paths, which come last.

import ControlModel

/// Texts about a mirror.
enum StatusText {
  /// All that `status` prints.
  static func mirror(_ mirror: MirrorStatus, width: Int = 80) -> String {
    var head = Table([
      ("Name", .left), ("State", .left), ("Size", .right), ("Cpy%Sync", .right),
      ("Generation", .right), ("Reads", .left), ("Up", .left),
    ])
    head.add([
      mirror.name, mirror.state.rawValue, Quantity.bytes(mirror.size),
      Quantity.percent(mirror.syncPercent, digits: 2), "\(mirror.generation)",
      mirror.readPolicy, Quantity.span(seconds: mirror.uptimeSeconds),
    ])
    var table = Table([
      ("Slot", .right), ("State", .left), ("Stale", .right), ("Rd-err", .right),
      ("Wr-err", .right), ("Fixed", .right), ("Path", .left),
    ])
    for leg in mirror.legs {
      table.add([
        "\(leg.slot)", leg.state.rawValue, Quantity.bytes(leg.staleBytes), "\(leg.readErrors)",
        "\(leg.writeErrors)", "\(leg.repairedBlocks)", path(leg),
      ])
    }
    var text = head.rendered() + "\n" + table.rendered() + "\n" + resync(mirror.resync, width)
    if mirror.unresolvedRegions > 0 {
      text +=
        "Recovery: \(mirror.unresolvedRegions) regions of \(Quantity.bytes(mirror.regionSize))"
        + " left to make equal after an unclean stop\n"
    }
    if mirror.unwrittenBytes > 0 {
      text +=
        "Unwritten: \(Quantity.bytes(mirror.unwrittenBytes)), zeroed on all legs at the first write\n"
    }
    text += scrub(mirror.scrub)
    let advice = advice(mirror).map { Table.wrapped("! " + $0, width: width, indent: 2) }
    return text + (advice.isEmpty ? "" : "\n" + advice.joined())
  }

  /// All that `legs` prints.
  static func legs(_ legs: [LegStatus]) -> String {
    var table = Table([
      ("Slot", .right), ("State", .left), ("Stale", .right), ("Cache", .left),
      ("Read us", .right), ("Write us", .right), ("Path", .left),
    ])
    for leg in legs {
      table.add([
        "\(leg.slot)", leg.state.rawValue, Quantity.bytes(leg.staleBytes),
        leg.cache?.rawValue ?? "-", quantiles(leg.latency.read), quantiles(leg.latency.write),
        path(leg),
      ])
    }
    return table.rendered()
  }

  /// The line about copying.
  static func resync(_ resync: ResyncStatus, _ width: Int) -> String {
    if resync.running { return "Resync: " + ProgressLine.text(resync, width: width - 8) + "\n" }
    let state = resync.paused ? "paused, nothing to copy" : "idle"
    if resync.bytesTotal == 0 { return "Resync: \(state)\n" }
    return "Resync: \(state); the last one copied \(Quantity.bytes(resync.bytesDone)) of "
      + "\(Quantity.bytes(resync.bytesTotal))\n"
  }

  /// What to do about what is wrong, a sentence each; none if nothing is.
  static func advice(_ mirror: MirrorStatus) -> [String] {
    var sentences: [String] = []
    if mirror.state == .failed {
      sentences.append(
        "the mirror failed: no leg holds all data or takes writes any more. Stop it, look with "
          + "'nbdmirror explain PV...', and repair a disk before it is served again")
    }
    for leg in mirror.legs {
      if let old = leg.replaces {
        sentences.append(
          "leg \(leg.slot) replaces leg \(old), which is removed when leg \(leg.slot) is in sync")
      }
      if mirror.legs.contains(where: { $0.replaces == leg.slot }) { continue }
      if let sentence = advice(leg) { sentences.append(sentence) }
    }
    if mirror.resync.running && mirror.resync.paused {
      sentences.append("the resync is paused: redundancy is not restored until it goes on")
    }
    if mirror.scrub.mismatches > 0 {
      sentences.append("the scrub found \(mirror.scrub.mismatches) mismatches between the legs")
    }
    return sentences
  }

  static func advice(_ leg: LegStatus) -> String? {
    let slot = leg.slot
    switch leg.state {
    case .failed:
      return "leg \(slot) failed: repair its disk, then 'nbdmirror leg readd \(slot)'; for a new "
        + "disk 'nbdmirror leg replace \(slot) PV'"
    case .missing:
      return "leg \(slot) is missing: bring \(leg.path.isEmpty ? "its disk" : path(leg)) back, "
        + "then 'nbdmirror leg readd \(slot)'; for a new disk 'nbdmirror leg replace \(slot) PV'"
    case .inSync, .syncing:
      guard leg.readErrors + leg.writeErrors > 0 else { return nil }
      let kinds = [(leg.readErrors, "read"), (leg.writeErrors, "write")].filter { $0.0 > 0 }
      let counts = kinds.map { "\($0.0) \($0.1) \($0.0 == 1 ? "error" : "errors")" }
      return
        "leg \(slot) had \(counts.joined(separator: " and ")): look at its disk before it fails"
    case .removed, .spare: return nil
    }
  }

  private static func scrub(_ scrub: ScrubStatus) -> String {
    guard let mode = scrub.mode else { return "" }
    return "Scrub: \(mode.rawValue) \(scrub.running ? "runs" : "done"), "
      + "\(Quantity.bytes(scrub.bytesDone)) compared, \(scrub.mismatches) mismatches\n"
  }

  private static func path(_ leg: LegStatus) -> String {
    leg.path.isEmpty ? "-" : Table.printable(leg.path)
  }

  private static func quantiles(_ quantiles: LegStatus.Quantiles) -> String {
    let (median, high) = (quantiles.p50Microseconds, quantiles.p99Microseconds)
    if median == nil && high == nil { return "-" }
    return "\(Quantity.microseconds(median))/\(Quantity.microseconds(high))"
  }
}
