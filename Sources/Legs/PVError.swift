// Why a PV cannot be used; each error is one sentence for an administrator.

import Glibc

/// What went wrong with a PV.
public enum PVError: Error, Equatable, Sendable, CustomStringConvertible {
  /// It cannot be opened.
  case cannotOpen(path: String, errno: Int32)
  /// Somebody else holds it: another server, a mount, another user of the device.
  case inUse(path: String)
  /// It is neither a regular file nor a block device.
  case notFileOrDevice(path: String)
  /// It holds something else; `what` names it.
  case foreign(path: String, what: String)
  /// It is smaller than it must be.
  case tooSmall(path: String, bytes: UInt64, neededBytes: UInt64)
  /// An I/O failed; `operation` is a verb.
  case io(path: String, operation: String, offset: UInt64, errno: Int32)
  /// There is no (usable) label; `why` is a clause.
  case noLabel(path: String, why: String)
  /// Two of the paths are the same file or device.
  case samePV(path: String, other: String)

  /// The PV the error is about.
  public var path: String {
    switch self {
    case .cannotOpen(let path, _), .inUse(let path), .notFileOrDevice(let path),
      .foreign(let path, _), .tooSmall(let path, _, _), .io(let path, _, _, _),
      .noLabel(let path, _), .samePV(let path, _):
      path
    }
  }

  /// One sentence without a full stop.
  public var description: String {
    switch self {
    case .cannotOpen(let path, let code):
      "PV \(path) cannot be opened: \(PVError.text(errno: code))"
    case .inUse(let path):
      "PV \(path) is in use by another program (a running server, a mount, or another holder of "
        + "the device)"
    case .notFileOrDevice(let path):
      "PV \(path) is neither a regular file nor a block device"
    case .foreign(let path, let what):
      "PV \(path) holds \(what); --force overwrites it"
    case .tooSmall(let path, let bytes, let needed):
      "PV \(path) has \(bytes) bytes, \(needed) are needed"
    case .io(let path, let operation, let offset, let code):
      "PV \(path): cannot \(operation) at offset \(offset): \(PVError.text(errno: code))"
    case .noLabel(let path, let why):
      "PV \(path): \(why)"
    case .samePV(let path, let other):
      "PV \(path) and PV \(other) are the same file or device"
    }
  }

  /// The system's text of an errno.
  static func text(errno code: Int32) -> String {
    // glibc returns a string that stays valid until this thread's next call of strerror.
    guard let text = unsafe strerror(code) else { return "error \(code)" }
    return unsafe String(cString: text)
  }
}
