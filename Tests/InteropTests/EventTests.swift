// Goal: whatever happens in a mirror is told, once and in order, to `events`, to who follows, and to
// the program of --on-event, and none of them can hold the mirror up.
//
// Method: a story of clients, faults, failures, copies and scrubs; then the kinds of events are
// looked for in their order.
import Fixtures
import Foundation
import Testing

/// What the tests read of `nbdmirror events --json`.
struct EventReport: Decodable, Equatable {
  let sequence: UInt64
  let time: String
  let kind: String
  let message: String
  let leg: Int?
  let offset: UInt64?
  let bytes: UInt64?
  let count: UInt64?
  let name: String?
}

/// Events from JSON lines.
private func events(_ lines: String) throws -> [EventReport] {
  try lines.split(separator: "\n").map {
    try JSONDecoder().decode(EventReport.self, from: Data($0.utf8))
  }
}

/// Whether `kinds` come in this order, with anything between.
private func isInOrder(_ kinds: [String], in events: [EventReport]) -> Bool {
  var rest = kinds[...]
  for event in events where event.kind == rest.first { rest = rest.dropFirst() }
  return rest.isEmpty
}

extension Interop {
  struct EventStories {
    @Test("a story is told in order to a list, to a follower and to a program")
    func story() async throws {
      try await withMirror { mirror in
        let told = "\(mirror.directory)/told"
        let program = "\(mirror.directory)/program"
        try "#!/bin/sh\ncat >> \(told)\n".write(toFile: program, atomically: true, encoding: .utf8)
        try await mustRun(["chmod", "+x", program])
        try await mirror.serve(["--on-event", program, "--read-policy", "prefer=1"])
        let follower = try mirror.beginAdmin(["events", "--follow", "--json"])
        defer { follower.end() }
        try await libnbd(
          mirror.uri, "h = connect()\nh.pwrite(b'e' * MiB, 0)\nh.flush()\nh.shutdown()")
        // The server sees the end of a client some time after the client does.
        try await eventually("the client's end is told", within: 30, every: 0.05) {
          try await mirror.admin(["events"]).output.contains("client-gone")
        }
        try await mirror.arm("1 error --op read --range 0-4K --count 1 --name bad")
        try await libnbd(mirror.uri, "h = connect()\nh.pread(4096, 0)\nh.shutdown()")
        try await mirror.arm("1 corrupt --op write --range 8192-8704 --count 1 --name rot")
        try await libnbd(mirror.uri, "h = connect()\nh.pwrite(b'f' * 65536, 0)\nh.shutdown()")
        _ = try await mirror.mismatches()
        try await mirror.mustAdmin(["scrub", "repair", "--prefer", "0"])
        try await mirror.mustAdmin(["scrub", "wait"])
        try await mirror.arm("1 error --op write --area data --name dead")
        try await libnbd(mirror.uri, "h = connect()\nh.pwrite(b'g' * 4096, 0)\nh.shutdown()")
        try await mirror.mustAdmin(["fault", "clear"])
        try await mirror.mustAdmin(["leg", "readd", "1"])
        try await mirror.mustAdmin(["resync", "wait"])
        let story = [
          "assembly", "server-started", "client-connected", "client-gone", "fault-added",
          "fault-added", "scrub-started", "scrub-mismatch", "scrub-done", "leg-failed",
          "label-written", "fault-removed", "leg-online", "resync-started", "resync-done",
        ]
        let list = try events(try await mirror.admin(["events", "--json"]).output)
        #expect(isInOrder(story, in: list), "\(list.map(\.kind))")
        for kind in ["fault-fired", "read-repaired"] {
          #expect(list.contains { $0.kind == kind }, "no \(kind): \(list.map(\.kind))")
        }
        #expect(list.map(\.sequence) == Array(1...UInt64(list.count)))
        #expect(list.allSatisfy { $0.time.hasSuffix("Z") && !$0.message.isEmpty })
        #expect(list.first { $0.kind == "leg-failed" }?.leg == 1)
        #expect(list.first { $0.kind == "scrub-mismatch" }?.offset == 8192)
        let fired = list.filter { $0.kind == "fault-fired" }.map(\.name)
        #expect(Set(fired) == ["bad", "rot", "dead"])
        let after = try events(
          try await mirror.admin(["events", "--json", "--after", "\(list.count - 2)"]).output)
        #expect(Array(after.prefix(2)) == Array(list.suffix(2)))
        try await mirror.expectEqualLegsAfterStop()
        let followed = try await follower.wait(seconds: 30)
        #expect(followed.status == 0, "\(followed.errors)")
        let seen = try events(followed.output)
        #expect(Array(seen.prefix(list.count)) == list)
        #expect(seen.contains { $0.kind == "server-stopping" })
        let run = try events(try String(contentsOfFile: told, encoding: .utf8))
        #expect(Array(run.prefix(list.count)) == list)
        #expect(run.contains { $0.kind == "server-stopping" })
      }
    }

