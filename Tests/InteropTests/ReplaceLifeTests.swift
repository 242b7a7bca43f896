// Goal: legs are replaced, by command and by a spare, under load and over a kill of the server; the
// client sees no error and in the end the legs that are left are equal.
import Fixtures
import Testing

extension Interop {
  struct ReplaceLife {
    @Test("a leg is replaced under load and removed when the new one is in sync")
    func replace() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri, "connect().pwrite(random.Random(33).randbytes(32 * MiB), 24 * MiB)")
        let new = "\(mirror.directory)/new.pv"
        let load = try BackgroundProcess(
          [
            "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw", "--bs=4k",
            "--iodepth=16", "--size=16m", "--time_based", "--runtime=3", "--verify=crc32c",
            "--verify_fatal=1", "--verify_state_save=0",
          ], directory: mirror.directory)
        defer { load.end() }
        try await mirror.mustAdmin(["leg", "replace", mirror.paths[0], new])
        try await eventually("the old leg is removed", within: 60) {
          try await mirror.status().leg(0).state == "removed"
        }
        let status = try await mirror.status()
        #expect(status.state == "healthy" || status.state == "syncing")
        #expect(try status.leg(2).state == "in-sync")
        let result = try await load.wait(seconds: 60)
        #expect(result.status == 0, "\(result)")
        try await mirror.stop()
        let difference = try await mirror.firstDifference(among: [mirror.paths[1], new])
        #expect(difference == nil)
      }
    }

    @Test("a spare takes over from a leg that failed, and is told in status")
    func spare() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        let spare = "\(mirror.directory)/spare.pv"
        try await mirror.mustAdmin(["leg", "add", spare, "--spare"])
        #expect(try await mirror.status().leg(2).state == "spare")
        try await libnbd(
          mirror.uri, "connect().pwrite(random.Random(34).randbytes(16 * MiB), 8 * MiB)")
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await eventually("the spare is in sync and the failed leg removed", within: 60) {
          let status = try await mirror.status()
          return try status.leg(1).state == "removed" && status.leg(2).state == "in-sync"
        }
        #expect(try await mirror.status().state == "healthy")
        try await mirror.stop()
        let difference = try await mirror.firstDifference(among: [mirror.paths[0], spare])
        #expect(difference == nil)
      }
    }
  }
}
