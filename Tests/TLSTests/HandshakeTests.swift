// Goal: the right peers agree, with the versions and ciphers that were decided, and the wrong ones
// are refused with the right reason. Method: both ends in memory, over every kind of credentials.
import Fixtures
import Foundation
import TLS
import Testing

/// All tests of the room; its parts are extensions.
@Suite("TLS", .keys)
struct TLSTests {}

/// What clients are set to: libnbd, QEMU and nbdkit say this for pre-shared keys.
let normalPSK = "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK"
let psk12 = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK"
let psk13 = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK:+PSK"

/// How a handshake ended.
struct Outcome: Equatable {
  var client: TLSState
  var server: TLSState
  var version: String?
  var cipher: String?
  /// Who the server says the client is.
  var user: String?
}

/// A handshake, and then until nothing moves.
func handshake(
  _ client: Credentials, _ server: Credentials, pieces: Pieces = .whole
) throws -> Outcome {
  var client = try End(client, pieces)
  var server = try End(server, pieces)
  exchange(&client, &server)
  let sameCipher = client.session.cipher == server.session.cipher
  return Outcome(
    client: client.session.state, server: server.session.state, version: server.session.version,
    cipher: sameCipher ? server.session.cipher : "they differ", user: server.session.peer)
}

extension TLSTests {
  @Suite("Handshake with pre-shared keys")
  struct PSK {
    var keys: Keys { Keys.current }

    private func outcome(
      user: String = "alice", file: String = "users.psk", priority: String? = nil,
      pieces: Pieces = .whole
    ) throws -> Outcome {
      try handshake(
        Credentials.client(psk: keys[file], user: user, priority: priority),
        Credentials.server(psk: keys["users.psk"]), pieces: pieces)
    }

    @Test(
      "the right key opens both ends, and the server knows the user",
      arguments: ["alice", "bob", "co:lon"])
    func right(user: String) throws {
      let outcome = try outcome(user: user)
      #expect(outcome.client == .open)
      #expect(outcome.server == .open)
      #expect(outcome.version == "TLS1.3")
      #expect(outcome.user == user)
    }

    @Test("a client's NORMAL gets AES-GCM, with TLS 1.3 and with TLS 1.2")
    func cipher() throws {
      for (priority, version) in [(normalPSK, "TLS1.3"), (psk13, "TLS1.3"), (psk12, "TLS1.2")] {
        let outcome = try outcome(priority: priority)
        #expect(outcome.version == version)
        #expect(outcome.cipher == "AES-128-GCM")
        #expect(outcome.server == .open)
      }
    }

    @Test(
      "every key exchange of a pre-shared key is served",
      arguments: ["ECDHE-PSK", "DHE-PSK", "PSK"], ["1.2", "1.3"])
    func exchanges(exchange: String, version: String) throws {
      let outcome = try outcome(
        priority: "NORMAL:-VERS-ALL:+VERS-TLS\(version):-KX-ALL:+\(exchange)")
      #expect(outcome.server == .open)
      #expect(outcome.client == .open)
    }

    @Test("a client that can do CHACHA20 only is served too")
    func chacha() throws {
      let outcome = try outcome(priority: normalPSK + ":-CIPHER-ALL:+CHACHA20-POLY1305")
      #expect(outcome.cipher == "CHACHA20-POLY1305")
      #expect(outcome.server == .open)
    }

    @Test("a wrong key is refused as such", arguments: [psk12, psk13])
    func wrongKey(priority: String) throws {
      let outcome = try outcome(file: "other.psk", priority: priority)
      #expect(outcome.server == .failed(.wrongKey))
      guard case .failed(.alert) = outcome.client else {
        Issue.record("the client was not told: \(outcome.client)")
        return
      }
    }

    @Test(
      "an unknown user is refused as such, and cannot tell it from a wrong key",
      arguments: [psk12, psk13])
    func unknownUser(priority: String) throws {
      let unknown = try outcome(user: "mallory", file: "other.psk", priority: priority)
      let wrong = try outcome(file: "other.psk", priority: priority)
      #expect(unknown.server == .failed(.unknownUser))
      #expect(unknown.client == wrong.client)
    }

    @Test("a client with certificates only finds nothing in common", arguments: ["1.2", "1.3"])
    func certificatesOnly(version: String) throws {
      let outcome = try handshake(
        Credentials.client(
          x509: keys["anonymous"], host: nil, priority: "NORMAL:-VERS-ALL:+VERS-TLS\(version)"),
        Credentials.server(psk: keys["users.psk"]))
      #expect(outcome.server == .failed(.noCommonCipher))
    }

    @Test("TLS 1.1 and 1.0 are refused as such", arguments: ["1.1", "1.0"])
    func old(version: String) throws {
      let outcome = try outcome(
        priority: "NORMAL:-VERS-ALL:+VERS-TLS\(version):+ECDHE-PSK:+DHE-PSK:+PSK")
      #expect(outcome.server == .failed(.noCommonVersion))
      guard case .failed(.alert(70)) = outcome.client else {
        Issue.record("no protocol_version: \(outcome.client)")
        return
      }
    }

