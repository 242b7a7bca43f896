// A unix stream socket, for both ends of the control socket: connect, bind privately, and send
// and receive with a deadline.
//
// Invariants: the descriptor is non-blocking, close-on-exec, and closed exactly once (by `deinit`,
// or by whoever `release` hands it to). No call waits beyond its deadline. Writing to a peer that
// is gone is an error, never a signal.

import Glibc

/// An error number of a system call.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The errno.
  public var code: Int32

  /// Wraps an errno.
  public init(code: Int32) { self.code = code }

  /// The deadline passed.
  public static var timedOut: SystemError { SystemError(code: ETIMEDOUT) }

  /// Whether this says that nobody listens: no file, or a file nobody has bound.
  public var isNobodyThere: Bool { code == ENOENT || code == ECONNREFUSED }

  /// Whether this says that the peer closed the connection.
  public var isPeerGone: Bool { code == EPIPE || code == ECONNRESET }

  /// The system's text.
  public var description: String {
    // strerror never returns NULL; the text is copied before any other call.
    unsafe String(cString: strerror(code))
  }

  /// The errno that the last call left.
  static var last: SystemError { SystemError(code: errno) }
}

/// A unix stream socket.
public struct UnixSocket: ~Copyable, Sendable {
  /// Longest path of a socket in bytes. Source: unix(7), `sun_path` with its NUL.
  public static var pathBytesMax: Int { 107 }

  private let descriptor: Int32

  private init(owning descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  private static func make() throws(SystemError) -> UnixSocket {
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    let descriptor = socket(AF_UNIX, kind, 0)
    guard descriptor >= 0 else { throw .last }
    return UnixSocket(owning: descriptor)
  }

  /// Connects to the socket at `path`.
  /// - Throws: `ENOENT` or `ECONNREFUSED` if nobody listens, `ENAMETOOLONG`, `ETIMEDOUT`...
  public static func connect(
    to path: String, deadline: ContinuousClock.Instant
  ) throws(SystemError) -> UnixSocket {
    let socket = try make()
    let descriptor = socket.descriptor
    while true {
      // The address lives through the call.
      let result = try unsafe withAddress(path) { address, length in
        unsafe Glibc.connect(descriptor, address, length) == 0 ? 0 : errno
      }
      switch result {
      case 0: return socket
      case EINTR: continue
      case EAGAIN:
        // The queue of the listener is full, and there is nothing to poll for.
        guard ContinuousClock.now < deadline else { throw .timedOut }
        usleep(5_000)
      default: throw SystemError(code: result)
      }
    }
  }

  /// Binds a new socket at `path`, readable and writable by the owner only from the moment the
  /// file exists. It does not listen yet, so nobody can connect before the caller is ready.
  /// - Throws: `EADDRINUSE` if the path exists, `ENAMETOOLONG`...
  public static func bind(to path: String) throws(SystemError) -> UnixSocket {
    let socket = try make()
    let descriptor = socket.descriptor
    // bind(2) gives the file the mode of the socket's own inode less the umask. Unlike a changed
    // umask this disturbs no other thread. Source: Linux net/unix/af_unix.c, unix_bind_bsd.
    guard fchmod(descriptor, 0o600) == 0 else { throw .last }
    // The address lives through the call.
    let result = try unsafe withAddress(path) { address, length in
      unsafe Glibc.bind(descriptor, address, length) == 0 ? 0 : errno
    }
    guard result == 0 else { throw SystemError(code: result) }
    // A umask may have taken bits away; nobody can be connected yet.
    guard unsafe chmod(path, 0o600) == 0 else {
      let error = SystemError.last
      unsafe unlink(path)
      throw error
    }
    return socket
  }

  /// Hands the descriptor to the caller, who closes it.
  public consuming func release() -> Int32 {
    let descriptor = descriptor
    discard self
    return descriptor
  }

  /// The process that listens at the other end; nil if it cannot be seen from here (another PID
  /// namespace).
  public var peerProcess: Int32? {
    // `struct ucred`: pid, uid, gid. Source: unix(7); Glibc's module does not show it.
    var credentials: [Int32] = [0, 0, 0]
    var length = socklen_t(credentials.count * MemoryLayout<Int32>.size)
    // The kernel writes at most `length` bytes.
    let result = unsafe getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length)
    return result == 0 && credentials[0] > 0 ? credentials[0] : nil
  }

  /// Sends all of `bytes`.
  /// - Throws: `EPIPE` if the peer is gone, `ETIMEDOUT`...
  public func send(
    _ bytes: [UInt8], deadline: ContinuousClock.Instant
  ) throws(SystemError) {
    var sent = 0
    while sent < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        // The part that is left lies inside the array, which lives through the call.
        unsafe Glibc.send(
          descriptor, buffer.baseAddress.map { unsafe $0 + sent }, buffer.count - sent,
          Int32(MSG_NOSIGNAL))
      }
      if count >= 0 {
        sent += count
      } else if errno == EAGAIN {
        try wait(for: Int16(POLLOUT), deadline: deadline)
      } else if errno != EINTR {
        throw .last
      }
    }
  }

  /// Receives what there is, at most `countMax` bytes; nothing means that the peer sends no more.
  public func receive(
    countMax: Int, deadline: ContinuousClock.Instant
  ) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: countMax)
    while true {
      let count = unsafe bytes.withUnsafeMutableBytes { buffer in
        // The kernel writes at most `count` bytes into the array, which lives through the call.
        unsafe recv(descriptor, buffer.baseAddress, buffer.count, 0)
      }
      if count >= 0 {
        bytes.removeLast(countMax - count)
        return bytes
      } else if errno == EAGAIN {
        try wait(for: Int16(POLLIN), deadline: deadline)
      } else if errno != EINTR {
        throw .last
      }
    }
  }

  private func wait(
    for events: Int16, deadline: ContinuousClock.Instant
  ) throws(SystemError) {
    while true {
      let left = deadline - ContinuousClock.now
      guard left > .zero else { throw .timedOut }
      let (seconds, attoseconds) = left.components
      let milliseconds = min(seconds, 3600) * 1000 + attoseconds / 1_000_000_000_000_000 + 1
      var request = pollfd(fd: descriptor, events: events, revents: 0)
      // One pollfd, alive through the call.
      let count = unsafe poll(&request, 1, Int32(milliseconds))
      if count > 0 { return }
      if count < 0 && errno != EINTR { throw .last }
    }
  }

  /// Runs `body` on the address of `path`; gives what it returns, an errno or 0.
  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) throws(SystemError) -> Int32 {
    let bytes = Array(path.utf8)
    guard !bytes.isEmpty, !bytes.contains(0) else { throw SystemError(code: EINVAL) }
    guard bytes.count <= pathBytesMax else { throw SystemError(code: ENAMETOOLONG) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // The path is shorter than the field, whose rest stays zero.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
      unsafe field.copyBytes(from: bytes)
    }
    return unsafe withUnsafePointer(to: &address) { pointer in
      // A sockaddr_un begins as every sockaddr does; the calls are told its true length.
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe body(generic, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
