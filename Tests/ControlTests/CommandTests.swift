// Goal: the admin verbs find their mirror, do their work, and end with the documented exit
// status and sentence. Method: the built command as a process against a scripted server; what
// needs the server's end runs in this process.
import ArgumentParser
import ControlModel
import ControlPlane
import Foundation
import Testing

@testable import nbdmirror

@Suite("admin commands")
struct CommandTests {
  struct Outcome: Equatable {
    var status: Int32
    var output: String
    var error: String
  }

  /// Runs the built command; `runtime` is its XDG_RUNTIME_DIR.
  static func run(_ arguments: [String], runtime: String = "/nonexistent") throws -> Outcome {
    let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let process = Process()
    // The tests run inside a process that lies beside the products.
    let folder =
      CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? own
    process.executableURL = URL(filePath: folder).deletingLastPathComponent()
      .appending(path: "nbdmirror")
    process.arguments = arguments
    process.environment = ["XDG_RUNTIME_DIR": runtime]
    let (output, error) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = error
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    let errorText = String(
      decoding: error.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return Outcome(status: process.terminationStatus, output: text, error: errorText)
  }

  @Test("status and legs print tables, and JSON as the control socket does")
  func status() throws {
    let server = try TestServer()
    let table = try CommandTests.run(["status", "--control", server.path])
    #expect(
      table == Outcome(status: 0, output: StatusText.mirror(Samples.degraded), error: ""))
    let json = try CommandTests.run(["status", "--json", "--control", server.path])
    var told = try ControlJSON.decode(MirrorStatus.self, from: Array(json.output.utf8))
    told.revision = 0
    #expect(told == Samples.degraded)
    let legs = try CommandTests.run(["legs", "--control", server.path])
    #expect(legs.output == StatusText.legs(Samples.legs))
    let legsJSON = try CommandTests.run(["legs", "--json", "--control", server.path])
    #expect(
      try ControlJSON.decode([LegStatus].self, from: Array(legsJSON.output.utf8)) == Samples.legs)
  }

  @Test("leg verbs command the mirror and tell the leg's new state")
  func legs() throws {
    let server = try TestServer()
    let control = ["--control", server.path]
    let failed = try CommandTests.run(["leg", "fail", "0"] + control)
    #expect(failed == Outcome(status: 0, output: "leg 0: failed\n", error: ""))
    let back = try CommandTests.run(["leg", "readd", "/srv/b c.img", "--force"] + control)
    #expect(back == Outcome(status: 0, output: "leg 1: syncing, 640 MiB stale\n", error: ""))
    let added = try CommandTests.run(["leg", "add", "c.img"] + control)
    #expect(added == Outcome(status: 0, output: "leg 2: syncing\n", error: ""))
    let removed = try CommandTests.run(["leg", "remove", "2"] + control)
    #expect(removed == Outcome(status: 0, output: "leg 2: removed\n", error: ""))
    let folder = FileManager.default.currentDirectoryPath
    #expect(
      server.mirror.calls == ["fail 0", "readd 1 true", "add \(folder)/c.img", "remove 2"])
  }

  @Test("leg verbs that replace and change a leg")
  func otherLegs() throws {
    let server = try TestServer()
    let control = ["--control", server.path]
    let set = try CommandTests.run(["leg", "set", "0", "--write-mostly", "on"] + control)
    #expect(set == Outcome(status: 0, output: "leg 0: in-sync, write-mostly\n", error: ""))
    let off = try CommandTests.run(["leg", "set", "0", "--write-mostly", "off"] + control)
    #expect(off == Outcome(status: 0, output: "leg 0: in-sync\n", error: ""))
    _ = try CommandTests.run(["leg", "refresh", "0", "--whole"] + control)
    let fresh = try CommandTests.run(["leg", "refresh", "/srv/a.img"] + control)
    #expect(fresh == Outcome(status: 0, output: "leg 0: in-sync\n", error: ""))
    let spare = try CommandTests.run(["leg", "add", "/srv/c", "--spare"] + control)
    #expect(spare == Outcome(status: 0, output: "leg 2: spare\n", error: ""))
    let replaced = try CommandTests.run(["leg", "replace", "1", "/srv/d"] + control)
    #expect(
      replaced == Outcome(status: 0, output: "leg 3: syncing, replaces leg 1\n", error: ""))
    #expect(
      server.mirror.calls == [
        "set 0 true", "set 0 false", "refresh 0 whole", "refresh 0", "add /srv/c spare",
        "replace 1 /srv/d",
      ])
    for wrong in [["set", "0"], ["set", "0", "--write-mostly", "yes"], ["replace", "0"]] {
      #expect(try CommandTests.run(["leg"] + wrong + control).status == 2)
    }
  }

  @Test("a refusal is one sentence and exit status 1")
  func refusal() throws {
    let server = try TestServer()
    server.mirror.state.withLock { $0.error = ControlError(.conflict, "leg 0 is the last one") }
    #expect(
      try CommandTests.run(["leg", "fail", "0", "--control", server.path])
        == Outcome(status: 1, output: "", error: "nbdmirror: leg 0 is the last one\n"))
    #expect(
      try CommandTests.run(["leg", "fail", "9", "--control", server.path])
        == Outcome(status: 1, output: "", error: "nbdmirror: no leg goes by the name '9'\n"))
  }

  @Test(
    "a wrong call is exit status 2 with the usage",
    arguments: [
      ["status", "--frobnicate"], ["leg", "fail"], ["leg", "explode", "1"], ["frobnicate"],
      ["status", "--name", "a/b"], ["status", "--name", "a", "--control", "b"],
      ["resync", "wait", "--timeout", "soon"], ["resync", "wait", "--timeout", "-1"],
    ])
  func wrongCall(arguments: [String]) throws {
    let outcome = try CommandTests.run(arguments)
    #expect(outcome.status == 2)
    #expect(outcome.output.isEmpty)
    #expect(outcome.error.hasPrefix("nbdmirror: "))
    #expect(outcome.error.contains("Usage: nbdmirror"))
  }

  @Test("help is no error")
  func help() throws {
    let outcome = try CommandTests.run(["leg", "readd", "--help"])
    #expect(outcome.status == 0)
    #expect(outcome.output.contains("USAGE: nbdmirror leg readd"))
  }

  @Test("the only running mirror is found; none and several are a sentence")
  func discovery() throws {
    let runtime = try temporaryFolder()
    let folder = runtime + "/nbdmirror"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    let none = try CommandTests.run(["resync"], runtime: runtime)
    #expect(none.status == 1)
    #expect(none.error.hasPrefix("nbdmirror: no mirror runs; looked in "))
    #expect(none.error.contains(folder))

    close(try UnixSocket.bind(to: folder + "/stale.ctl").release())
    let one = try ControlServer.start(path: folder + "/one.ctl", controller: FakeMirror())
    let found = try CommandTests.run(["resync"], runtime: runtime)
    #expect(found.status == 0)
    #expect(found.output.hasPrefix("Resync: idle; the last one copied 64.0 MiB of 64.0 MiB\n"))

    let two = try ControlServer.start(path: folder + "/two.ctl", controller: FakeMirror())
    let several = try CommandTests.run(["resync"], runtime: runtime)
    #expect(several.status == 1)
    #expect(several.error == "nbdmirror: 2 mirrors run (one, two): say which with --name\n")
    let named = try CommandTests.run(["resync", "--name", "two"], runtime: runtime)
    #expect(named.status == 0)
    one.stop()
    two.stop()
    let gone = try CommandTests.run(["resync", "--name", "two"], runtime: runtime)
    #expect(gone.status == 1)
    #expect(gone.error.hasPrefix("nbdmirror: no mirror called 'two' runs; looked in "))
  }

  @Test("root serves in /run/nbdmirror, everybody else in XDG_RUNTIME_DIR")
  func folders() {
    func folders(_ runtime: String?, _ userId: UInt32) -> [String] {
      ControlEndpoint(
        environment: runtime.map { ["XDG_RUNTIME_DIR": $0] } ?? [:], userId: userId
      ).folders
    }
    #expect(folders("/run/user/5", 5) == ["/run/user/5/nbdmirror"])
    #expect(folders(nil, 0) == ["/run/nbdmirror"])
    #expect(folders("/run/user/0", 0) == ["/run/nbdmirror", "/run/user/0/nbdmirror"])
    #expect(folders(nil, 5) == [])
    #expect(folders("", 5) == [])
    #expect(folders("relative", 5) == [])
    #expect(throws: CommandFailure.self) {
      try ControlEndpoint(environment: [:], userId: 5).serveFolder()
    }
  }

  @Test("resync wait prints progress lines and ends when the leg is in sync")
  func wait() throws {
    let server = try TestServer()
    server.mirror.state.withLock { $0.status = Samples.syncing }
    let mirror = server.mirror
    Thread.detachNewThread {
      _ = eventually { mirror.state.withLock { $0.statusCount } >= 2 }
      mirror.state.withLock { $0.status = Samples.healthy }
    }
    let outcome = try CommandTests.run(["resync", "wait", "--control", server.path])
    #expect(
      outcome
        == Outcome(
          status: 0,
          output: """
             40.0%  1.20 GiB of 3.00 GiB  85.0 MiB/s  ETA 0:21
            in sync, 64.0 MiB copied

            """, error: ""))
  }

  @Test("resync wait fails at its timeout, when the mirror fails, and when the server goes")
  func waitFails() throws {
    let server = try TestServer()
    server.mirror.state.withLock { $0.status = Samples.syncing }
    let wait = ["resync", "wait", "--control", server.path]
    let late = try CommandTests.run(wait + ["--timeout", "0"])
    #expect(late.status == 1)
    #expect(
      late.error
        == "nbdmirror: not in sync yet: 40.0%  1.20 GiB of 3.00 GiB  85.0 MiB/s  ETA 0:21\n")
    let mirror = server.mirror
    let count = mirror.state.withLock { $0.statusCount }
    Thread.detachNewThread {
      _ = eventually { mirror.state.withLock { $0.statusCount } > count }
      mirror.state.withLock { $0.status.state = .failed }
    }
    let failed = try CommandTests.run(wait)
    #expect(failed.status == 1)
    #expect(failed.error == "nbdmirror: the mirror failed: see 'nbdmirror status'\n")
    server.stop()
    let gone = try CommandTests.run(wait)
    #expect(gone.status == 1)
    #expect(
      gone.error
        == "nbdmirror: the server is gone: no server listens on the control socket \(server.path)\n"
    )
  }

  @Test("stop returns when the server is gone, not before")
  func stop() async throws {
    let server = try TestServer()
    let (mirror, path) = (server.mirror, server.path)
    let impatient = try #require(
      try Stop.parse(["--timeout", "0.1", "--control", path]) as Stop?)
    await #expect(throws: CommandFailure("the server was told to stop, but runs on")) {
      try await impatient.run()
    }
    #expect(mirror.calls == ["shutdown"])
    let patient = try Stop.parse(["--control", path])
    async let stopped: Void = patient.run()
    while mirror.calls.count < 2 { try await Task.sleep(for: .milliseconds(5)) }
    server.stop()
    try await stopped
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test("a process counts as running until it has ended, reaped or not")
  func process() throws {
    #expect(ServerProcess(getpid()) == nil)
    #expect(ServerProcess(0) == nil)
    let child = Process()
    child.executableURL = URL(filePath: "/bin/cat")
    child.standardInput = Pipe()
    try child.run()
    let process = try #require(ServerProcess(child.processIdentifier))
    #expect(process.isRunning)
    kill(child.processIdentifier, SIGKILL)
    #expect(eventually { !process.isRunning })
  }

  @Test("a leg is found by a relative path and through a link")
  func legPaths() throws {
    let folder = try temporaryFolder()
    #expect(FileManager.default.createFile(atPath: folder + "/pv", contents: nil))
    try FileManager.default.createSymbolicLink(
      atPath: folder + "/link", withDestinationPath: "pv")
    var legs = Samples.legs
    legs[1].path = folder + "/pv"
    #expect(LegPath.find(folder + "/link", in: legs)?.slot == 1)
    #expect(LegPath.find(folder + "/none", in: legs) == nil)
    legs[0].path = FileManager.default.currentDirectoryPath + "/x.img"
    #expect(LegPath.find("x.img", in: legs)?.slot == 0)
    #expect(LegPath.absolute("nbd://host/x") == "nbd://host/x")
  }
  @Test("resync wait says that the resync is paused; refresh after a failed flush what may be lost")
  func remarks() throws {
    let server = try TestServer()
    server.mirror.state.withLock {
      $0.status = Samples.syncing
      $0.status.resync.paused = true
    }
    let waited = try CommandTests.run(
      ["resync", "wait", "--timeout", "0.5", "--control", server.path])
    #expect(waited.status == 1)
    #expect(waited.error.components(separatedBy: "the resync is paused").count == 2, "\(waited)")
    server.mirror.state.withLock {
      $0.status = Samples.healthy
      $0.status.state = .failed
    }
    // The scripted mirror stays failed: then there is nothing to say.
    let still = try CommandTests.run(["leg", "refresh", "0", "--control", server.path])
    #expect(still.status == 0 && still.error.isEmpty, "\(still)")
  }
}
