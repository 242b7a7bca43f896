// Goal: faults can be armed before the first client, listed, removed by name; what makes no sense is
// refused with a sentence and the right exit status, on the command line and over HTTP.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct FaultCommands {
    @Test("a file of faults is armed before the first client; a bad one is refused by its line")
    func file() async throws {
      try await withMirror { mirror in
        let path = "\(mirror.directory)/faults"
        try "# the first write hits it\nseed 7\n1 error --op write --area data --name early\n"
          .write(
            toFile: path, atomically: true, encoding: .utf8)
        try await mirror.serve(["--faults", path])
        try await libnbd(mirror.uri, "h = connect()\nh.pwrite(b'x' * 4096, 0)\nh.shutdown()")
        #expect(try await mirror.fault("early").fired == 1)
        #expect(try await mirror.status().leg(1).state == "failed")
        try await mirror.mendAndCompare(1)
        for (text, sentence) in [
          ("1 torn --op read\n", "line 1: torn cannot hit a read"),
          ("\n9 error\n", "line 2: no leg '9'"),
          ("0 error --range 0-1T\n", "line 1: the range ends"),
        ] {
          try text.write(toFile: path, atomically: true, encoding: .utf8)
          let refused = try await mirror.serveRefused(["--faults", path])
          #expect(refused.status == 1)
          #expect(refused.errors.contains(sentence), "\(refused)")
        }
        let missing = try await mirror.serveRefused(["--faults", "\(mirror.directory)/nothing"])
        #expect(missing.status == 1)
      }
    }

    @Test("names, lists and exit statuses are as documented")
    func commands() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        #expect(try await mirror.admin(["fault", "list"]).output == "No faults.\n")
        let added = try await mirror.admin(
          "fault add \(mirror.paths[1]) error --probability 0.5".split(separator: " ").map(
            String.init))
        #expect(added.output == "error-1\n")
        try await mirror.arm("1 delay --delay exp:5ms --name slow")
        #expect(try await mirror.faults().map(\.name) == ["error-1", "slow"])
        #expect(try await mirror.faults().allSatisfy { $0.leg == 1 && $0.state == "armed" })
        let table = try await mirror.admin(["fault", "list"]).output
        #expect(table.contains("delay --delay exp:5ms"))
        for (words, status, sentence) in [
          ("add 1 torn --op read", 2, "torn cannot hit a read"),
          ("add 1 error --probability 2", 2, "no number of 0 to 1"),
          ("add 1 explode", 2, "no fault of kind"),
          ("add 5 error", 1, "no leg goes by the name '5'"),
          ("add 1 error --name slow", 1, "there is a fault named 'slow' already"),
          ("add 1 error --range 0-1T", 1, "beyond the device"),
          ("remove nobody", 1, "no fault named 'nobody'"),
          ("release slow", 1, "only a hang can be released"),
          ("release nobody", 1, "no fault named 'nobody'"),
          ("power-cut --leg 7", 1, "no leg goes by the name '7'"),
          ("power-cut --leg 0 --all", 2, "exclude each other"),
        ] {
          let result = try await mirror.admin(
            ["fault"] + words.split(separator: " ").map(String.init))
          #expect(result.status == status, "\(result)")
          #expect(result.errors.contains(sentence), "\(result)")
        }
        try await mirror.mustAdmin(["fault", "remove", "slow"])
        #expect(try await mirror.faults().map(\.name) == ["error-1"])
        try await mirror.mustAdmin(["fault", "clear"])
        #expect(try await mirror.faults().isEmpty)
      }
    }

    @Test("HTTP takes options as strings and numbers, and answers with problem documents")
    func http() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        func curl(_ method: String, _ path: String, _ body: String = "") async throws -> String {
          let data = body.isEmpty ? [] : ["-d", body]
          return try await mustRun(
            [
              "curl", "-s", "--unix-socket", mirror.control, "-X", method, "-w", " %{http_code}",
              "http://localhost\(path)",
            ] + data
          ).output
        }
        let added = try await curl(
          "POST", "/v1/faults",
          #"{"leg": 1, "kind": "error", "probability": 0.01, "count": 5, "errno": "EIO", "range": "1M-2M"}"#
        )
        #expect(added.hasSuffix(" 201"))
        #expect(
          added.contains(
            #""words" : "error --range 1M-2M --errno EIO --probability 0.01 --count 5""#),
          "\(added)")
        #expect(try await curl("GET", "/v1/faults").hasSuffix(" 200"))
        for (method, path, body, code, status) in [
          ("POST", "/v1/faults", #"{"leg": 1, "kind": "torn", "op": "read"}"#, "invalid", "400"),
          ("POST", "/v1/faults", #"{"leg": 1, "kind": "error", "speed": 3}"#, "invalid", "400"),
          ("POST", "/v1/faults", #"{"leg": 1}"#, "bad-json", "400"),
          ("POST", "/v1/faults", #"{"leg": 9, "kind": "error"}"#, "no-such-leg", "404"),
          (
            "POST", "/v1/faults", #"{"leg": 1, "kind": "error", "op": ["read"]}"#, "bad-json", "400"
          ),
          (
            "POST", "/v1/faults", #"{"leg": 1, "kind": "hang", "name": "error-1"}"#, "conflict",
            "409"
          ),
          ("POST", "/v1/faults/error-1/release", "", "conflict", "409"),
          ("DELETE", "/v1/faults/nobody", "", "no-such-fault", "404"),
          ("POST", "/v1/power-cut", #"{"legs": []}"#, "invalid", "400"),
        ] {
          let answer = try await curl(method, path, body)
          #expect(answer.contains("\"code\" : \"\(code)\""), "\(method) \(path) \(body): \(answer)")
          #expect(answer.hasSuffix(" \(status)"), "\(method) \(path) \(body): \(answer)")
        }
        #expect(try await curl("DELETE", "/v1/faults/error-1").hasSuffix(" 204"))
        #expect(try await curl("DELETE", "/v1/faults").hasSuffix(" 204"))
      }
    }
  }
}
