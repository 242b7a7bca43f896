// What `watch` shows, as text: pure, so that it can be looked at in tests.

import ControlModel

/// What was asked of the server for one picture.
struct WatchSample {
  var mirror: MirrorStatus
  var regions: RegionMapStatus
  /// Counters of legs and clients.
  var counters: WatchCounters
  /// The last events, oldest first.
  var events: [EventRecord]
  /// When it was taken, in seconds.
  var seconds: Double
}

/// Counters out of the metrics: what rates are made of.
struct WatchCounters: Equatable {
  /// What was done so far.
  struct Work: Equatable {
    var readOperations = 0.0
    var writeOperations = 0.0
    var readBytes = 0.0
    var writeBytes = 0.0

    /// Per second, since `earlier`, which was taken `seconds` before.
    func rate(since earlier: Work, seconds: Double) -> Work {
      guard seconds > 0 else { return Work() }
      return Work(
        readOperations: max(0, readOperations - earlier.readOperations) / seconds,
        writeOperations: max(0, writeOperations - earlier.writeOperations) / seconds,
        readBytes: max(0, readBytes - earlier.readBytes) / seconds,
        writeBytes: max(0, writeBytes - earlier.writeBytes) / seconds)
    }
  }

  /// By slot.
  var legs: [Int: Work] = [:]
  var clients = Work()
  var connections = 0

  init() {}

  /// Reads Prometheus' text; lines of other metrics are passed over.
  init(metrics: String) {
    for line in metrics.split(separator: "\n") where !line.hasPrefix("#") {
      guard let space = line.lastIndex(of: " "),
        let value = Double(line[line.index(after: space)...])
      else { continue }
      let name = line.prefix { $0 != "{" && $0 != " " }
      let isRead = line.contains("operation=\"read\"")
      let isWrite = line.contains("operation=\"write\"")
      switch name {
      case "nbdmirror_connections": connections = Int(value)
      case "nbdmirror_requests_total":
        if isRead { clients.readOperations = value }
        if isWrite { clients.writeOperations = value }
      case "nbdmirror_request_bytes_total":
        if isRead { clients.readBytes = value }
        if isWrite { clients.writeBytes = value }
      case "nbdmirror_leg_operations_total":
        guard let slot = WatchCounters.slot(line) else { continue }
        if isRead { legs[slot, default: Work()].readOperations = value }
        if isWrite { legs[slot, default: Work()].writeOperations = value }
      case "nbdmirror_leg_bytes_total":
        guard let slot = WatchCounters.slot(line) else { continue }
        if isRead { legs[slot, default: Work()].readBytes = value }
        if isWrite { legs[slot, default: Work()].writeBytes = value }
      default: continue
      }
    }
  }

  private static func slot(_ line: Substring) -> Int? {
    guard let label = line.firstRange(of: "leg=\"") else { return nil }
    return Int(line[label.upperBound...].prefix { $0 != "\"" })
  }
}

/// The pictures of `watch`.
enum WatchText {
  /// The lines of a picture of at most `width` columns and `height` lines: what is least needed is left
  /// out first.
  static func lines(
    _ sample: WatchSample, before: WatchSample?, width: Int, height: Int
  ) -> [String] {
    var lines = head(sample, before: before, width: width)
    lines.append("")
    lines += legs(sample, before: before)
    lines += progress(sample.mirror, width: width)
    let advice = StatusText.advice(sample.mirror)
    for sentence in advice {
      let text = Table.wrapped("! " + sentence, width: width, indent: 2)
      lines += text.split(separator: "\n").map(String.init)
    }
    // The map and the events share what is left.
    let room = height - lines.count
    let map = regionMap(sample.regions, width: width, lineMax: max(0, min(room - 2, 8)))
    if room >= 3 { lines += [""] + map }
    let left = height - lines.count - 2
    if left > 0, !sample.events.isEmpty {
      lines.append("")
      lines.append("Recent events")
      lines += sample.events.suffix(left).map { event in
        "  \(event.time.dropFirst(11).prefix(8))  \(Table.printable(event.message))"
      }
    }
    return lines.prefix(height).map { String($0.prefix(width)) }
  }

  /// One line for a pipe.
  static func line(_ sample: WatchSample, before: WatchSample?) -> String {
    let mirror = sample.mirror
    let work = clientRate(sample, before)
    let legs = mirror.legs.map { "\($0.slot):\($0.state.rawValue)" }.joined(separator: " ")
    var text = "\(mirror.name)  \(mirror.state.rawValue)  "
    text += "\(Quantity.percent(mirror.syncPercent, digits: 2))%  \(legs)  "
    text += "read \(rate(work.readBytes)) write \(rate(work.writeBytes))"
    if mirror.resync.running { text += "  resync \(ProgressLine.numbers(mirror.resync))" }
    return text
  }

