// Goal: metrics tell what was done, and Prometheus understands them. Method: known numbers of
// requests, then the samples; promtool, where it is installed (Debian's prometheus), judges the text,
// the rules and the rules' own tests.
import Fixtures
import Foundation
import Testing

/// The examples for Prometheus.
private let examples =
  URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent().path + "/Examples/prometheus"

/// The path of promtool: PROMTOOL, else in PATH; nil if there is none.
private func findPromtool() -> String? {
  let environment = ProcessInfo.processInfo.environment
  let folders = (environment["PATH"] ?? "").split(separator: ":").map { "\($0)/promtool" }
  return ([environment["PROMTOOL"]].compactMap { $0 } + folders).first {
    FileManager.default.isExecutableFile(atPath: $0)
  }
}

/// Samples by name and labels, without `mirror`.
private func samples(_ text: String) throws -> [String: Double] {
  var samples: [String: Double] = [:]
  var families: Set<Substring> = []
  for line in text.split(separator: "\n") {
    if line.hasPrefix("# ") {
      if line.hasPrefix("# TYPE ") { families.insert(line.split(separator: " ")[2]) }
      continue
    }
    let space = try #require(line.lastIndex(of: " "))
    let value = try #require(Double(line[line.index(after: space)...]), "\(line)")
    let name = line[..<space]
    let family = name.prefix { $0 != "{" }
    let isKnown =
      families.contains(family)
      || ["_bucket", "_sum", "_count"].contains {
        family.hasSuffix($0) && families.contains(family.dropLast($0.count))
      }
    #expect(isKnown, "no type for \(line)")
    let key = name.replacingOccurrences(of: "mirror=\"lab\",", with: "")
      .replacingOccurrences(of: "{mirror=\"lab\"}", with: "")
    #expect(samples.updateValue(value, forKey: key) == nil, "twice: \(key)")
  }
  return samples
}

/// What the story of `counts` leaves, exactly.
private let exact: [(String, Double)] = [
  ("nbdmirror_requests_total{operation=\"read\"}", 7.0),
  ("nbdmirror_request_bytes_total{operation=\"read\"}", 57344),
  ("nbdmirror_request_bytes_total{operation=\"write\"}", 45056),
  ("nbdmirror_requests_total{operation=\"flush\"}", 1),
  ("nbdmirror_requests_total{operation=\"trim\"}", 1),
  ("nbdmirror_requests_total{operation=\"zero\"}", 1),
  ("nbdmirror_request_errors_total{operation=\"write\"}", 0),
  ("nbdmirror_requests_refused_total", 1), ("nbdmirror_connections_total", 2),
  ("nbdmirror_requests_in_flight", 0),
  ("nbdmirror_request_duration_seconds_count{operation=\"read\"}", 7),
  ("nbdmirror_request_duration_seconds_bucket{operation=\"read\",le=\"+Inf\"}", 7),
  ("nbdmirror_state{state=\"degraded\"}", 1), ("nbdmirror_state{state=\"healthy\"}", 0),
  ("nbdmirror_leg_state{leg=\"1\",state=\"failed\"}", 1),
  ("nbdmirror_leg_state{leg=\"0\",state=\"in-sync\"}", 1),
  ("nbdmirror_leg_write_errors_total{leg=\"1\"}", 1),
  ("nbdmirror_faults{state=\"armed\"}", 1),
  ("nbdmirror_fault_fired_total{fault=\"broken\",kind=\"error\",leg=\"1\"}", 1),
  ("nbdmirror_size_bytes", 67_108_864), ("nbdmirror_resync_running", 0),
]

/// What the story of `counts` leaves above 0.
private let positive: [String] = [
  "nbdmirror_leg_operations_total{leg=\"0\",operation=\"write\"}",
  "nbdmirror_leg_bytes_total{leg=\"1\",operation=\"write\"}",
  "nbdmirror_leg_duration_seconds_sum{leg=\"0\",operation=\"write\"}",
  "nbdmirror_reactor_turns_total{reactor=\"0\"}", "nbdmirror_resident_bytes",
  "nbdmirror_open_descriptors", "nbdmirror_cpu_seconds_total", "nbdmirror_events_total",
  "nbdmirror_leg_stale_bytes{leg=\"1\"}",
]

