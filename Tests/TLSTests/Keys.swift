// The keys and certificates of these tests: made by psktool and certtool (gnutls-bin) in a folder
// that goes away with the tests.
//
//   users.psk               alice, bob (written by psktool)
//   other.psk               alice with another key; mallory
//   mutual/                 authority, server (localhost, 127.0.0.1), client
//   anonymous/              the same authority and server, no client
//   stranger/               the same authority, a client certificate of another authority
//   imposter/               ... of another authority that calls itself the same
//   foreign/                another authority's server
//   expired/, revoked/, misused/   the authority, and a client whose certificate is that
import Base
import Foundation
import Testing

/// Files with keys, as paths.
struct Keys: Sendable {
  let folder: String

  /// Those of the running suite.
  @TaskLocal static var current = Keys(folder: "/nonexistent")

  subscript(_ name: String) -> String { folder + "/" + name }

  init(folder: String) { self.folder = folder }

  /// Makes everything.
  static func make() throws -> Keys {
    let folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("nbdmirror-tls-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    let keys = Keys(folder: folder)
    for (user, file) in [
      ("alice", "users.psk"), ("bob", "users.psk"), ("co:lon", "users.psk"),
      ("alice", "other.psk"), ("mallory", "other.psk"),
    ] {
      try run("psktool", "-u", user, "-p", keys[file])
    }
    try keys.makeAuthority("authority")
    try keys.makeAuthority("elsewhere")
    try keys.makeAuthority("imposter", calledLike: "authority")
    for directory in [
      "mutual", "anonymous", "stranger", "imposter", "foreign", "expired", "revoked", "misused",
    ] {
      try FileManager.default.createDirectory(
        atPath: keys[directory], withIntermediateDirectories: false)
      let signer = directory == "foreign" ? "elsewhere" : "authority"
      try keys.copy("\(signer)-cert.pem", "\(directory)/ca-cert.pem")
      try keys.makeCertificate(
        "\(directory)/server", "cn = localhost\ndns_name = localhost\ntls_www_server", signer)
    }
    let client = "cn = a client\ntls_www_client"
    try keys.makeCertificate("mutual/client", client, "authority")
    try keys.makeCertificate("stranger/client", client, "elsewhere")
    try keys.makeCertificate("imposter/client", client, "imposter")
    try keys.makeCertificate("misused/client", "cn = a server\ntls_www_server", "authority")
    try keys.makeCertificate("revoked/client", client, "authority")
    let past =
      "\nactivation_date = \"2001-01-01 00:00:00\"\nexpiration_date = \"2002-01-01 00:00:00\""
    try keys.makeCertificate("expired/client", client + past, "authority")
    try keys.write("crl.txt", "expiration_days = 2\ncrl_number = 1\n")
    try run(
      "certtool", "--generate-crl", "--load-ca-certificate", keys["authority-cert.pem"],
      "--load-ca-privkey", keys["authority-key.pem"], "--load-certificate",
      keys["revoked/client-cert.pem"], "--template", keys["crl.txt"], "--outfile",
      keys["revoked/ca-crl.pem"])
    return keys
  }

  func write(_ name: String, _ text: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: self[name]))
  }

  func copy(_ name: String, _ to: String) throws {
    try FileManager.default.copyItem(atPath: self[name], toPath: self[to])
  }

  /// A copy of a directory, for a test to spoil.
  func spoiled(_ directory: String) throws -> String {
    let name = "spoiled-\(UUID().uuidString)"
    try copy(directory, name)
    return name
  }

  private func makeKey(_ name: String) throws {
    try run(
      "certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", self["\(name)-key.pem"])
  }

  private func makeAuthority(_ name: String, calledLike other: String? = nil) throws {
    try makeKey(name)
    try write("\(name).txt", "cn = \(other ?? name)\nca\ncert_signing_key\ncrl_signing_key\n")
    try run(
      "certtool", "--generate-self-signed", "--load-privkey", self["\(name)-key.pem"],
      "--template", self["\(name).txt"], "--outfile", self["\(name)-cert.pem"])
  }

  private func makeCertificate(_ name: String, _ template: String, _ signer: String) throws {
    try makeKey(name)
    try write("template.txt", template + "\nsigning_key\nencryption_key\n")
    try run(
      "certtool", "--generate-certificate", "--load-privkey", self["\(name)-key.pem"],
      "--load-ca-certificate", self["\(signer)-cert.pem"], "--load-ca-privkey",
      self["\(signer)-key.pem"], "--template", self["template.txt"], "--outfile",
      self["\(name)-cert.pem"])
  }
}

/// A tool that did not do its work.
struct ToolFailure: Error, CustomStringConvertible {
  let description: String
}

/// Runs a tool; what it says is shown only if it fails.
func run(_ tool: String, _ arguments: String...) throws {
  let process = Process()
  let output = Pipe()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = [tool] + arguments
  process.standardOutput = output
  process.standardError = output
  try process.run()
  let text = output.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  if process.terminationStatus != 0 {
    throw ToolFailure(description: "\(tool): \(String(decoding: text, as: UTF8.self))")
  }
}

/// A file for secrets that only this process can open by its path. Programs that are started by
/// other tests inherit SSLKEYLOGFILE, and some, such as curl, create the file before they need it.
final class KeyLog: Sendable {
  static let shared = KeyLog()
  private let descriptor: Int32
  var path: String { "/proc/self/fd/\(descriptor)" }

  private init() {
    let file = NSTemporaryDirectory() + "/nbdmirror-secrets-" + UUID().uuidString
    let first = unsafe open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    precondition(first >= 0, "a file for secrets")
    // No other program has so many files open that it finds one of its own there.
    descriptor = fcntl(first, F_DUPFD_CLOEXEC, 900)
    precondition(descriptor >= 900, "a descriptor for secrets")
    close(first)
    unsafe unlink(file)
  }

  /// Bytes that were written there.
  var byteCount: Int {
    var status = stat()
    return unsafe fstat(descriptor, &status) == 0 ? Int(status.st_size) : -1
  }
}

/// Gives a suite its keys.
struct KeysTrait: SuiteTrait, TestScoping {
  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let keys = try Keys.make()
    // GnuTLS looks at this once, at the first secret of the process.
    // The C function makes copies.
    unsafe setenv("SSLKEYLOGFILE", KeyLog.shared.path, 1)
    defer { try? FileManager.default.removeItem(atPath: keys.folder) }
    try await Keys.$current.withValue(keys) { try await function() }
  }
}

extension Trait where Self == KeysTrait {
  static var keys: Self { Self() }
}
