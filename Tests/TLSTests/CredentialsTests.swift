// Goal: an administrator learns which file is wrong and why, and never sees a key. Method: files
// spoiled one by one.
import Fixtures
import Foundation
import TLS
import Testing

private func failure(_ make: () throws(CredentialsError) -> Credentials) -> CredentialsError? {
  do {
    _ = try make()
    return nil
  } catch {
    return error
  }
}

extension TLSTests {
  @Suite("Credentials")
  struct Files {
    var keys: Keys { Keys.current }

    private func spoil(
      _ name: String, _ change: (String) throws -> Void
    ) throws -> (directory: String, error: CredentialsError?) {
      let directory = try keys.spoiled("mutual")
      try change(directory + "/" + name)
      return (
        keys[directory],
        failure { () throws(CredentialsError) in
          try .server(x509: keys[directory], verifiesClients: true)
        }
      )
    }

    @Test(
      "a file that is missing is named",
      arguments: ["ca-cert.pem", "server-cert.pem", "server-key.pem"])
    func missing(name: String) throws {
      let (directory, error) = try spoil(name) {
        try FileManager.default.removeItem(atPath: keys[$0])
      }
      #expect(error == .cannotRead(path: "\(directory)/\(name)", errno: ENOENT))
    }

    @Test("a directory in a file's place, and a file that is too large, are named")
    func notAFile() throws {
      let (directory, error) = try spoil("ca-cert.pem") {
        try FileManager.default.removeItem(atPath: keys[$0])
        try FileManager.default.createDirectory(
          atPath: keys[$0], withIntermediateDirectories: false)
      }
      #expect(error == .cannotRead(path: directory + "/ca-cert.pem", errno: EISDIR))
      for (count, isTooLarge) in [
        (Credentials.fileBytesMax, false), (Credentials.fileBytesMax + 1, true),
      ] {
        let (directory, error) = try spoil("ca-cert.pem") {
          try keys.write($0, String(repeating: "\n", count: count))
        }
        let path = directory + "/ca-cert.pem"
        #expect(
          error
            == (isTooLarge ? .tooLarge(path: path) : .malformed(path: path, what: "certificate")))
      }
    }

    @Test(
      "what is no PEM is named", arguments: ["", "nonsense\n", "-----BEGIN CERTIFICATE-----\n"])
    func malformed(text: String) throws {
      var (directory, error) = try spoil("ca-cert.pem") { try keys.write($0, text) }
      #expect(error == .malformed(path: directory + "/ca-cert.pem", what: "certificate"))
      (directory, error) = try spoil("ca-crl.pem") { try keys.write($0, text) }
      #expect(error == .malformed(path: directory + "/ca-crl.pem", what: "revocation list"))
      for name in ["server-cert.pem", "server-key.pem"] {
        (directory, error) = try spoil(name) { try keys.write($0, text) }
        guard case .malformed(let path, "pair") = error else {
          Issue.record("\(name): \(String(describing: error))")
          continue
        }
        #expect(path.contains(directory + "/" + name))
      }
    }

    @Test("a key that belongs to another certificate, and one with a password, are named")
    func keyErrors() throws {
      var (directory, error) = try spoil("server-key.pem") {
        try FileManager.default.removeItem(atPath: keys[$0])
        try keys.copy("mutual/client-key.pem", $0)
      }
      #expect(
        error
          == .keyMismatch(
            path: directory + "/server-key.pem", certificate: directory + "/server-cert.pem"))
      (directory, error) = try spoil("server-key.pem") {
        try makeKeys(
          with: "certtool", "--to-p8", "--load-privkey", keys["mutual/server-key.pem"],
          "--password",
          "secret", "--outfile", keys[$0])
      }
      #expect(error == .keyEncrypted(path: directory + "/server-key.pem"))
    }

    @Test("bad lines of pre-shared keys are counted, and never shown")
    func badLines() throws {
      let good = "alice:0a0B\n"
      let longUser = String(repeating: "u", count: 129)
      for (index, line) in [
        "nocolon", ":0102", "bob:", "bob:0", "bob:0g", "bob:01 02", "# a comment",
        "#6:01", longUser + ":01", "bob:" + String(repeating: "ab", count: 513), "#:01", "#zz:01",
      ].enumerated() {
        let name = "bad-\(index).psk"
        try keys.write(name, "\n" + good + line + "\n" + good)
        let error = failure { () throws(CredentialsError) in try .server(psk: keys[name]) }
        #expect(error == .badLine(path: keys[name], line: 3), "\(line)")
        let text = error.map(\.description) ?? ""
        #expect(!text.contains("0a0B") && !text.contains(line), "\(line)")
      }
    }

    @Test("lines of every good form are taken, to their limits")
    func goodLines() throws {
      let user = String(repeating: "u", count: 128)
      try keys.write(
        "good.psk",
        "\r\nalice:0a0B\r\n\n" + user + ":" + String(repeating: "ab", count: 512)
          + "\n#613a62:ff  \n"
          + "alice:ffff\nlast:01")
      let server = try Credentials.server(psk: keys["good.psk"])
      for name in ["alice", user, "a:b", "last"] {
        let client = try Credentials.client(psk: keys["good.psk"], user: name)
        let outcome = try handshake(client, server)
        #expect(outcome.server == .open)
        #expect(outcome.user == name)
      }
    }

    @Test("a file without users, and a user who is not there, are named")
    func noUsers() throws {
      try keys.write("empty.psk", "\n\r\n")
      let empty = failure { () throws(CredentialsError) in try .server(psk: keys["empty.psk"]) }
      #expect(empty == .noUsers(path: keys["empty.psk"]))
      let path = keys["users.psk"]
      let unknown = failure { () throws(CredentialsError) in
        try .client(psk: path, user: "mallory")
      }
      #expect(unknown == .unknownUser(path: path, user: "mallory"))
    }

    @Test("a priority that GnuTLS does not understand is named")
    func priority() {
      let error = failure { () throws(CredentialsError) in
        try .client(psk: keys["users.psk"], user: "alice", priority: "NORMAL:+NONSENSE")
      }
      #expect(error == .badPriority("NORMAL:+NONSENSE"))
    }
  }
}