    @Test("one byte at a time, in and out, gives the same handshake", arguments: [psk12, psk13])
    func byteAtATime(priority: String) throws {
      let outcome = try outcome(priority: priority, pieces: .single)
      #expect(outcome.client == .open)
      #expect(outcome.server == .open)
      let wrong = try self.outcome(file: "other.psk", priority: priority, pieces: .single)
      #expect(wrong.server == .failed(.wrongKey))
    }

    @Test("no secret reaches the file that SSLKEYLOGFILE names")
    func keyLog() throws {
      #expect(ProcessInfo.processInfo.environment["SSLKEYLOGFILE"] == KeyLog.shared.path)
      #expect(try outcome().server == .open)
      #expect(KeyLog.shared.byteCount == 0)
    }
  }

  @Suite("Handshake with certificates")
  struct X509 {
    var keys: Keys { Keys.current }

    private func outcome(
      client: String, server: String = "mutual", verifiesClients: Bool, host: String? = "localhost",
      version: String = "1.3", pieces: Pieces = .whole
    ) throws -> Outcome {
      try handshake(
        Credentials.client(
          x509: keys[client], host: host, priority: "NORMAL:-VERS-ALL:+VERS-TLS\(version)"),
        Credentials.server(x509: keys[server], verifiesClients: verifiesClients), pieces: pieces)
    }

    @Test(
      "a client without certificate is served where none is required", arguments: ["1.2", "1.3"])
    func anonymous(version: String) throws {
      let outcome = try outcome(client: "anonymous", verifiesClients: false, version: version)
      #expect(outcome.client == .open)
      #expect(outcome.server == .open)
      #expect(outcome.version == "TLS" + version)
      #expect(outcome.cipher == "AES-128-GCM")
      #expect(outcome.user == nil)
    }

    @Test("a client with a certificate is served and known by its name", arguments: ["1.2", "1.3"])
    func mutual(version: String) throws {
      let outcome = try outcome(client: "mutual", verifiesClients: true, version: version)
      #expect(outcome.client == .open)
      #expect(outcome.server == .open)
      #expect(outcome.user == "CN=a client")
    }

    // A client shows no certificate to whom does not know its authority ("stranger").
    @Test(
      "a client without certificate is refused where one is required",
      arguments: ["anonymous", "stranger"], ["1.2", "1.3"])
    func required(client: String, version: String) throws {
      let outcome = try outcome(client: client, verifiesClients: true, version: version)
      #expect(outcome.server == .failed(.noCertificate))
      guard case .failed(.alert) = outcome.client else {
        Issue.record("the client was not told: \(outcome.client)")
        return
      }
    }

    @Test(
      "a bad client certificate is refused with the reason",
      arguments: [
        ("imposter", "mutual", CertificateFault.signer), ("expired", "mutual", .expired),
        ("misused", "mutual", .purpose), ("revoked", "revoked", .revoked),
      ], ["1.2", "1.3"])
    func refused(case: (String, String, CertificateFault), version: String) throws {
      let (client, server, fault) = `case`
      let outcome = try outcome(
        client: client, server: server, verifiesClients: true, version: version)
      #expect(outcome.server == .failed(.certificateRefused(fault)))
      guard case .failed(.alert) = outcome.client else {
        Issue.record("the client was not told: \(outcome.client)")
        return
      }
    }

    @Test(
      "a client refuses the server of a wrong authority, and the server is told",
      arguments: ["1.2", "1.3"])
    func wrongAuthority(version: String) throws {
      let outcome = try outcome(
        client: "anonymous", server: "foreign", verifiesClients: false, version: version)
      #expect(outcome.client == .failed(.certificateRefused(.signer)))
      guard case .failed(.alert) = outcome.server else {
        Issue.record("the server was not told: \(outcome.server)")
        return
      }
    }

    @Test("a client refuses the server of another host")
    func wrongHost() throws {
      let outcome = try outcome(client: "anonymous", verifiesClients: false, host: "example.org")
      #expect(outcome.client == .failed(.certificateRefused(.host)))
    }

    @Test("a client with pre-shared keys only finds nothing in common", arguments: ["1.2", "1.3"])
    func pskOnly(version: String) throws {
      let outcome = try handshake(
        Credentials.client(
          psk: keys["users.psk"], user: "alice",
          priority: "NORMAL:-VERS-ALL:+VERS-TLS\(version):-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK"),
        Credentials.server(x509: keys["mutual"], verifiesClients: false))
      // With TLS 1.3 it is the client that sees it first, and says handshake_failure.
      #expect(outcome.server == .failed(version == "1.2" ? .noCommonCipher : .alert(40)))
      guard case .failed = outcome.client else {
        Issue.record("the client goes on: \(outcome.client)")
        return
      }
    }

    @Test("TLS 1.1 is refused as such")
    func old() throws {
      let outcome = try outcome(client: "anonymous", verifiesClients: false, version: "1.1")
      #expect(outcome.server == .failed(.noCommonVersion))
    }

    @Test("one byte at a time, in and out, gives the same handshake", arguments: ["1.2", "1.3"])
    func byteAtATime(version: String) throws {
      let outcome = try outcome(
        client: "mutual", verifiesClients: true, version: version, pieces: .single)
      #expect(outcome.client == .open)
      #expect(outcome.server == .open)
    }
  }
}
