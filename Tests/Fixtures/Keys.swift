// Keys and certificates for tests: made by psktool and certtool (gnutls-bin) in a folder
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
import Foundation

/// Files with keys, as paths.
public struct Keys: Sendable {
  /// Where they lie.
  public let folder: String

  /// Those of the running suite.
  @TaskLocal public static var current = Keys(folder: "/nonexistent")

  /// The path of a file or folder among them.
  public subscript(_ name: String) -> String { folder + "/" + name }

  private init(folder: String) { self.folder = folder }

  /// Deletes them.
  public func remove() { try? FileManager.default.removeItem(atPath: folder) }

  /// Makes everything.
  public static func make() throws -> Keys {
    let folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("nbdmirror-tls-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    let keys = Keys(folder: folder)
    for (user, file) in [
      ("alice", "users.psk"), ("bob", "users.psk"), ("co:lon", "users.psk"),
      ("alice", "other.psk"), ("mallory", "other.psk"),
    ] {
      try makeKeys(with: "psktool", "-u", user, "-p", keys[file])
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
    try makeKeys(
      with: "certtool", "--generate-crl", "--load-ca-certificate", keys["authority-cert.pem"],
      "--load-ca-privkey", keys["authority-key.pem"], "--load-certificate",
      keys["revoked/client-cert.pem"], "--template", keys["crl.txt"], "--outfile",
      keys["revoked/ca-crl.pem"])
    return keys
  }

  /// Writes a file beside them.
  public func write(_ name: String, _ text: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: self[name]))
  }

  /// Copies a file or folder.
  public func copy(_ name: String, _ to: String) throws {
    try FileManager.default.copyItem(atPath: self[name], toPath: self[to])
  }

  /// A copy of a directory, for a test to spoil.
  public func spoiled(_ directory: String) throws -> String {
    let name = "spoiled-\(UUID().uuidString)"
    try copy(directory, name)
    return name
  }

  private func makeKey(_ name: String) throws {
    try makeKeys(
      with: "certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile",
      self["\(name)-key.pem"])
  }

  private func makeAuthority(_ name: String, calledLike other: String? = nil) throws {
    try makeKey(name)
    try write("\(name).txt", "cn = \(other ?? name)\nca\ncert_signing_key\ncrl_signing_key\n")
    try makeKeys(
      with: "certtool", "--generate-self-signed", "--load-privkey", self["\(name)-key.pem"],
      "--template", self["\(name).txt"], "--outfile", self["\(name)-cert.pem"])
  }

  private func makeCertificate(_ name: String, _ template: String, _ signer: String) throws {
    try makeKey(name)
    try write("template.txt", template + "\nsigning_key\nencryption_key\n")
    try makeKeys(
      with: "certtool", "--generate-certificate", "--load-privkey", self["\(name)-key.pem"],
      "--load-ca-certificate", self["\(signer)-cert.pem"], "--load-ca-privkey",
      self["\(signer)-key.pem"], "--template", self["template.txt"], "--outfile",
      self["\(name)-cert.pem"])
  }
}

/// Runs a tool that makes keys; what it says is shown only if it fails.
public func makeKeys(with tool: String, _ arguments: String...) throws {
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
    throw FixtureError("\(tool): \(String(decoding: text, as: UTF8.self))")
  }
}