extension Interop {
  struct Metrics {
    @Test("requests, bytes, errors and latencies are counted as they were")
    func counts() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          for index in range(10):
              h.pwrite(b'm' * 4096, index * 4096)
          for index in range(7):
              h.pread(8192, 0)
          h.flush()
          h.trim(4096, 0)
          h.zero(4096, 4096)
          refused("EINVAL", lambda: h.pread(4096, 64 * MiB))
          h.shutdown()
          """)
        try await mirror.arm("1 error --op write --area data --name broken")
        try await libnbd(mirror.uri, "h = connect()\nh.pwrite(b'm' * 4096, 0)\nh.shutdown()")
        var found: [String: Double] = [:]
        try await eventually("the reactors have published", within: 20, every: 0.05) {
          found = try samples(try await mirror.admin(["metrics"]).output)
          return found["nbdmirror_requests_total{operation=\"write\"}"] == 11
            && found["nbdmirror_connections"] == 0
        }
        for (name, value) in exact {
          #expect(found[name] == value, "\(name) is \(found[name] ?? -1)")
        }
        for name in positive {
          #expect(found[name] ?? 0 > 0, "\(name) is \(found[name] ?? -1)")
        }
        // Buckets are cumulative and end at the count.
        for leg in ["0", "1"] {
          let prefix =
            "nbdmirror_leg_duration_seconds_bucket{leg=\"\(leg)\",operation=\"write\",le=\""
          let buckets = found.filter { $0.key.hasPrefix(prefix) }.map { key, count in
            (Double(key.dropFirst(prefix.count).dropLast(2)) ?? Double.infinity, count)
          }.sorted { $0.0 < $1.0 }
          #expect(buckets.count == 22)
          #expect(zip(buckets, buckets.dropFirst()).allSatisfy { $0.1 <= $1.1 })
          #expect(
            buckets.last?.1
              == found["nbdmirror_leg_duration_seconds_count{leg=\"\(leg)\",operation=\"write\"}"])
        }
        if let promtool = findPromtool() {
          let text = "\(mirror.directory)/metrics"
          try await mirror.admin(["metrics"]).output.write(
            toFile: text, atomically: true, encoding: .utf8)
          let checked = try await run(["bash", "-c", "\(promtool) check metrics < \(text)"])
          #expect(checked.status == 0, "\(checked)")
        }
        try await mirror.mendAndCompare(1)
      }
    }

    @Test(
      "the example collects the metrics of every running mirror and forgets those that are gone")
    func textfile() async throws {
      try await withMirror { mirror in
        let runtime = "\(mirror.directory)/runtime"
        let target = "\(mirror.directory)/textfile"
        for folder in ["\(runtime)/nbdmirror", target, "\(mirror.directory)/bin"] {
          try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true)
        }
        try FileManager.default.createSymbolicLink(
          atPath: "\(mirror.directory)/bin/nbdmirror", withDestinationPath: mirror.binary)
        try await mirror.serve()
        try FileManager.default.createSymbolicLink(
          atPath: "\(runtime)/nbdmirror/lab.ctl", withDestinationPath: mirror.control)
        try "old".write(
          toFile: "\(target)/nbdmirror-gone.prom", atomically: true, encoding: .utf8)
        // Root's sockets are elsewhere: the script is told that it is not root.
        let script = try String(
          contentsOfFile: "\(examples)/nbdmirror-textfile.sh", encoding: .utf8
        ).replacingOccurrences(of: "if ((EUID == 0))", with: "if false")
        let result = try await run(
          ["bash", "-c", script, "nbdmirror-textfile.sh", target],
          environment: [
            "XDG_RUNTIME_DIR": runtime, "PATH": "\(mirror.directory)/bin:/usr/bin:/bin",
          ])
        #expect(result.status == 0, "\(result)")
        #expect(
          try FileManager.default.contentsOfDirectory(atPath: target) == ["nbdmirror-lab.prom"])
        let text = try String(contentsOfFile: "\(target)/nbdmirror-lab.prom", encoding: .utf8)
        #expect(text.contains("nbdmirror_size_bytes{mirror=\"lab\"} 67108864\n"))
        try await mirror.stop()
      }
    }

    @Test(
      "promtool accepts the configuration and the rules, and the rules' own tests pass",
      .enabled(if: findPromtool() != nil, "promtool is not installed (Debian package prometheus)"))
    func rules() async throws {
      let promtool = try #require(findPromtool())
      for command in [
        ["check", "config", "\(examples)/prometheus.yml"],
        ["check", "config", "--syntax-only", "\(examples)/prometheus-tcp.yml"],
        ["check", "rules", "\(examples)/alerts.yml"],
        ["test", "rules", "\(examples)/alerts_test.yml"],
      ] {
        let result = try await run([promtool] + command)
        #expect(result.status == 0, "\(result)")
      }
    }
  }
}
