// Why a certificate is not accepted, in the words of an administrator.

import CTLS

/// What is wrong with a certificate.
public enum CertificateFault: Equatable, Sendable, CustomStringConvertible {
  /// Nobody that is trusted signed it.
  case signer
  /// Its time is over.
  case expired
  /// Its time has not begun.
  case notYetValid
  /// It stands in the revocation list.
  case revoked
  /// It is not made for this side of a connection.
  case purpose
  /// It belongs to another host.
  case host
  /// Its algorithm or key is too weak.
  case weak
  /// Something else.
  case other

  /// The end of a sentence that begins with "the certificate".
  public var description: String {
    switch self {
    case .signer: "is not signed by an authority that is trusted here"
    case .expired: "has expired"
    case .notYetValid: "is not valid yet"
    case .revoked: "has been revoked"
    case .purpose: "is not made for this use"
    case .host: "belongs to another host"
    case .weak: "uses an algorithm that is too weak"
    case .other: "is not valid"
    }
  }

  /// The fault that the shim's detail stands for.
  init(detail: Int32) {
    switch Int(detail) {
    case NBDMIRROR_TLS_BECAUSE_SIGNER: self = .signer
    case NBDMIRROR_TLS_BECAUSE_EXPIRED: self = .expired
    case NBDMIRROR_TLS_BECAUSE_NOT_YET_VALID: self = .notYetValid
    case NBDMIRROR_TLS_BECAUSE_REVOKED: self = .revoked
    case NBDMIRROR_TLS_BECAUSE_PURPOSE: self = .purpose
    case NBDMIRROR_TLS_BECAUSE_HOST: self = .host
    case NBDMIRROR_TLS_BECAUSE_WEAK: self = .weak
    default: self = .other
    }
  }
}
