// Goal: `serve --control-listen`: the token file, what is printed, and curl as a stranger and as a
// friend.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct ControlListen {
    @Test("over TCP with the token that serve made; without it nothing")
    func made() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve(["--control-listen", ":0"])
        let url = try #require(
          mirror.server?.output.split(separator: "\n").map(String.init).first {
            $0.hasPrefix("http://127.0.0.1:")
          })
        let file = mirror.control + ".token"
        let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions]
        #expect(mode as? Int == 0o600)
        let token = try String(contentsOfFile: file, encoding: .utf8)
          .trimmingCharacters(in: .newlines)
        #expect(token.utf8.count == 64)
        let stranger = try await run(["curl", "-s", "-w", "%{http_code}", url + "v1/mirror"])
        #expect(stranger.output.hasSuffix("401"), "\(stranger)")
        let friend = try await must([
          "curl", "-sf", "-H", "Authorization: Bearer \(token)", url + "v1/mirror",
        ])
        #expect(friend.output.contains("\"healthy\""), "\(friend)")
        try await mirror.stop()
        // The next server has the same token.
        try await mirror.serve(["--control-listen", "127.0.0.1:0"])
        #expect(try String(contentsOfFile: file, encoding: .utf8).hasPrefix(token))
        try await mirror.stop()
      }
    }

    @Test(
      "a token file that everybody reads, or that holds no token, is refused in one sentence",
      arguments: [
        ("0123456789abcdef0123456789abcdef", 0o644, "chmod"), ("short", 0o600, "not a token"),
        ("", 0o600, "not a token"),
      ])
    func refused(text: String, mode: Int, words: String) async throws {
      try await withMirror(size: "16M") { mirror in
        let file = mirror.directory + "/token"
        try text.write(toFile: file, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
        let result = try await mirror.serveRefused(
          ["--control-listen", ":0", "--control-token", file])
        #expect(result.status == 1, "\(result)")
        #expect(result.errorLines.count == 1, "\(result)")
        #expect(result.errors.contains(words), "\(result)")
        #expect(result.errors.contains(file), "\(result)")
      }
    }

    @Test("a token without an address is a wrong call")
    func alone() async throws {
      try await withMirror(size: "16M") { mirror in
        let result = try await mirror.serveRefused(["--control-token", "/nowhere"])
        #expect(result.status == 2, "\(result)")
      }
    }
  }
}
