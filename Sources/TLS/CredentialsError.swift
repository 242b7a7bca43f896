// Why credentials cannot be used; each error is one sentence for an administrator. Nothing here
// carries the contents of a file.

import Glibc

/// What is wrong with keys or certificates.
public enum CredentialsError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The file cannot be read.
  case cannotRead(path: String, errno: Int32)
  /// The file is longer than `Credentials.fileBytesMax`.
  case tooLarge(path: String)
  /// The file does not hold what it should; `what` is a noun.
  case malformed(path: String, what: String)
  /// The key does not belong to the certificate.
  case keyMismatch(path: String, certificate: String)
  /// The key is protected by a password.
  case keyEncrypted(path: String)
  /// A line of a file of pre-shared keys, counted from 1, is no `user:hex`.
  case badLine(path: String, line: Int)
  /// A file of pre-shared keys without any.
  case noUsers(path: String)
  /// The file of pre-shared keys does not have that user.
  case unknownUser(path: String, user: String)
  /// GnuTLS does not take the priority string.
  case badPriority(String)
  /// There is no memory.
  case outOfMemory

  /// One sentence without a full stop.
  public var description: String {
    switch self {
    case .cannotRead(let path, let code):
      "\(path) cannot be read: \(CredentialsError.text(errno: code))"
    case .tooLarge(let path):
      "\(path) has more than \(Credentials.fileBytesMax) bytes and cannot be a file of keys"
    case .malformed(let path, let what):
      "\(path): no usable \(what) in PEM"
    case .keyMismatch(let path, let certificate):
      "the key in \(path) does not belong to the certificate in \(certificate)"
    case .keyEncrypted(let path):
      "the key in \(path) is protected by a password, which is not supported"
    case .badLine(let path, let line):
      "\(path), line \(line): expected USER:KEY with the key in hexadecimal digits, as psktool "
        + "writes it"
    case .noUsers(let path):
      "\(path) holds no pre-shared key; psktool makes one"
    case .unknownUser(let path, let user):
      "\(path) holds no pre-shared key for the user \(user)"
    case .badPriority(let text):
      "GnuTLS does not understand the priority \(text)"
    case .outOfMemory:
      "there is no memory for TLS credentials"
    }
  }

  private static func text(errno code: Int32) -> String {
    // glibc returns a string that stays valid until this thread's next call of strerror.
    guard let text = unsafe strerror(code) else { return "error \(code)" }
    return unsafe String(cString: text)
  }
}
