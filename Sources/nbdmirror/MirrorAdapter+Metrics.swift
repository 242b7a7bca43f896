// The part of the adapter about metrics: the state of engine, reactors, faults and process as
// samples of the catalog.

import Base
import ControlModel
import ControlPlane
import FoundationEssentials
import Glibc
import MirrorEngine
import Server

extension MirrorAdapter {
  func metrics() -> String {
    var text = MetricText(mirror: facts.name)
    let snapshot = server.withEngine { $0.snapshot() }
    let statistics = server.statistics()
    let status = status()
    addMirror(&text, status, snapshot)
    addClients(&text, snapshot, statistics)
    for leg in snapshot.legs {
      addLeg(&text, leg, status, statistics.legs[leg.slot.index])
    }
    addCopying(&text, snapshot, status.scrub)
    addFaults(&text)
    addProcess(&text, statistics)
    return text.text
  }

  private func addMirror(
    _ text: inout MetricText, _ status: MirrorStatus, _ snapshot: MirrorSnapshot
  ) {
    text.add("nbdmirror_info", [status.setId, status.readPolicy], UInt64(1))
    for state in MirrorStatus.State.allCases {
      text.add("nbdmirror_state", [state.rawValue], UInt64(state == status.state ? 1 : 0))
    }
    text.add("nbdmirror_size_bytes", status.size)
    text.add("nbdmirror_sync_ratio", status.syncPercent / 100)
    text.add("nbdmirror_generation", status.generation)
    text.add("nbdmirror_uptime_seconds", status.uptimeSeconds)
    text.add("nbdmirror_region_bytes", status.regionSize)
    text.add("nbdmirror_dirty_regions", status.dirtyRegions)
    text.add("nbdmirror_unresolved_regions", status.unresolvedRegions)
    text.add("nbdmirror_unwritten_bytes", status.unwrittenBytes)
    text.add("nbdmirror_flush_latched", snapshot.isFlushLatched)
    text.add("nbdmirror_events_total", events.last)
  }

  private func addClients(
    _ text: inout MetricText, _ snapshot: MirrorSnapshot, _ statistics: ServerStatistics
  ) {
    text.add("nbdmirror_connections", UInt64(server.connections().count))
    text.add("nbdmirror_connections_total", statistics.connections)
    text.add("nbdmirror_requests_refused_total", statistics.refused)
    text.add("nbdmirror_requests_in_flight", UInt64(snapshot.requests))
    for operation in ClientOperation.allCases {
      let counted = statistics.operations[operation.rawValue]
      let labels = [MetricWords.word(operation)]
      text.add("nbdmirror_requests_total", labels, counted.requests)
      text.add("nbdmirror_request_bytes_total", labels, counted.bytes)
      text.add("nbdmirror_request_errors_total", labels, counted.errors)
      var below: [(microseconds: UInt64, count: UInt64)] = []
      var sum: UInt64 = 0
      for (bucket, count) in counted.buckets.enumerated() {
        sum += count
        if let bound = LatencyBuckets.microseconds(bucket) { below.append((bound, sum)) }
      }
      text.add(
        "nbdmirror_request_duration_seconds", labels, below: below, count: sum,
        nanoseconds: counted.nanoseconds)
    }
  }

  private func addLeg(
    _ text: inout MetricText, _ leg: LegSnapshot, _ status: MirrorStatus,
    _ counted: [ServerStatistics.LegOperation]
  ) {
    let slot = "\(leg.slot)"
    guard let shown = status.legs.first(where: { $0.slot == leg.slot.index }) else { return }
    text.add("nbdmirror_leg_info", [slot, shown.id, shown.path], UInt64(1))
    for state in LegStatus.State.allCases {
      text.add(
        "nbdmirror_leg_state", [slot, state.rawValue], UInt64(state == shown.state ? 1 : 0))
    }
    text.add("nbdmirror_leg_stale_bytes", [slot], leg.staleBytes)
    text.add("nbdmirror_leg_in_flight", [slot], UInt64(leg.inFlight))
    for (kind, word) in MetricWords.kinds {
      let labels = [slot, word]
      text.add("nbdmirror_leg_operations_total", labels, counted[Int(kind.rawValue)].count)
      text.add("nbdmirror_leg_bytes_total", labels, counted[Int(kind.rawValue)].bytes)
    }
    for (word, histogram) in [("read", leg.readLatency), ("write", leg.writeLatency)] {
      let below = (0..<LatencyBuckets.count - 1).map { bucket in
        let power = LatencyBuckets.firstPower + bucket
        return (UInt64(1) << UInt64(power), histogram.count(belowPower: power))
      }
      text.add(
        "nbdmirror_leg_duration_seconds", [slot, word], below: below, count: histogram.total,
        nanoseconds: histogram.nanoseconds)
    }
    text.add("nbdmirror_leg_read_errors_total", [slot], leg.readErrors)
    text.add("nbdmirror_leg_write_errors_total", [slot], leg.writeErrors)
    text.add("nbdmirror_leg_repaired_blocks_total", [slot], leg.repairedBlocks)
    text.add("nbdmirror_leg_hedged_reads_total", [slot], leg.hedgedReads)
    text.add("nbdmirror_leg_hedges_won_total", [slot], leg.hedgesWon)
  }

