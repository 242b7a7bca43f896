// A connection to an NBD server, brought past its handshake so that the kernel can take it over.
//
// Invariants
//  1. The descriptor is close-on-exec and closed exactly once, by `deinit`; the kernel has its own
//     hold on a socket that it took.
//  2. `open` waits no longer than it was told to, but for the resolution of a host name.
//  3. A connection is handed over without a receive timeout: the kernel would obey it, and a device
//     that nobody uses would lose its connection.
//
// The kernel speaks simple replies only, so structured ones are not asked for.

import Base
import Glibc
import NBDProtocol
import Ring

/// A connection in transmission.
final class ServerConnection {
  let descriptor: Int32
  private(set) var export = ClientExport()

  private init(owning descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  /// Connects and does the handshake within `nanoseconds`.
  static func open(
    _ uri: ExportURI, nanoseconds: UInt64
  ) throws(AttachError) -> ServerConnection {
    let deadline = monotonicNanoseconds() + nanoseconds
    let connection: ServerConnection
    switch uri.place {
    case .unix(let path): connection = try connectUnix(path, nanoseconds)
    case .tcp(let host, let port): connection = try connectTCP(host, port, nanoseconds)
    }
    try connection.handshake(uri.exportName, deadline: deadline)
    connection.limit(nanoseconds: 0)
    return connection
  }

  /// Whether the kernel took the socket: it gave it the device's timeout for sending.
  ///
  /// Source: Linux drivers/block/nbd.c, `nbd_reconnect_socket`.
  var isTaken: Bool {
    var time = timeval()
    var length = socklen_t(MemoryLayout<timeval>.size)
    // The kernel fills a plain struct.
    let result = unsafe getsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, &length)
    return result == 0 && (time.tv_sec != 0 || time.tv_usec != 0)
  }

  // MARK: Connecting

  private static func make(_ family: Int32, _ nanoseconds: UInt64) throws(AttachError)
    -> ServerConnection
  {
    let descriptor = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw .system("cannot make a socket", errno) }
    let connection = ServerConnection(owning: descriptor)
    connection.limit(nanoseconds: nanoseconds)
    return connection
  }

  private static func connectUnix(
    _ path: String, _ nanoseconds: UInt64
  ) throws(AttachError) -> ServerConnection {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let room = MemoryLayout.size(ofValue: address.sun_path)
    guard path.utf8.count < room else {
      throw AttachError("the path of the socket is too long: \(path)")
    }
    // The path is shorter than the field, whose rest stays zero.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
      unsafe field.copyBytes(from: path.utf8)
    }
    let connection = try make(AF_UNIX, nanoseconds)
    let error = unsafe withUnsafePointer(to: &address) { pointer in
      // A sockaddr_un begins as every sockaddr does; the call is told its true length.
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe connection.connect(generic, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard error == 0 else { throw .system("nobody answers at \(path)", error) }
    return connection
  }

  private static func connectTCP(
    _ host: String, _ port: UInt16, _ nanoseconds: UInt64
  ) throws(AttachError) -> ServerConnection {
    // No pointer in it is set.
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = AI_NUMERICSERV
    var list: UnsafeMutablePointer<addrinfo>?
    // The call fills `list`, which is freed below.
    let status = unsafe getaddrinfo(host, "\(port)", &hints, &list)
    guard status == 0 else {
      // The text is constant.
      let why = unsafe String(cString: gai_strerror(status))
      throw AttachError("no host is called \(host): \(why)")
    }
    defer { unsafe freeaddrinfo(list) }
    var last = ECONNREFUSED
    var entry = unsafe list
    // Each entry points to the next one, all of them live until the list is freed.
    while let item = unsafe entry {
      let connection = try make(unsafe item.pointee.ai_family, nanoseconds)
      last = unsafe connection.connect(item.pointee.ai_addr, item.pointee.ai_addrlen)
      if last == 0 {
        connection.enable(Int32(IPPROTO_TCP), TCP_NODELAY)
        connection.enable(SOL_SOCKET, SO_KEEPALIVE)
        return connection
      }
      unsafe entry = item.pointee.ai_next
    }
    throw .system("nobody answers at \(host) port \(port)", last)
  }

  /// 0, or the errno.
  private func connect(_ address: UnsafePointer<sockaddr>?, _ length: socklen_t) -> Int32 {
    guard unsafe Glibc.connect(descriptor, address, length) != 0 else { return 0 }
    // The timeout for sending holds for connecting, too, and ends it so.
    return errno == EAGAIN || errno == EINPROGRESS ? ETIMEDOUT : errno
  }

  private func enable(_ level: Int32, _ option: Int32) {
    var on: Int32 = 1
    // Best effort: without it the device is slower to send, or to find a dead host.
    unsafe setsockopt(descriptor, level, option, &on, socklen_t(MemoryLayout<Int32>.size))
  }

  /// Bounds each call; 0: not at all.
  private func limit(nanoseconds: UInt64) {
    var time = timeval(
      tv_sec: Int(nanoseconds / Nanoseconds.second),
      tv_usec: Int(nanoseconds % Nanoseconds.second / Nanoseconds.microsecond))
    let length = socklen_t(MemoryLayout<timeval>.size)
    // The kernel copies a plain struct.
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, length)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, length)
  }

  // MARK: The handshake

  private func handshake(_ name: String, deadline: UInt64) throws(AttachError) {
    var session = ClientSession(
      ClientWishes(exportName: name, structuredReplies: false, texts: true))
    while true {
      guard monotonicNanoseconds() < deadline else {
        throw AttachError("the server does not finish its handshake")
      }
      let bytes = try receive()
      var output: [UInt8] = []
      let step = bytes.withRawSpan { session.receive($0, output: &output) }
      if !output.isEmpty { try send(output) }
      switch step {
      case .needMore: continue
      case .ready(let export, let consumed):
        guard consumed == bytes.count else {
          throw AttachError("the server says something before it is asked")
        }
        self.export = export
        return
      case .refused(let type): throw AttachError(ServerConnection.sentence(type, name))
      case .malformed: throw AttachError("what answers is no NBD server")
      }
    }
  }

  private static func sentence(_ type: UInt32, _ name: String) -> String {
    switch OptionReplyType(rawValue: type) {
    case .unknownExport: "the server has no export called '\(name)'"
    case .tlsRequired: "the server wants TLS, which the kernel does not speak"
    case .shuttingDown: "the server is about to stop"
    case .policy: "the server does not let us use the export '\(name)'"
    default: "the server refuses the export '\(name)' (\(type & 0xffff))"
    }
  }

  private func receive() throws(AttachError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var count: Int
    repeat {
      count = unsafe bytes.withUnsafeMutableBytes { buffer in
        // The kernel writes at most `count` bytes into the array, which lives through the call.
        unsafe recv(descriptor, buffer.baseAddress, buffer.count, 0)
      }
    } while count < 0 && errno == EINTR
    if count < 0 && errno == EAGAIN { throw AttachError("the server does not answer") }
    guard count >= 0 else { throw .system("the connection failed", errno) }
    guard count > 0 else { throw AttachError("the server closed the connection") }
    bytes.removeLast(bytes.count - count)
    return bytes
  }

  /// The few bytes of a handshake fit into any socket's buffer.
  private func send(_ bytes: [UInt8]) throws(AttachError) {
    let count = unsafe bytes.withUnsafeBytes { buffer in
      // The array lives through the call.
      unsafe Glibc.send(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL))
    }
    guard count == bytes.count else {
      throw .system("the connection failed", count < 0 ? errno : EPIPE)
    }
  }
}