    @Test("a program that does not come along holds nothing up, and is told what it missed")
    func slowProgram() async throws {
      try await withMirror { mirror in
        let (told, gate) = ("\(mirror.directory)/told", "\(mirror.directory)/gate")
        let program = "\(mirror.directory)/program"
        try """
        #!/bin/sh
        while [ ! -e \(gate) ]; do sleep 0.02; done
        cat >> \(told)

        """.write(toFile: program, atomically: true, encoding: .utf8)
        try await mustRun(["chmod", "+x", program])
        try await mirror.serve(["--on-event", program])
        // 800 events while the program stands still; clients and commands go on.
        try await mustRun([
          "/usr/bin/python3", "-c",
          """
          import http.client, socket, sys
          class Control(http.client.HTTPConnection):
              def connect(self):
                  self.sock = socket.socket(socket.AF_UNIX)
                  self.sock.connect(sys.argv[1])
          control = Control("localhost")
          for index in range(400):
              for method, path, body in (
                  ("POST", "/v1/faults", '{"leg": 1, "kind": "full", "name": "x"}'),
                  ("DELETE", "/v1/faults/x", "")):
                  control.request(method, path, body)
                  answer = control.getresponse()
                  answer.read()
                  assert answer.status < 300, answer.status
          """, mirror.control,
        ])
        try await libnbd(mirror.uri, "h = connect()\nh.pwrite(b'e' * 4096, 0)\nh.shutdown()")
        #expect(try await mirror.status().state == "healthy")
        try "".write(toFile: gate, atomically: true, encoding: .utf8)
        try await eventually("the program has taken what was kept for it", within: 60, every: 0.1) {
          guard let text = try? String(contentsOfFile: told, encoding: .utf8) else { return false }
          return text.contains("events-lost")
        }
        let run = try events(try String(contentsOfFile: told, encoding: .utf8))
        let lost = try #require(run.first { $0.kind == "events-lost" })
        #expect(try #require(lost.count) > 400)
        #expect(lost.sequence > 800)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("progress is told while a resync runs; a program that is not there is refused")
    func progress() async throws {
      try await withMirror { mirror in
        let refused = try await mirror.serveRefused(["--on-event", "/nowhere/program"])
        #expect(refused.status == 1)
        #expect(refused.errors.contains("--on-event /nowhere/program"))
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          "h = connect()\nfor i in range(40): h.pwrite(os.urandom(MiB), i * MiB)\nh.shutdown()")
        try await mirror.mustAdmin(["resync", "limit", "--max", "1M"])
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await libnbd(
          mirror.uri,
          "h = connect()\nfor i in range(40): h.pwrite(os.urandom(4096), i * MiB)\nh.shutdown()")
        try await mirror.mustAdmin(["leg", "readd", "1"])
        try await eventually("progress is told", within: 30, every: 0.1) {
          try await mirror.admin(["events"]).output.contains("resync-progress: resync: ")
        }
        try await mirror.mustAdmin(["resync", "limit", "--max", "0"])
        try await mirror.mustAdmin(["resync", "wait"])
        let kinds = try events(try await mirror.admin(["events", "--json"]).output).map(\.kind)
        #expect(kinds.contains("resync-changed"))
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
