// Goal: promise P5 with a leg that really hangs, and back: clients go on after the leg timeout, reads
// are hedged, a released leg comes back and copies what it missed; no stop waits for ever.
//
// Method: the fault `hang` holds writes without a completion, as a dead controller does; fio with
// verification is the client.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct HungLegs {
    @Test("a leg that hangs is failed, clients go on, and it returns when it is released")
    func hang() async throws {
      try await withMirror(size: "128M") { mirror in
        try await mirror.serve(["--leg-timeout", "2"])
        let load = try BackgroundProcess(
          [
            "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw",
            "--bs=4k", "--iodepth=16", "--size=24m", "--time_based", "--runtime=8",
            "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fsync=64",
            "--rate_iops=600,600",
          ], directory: mirror.directory)
        defer { load.end() }
        try await eventually("the load writes", within: 20) {
          try await mirror.status().dirtyRegions > 0
        }
        try await mirror.arm("1 hang --op write --area data --name stuck")
        try await eventually("the hung leg is failed", within: 20) {
          try await mirror.status().leg(1).state == "failed"
        }
        #expect(try await mirror.fault("stuck").fired > 0)
        let early = try await mirror.admin(["leg", "readd", "1"])
        #expect(early.status == 1, "a leg with I/O in flight came back")
        #expect(early.errors.contains("has not yet answered"), "\(early)")
        let result = try await load.wait(seconds: 60)
        #expect(result.status == 0, "the client saw the leg hang: \(result)")
        try await mirror.mustAdmin(["fault", "release", "stuck"])
        #expect(try await mirror.fault("stuck").state == "released")
        try await eventually("the leg has answered", within: 20) {
          try await mirror.admin(["leg", "readd", "1"]).status == 0
        }
        try await mirror.mustAdmin(["resync", "wait"])
        #expect(try await mirror.status().state == "healthy")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("reads of a slow leg are hedged: readers wait for a fraction of its delays")
    func hedging() async throws {
      try await withMirror { mirror in
        try await mirror.serve(["--read-policy", "round-robin"])
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          h.pwrite(b'h' * MiB, 0)
          for index in range(256):
              h.pread(4096, index * 4096)
          h.shutdown()
          """)
        try await mirror.arm("1 delay --op read --delay 2s --name slow")
        let clock = ContinuousClock()
        let begin = clock.now
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          for index in range(20):
              assert h.pread(4096, index * 8192) == b'h' * 4096
          h.shutdown()
          """)
        let seconds = Double((clock.now - begin).components.seconds) + 1
        let slow = try await mirror.fault("slow")
        #expect(slow.fired > 0, "no read went to the slow leg")
        #expect(seconds < Double(slow.fired) * 2 + 1, "no read was hedged")
        #expect(seconds <= 20, "20 reads, half of them slow, took as long as without hedging")
        #expect(try await mirror.status().state == "healthy")
        try await mirror.mustAdmin(["fault", "clear"])
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a stop ends although a leg hangs, and the next start recovers")
    func stop() async throws {
      try await withMirror { mirror in
        try await mirror.serve(["--leg-timeout", "2"])
        try await mirror.arm("1 hang --op write,flush --name stuck")
        let client = try BackgroundProcess(
          [
            "/usr/bin/python3", "-c",
            "import nbd, sys\nh = nbd.NBD()\nh.connect_uri(sys.argv[1])\nh.pwrite(b's' * 4096, 0)",
            mirror.uri,
          ], directory: mirror.directory)
        defer { client.end() }
        try await eventually("a write hangs", within: 20) {
          try await mirror.fault("stuck").fired > 0
        }
        let stopped = try await mirror.admin(["stop"])
        #expect(stopped.status == 0, "\(stopped)")
        try await mirror.serve(["--degraded"])
        try await libnbd(
          mirror.uri, "h = connect()\nassert h.pread(4096, 4096) == bytes(4096)\nh.shutdown()")
        if try await mirror.status().leg(1).state != "in-sync" {
          _ = try await mirror.admin(["leg", "readd", "1"])
        }
        try await mirror.mustAdmin(["resync", "wait"])
        try await eventually("the mirror is healthy", within: 30) {
          try await mirror.status().state == "healthy"
        }
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
