// Why a TLS session failed; each error is one sentence for a log. Nothing here carries keys,
// payload, or text that the peer chose.

import CTLS

/// What went wrong with a session.
public enum TLSError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What came is no TLS.
  case notTLS
  /// The peer speaks only versions older than 1.2.
  case noCommonVersion
  /// No cipher suite or key exchange in common; also: one side has pre-shared keys, the other
  /// certificates.
  case noCommonCipher
  /// The user is not in the file of pre-shared keys. The peer cannot tell this from `wrongKey`.
  case unknownUser
  /// The peer's pre-shared key is another one.
  case wrongKey
  /// The client must show a certificate and has none.
  case noCertificate
  /// The peer's certificate is not accepted.
  case certificateRefused(CertificateFault)
  /// The peer broke off with a fatal alert of that number.
  case alert(UInt8)
  /// A record was changed on its way.
  case corrupted
  /// The peer sent 128 KiB without completing the handshake, or without any plaintext.
  case tooMuch
  /// The peer broke another rule of the protocol; GnuTLS' number of it.
  case violation(Int32)
  /// The wire ended without close_notify: the last bytes may be missing.
  case truncated
  /// GnuTLS found no memory.
  case outOfMemory

  /// One sentence without a full stop.
  public var description: String {
    switch self {
    case .notTLS: "the peer does not speak TLS"
    case .noCommonVersion: "the peer speaks neither TLS 1.2 nor TLS 1.3"
    case .noCommonCipher:
      "no cipher suite or key exchange in common with the peer (do both sides use pre-shared keys, "
        + "or both certificates?)"
    case .unknownUser: "the peer's user has no pre-shared key here"
    case .wrongKey: "the peer's pre-shared key is another one"
    case .noCertificate: "the peer shows no certificate, and one is required"
    case .certificateRefused(let fault): "the peer's certificate \(fault)"
    case .alert(let number): "the peer broke off: \(TLSError.name(ofAlert: number))"
    case .corrupted: "a record was changed on its way"
    case .tooMuch: "the peer sends more than a TLS handshake needs"
    case .violation(let code): "the peer broke a rule of TLS (GnuTLS error \(code))"
    case .truncated: "the connection ended without TLS close_notify: bytes may be missing"
    case .outOfMemory: "there is no memory for TLS"
    }
  }

  private static func name(ofAlert number: UInt8) -> String {
    // GnuTLS returns a constant string, or nil.
    guard let name = unsafe nbdmirror_tls_alert_name(Int32(number)) else {
      return "alert \(number)"
    }
    return unsafe "alert \(number), \(String(cString: name))"
  }

  /// The error that the shim's result and its detail stand for.
  init(result: Int32, detail: Int32) {
    switch Int(result) {
    case NBDMIRROR_TLS_NOT_TLS: self = .notTLS
    case NBDMIRROR_TLS_VERSION: self = .noCommonVersion
    case NBDMIRROR_TLS_CIPHER: self = .noCommonCipher
    case NBDMIRROR_TLS_UNKNOWN_USER: self = .unknownUser
    case NBDMIRROR_TLS_WRONG_KEY: self = .wrongKey
    case NBDMIRROR_TLS_NO_CERTIFICATE: self = .noCertificate
    case NBDMIRROR_TLS_CERTIFICATE: self = .certificateRefused(CertificateFault(detail: detail))
    case NBDMIRROR_TLS_ALERT: self = .alert(UInt8(clamping: detail))
    case NBDMIRROR_TLS_CORRUPTED: self = .corrupted
    case NBDMIRROR_TLS_TOO_MUCH: self = .tooMuch
    case NBDMIRROR_TLS_MEMORY: self = .outOfMemory
    default: self = .violation(detail)
    }
  }
}
