// The errors a client may see, and how a leg's errno becomes one of them.
//
// Clients know a closed list of numbers; anything else that the kernel reports about a leg must not
// leak to them. The numbers equal Linux's on x86-64 and AArch64, but are the protocol's own: this
// room imports no C library.

/// An error value of a reply.
///
/// Source: proto.md, "Error values".
public enum NBDError: UInt32, Error, Sendable, BitwiseCopyable, CaseIterable {
  /// `NBD_EPERM`: a change of a read-only export.
  case notPermitted = 1
  /// `NBD_EIO`: no leg could do it.
  case inputOutput = 5
  /// `NBD_ENOMEM`: never sent on purpose; requests wait for memory instead.
  case outOfMemory = 12
  /// `NBD_EINVAL`: the request is wrong.
  case invalid = 22
  /// `NBD_ENOSPC`: a write or zeroing beyond the end, or every leg is full.
  case noSpace = 28
  /// `NBD_EOVERFLOW`: a read that is too large to be answered in one chunk.
  case overflow = 75
  /// `NBD_ENOTSUP`: a fast zeroing that would be slow; not sent yet.
  case notSupported = 95
  /// `NBD_ESHUTDOWN`: the server is stopping.
  case shuttingDown = 108
}

/// The client's error for an errno that a leg or the engine reported.
///
/// EROFS becomes `NBD_EPERM`; ENOSPC, EDQUOT and EFBIG become `NBD_ENOSPC`; ESHUTDOWN stays;
/// everything else (0 too: the caller says that it failed) is `NBD_EIO`.
@inlinable
public func nbdError(fromErrno errno: Int32) -> NBDError {
  switch errno {
  case 30: .notPermitted  // EROFS
  case 27, 28, 122: .noSpace  // EFBIG, ENOSPC, EDQUOT
  case 108: .shuttingDown  // ESHUTDOWN
  default: .inputOutput
  }
}