  private func addCopying(
    _ text: inout MetricText, _ snapshot: MirrorSnapshot, _ scrub: ScrubStatus
  ) {
    text.add("nbdmirror_resync_running", snapshot.isResyncRunning)
    text.add("nbdmirror_resync_paused", snapshot.isResyncPaused)
    text.add("nbdmirror_resync_done_bytes", snapshot.resyncBytesDone)
    text.add("nbdmirror_resync_size_bytes", snapshot.resyncBytesTotal)
    let rate = snapshot.resyncBytesPerSecond
    text.add("nbdmirror_resync_bytes_per_second", rate.isFinite ? rate : 0)
    text.add("nbdmirror_resync_unreadable_ranges", snapshot.unreadableCount)
    text.add("nbdmirror_scrub_running", scrub.running)
    text.add("nbdmirror_scrub_done_bytes", snapshot.scrub.bytesDone)
    text.add("nbdmirror_scrub_size_bytes", snapshot.scrub.bytesTotal)
    text.add("nbdmirror_scrub_mismatches", snapshot.scrub.mismatchCount)
    text.add("nbdmirror_scrub_unrepaired_bytes", snapshot.scrub.unrepairedBytes)
  }

  private func addFaults(_ text: inout MetricText) {
    let faults = faults()
    for state in FaultStatus.State.allCases {
      let count = faults.count { $0.state == state }
      text.add("nbdmirror_faults", [state.rawValue], UInt64(count))
    }
    for fault in faults {
      let labels = [fault.name, fault.kind, "\(fault.leg)"]
      text.add("nbdmirror_fault_matched_total", labels, fault.matched)
      text.add("nbdmirror_fault_fired_total", labels, fault.fired)
    }
  }

  private func addProcess(_ text: inout MetricText, _ statistics: ServerStatistics) {
    for (reactor, turns) in statistics.turns.enumerated() {
      text.add("nbdmirror_reactor_turns_total", ["\(reactor)"], turns)
    }
    text.add("nbdmirror_buffer_bytes", statistics.leasedBytes)
    text.add("nbdmirror_pinned_buffer_bytes", statistics.pinnedBytes)
    text.add("nbdmirror_resident_bytes", ProcessFacts.residentBytes)
    text.add("nbdmirror_open_descriptors", ProcessFacts.openDescriptors)
    text.add("nbdmirror_cpu_seconds_total", ProcessFacts.processorSeconds)
  }
}

extension MetricText {
  fileprivate mutating func add(_ name: String, _ value: UInt64) { add(name, [], value) }
  fileprivate mutating func add(_ name: String, _ value: Double) { add(name, [], value) }
  fileprivate mutating func add(_ name: String, _ value: Bool) {
    add(name, [], UInt64(value ? 1 : 0))
  }
}

/// Words of labels.
private enum MetricWords {
  static let kinds: [(IOKind, String)] = [
    (.read, "read"), (.write, "write"), (.flush, "flush"), (.zero, "zero"),
    (.discard, "discard"),
  ]

  static func word(_ operation: ClientOperation) -> String {
    switch operation {
    case .read: "read"
    case .write: "write"
    case .flush: "flush"
    case .trim: "trim"
    case .zero: "zero"
    case .cache: "cache"
    case .blockStatus: "block-status"
    }
  }
}

/// What the kernel says about this process; 0 where it says nothing.
private enum ProcessFacts {
  /// Source: proc(5), /proc/pid/statm: the second number is the resident pages.
  static var residentBytes: UInt64 {
    do {
      let text = String(
        decoding: try Data(contentsOf: URL(filePath: "/proc/self/statm")), as: UTF8.self)
      let fields = text.split(separator: " ")
      guard fields.count > 1, let pages = UInt64(fields[1]) else { return 0 }
      return pages * UInt64(sysconf(Int32(_SC_PAGESIZE)))
    } catch {
      return 0
    }
  }

  static var openDescriptors: UInt64 {
    do {
      return UInt64(try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count)
    } catch {
      return 0
    }
  }

  static var processorSeconds: Double {
    var usage = rusage()
    // A local that lives through the call.
    guard unsafe getrusage(Int32(RUSAGE_SELF.rawValue), &usage) == 0 else { return 0 }
    let seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
    let micros = usage.ru_utime.tv_usec + usage.ru_stime.tv_usec
    return Double(seconds) + Double(micros) / 1e6
  }
}
