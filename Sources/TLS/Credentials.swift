// Keys, certificates and the priority string: what sessions are made with.
//
// Certificates lie in a directory as libvirt, QEMU and nbdkit have it: ca-cert.pem, and of a server
// server-cert.pem and server-key.pem, of a client client-cert.pem and client-key.pem; where there is
// a ca-crl.pem, what it lists is refused. Pre-shared keys lie in a file as psktool writes it.
//
// All files are read once, here: a handshake does no I/O. New keys need new credentials; sessions
// keep those they were made with.
//
// The priority is our own. Clients say `NORMAL`, in which the first cipher that works with a
// pre-shared key of TLS 1.3 is CHACHA20-POLY1305 (0.48 GB/s measured here; AES-GCM 3.7 GB/s), so the
// server's order counts and AES-GCM comes first.
//
// Every `unsafe` call below lends memory to the C shim, which makes copies, or names the shim's
// object, which `self` owns.

import CTLS

/// What the sessions of a server, or of a client, prove themselves with.
///
/// Unchecked: the shim's object is written only before anybody else sees it, and GnuTLS lets the
/// sessions of any thread share credentials that nobody changes.
@safe public final class Credentials: @unchecked Sendable {
  /// The longest file that is read.
  public static let fileBytesMax = 1 << 20

  /// For certificates.
  static let x509Priority =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM"
    + ":+CHACHA20-POLY1305:%SERVER_PRECEDENCE"
  /// For pre-shared keys: forward secrecy first. Of TLS 1.2, GnuTLS 3.7 has no AES-GCM with
  /// ECDHE-PSK, so that DHE-PSK comes before it; in TLS 1.3 their order means nothing.
  static let pskPriority = x509Priority + ":-KX-ALL:+DHE-PSK:+ECDHE-PSK:+PSK"

  /// The shim's object.
  let shim: OpaquePointer

  private init(isServer: Bool, isPSK: Bool, priority: String) throws(CredentialsError) {
    let made = unsafe nbdmirror_tls_credentials_new(isServer ? 1 : 0, isPSK ? 1 : 0)
    guard let made = unsafe made else { throw .outOfMemory }
    unsafe shim = made
    guard unsafe nbdmirror_tls_credentials_set_priority(shim, priority) == NBDMIRROR_TLS_DONE else {
      throw .badPriority(priority)
    }
  }

  deinit { unsafe nbdmirror_tls_credentials_free(shim) }

  /// A server's certificate; with `verifiesClients`, clients must show one that ca-cert.pem's
  /// authority signed.
  public static func server(
    x509 directory: String, verifiesClients: Bool
  ) throws(CredentialsError) -> Credentials {
    let made = try Credentials(isServer: true, isPSK: false, priority: x509Priority)
    try made.loadTrust(directory)
    try made.loadKey(directory, "server")
    if verifiesClients { try made.verifyPeer(host: nil) }
    return made
  }

  /// A server's pre-shared keys.
  public static func server(psk path: String) throws(CredentialsError) -> Credentials {
    let made = try Credentials(isServer: true, isPSK: true, priority: pskPriority)
    let file = try CredentialsFile(path: path)
    var count = 0
    unsafe try PSKFile.forEachUser(file) { (user, hex) throws(CredentialsError) in
      count += 1
      return unsafe try made.add(user, hex)
    }
    guard count > 0 else { throw .noUsers(path: path) }
    return made
  }

  /// A client that wants the server's certificate signed by ca-cert.pem's authority for `host` (nil:
  /// for any host), and shows client-cert.pem if there is one. The priority is the server's unless
  /// given.
  public static func client(
    x509 directory: String, host: String?, priority: String? = nil
  ) throws(CredentialsError) -> Credentials {
    let made = try Credentials(isServer: false, isPSK: false, priority: priority ?? x509Priority)
    try made.loadTrust(directory)
    if CredentialsFile.exists(path: directory + "/client-cert.pem") {
      try made.loadKey(directory, "client")
    }
    try made.verifyPeer(host: host)
    return made
  }

  /// A client with the key of `user` in a file of pre-shared keys. The priority is the server's
  /// unless given.
  public static func client(
    psk path: String, user: String, priority: String? = nil
  ) throws(CredentialsError) -> Credentials {
    let made = try Credentials(isServer: false, isPSK: true, priority: priority ?? pskPriority)
    let file = try CredentialsFile(path: path)
    let wanted = Array(user.utf8)
    var isFound = false
    unsafe try PSKFile.forEachUser(file) { (user, hex) throws(CredentialsError) in
      if isFound || user != wanted { return true }
      isFound = true
      return unsafe try made.add(user, hex)
    }
    guard isFound else { throw .unknownUser(path: path, user: user) }
    return made
  }

  /// Whether the user and the key could be used.
  private func add(
    _ user: [UInt8], _ hex: UnsafeRawBufferPointer
  ) throws(CredentialsError) -> Bool {
    let result = unsafe nbdmirror_tls_credentials_add_psk(
      shim, user, user.count, hex.baseAddress, hex.count)
    if result == NBDMIRROR_TLS_MEMORY { throw .outOfMemory }
    return result == NBDMIRROR_TLS_DONE
  }

  private func verifyPeer(host: String?) throws(CredentialsError) {
    guard unsafe nbdmirror_tls_credentials_verify_peer(shim, host) == NBDMIRROR_TLS_DONE else {
      throw .outOfMemory
    }
  }

  private func loadTrust(_ directory: String) throws(CredentialsError) {
    let trust = try CredentialsFile(path: directory + "/ca-cert.pem")
    let trusted = unsafe nbdmirror_tls_credentials_set_trust(
      shim, trust.bytes.baseAddress, trust.count)
    guard trusted == NBDMIRROR_TLS_DONE else {
      throw .malformed(path: trust.path, what: "certificate")
    }
    guard CredentialsFile.exists(path: directory + "/ca-crl.pem") else { return }
    let list = try CredentialsFile(path: directory + "/ca-crl.pem")
    let listed = unsafe nbdmirror_tls_credentials_set_revoked(
      shim, list.bytes.baseAddress, list.count)
    guard listed == NBDMIRROR_TLS_DONE else {
      throw .malformed(path: list.path, what: "revocation list")
    }
  }

  private func loadKey(_ directory: String, _ side: String) throws(CredentialsError) {
    let certificate = try CredentialsFile(path: "\(directory)/\(side)-cert.pem")
    let key = try CredentialsFile(path: "\(directory)/\(side)-key.pem")
    let result = unsafe nbdmirror_tls_credentials_set_key(
      shim, certificate.bytes.baseAddress, certificate.count, key.bytes.baseAddress, key.count)
    switch Int(result) {
    case NBDMIRROR_TLS_DONE: return
    case NBDMIRROR_TLS_KEY_MISMATCH:
      throw .keyMismatch(path: key.path, certificate: certificate.path)
    case NBDMIRROR_TLS_KEY_ENCRYPTED: throw .keyEncrypted(path: key.path)
    case NBDMIRROR_TLS_MEMORY: throw .outOfMemory
    default: throw .malformed(path: "\(certificate.path) and \(key.path)", what: "pair")
    }
  }
}
