// Metrics: their names and what they mean, in one table, and their text.
//
// Source: Prometheus, "Exposition formats" (text format 0.0.4) and "Metric and label naming".

/// A metric.
public struct Metric: Equatable, Sendable {
  /// How its values behave.
  public enum Kind: String, Sendable {
    /// Goes up and down.
    case gauge
    /// Only goes up, from 0 at the start of the server.
    case counter
    /// Counts in buckets.
    case histogram
  }

  /// Its name.
  public var name: String
  /// How its values behave.
  public var kind: Kind
  /// Labels besides `mirror`, which all have.
  public var labels: [String]
  /// What it means.
  public var help: String

  init(_ kind: Kind, _ name: String, _ labels: [String] = [], _ help: String) {
    self.name = name
    self.kind = kind
    self.labels = labels
    self.help = help
  }
}

/// All metrics of a served mirror, in the order in which they are shown.
public enum MetricCatalog {
  /// The table.
  public static let all: [Metric] = mirror + clients + legs + copying + faults + process

  /// The metric of a name.
  public static func find(_ name: String) -> Metric? { all.first { $0.name == name } }

  private static let mirror = [
    Metric(.gauge, "nbdmirror_info", ["set_id", "read_policy"], "Always 1; what mirror it is"),
    Metric(
      .gauge, "nbdmirror_state", ["state"],
      "1 for the state that the mirror is in (healthy, syncing, degraded, failed), else 0"),
    Metric(.gauge, "nbdmirror_size_bytes", "Size of the exported device"),
    Metric(
      .gauge, "nbdmirror_sync_ratio", "Share of bytes that every configured leg has in sync, 0 to 1"
    ),
    Metric(.gauge, "nbdmirror_generation", "Counter of the newest generation"),
    Metric(.gauge, "nbdmirror_uptime_seconds", "Seconds since the server started"),
    Metric(.gauge, "nbdmirror_region_bytes", "Size of a region"),
    Metric(
      .gauge, "nbdmirror_dirty_regions",
      "Regions whose legs may differ by a write in flight or not yet known flushed"),
    Metric(
      .gauge, "nbdmirror_unresolved_regions", "Regions whose legs may differ since a crash"),
    Metric(.gauge, "nbdmirror_unwritten_bytes", "Bytes that were never written"),
    Metric(
      .gauge, "nbdmirror_flush_latched",
      "1 if flushes fail since the last good leg failed one, else 0"),
    Metric(.counter, "nbdmirror_events_total", "Events so far"),
  ]

  private static let clients = [
    Metric(.gauge, "nbdmirror_connections", "Connections that are open"),
    Metric(.counter, "nbdmirror_connections_total", "Connections that were accepted"),
    Metric(.counter, "nbdmirror_requests_total", ["operation"], "Requests of clients"),
    Metric(
      .counter, "nbdmirror_request_bytes_total", ["operation"], "Bytes that requests were about"),
    Metric(
      .counter, "nbdmirror_request_errors_total", ["operation"],
      "Requests that were answered with an error"),
    Metric(
      .counter, "nbdmirror_requests_refused_total",
      "Requests that were refused because they made no sense"),
    Metric(.gauge, "nbdmirror_requests_in_flight", "Requests that are worked on"),
    Metric(
      .histogram, "nbdmirror_request_duration_seconds", ["operation"],
      "Time from taking a request to its answer"),
  ]

  private static let legs = [
    Metric(.gauge, "nbdmirror_leg_info", ["leg", "id", "path"], "Always 1; what leg it is"),
    Metric(
      .gauge, "nbdmirror_leg_state", ["leg", "state"],
      "1 for the state that the leg is in (in-sync, syncing, failed, missing, removed, spare), else 0"
    ),
    Metric(.gauge, "nbdmirror_leg_stale_bytes", ["leg"], "Bytes that the leg lacks"),
    Metric(.gauge, "nbdmirror_leg_in_flight", ["leg"], "I/O in flight on the leg"),
    Metric(
      .counter, "nbdmirror_leg_operations_total", ["leg", "operation"],
      "I/O that was begun on the leg"),
    Metric(
      .counter, "nbdmirror_leg_bytes_total", ["leg", "operation"],
      "Bytes of the I/O that was begun on the leg"),
    Metric(
      .histogram, "nbdmirror_leg_duration_seconds", ["leg", "operation"],
      "Time that reads and writes took on the leg"),
    Metric(.counter, "nbdmirror_leg_read_errors_total", ["leg"], "Reads that failed on the leg"),
    Metric(
      .counter, "nbdmirror_leg_write_errors_total", ["leg"],
      "Writes, zeroes, discards and flushes that failed on the leg"),
    Metric(
      .counter, "nbdmirror_leg_repaired_blocks_total", ["leg"],
      "Blocks that were rewritten from another leg after a read error"),
    Metric(
      .counter, "nbdmirror_leg_hedged_reads_total", ["leg"],
      "Reads that the leg owed for too long and that another leg was asked for, too"),
    Metric(
      .counter, "nbdmirror_leg_hedges_won_total", ["leg"],
      "Of these, reads that the other leg answered first"),
  ]

