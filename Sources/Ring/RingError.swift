// What can go wrong with a ring before it serves: sentences for the administrator.

import CRing

/// Why a ring could not be made or memory could not be had.
public enum RingError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The kernel has no io_uring (ENOSYS).
  case notSupported
  /// io_uring is switched off by the sysctl of this value (1: unprivileged, 2: everybody).
  case disabledBySetting(Int)
  /// A security policy refuses io_uring (EPERM and the sysctl does not).
  case refused
  /// Any other errno of `io_uring_setup`.
  case failed(errno: Int32)
  /// Memory for buffers could not be reserved: bytes, errno.
  case memory(bytes: Int, errno: Int32)

  /// What happened and what to change.
  public var description: String {
    switch self {
    case .notSupported:
      return "io_uring is missing in this kernel (ENOSYS): nbdmirror needs Linux 5.11 or newer "
        + "built with CONFIG_IO_URING"
    case .disabledBySetting(let value):
      return "io_uring is switched off on this machine (kernel.io_uring_disabled=\(value)): "
        + "run `sysctl kernel.io_uring_disabled=0`"
        + (value == 1 ? ", or run nbdmirror as root" : "")
    case .refused:
      return "io_uring is forbidden to this process (EPERM): container runtimes forbid it in "
        + "their default seccomp profile; allow io_uring_setup, io_uring_enter and "
        + "io_uring_register in the profile, or run with `--security-opt seccomp=unconfined`"
    case .failed(let errno):
      return "io_uring could not be set up (errno \(errno))"
        + (errno == 12 ? ": raise the limit of locked memory (`ulimit -l`)" : "")
        + (errno == 24 ? ": raise the limit of open files (`ulimit -n`)" : "")
    case .memory(let bytes, let errno):
      return "\(bytes) bytes of memory for buffers could not be reserved (errno \(errno))"
    }
  }

  /// The case for what `nbdmirror_ring_create` returned.
  static func creation(_ errno: Int32) -> RingError {
    switch errno {
    case 38: return .notSupported
    case 1:
      let setting = Int(nbdmirror_ring_disabled_setting())
      return setting > 0 ? .disabledBySetting(setting) : .refused
    default: return .failed(errno: errno)
    }
  }
}
