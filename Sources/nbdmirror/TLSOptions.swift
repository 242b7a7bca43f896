// The options of `serve` about TLS, and what they come to.

import ArgumentParser
import Server
import TLS

/// When connections are encrypted.
enum TLSMode: String, CaseIterable, ExpressibleByArgument {
  /// Never.
  case off
  /// When the client asks for it.
  case on
  /// Always.
  case require
  /// Always over TCP; on a unix socket when the client asks for it.
  case requireTCP = "require-tcp"
}

/// The options.
struct TLSOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Whether clients may (on) or must (require, require-tcp: over TCP) encrypt. Default: on with "
        + "keys, off without.",
      valueName: "MODE"))
  var tls: TLSMode?

  @Option(
    help: ArgumentHelp(
      "The folder with ca-cert.pem, server-cert.pem, server-key.pem and, if there is one, ca-crl.pem.",
      valueName: "DIR"), completion: .directory)
  var tlsCertificates: String?

  @Option(
    help: ArgumentHelp(
      "The file of pre-shared keys, as psktool writes it, instead of certificates.",
      valueName: "FILE"), completion: .file())
  var tlsPsk: String?

  @Flag(help: "Clients must show a certificate that the authority in ca-cert.pem has signed.")
  var tlsVerifyPeer = false

  func validate() throws {
    guard tlsCertificates == nil || tlsPsk == nil else {
      throw ValidationError("--tls-certificates and --tls-psk exclude each other")
    }
    guard !tlsVerifyPeer || tlsCertificates != nil else {
      throw ValidationError("--tls-verify-peer goes with --tls-certificates")
    }
    let hasKeys = tlsCertificates != nil || tlsPsk != nil
    if let tls, tls != .off, !hasKeys {
      throw ValidationError("--tls \(tls.rawValue) needs --tls-certificates or --tls-psk")
    }
    guard tls != .off || !hasKeys else {
      throw ValidationError("--tls off, and keys for it: leave one of them out")
    }
  }

  /// Reads the keys.
  func configure(_ configuration: inout ServerConfiguration) throws {
    do throws(CredentialsError) {
      if let tlsCertificates {
        configuration.credentials = try .server(
          x509: tlsCertificates, verifiesClients: tlsVerifyPeer)
      } else if let tlsPsk {
        configuration.credentials = try .server(psk: tlsPsk)
      }
    } catch {
      throw CommandFailure(error.description)
    }
    switch tls {
    case .off, .on, nil: configuration.tlsRequired = .none
    case .require: configuration.tlsRequired = [.unix, .tcp]
    case .requireTCP: configuration.tlsRequired = .tcp
    }
  }
}
