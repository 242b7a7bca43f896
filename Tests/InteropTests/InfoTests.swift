// Goal: what the server says about its export is complete and true, in the words of nbdinfo.
import Fixtures
import Foundation
import Testing

/// What nbdinfo --json says, as far as the tests look.
private struct Info: Decodable {
  struct Export: Decodable {
    let name: String
    let size: UInt64
    let readOnly: Bool
    let flags: [String: Bool]
    let minimum: UInt64?
    let preferred: UInt64?
    let maximum: UInt64?

    enum CodingKeys: String, CodingKey, CaseIterable {
      case name = "export-name"
      case size = "export-size"
      case readOnly = "is_read_only"
      case cache = "can_cache"
      case df = "can_df"
      case flush = "can_flush"
      case fua = "can_fua"
      case multiConnection = "can_multi_conn"
      case trim = "can_trim"
      case zero = "can_zero"
      case minimum = "block_size_minimum"
      case preferred = "block_size_preferred"
      case maximum = "block_size_maximum"
    }

    init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: CodingKeys.self)
      name = try values.decode(String.self, forKey: .name)
      size = try values.decode(UInt64.self, forKey: .size)
      readOnly = try values.decode(Bool.self, forKey: .readOnly)
      minimum = try values.decodeIfPresent(UInt64.self, forKey: .minimum)
      preferred = try values.decodeIfPresent(UInt64.self, forKey: .preferred)
      maximum = try values.decodeIfPresent(UInt64.self, forKey: .maximum)
      var flags: [String: Bool] = [:]
      for key in CodingKeys.allCases where key.rawValue.hasPrefix("can_") {
        flags[key.rawValue] = try values.decode(Bool.self, forKey: key)
      }
      self.flags = flags
    }
  }
  let structured: Bool
  let exports: [Export]
}

extension Interop {
  struct Information {
    @Test("nbdinfo sees size, flags and block sizes")
    func json() async throws {
      try await withMirror(size: "96M") { mirror in
        try await mirror.serve()
        let result = try await must(["nbdinfo", "--json", "--no-content", mirror.uri])
        let info = try JSONDecoder().decode(Info.self, from: Data(result.output.utf8))
        #expect(info.structured)
        let export = try #require(info.exports.first)
        #expect(export.size == 96 << 20)
        #expect(!export.readOnly)
        for (flag, set) in export.flags.sorted(by: { $0.key < $1.key }) {
          #expect(set, "\(flag)")
        }
        let (minimum, preferred) = (
          try #require(export.minimum), try #require(export.preferred)
        )
        #expect(minimum.nonzeroBitCount == 1 && minimum <= 4096)
        #expect(preferred.nonzeroBitCount == 1 && preferred >= max(512, minimum))
        #expect(export.maximum == 32 << 20)
        try await mirror.stop()
      }
    }

    @Test(
      "nbdinfo --can says yes",
      arguments: ["cache", "df", "flush", "fua", "multi-conn", "trim", "zero", "structured-reply"])
    func can(_ ability: String) async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await must(["nbdinfo", "--can", ability, mirror.uri])
        try await mirror.stop()
      }
    }

    @Test("the export is listed and found under its name and as the default, and no other is")
    func names() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        let list = try await must(["nbdinfo", "--list", "--json", mirror.uri])
        #expect(list.output.contains("\"export-name\": \"\(mirror.name)\""), "\(list)")
        for name in ["", mirror.name] {
          let size = try await must([
            "nbdinfo", "--size", "nbd+unix:///\(name)?socket=\(mirror.socket)",
          ])
          #expect(size.output == "16777216\n")
        }
        let other = try await run(["nbdinfo", "nbd+unix:///other?socket=\(mirror.socket)"])
        #expect(other.status == 1, "\(other)")
        try await mirror.stop()
      }
    }

    @Test("a read-only server says so, refuses writes and leaves the bytes alone")
    func readOnly() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(mirror.uri, "connect().pwrite(b'x' * 4096, 0, nbd.CMD_FLAG_FUA)")
        try await mirror.stop()
        try await mirror.serve(["--read-only"])
        try await must(["nbdinfo", "--is", "read-only", mirror.uri])
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          refused("EPERM", lambda: h.pwrite(b"y" * 4096, 0))
          refused("EPERM", lambda: h.trim(4096, 0))
          refused("EPERM", lambda: h.zero(4096, 0))
          assert h.pread(4096, 0) == b"x" * 4096
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("unix socket and TCP serve the same mirror at once")
    func bothTransports() async throws {
      try await withMirror(size: "16M") { mirror in
        let port = try await freePort()
        try await mirror.serve(["--listen", "127.0.0.1:\(port)"])
        try await libnbd(mirror.uri, "connect().pwrite(b'unix' * 1024, 8192)")
        try await libnbd(
          "nbd://127.0.0.1:\(port)",
          "assert connect().pread(4096, 8192) == b'unix' * 1024")
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}

/// A TCP port on the loopback address that nobody uses just now.
func freePort() async throws -> Int {
  let result = try await must([
    "/usr/bin/python3", "-c",
    "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])",
  ])
  return try #require(Int(result.output.trimmingCharacters(in: .whitespacesAndNewlines)))
}
