// Goal: resync and scrub are steered, shown and awaited as documented. Method: the verbs run as
// processes against a control server over a fake mirror; raw requests for what no verb sends.
import ControlModel
import Foundation
import Testing

@testable import nbdmirror

@Suite("resync and scrub commands")
struct CopyCommandTests {
  typealias Outcome = CommandTests.Outcome

  @Test("resync pause, resume and limit command the mirror and show what is in force")
  func resync() throws {
    let server = try TestServer()
    server.mirror.state.withLock { $0.status = Samples.syncing }
    let control = ["--control", server.path]
    let paused = try CommandTests.run(["resync", "pause"] + control)
    #expect(paused.status == 0)
    #expect(paused.output.hasSuffix("40.0%  1.20 GiB of 3.00 GiB  paused\n"))
    #expect(try CommandTests.run(["resync", "resume"] + control).status == 0)
    let limits = try CommandTests.run(["resync", "limit", "--min", "2M", "--max", "1G"] + control)
    #expect(
      limits
        == Outcome(
          status: 0,
          output: "Resync limits: at least 2.00 MiB/s beside clients, at most 1.00 GiB/s\n",
          error: ""))
    let shown = try CommandTests.run(["resync", "limit"] + control)
    #expect(shown == limits)
    let free = try CommandTests.run(["resync", "limit", "--max", "0"] + control)
    #expect(free.output.hasSuffix("at most unlimited\n"))
    #expect(
      server.mirror.calls == [
        "resync paused true", "resync paused false", "resync min 2097152 max 1073741824",
        "resync max 0",
      ])
  }

  @Test("resync status names what could not be copied")
  func unreadable() throws {
    let server = try TestServer()
    let shown = try CommandTests.run(["resync", "--control", server.path])
    #expect(
      shown.output == """
        Resync: idle; the last one copied 64.0 MiB of 64.0 MiB
        Not copied, for no leg that has it can read it: 1 range
        Offset  Bytes
          1536    512

        """)
    let json = try CommandTests.run(["resync", "status", "--json", "--control", server.path])
    let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any]
    #expect(
      Set(try #require(object).keys) == [
        "running", "paused", "bytesDone", "bytesTotal", "bytesPerSecond", "etaSeconds",
        "minBytesPerSecond", "maxBytesPerSecond", "zeroBytes", "unreadable", "unreadableRanges",
      ])
  }

  @Test("scrub check and repair start one, with range and preferred leg")
  func start() throws {
    let server = try TestServer()
    let control = ["--control", server.path]
    let check = try CommandTests.run(["scrub", "check", "--range", "1M-3M"] + control)
    #expect(
      check.output == "Scrub: check runs, 0 B of 5.00 GiB compared\nNo mismatches\n")
    let repair = try CommandTests.run(["scrub", "repair", "--prefer", "/srv/b c.img"] + control)
    #expect(repair.status == 0)
    let stopped = try CommandTests.run(["scrub", "stop"] + control)
    #expect(stopped.output.hasPrefix("Scrub: repair stopped"))
    #expect(
      server.mirror.calls == ["scrub check 1048576+2097152", "scrub repair prefer 1", "scrub stop"])
    let nobody = try CommandTests.run(["scrub", "repair", "--prefer", "9"] + control)
    #expect(nobody.status == 1 && nobody.error == "nbdmirror: no leg goes by the name '9'\n")
  }

  @Test("scrub status shows what differs, and JSON with every documented key")
  func status() throws {
    let server = try TestServer()
    let control = ["--control", server.path]
    #expect(try CommandTests.run(["scrub"] + control).output == "Scrub: none ran\n")
    server.mirror.state.withLock {
      $0.scrub = ScrubReport(
        mode: .check, complete: true, bytesDone: 1 << 30, bytesTotal: 1 << 30, bytesSkipped: 4096,
        mismatches: 66, mismatchBytes: 33792, unrepairedBytes: 33792, readErrors: 2,
        ranges: [
          RangeReport(offset: 512, bytes: 1024, legs: [2]),
          RangeReport(offset: 1 << 20, bytes: 512, legs: [0, 1]),
        ])
    }
    #expect(
      try CommandTests.run(["scrub", "status"] + control).output == """
        Scrub: check done, 1.00 GiB of 1.00 GiB compared
        Left out, for fewer than two legs have it or it is not recovered yet: 4.00 KiB
        Failed reads: 2
        Mismatches: 66 ranges, 33.0 KiB; not repaired: 33.0 KiB
         Offset  Bytes  Legs
            512   1024  2
        1048576    512  0,1
        and 64 more

        """)
    let json = try CommandTests.run(["scrub", "status", "--json"] + control)
    let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any]
    #expect(
      Set(try #require(object).keys) == [
        "mode", "running", "complete", "bytesDone", "bytesTotal", "bytesSkipped",
        "bytesPerSecond", "etaSeconds", "mismatches", "mismatchBytes", "unrepairedBytes",
        "readErrors", "ranges",
      ])
  }

  @Test("scrub wait ends with the scrub; its status tells whether legs still differ")
  func wait() throws {
    let server = try TestServer()
    let wait = ["scrub", "wait", "--control", server.path]
    let none = try CommandTests.run(wait)
    #expect(none.status == 1)
    #expect(none.error == "nbdmirror: no scrub ran since the server started\n")
    let mirror = server.mirror
    mirror.state.withLock {
      $0.scrub = ScrubReport(mode: .repair, running: true, bytesTotal: 1024)
    }
    let count = mirror.state.withLock { $0.statusCount }
    Thread.detachNewThread {
      _ = eventually { mirror.state.withLock { $0.statusCount } > count }
      mirror.state.withLock {
        $0.scrub = ScrubReport(
          mode: .repair, complete: true, bytesDone: 1024, bytesTotal: 1024, mismatches: 1,
          mismatchBytes: 512, ranges: [RangeReport(offset: 0, bytes: 512, legs: [1])])
      }
    }
    let repaired = try CommandTests.run(wait)
    #expect(repaired.status == 0 && repaired.output.contains("not repaired: 0 B"))
    mirror.state.withLock { $0.scrub.unrepairedBytes = 512 }
    let left = try CommandTests.run(wait)
    #expect(left.status == 1 && left.error == "nbdmirror: 512 B differ and are not repaired\n")
    mirror.state.withLock {
      $0.scrub.unrepairedBytes = 0
      $0.scrub.complete = false
    }
    let stopped = try CommandTests.run(wait)
    #expect(stopped.status == 1)
    #expect(stopped.error == "nbdmirror: the scrub was stopped before its end\n")
    mirror.state.withLock { $0.scrub.running = true }
    #expect(try CommandTests.run(wait + ["--timeout", "0"]).status == 1)
  }

  @Test(
    "wrong calls are exit status 2",
    arguments: [
      ["resync", "limit", "--min", "2M", "--max", "1M"], ["resync", "limit", "--min", "fast"],
      ["scrub", "check", "--range", "5-5"], ["scrub", "check", "--range", "7"],
      ["scrub", "check", "--range", "1-2-3"], ["scrub", "check", "--range", "-3"],
      ["scrub", "check", "--prefer", "1"], ["scrub", "wait", "--timeout", "-1"],
    ])
  func wrongCall(arguments: [String]) throws {
    #expect(try CommandTests.run(arguments).status == 2)
  }

  @Test(
    "bad bodies are refused with a reason",
    arguments: [
      ("PATCH", "/v1/resync", "{}", "nothing to change is named"),
      ("PATCH", "/v1/resync", "{\"speed\":1}", "unknown member 'speed'"),
      ("PATCH", "/v1/resync", "{\"minBytesPerSecond\":-1}", "this is not JSON"),
      ("POST", "/v1/scrub", "{}", "the member 'mode' is missing"),
      ("POST", "/v1/scrub", "{\"mode\":\"guess\"}", "the member 'mode' has a wrong value"),
      ("POST", "/v1/scrub", "{\"mode\":\"check\",\"prefer\":\"7\"}", "no leg goes by the name '7'"),
      ("DELETE", "/v1/scrub", "{\"now\":true}", "unknown member 'now'"),
    ])
  func badBodies(method: String, path: String, body: String, reason: String) throws {
    let server = try TestServer()
    let answer = try server.exchange(
      "\(method) \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
    #expect(answer.contains(reason), "\(answer)")
    #expect(server.mirror.calls.isEmpty)
  }

  @Test("null takes the maximum away")
  func nullMaximum() throws {
    let server = try TestServer()
    let body = "{\"maxBytesPerSecond\":null}"
    let answer = try server.exchange(
      "PATCH /v1/resync HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
    #expect(answer.hasPrefix("HTTP/1.1 200"))
    #expect(server.mirror.calls == ["resync max 0"])
  }
}
