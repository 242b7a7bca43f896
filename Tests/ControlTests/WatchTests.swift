// Goal: the picture of `watch` says what happens, and fits the window. Method: samples that are made
// up, with known counters, are turned into text.
import ControlModel
import Foundation
import Testing

@testable import nbdmirror

@Suite("Watch")
struct WatchTests {
  private func sample(_ seconds: Double, reads: Int, stale: UInt64 = 0) -> WatchSample {
    let metrics = """
      # HELP nbdmirror_leg_operations_total I/O that was begun on the leg
      nbdmirror_connections 3
      nbdmirror_requests_total{operation="read"} \(reads)
      nbdmirror_request_bytes_total{operation="read"} \(reads * 4096)
      nbdmirror_requests_total{operation="write"} 10
      nbdmirror_leg_operations_total{leg="0",operation="read"} \(reads)
      nbdmirror_leg_bytes_total{leg="0",operation="read"} \(reads * 4096)
      nbdmirror_leg_operations_total{leg="1",operation="write"} 7
      """
    let resync = ResyncStatus(
      running: stale > 0, paused: false, bytesDone: 1 << 20, bytesTotal: 4 << 20,
      bytesPerSecond: 1 << 20, etaSeconds: 3, minBytesPerSecond: 1 << 20)
    let mirror = MirrorStatus(
      name: "lab", setId: "set", size: 1 << 30, state: stale > 0 ? .syncing : .healthy,
      syncPercent: 99.5, generation: 4, regionSize: 1 << 20, dirtyRegions: 2,
      unresolvedRegions: 0, readPolicy: "adaptive", uptimeSeconds: 5,
      legs: [
        LegStatus(slot: 0, id: "a", path: "/a.pv", state: .inSync),
        LegStatus(slot: 1, id: "b", path: "/b.pv", state: .syncing, staleBytes: stale),
      ], resync: resync, scrub: ScrubStatus())
    return WatchSample(
      mirror: mirror, regions: RegionMapStatus(regions: 600, regionsPerCell: 2, map: map),
      counters: WatchCounters(metrics: metrics),
      events: (1...20).map { number in
        var event = EventRecord(.resyncStarted, "event number \(number)")
        event.sequence = UInt64(number)
        event.time = "2026-01-02T03:04:05.000Z"
        return event
      }, seconds: seconds)
  }

  private var map: String {
    String(repeating: "_", count: 99) + "S" + String(repeating: ".", count: 200)
  }

  @Test("rates are differences of counters over time, per leg and for clients")
  func rates() {
    let lines = WatchText.lines(
      sample(12, reads: 5000), before: sample(10, reads: 1000), width: 100, height: 40)
    #expect(lines[1].contains("clients 3  read 2000/s 7.81 MiB/s"))
    #expect(lines[4].hasPrefix("  0  in-sync"))
    #expect(lines[4].contains("  2000  7.81 MiB"))
    let first = WatchText.lines(sample(12, reads: 5000), before: nil, width: 100, height: 40)
    #expect(first[1].contains("read 0/s 0 B/s"))
  }

  @Test("a picture fits the window, whatever its size", arguments: [20, 40, 80, 200])
  func sizes(width: Int) {
    for height in [5, 10, 24, 60] {
      let lines = WatchText.lines(
        sample(12, reads: 9, stale: 3 << 20), before: nil, width: width, height: height)
      #expect(lines.count <= height)
      #expect(lines.allSatisfy { $0.count <= width })
    }
    let full = WatchText.lines(
      sample(12, reads: 9, stale: 3 << 20), before: nil, width: 80, height: 40)
    #expect(full.contains { $0.hasPrefix("Resync [") && $0.hasSuffix("ETA 0:03") })
    #expect(full.contains { $0.hasSuffix("event number 20") })
  }

  @Test("a small map shows the worst of what each character stands for")
  func regions() {
    let status = RegionMapStatus(regions: 600, regionsPerCell: 2, map: map)
    let lines = WatchText.regionMap(status, width: 10, lineMax: 3)
    #expect(lines.count == 4)
    let drawn = lines.dropFirst().joined()
    #expect(drawn.count == 30)
    #expect(Array(drawn)[9] == "S")
    #expect(drawn.hasPrefix("_________S...."))
    #expect(WatchText.regionMap(status, width: 10, lineMax: 0).isEmpty)
  }

  @Test("into a pipe it is one line that says the state, the legs and how far the copy is")
  func line() {
    let line = WatchText.line(sample(12, reads: 5, stale: 1 << 20), before: nil)
    #expect(line.hasPrefix("lab  syncing  99.50%  0:in-sync 1:syncing  read"))
    #expect(line.contains("resync  25.0%"))
    #expect(!line.contains("\n"))
  }

  @Test("connections are a table, and nobody is said to be nobody")
  func connections() {
    #expect(ListConnections.text([]) == "no client is connected\n")
    let text = ListConnections.text(FakeMirror().connections())
    #expect(text.split(separator: "\n").count == 2)
    #expect(text.contains("tcp        transmission"))
  }
}
