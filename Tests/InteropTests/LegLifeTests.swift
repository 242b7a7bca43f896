// Goal: legs leave, return and are exchanged by command under load; the client sees no error, a
// returning leg gets only what it missed, and in the end all legs are equal.
import Fixtures
import Testing

/// A verifying fio load in the background, over a part of the export.
private func load(_ mirror: MirrorUnderTest, seconds: Int) throws -> BackgroundProcess {
  try BackgroundProcess(
    [
      "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw", "--bs=4k",
      "--iodepth=16", "--size=16m", "--time_based", "--runtime=\(seconds)", "--verify=crc32c",
      "--verify_fatal=1", "--verify_state_save=0",
    ], directory: mirror.directory)
}

extension Interop {
  struct LegLife {
    @Test("a leg failed and readded under load copies less than the whole, unseen by the client")
    func failAndReadd() async throws {
      try await withMirror(size: "256M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri, "connect().pwrite(random.Random(31).randbytes(16 * MiB), 64 * MiB)")
        try await mirror.waitUntilSettled()
        let load = try load(mirror, seconds: 4)
        defer { load.end() }
        try await eventually("the load writes", within: 20) {
          try await mirror.status().dirtyRegions > 0
        }
        try await mirror.mustAdmin(["leg", "fail", "1"])
        var status = try await mirror.status()
        #expect(status.state == "degraded")
        #expect(try status.leg(1).state == "failed")
        #expect(status.syncPercent < 100)
        try await eventually("the failed leg misses something", within: 20) {
          try await mirror.status().leg(1).staleBytes > 0
        }
        try await mirror.mustAdmin(["leg", "readd", "1"])
        try await mirror.mustAdmin(["resync", "wait"])
        status = try await mirror.status()
        #expect(status.state == "healthy")
        #expect(status.syncPercent == 100)
        #expect(try status.leg(1).state == "in-sync")
        #expect(status.resync.bytesDone > 0)
        #expect(status.resync.bytesDone <= 20 << 20, "a partial resync copied too much")
        let result = try await load.wait(seconds: 60)
        #expect(result.status == 0, "\(result)")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a leg that was failed at a stop is still stale after the start, and comes back")
    func failedAcrossRestart() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        try await mirror.mustAdmin(["leg", "fail", "0"])
        try await libnbd(mirror.uri, "connect().pwrite(b'new ' * 1024, 4 * MiB)")
        try await mirror.stop()
        let difference = try await mirror.firstDifference()
        #expect(difference != nil, "the failed leg got the write")
        try await mirror.serve(["--degraded"])
        try await libnbd(
          mirror.uri,
          "h = connect()\nfor _ in range(20): assert h.pread(4096, 4 * MiB) == b'new ' * 1024")
        if try await mirror.status().leg(0).state == "failed" {
          try await mirror.mustAdmin(["leg", "readd", "0"])
        }
        try await mirror.mustAdmin(["resync", "wait"])
        #expect(try await mirror.status().state == "healthy")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a leg added under load becomes a full copy; a removed one is gone")
    func addAndRemove() async throws {
      try await withMirror(legs: 3, size: "64M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri, "connect().pwrite(random.Random(32).randbytes(32 * MiB), 24 * MiB)")
        let load = try load(mirror, seconds: 3)
        defer { load.end() }
        try await mirror.mustAdmin(["leg", "remove", "2"])
        var status = try await mirror.status()
        #expect(!status.legs.contains { $0.slot == 2 && $0.state == "in-sync" })
        let added = "\(mirror.directory)/added.pv"
        try await must(["truncate", "-s", "80M", added])
        try await mirror.mustAdmin(["leg", "add", added])
        try await mirror.mustAdmin(["resync", "wait"])
        status = try await mirror.status()
        let leg = try #require(status.legs.first { $0.path == added })
        #expect(leg.state == "in-sync")
        #expect(leg.staleBytes == 0)
        let result = try await load.wait(seconds: 60)
        #expect(result.status == 0, "\(result)")
        try await mirror.stop()
        let difference = try await mirror.firstDifference(
          among: [mirror.paths[0], mirror.paths[1], added])
        #expect(difference == nil)
      }
    }
  }
}
