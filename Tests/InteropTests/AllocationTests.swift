// Goal: a request in the steady state costs no allocation. Method: the optimised server runs with a
// malloc that counts (Tests/Fixtures/count_allocations.c), and 100,000 requests come after a warm-up.
// A debug build is not measured: without the optimiser Swift itself allocates.
import Fixtures
import Foundation
import Testing

/// Where the scripts of these tests lie.
let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().appendingPathComponent("Fixtures").path

private let isOptimised = ProcessInfo.processInfo.environment["NBDMIRROR_BIN"]?.isEmpty == false

extension Interop {
  @Suite(.enabled(if: isOptimised, "NBDMIRROR_BIN names the release binary"))
  struct Allocations {
    @Test(
      "100,000 requests in the steady state allocate nothing",
      arguments: [nil, "/dev/shm"] as [String?])
    func none(parent: String?) async throws {
      try await withMirror(size: "16M", parent: parent) { mirror in
        let library = mirror.directory + "/count_allocations.so"
        try await must([
          "clang", "-shared", "-fPIC", "-O2", "-o", library, fixtures + "/count_allocations.c",
        ])
        let counts = mirror.directory + "/allocations"
        try await mirror.serve(
          wrapper: ["env", "LD_PRELOAD=\(library)", "ALLOCATION_COUNT_FILE=\(counts)"])
        let result = try await must([
          "/usr/bin/python3", fixtures + "/steady_requests.py", mirror.socket, counts,
        ])
        #expect(result.output == "0\n")
        try await mirror.stop()
      }
    }
  }
}
