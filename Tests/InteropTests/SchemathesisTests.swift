// Goal: the control interface is what its description says, whatever is asked: no 5xx, no answer
// that the description does not have, and clients see nothing of it. Method: schemathesis reads
// /openapi.yaml and makes requests of it, valid and not, against a server with a verifying load.
import Fixtures
import Foundation
import Testing

private let program = ProcessInfo.processInfo.environment["NBDMIRROR_SCHEMATHESIS"] ?? ""

extension Interop {
  @Suite(.enabled(if: !program.isEmpty, "Tests/run.sh installs schemathesis and names it"))
  struct Schemathesis {
    /// All checks but one: that requests of the right form are accepted. A leg that is not there
    /// and a range beyond the device's end have the right form.
    private func check(_ mirror: MirrorUnderTest, _ options: [String]) async throws {
      let url = try #require(
        mirror.server?.output.split(separator: "\n").first { $0.hasPrefix("http://") })
      let token = try String(contentsOfFile: mirror.control + ".token", encoding: .utf8)
        .trimmingCharacters(in: .newlines)
      let result = try await run(
        [
          "env", "-C", mirror.directory, program, "run", "\(url)openapi.yaml", "--url",
          String(url.dropLast()),
          "-H", "Authorization: Bearer \(token)", "--phases", "examples,coverage,fuzzing",
          "--exclude-checks", "positive_data_acceptance", "--no-color",
        ] + options, seconds: 240)
      #expect(result.status == 0, "\(result)")
      // A run that asks nothing proves nothing.
      #expect(result.output.contains("generated"), "\(result)")
    }

    @Test("the interface is as described, and a verifying load sees nothing of what is asked")
    func interface() async throws {
      let seed = seedOfThisRun()
      print("schemathesis: seed \(seed)")
      try await withMirror(legs: 3, size: "64M") { mirror in
        // Both leave files where they are: PVs of invented names, caches.
        try await mirror.serve(
          ["--control-listen", ":0"], wrapper: ["env", "-C", mirror.directory])
        let load = try BackgroundProcess(
          [
            "fio", "--name=verify", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw",
            "--bs=4k", "--size=64M", "--iodepth=8", "--verify=crc32c", "--verify_backlog=64",
            "--time_based", "--runtime=600", "--verify_fatal=1", "--verify_state_save=0",
          ], directory: mirror.directory)
        try await eventually("the load has begun", within: 60) {
          try await mirror.admin(["connections"]).output.contains("transmission")
        }
        try await check(
          mirror,
          [
            "--exclude-path", "/v1/shutdown", "--exclude-path", "/v1/power-cut",
            // A stream has no end; faults harm the load on purpose.
            "--exclude-path", "/v1/events", "--exclude-path-regex", "^/v1/faults",
            "--max-time", "20", "--seed", "\(seed)",
          ])
        #expect(load.isRunning, "the load has ended: \(load.output) \(load.errors)")
        load.signal(SIGINT)
        let verified = try await load.wait(seconds: 60)
        #expect(verified.output.contains("err= 0"), "\(verified)")
        try await check(
          mirror,
          ["--include-path-regex", "^/v1/faults", "--max-time", "5", "--seed", "\(seed)"])
        try await mirror.mustAdmin(["fault", "clear"])
        #expect(try await mirror.admin(["status"]).status == 0)
      }
    }
  }
}