  private static func head(
    _ sample: WatchSample, before: WatchSample?, width: Int
  ) -> [String] {
    let mirror = sample.mirror
    let work = clientRate(sample, before)
    let state =
      "\(mirror.name)  \(mirror.state.rawValue)  \(Quantity.bytes(mirror.size))  "
      + "Cpy%Sync \(Quantity.percent(mirror.syncPercent, digits: 2))  generation \(mirror.generation)"
      + "  up \(Quantity.span(seconds: mirror.uptimeSeconds))"
    let clients =
      "clients \(sample.counters.connections)  read \(count(work.readOperations))/s "
      + "\(rate(work.readBytes))  write \(count(work.writeOperations))/s \(rate(work.writeBytes))"
    return [state, clients]
  }

  /// A row per leg: rates per second, latencies as median/99th percentile; errors if there are any.
  private static func legs(_ sample: WatchSample, before: WatchSample?) -> [String] {
    let hasErrors = sample.mirror.legs.contains { $0.readErrors + $0.writeErrors > 0 }
    var table = Table(
      [("Leg", .right), ("State", .left), ("Stale", .right)]
        + (hasErrors ? [("Err", .right)] : [])
        + [
          ("Rd/s", .right), ("Read", .right), ("Wr/s", .right), ("Write", .right),
          ("Rd us", .right), ("Wr us", .right),
        ])
    for leg in sample.mirror.legs {
      let now = sample.counters.legs[leg.slot] ?? WatchCounters.Work()
      let earlier = before?.counters.legs[leg.slot] ?? now
      let work = now.rate(since: earlier, seconds: sample.seconds - (before?.seconds ?? 0))
      table.add(
        ["\(leg.slot)", leg.state.rawValue, Quantity.bytes(leg.staleBytes)]
          + (hasErrors ? ["\(leg.readErrors + leg.writeErrors)"] : [])
          + [
            count(work.readOperations), Quantity.bytes(UInt64(work.readBytes)),
            count(work.writeOperations), Quantity.bytes(UInt64(work.writeBytes)),
            quantiles(leg.latency.read), quantiles(leg.latency.write),
          ])
    }
    return table.rendered().split(separator: "\n").map(String.init)
  }

  private static func progress(_ mirror: MirrorStatus, width: Int) -> [String] {
    var lines: [String] = []
    if mirror.resync.running {
      lines += ["", "Resync " + ProgressLine.text(mirror.resync, width: width - 7)]
    }
    if mirror.scrub.running {
      lines += [
        "",
        "Scrub  \(Quantity.bytes(mirror.scrub.bytesDone)) compared, "
          + "\(mirror.scrub.mismatches) mismatches",
      ]
    }
    return lines
  }

  /// The map in lines of `width` characters, with what the characters mean.
  static func regionMap(_ map: RegionMapStatus, width: Int, lineMax: Int) -> [String] {
    guard lineMax > 0, width > 0, !map.map.isEmpty else { return [] }
    let order = Array("_.w?S")
    let room = width * lineMax
    let cells = Array(map.map)
    let share = (cells.count + room - 1) / room
    var drawn = ""
    for first in stride(from: 0, to: cells.count, by: share) {
      let part = cells[first..<min(first + share, cells.count)]
      let worst = part.max {
        (order.firstIndex(of: $0) ?? 0) < (order.firstIndex(of: $1) ?? 0)
      }
      drawn.append(worst ?? ".")
    }
    var lines = ["Regions: _ unwritten  . clean  w dirty  ? unresolved  S stale"]
    var rest = Substring(drawn)
    while !rest.isEmpty {
      lines.append(String(rest.prefix(width)))
      rest = rest.dropFirst(width)
    }
    return lines
  }

  private static func clientRate(
    _ sample: WatchSample, _ before: WatchSample?
  ) -> WatchCounters.Work {
    guard let before else { return WatchCounters.Work() }
    return sample.counters.clients.rate(
      since: before.counters.clients, seconds: sample.seconds - before.seconds)
  }

  private static func count(_ value: Double) -> String { "\(Int(value.rounded()))" }

  private static func rate(_ bytesPerSecond: Double) -> String {
    Quantity.rate(bytesPerSecond: UInt64(max(0, bytesPerSecond)))
  }

  private static func quantiles(_ latency: LegStatus.Quantiles) -> String {
    "\(Quantity.microseconds(latency.p50Microseconds))/"
      + Quantity.microseconds(latency.p99Microseconds)
  }
}
