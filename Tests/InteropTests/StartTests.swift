// Goal: a server that can't start says why in one sentence on standard error and exits with 1; a
// server that is told to stop stops cleanly.
import Fixtures
import Foundation
import Testing

/// Expects one line on standard error that holds every one of `words`, and exit status 1.
private func expectOneSentence(
  _ result: CommandResult, naming words: [String],
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(result.status == 1, "\(result)", sourceLocation: sourceLocation)
  #expect(result.errorLines.count == 1, "\(result)", sourceLocation: sourceLocation)
  #expect(!result.output.contains("ready"), "\(result)", sourceLocation: sourceLocation)
  for word in words {
    #expect(result.errors.contains(word), "\(result)", sourceLocation: sourceLocation)
  }
}

extension Interop {
  struct Start {
    @Test("without io_uring: one sentence that says so, exit 1")
    func ringRefused() async throws {
      try await withMirror(size: "16M") { mirror in
        let result = try await mirror.serveRefused(wrapper: [
          "strace", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=io_uring_setup",
          "-e", "inject=io_uring_setup:error=EPERM",
        ])
        expectOneSentence(result, naming: ["io_uring"])
      }
    }

    @Test("a PV that another server holds: one sentence that names it, exit 1")
    func locked() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        let result = try await mirror.serveRefused()
        expectOneSentence(result, naming: [mirror.paths[0]])
        #expect(try await mirror.status().state == "healthy")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a file that is no PV: serve and create say so in one sentence, exit 1, and leave it")
    func foreign() async throws {
      try await withMirror(size: "16M") { mirror in
        let foreign = "\(mirror.directory)/ext4.pv"
        try await must(["truncate", "-s", "64M", foreign])
        try await must(["mke2fs", "-q", "-F", "-t", "ext4", foreign])
        let before = try await must(["sha256sum", foreign])
        let served = try await mirror.serveRefused(pvs: [mirror.paths[0], foreign])
        expectOneSentence(served, naming: [foreign])
        let created = try await run([
          mirror.binary, "create", "other", foreign, "\(mirror.directory)/new.pv",
        ])
        expectOneSentence(created, naming: [foreign])
        let after = try await must(["sha256sum", foreign])
        #expect(before.output == after.output)
        #expect(!FileManager.default.fileExists(atPath: "\(mirror.directory)/new.pv"))
      }
    }

    @Test("a PV that is not there: one sentence that names it, exit 1")
    func absent() async throws {
      try await withMirror(size: "16M") { mirror in
        let absent = "\(mirror.directory)/absent.pv"
        let result = try await mirror.serveRefused(pvs: [mirror.paths[0], absent])
        expectOneSentence(result, naming: [absent])
        #expect(!FileManager.default.fileExists(atPath: absent))
      }
    }

    @Test("a leg that is not given: refused without --degraded, served with it")
    func degradedStart() async throws {
      try await withMirror(size: "16M") { mirror in
        let result = try await mirror.serveRefused(pvs: [mirror.paths[1]])
        expectOneSentence(result, naming: ["--degraded"])
        try await mirror.serve(["--degraded"], pvs: [mirror.paths[1]])
        let status = try await mirror.status()
        #expect(status.state == "degraded")
        #expect(try status.leg(0).state == "missing")
        try await mirror.stop()
      }
    }

    @Test("a port that is taken: one sentence that names it, exit 1")
    func portTaken() async throws {
      try await withMirror(size: "16M") { mirror in
        let holder = try BackgroundProcess(
          [
            "/usr/bin/python3", "-uc",
            """
            import signal, socket
            s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
            print(s.getsockname()[1]); signal.pause()
            """,
          ], directory: mirror.directory)
        defer { holder.end() }
        try await eventually("the port is held", within: 10) { holder.output.hasSuffix("\n") }
        let port = holder.output.trimmingCharacters(in: .whitespacesAndNewlines)
        let result = try await mirror.serveRefused(["--listen", "127.0.0.1:\(port)"])
        expectOneSentence(result, naming: [port])
      }
    }

    @Test("a socket that a living server listens on is not taken from it")
    func socketTaken() async throws {
      try await withMirror(size: "16M") { first in
        try await first.serve()
        try await withMirror(size: "16M") { second in
          let result = try await run([
            second.binary, "serve", second.paths[0], second.paths[1],
            "--socket", first.socket, "--control", second.control,
          ])
          expectOneSentence(result, naming: [first.socket])
        }
        try await must(["nbdinfo", "--size", first.uri])
        try await first.stop()
      }
    }

    @Test(
      "a wrong call: exit 2",
      arguments: [["serve"], ["create"], ["no-such-verb"], ["serve", "--no-such-option"]])
    func wrongCall(_ arguments: [String]) async throws {
      let result = try await run([try serverBinary()] + arguments)
      #expect(result.status == 2, "\(result)")
      #expect(!result.errors.isEmpty)
    }

    @Test("SIGTERM and SIGINT stop a busy server cleanly", arguments: [SIGTERM, SIGINT])
    func signals(_ number: Int32) async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        let server = try #require(mirror.server)
        let load = try BackgroundProcess(
          [
            "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randwrite",
            "--bs=4k", "--iodepth=16", "--size=64m", "--time_based", "--runtime=60",
          ], directory: mirror.directory)
        defer { load.end() }
        try await eventually("the load has begun", within: 20) {
          try await mirror.status().dirtyRegions > 0
        }
        server.signal(number)
        let result = try await server.wait(seconds: 30)
        #expect(result.status == 0, "\(result)")
        #expect(!FileManager.default.fileExists(atPath: mirror.socket))
        #expect(!FileManager.default.fileExists(atPath: mirror.control))
        let difference = try await mirror.firstDifference()
        #expect(difference == nil)
        try await mirror.serve()
        #expect(try await mirror.status().unresolvedRegions == 0)
        try await mirror.stop()
      }
    }

    @Test("only the owner may use the control socket")
    func controlMode() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        let mode = try await must(["stat", "-c", "%a", mirror.control])
        #expect(mode.output == "600\n")
        try await mirror.stop()
      }
    }
  }
}
