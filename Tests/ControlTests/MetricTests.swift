// Goal: every metric is documented with its help, and the text is what Prometheus reads. Method: the
// catalog against the table of docs/metrics.md; the text by its lines.
import Foundation
import Testing

@testable import ControlModel

@Suite("metrics")
struct MetricTests {
  private static let root = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()

  @Test("docs/metrics.md has each metric with its type, labels and help, and no other")
  func documented() throws {
    let text = try String(
      contentsOf: MetricTests.root.appending(path: "docs/metrics.md"), encoding: .utf8)
    let rows = text.split(separator: "\n").filter { $0.hasPrefix("| `nbdmirror_") }.map(String.init)
    let expected = MetricCatalog.all.map { metric in
      let labels = metric.labels.map { "`\($0)`" }.joined(separator: ", ")
      return "| `\(metric.name)` | \(metric.kind.rawValue) | \(labels) | \(metric.help) |"
    }
    #expect(rows == expected)
    #expect(Set(MetricCatalog.all.map(\.name)).count == MetricCatalog.all.count)
  }

  @Test("names follow the rules: counters end in total, units stand last")
  func names() {
    for metric in MetricCatalog.all {
      #expect(metric.name.hasPrefix("nbdmirror_"))
      #expect(metric.name.hasSuffix("_total") == (metric.kind == .counter), "\(metric.name)")
      #expect(metric.kind != .histogram || metric.name.hasSuffix("_seconds"))
      #expect(!metric.help.isEmpty && !metric.help.contains("\n"))
    }
  }

  @Test("rules, their tests and the dashboard name only metrics that exist")
  func examples() throws {
    let known = Set(
      MetricCatalog.all.flatMap { metric in
        metric.kind == .histogram
          ? ["_bucket", "_sum", "_count"].map { metric.name + $0 } : [metric.name]
      })
    for file in ["alerts.yml", "alerts_test.yml", "dashboard.json"] {
      let url = MetricTests.root.appending(path: "Examples/prometheus/\(file)")
      let text = try String(contentsOf: url, encoding: .utf8)
      let words = text.split { !($0.isLetter || $0.isNumber || $0 == "_") }
      let named = Set(words.filter { $0.hasPrefix("nbdmirror_") }.map(String.init))
      #expect(named.count > 5)
      #expect(named.subtracting(known).isEmpty, "\(file): \(named.subtracting(known))")
    }
    let dashboard = MetricTests.root.appending(path: "Examples/prometheus/dashboard.json")
    let json = try JSONSerialization.jsonObject(with: try Data(contentsOf: dashboard))
    let panels = try #require((json as? [String: Any])?["panels"] as? [[String: Any]])
    #expect(panels.count > 10)
  }

  @Test("labels are escaped, numbers have no needless digits, histograms are cumulative")
  func text() {
    var text = MetricText(mirror: "a \"b\"\\\n")
    text.add("nbdmirror_sync_ratio", [], 0.5)
    text.add("nbdmirror_size_bytes", [], UInt64.max)
    text.add(
      "nbdmirror_request_duration_seconds", ["read"], below: [(16, 2), (1024, 5)], count: 6,
      nanoseconds: 1_500_000_000)
    let lines = text.text.split(separator: "\n").map(String.init)
    let mirror = #"mirror="a \"b\"\\\n""#
    for line in [
      "nbdmirror_sync_ratio{\(mirror)} 0.5", "nbdmirror_size_bytes{\(mirror)} 18446744073709551615",
      "# TYPE nbdmirror_request_duration_seconds histogram",
      "nbdmirror_request_duration_seconds_bucket{\(mirror),operation=\"read\",le=\"1.6e-05\"} 2",
      "nbdmirror_request_duration_seconds_bucket{\(mirror),operation=\"read\",le=\"0.001024\"} 5",
      "nbdmirror_request_duration_seconds_bucket{\(mirror),operation=\"read\",le=\"+Inf\"} 6",
      "nbdmirror_request_duration_seconds_sum{\(mirror),operation=\"read\"} 1.5",
      "nbdmirror_request_duration_seconds_count{\(mirror),operation=\"read\"} 6",
    ] {
      #expect(lines.contains(line), "\(line)")
    }
    #expect(lines.filter { $0.hasPrefix("# HELP ") }.count == MetricCatalog.all.count)
  }

  @Test("the server answers with the text, the verb prints it")
  func served() throws {
    let server = try TestServer()
    let answer = try server.exchange(
      "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    #expect(answer.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"))
    let printed = try CommandTests.run(["metrics", "--control", server.path])
    #expect(printed.output == server.mirror.metrics())
    #expect(printed.output.contains("nbdmirror_size_bytes{mirror=\"a \\\"b\\\"\"} 5368709120\n"))
  }
}