  private static let copying = [
    Metric(.gauge, "nbdmirror_resync_running", "1 if a resync runs, else 0"),
    Metric(.gauge, "nbdmirror_resync_paused", "1 if copying is paused, else 0"),
    Metric(
      .gauge, "nbdmirror_resync_done_bytes", "Bytes that the running or last resync has copied"),
    Metric(
      .gauge, "nbdmirror_resync_size_bytes",
      "Bytes that the running or last resync has or had to copy"),
    Metric(.gauge, "nbdmirror_resync_bytes_per_second", "Present speed of the resync"),
    Metric(
      .gauge, "nbdmirror_resync_unreadable_ranges",
      "Ranges that could not be copied, for no leg that has them could read them"),
    Metric(.gauge, "nbdmirror_scrub_running", "1 if a scrub runs, else 0"),
    Metric(
      .gauge, "nbdmirror_scrub_done_bytes", "Bytes that the running or last scrub has compared"),
    Metric(
      .gauge, "nbdmirror_scrub_size_bytes", "Bytes that the running or last scrub has to compare"),
    Metric(
      .gauge, "nbdmirror_scrub_mismatches",
      "Ranges in which the running or last scrub found "
        + "legs that differ"),
    Metric(
      .gauge, "nbdmirror_scrub_unrepaired_bytes",
      "Bytes that differ and that the running or last scrub did not repair"),
  ]

  private static let faults = [
    Metric(.gauge, "nbdmirror_faults", ["state"], "Faults that are listed, by state"),
    Metric(
      .counter, "nbdmirror_fault_matched_total", ["fault", "kind", "leg"],
      "I/O that a listed fault selected"),
    Metric(
      .counter, "nbdmirror_fault_fired_total", ["fault", "kind", "leg"],
      "I/O that a listed fault hit"),
  ]

  private static let process = [
    Metric(.counter, "nbdmirror_reactor_turns_total", ["reactor"], "Turns of the event loop"),
    Metric(.gauge, "nbdmirror_buffer_bytes", "Memory that payloads of requests hold"),
    Metric(
      .gauge, "nbdmirror_pinned_buffer_bytes",
      "Of that, memory that legs that hang hold although the client has its answer"),
    Metric(.gauge, "nbdmirror_resident_bytes", "Resident memory of the server's process"),
    Metric(.gauge, "nbdmirror_open_descriptors", "Descriptors that the server's process has open"),
    Metric(
      .counter, "nbdmirror_cpu_seconds_total", "Processor time of the server's process"),
  ]
}

extension Metric {
  init(_ kind: Kind, _ name: String, _ help: String) { self.init(kind, name, [], help) }
}

/// A text of metrics as it grows. Every family gets its help and type, also without a sample.
public struct MetricText: Sendable {
  private var samples: [String: String] = [:]
  private let mirror: String

  /// An empty text; all samples get the label `mirror`.
  public init(mirror: String) { self.mirror = mirror }

  /// Adds a sample.
  /// - Precondition: the catalog has a metric of that name with these labels.
  public mutating func add(_ name: String, _ labels: [String] = [], _ value: Double) {
    let metric = MetricText.metric(name, labels)
    samples[name, default: ""] +=
      "\(name)\(tags(metric, labels)) \(MetricText.number(value))\n"
  }

  /// Adds a sample of a whole number.
  public mutating func add(_ name: String, _ labels: [String] = [], _ value: UInt64) {
    let metric = MetricText.metric(name, labels)
    samples[name, default: ""] += "\(name)\(tags(metric, labels)) \(value)\n"
  }

  /// Adds a histogram: cumulative counts below bounds in microseconds, then all, then their sum.
  public mutating func add(
    _ name: String, _ labels: [String], below: [(microseconds: UInt64, count: UInt64)],
    count: UInt64, nanoseconds: UInt64
  ) {
    let metric = MetricText.metric(name, labels)
    var text = ""
    for bucket in below {
      let bound = MetricText.number(Double(bucket.microseconds) / 1e6)
      text += "\(name)_bucket\(tags(metric, labels, bound: bound)) \(bucket.count)\n"
    }
    text += "\(name)_bucket\(tags(metric, labels, bound: "+Inf")) \(count)\n"
    text += "\(name)_sum\(tags(metric, labels)) \(MetricText.number(Double(nanoseconds) / 1e9))\n"
    text += "\(name)_count\(tags(metric, labels)) \(count)\n"
    samples[name, default: ""] += text
  }

  /// The whole text.
  public var text: String {
    MetricCatalog.all.map { metric in
      "# HELP \(metric.name) \(metric.help)\n# TYPE \(metric.name) \(metric.kind.rawValue)\n"
        + (samples[metric.name] ?? "")
    }.joined()
  }

  private static func metric(_ name: String, _ labels: [String]) -> Metric {
    guard let metric = MetricCatalog.find(name), metric.labels.count == labels.count else {
      preconditionFailure("\(name) with \(labels.count) labels is not in the catalog")
    }
    return metric
  }

  private func tags(_ metric: Metric, _ values: [String], bound: String? = nil) -> String {
    var tags = ["mirror=\"\(MetricText.escaped(mirror))\""]
    for (label, value) in zip(metric.labels, values) {
      tags.append("\(label)=\"\(MetricText.escaped(value))\"")
    }
    if let bound { tags.append("le=\"\(bound)\"") }
    return "{\(tags.joined(separator: ","))}"
  }

  /// A number without a needless fraction.
  static func number(_ value: Double) -> String {
    value == value.rounded() && value.magnitude < 1e15 ? "\(Int64(value))" : "\(value)"
  }

  static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\"": result += "\\\""
      case "\n": result += "\\n"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}

extension ControlClient {
  /// The metrics as Prometheus reads them.
  public func metrics() throws(ControlClientError) -> String {
    String(decoding: try send("GET", "/metrics", accept: "text/plain"), as: UTF8.self)
  }
}
