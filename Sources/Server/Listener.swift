// Sockets that listen: unix sockets and TCP, made here or inherited from systemd.
//
// A unix socket's file that nobody listens on is what a killed server leaves behind: it is
// replaced. A file that somebody answers on, or that is no socket, is left alone.
//
// Every `unsafe` here passes the address of a local structure to a call that does not keep it.

import Glibc

/// A socket that listens.
public struct Listener: Sendable {
  /// The socket.
  let descriptor: Int32
  /// Whether it is TCP.
  let isTCP: Bool
  /// The file to remove at the end; nil for TCP and inherited sockets.
  let path: String?
  /// Whether somebody else (systemd) goes on listening on it when this server has stopped.
  var isInherited = false

  private static let backlog: Int32 = 128

  /// Listens on a unix socket.
  static func unix(path: String) throws(ServerError) -> Listener {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw .pathTooLong(path)
    }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    try removeStale(path, address)
    let descriptor = try open(AF_UNIX, place: path)
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe bind(descriptor, generic, size)
      }
    }
    guard result == 0, listen(descriptor, backlog) == 0 else {
      throw failed(path, descriptor)
    }
    return Listener(descriptor: descriptor, isTCP: false, path: path)
  }

  /// Removes a socket file that nobody listens on.
  private static func removeStale(_ path: String, _ address: sockaddr_un) throws(ServerError) {
    var information = stat()
    guard unsafe lstat(path, &information) == 0 else { return }
    guard information.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path) }
    let probe = try open(AF_UNIX, place: path)
    defer { close(probe) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let connected = unsafe withUnsafePointer(to: address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe connect(probe, generic, size)
      }
    }
    // EAGAIN: its backlog is full, so somebody does listen.
    if connected == 0 || errno == EAGAIN { throw .socketInUse(path) }
    if errno == ECONNREFUSED { unsafe unlink(path) }
  }

  /// Listens on TCP; one listener for each address that the host has.
  static func tcp(_ text: String) throws(ServerError) -> [Listener] {
    let address = try ListenAddress(text)
    let host = address.host
    let port = String(address.port)
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = AI_PASSIVE
    var list: UnsafeMutablePointer<addrinfo>?
    let result = unsafe getaddrinfo(host.isEmpty ? nil : host, port, &hints, &list)
    guard result == 0 else {
      throw .badAddress(text, unsafe String(cString: gai_strerror(result)))
    }
    defer { unsafe freeaddrinfo(list) }
    var listeners: [Listener] = []
    var entry = unsafe list
    while let current = unsafe entry {
      do {
        listeners.append(try unsafe bound(current.pointee, text))
      } catch {
        for listener in listeners { close(listener.descriptor) }
        throw error
      }
      unsafe entry = current.pointee.ai_next
    }
    return listeners
  }

  private static func bound(_ info: addrinfo, _ text: String) throws(ServerError) -> Listener {
    let descriptor = try open(unsafe info.ai_family, place: text)
    var one: Int32 = 1
    let size = socklen_t(MemoryLayout<Int32>.size)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, size)
    if unsafe info.ai_family == AF_INET6 {
      unsafe setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &one, size)
    }
    guard unsafe bind(descriptor, info.ai_addr, info.ai_addrlen) == 0,
      listen(descriptor, backlog) == 0
    else { throw failed(text, descriptor) }
    return Listener(descriptor: descriptor, isTCP: true, path: nil)
  }

  /// A listener that was inherited.
  static func inherited(_ descriptor: Int32) -> Listener {
    var address = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        _ = unsafe getsockname(descriptor, generic, &size)
      }
    }
    return Listener(
      descriptor: descriptor, isTCP: Int32(address.ss_family) != AF_UNIX, path: nil,
      isInherited: true)
  }

  private static func open(_ family: Int32, place: String) throws(ServerError) -> Int32 {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(family, kind, 0)
    guard descriptor >= 0 else { throw failed(place, -1) }
    return descriptor
  }

  /// The error for the current errno; closes the socket.
  private static func failed(_ place: String, _ descriptor: Int32) -> ServerError {
    let number = errno
    if descriptor >= 0 { close(descriptor) }
    if number == EADDRINUSE { return .addressInUse(place) }
    return .listen(place, unsafe String(cString: strerror(number)))
  }

  /// The port a TCP listener has (0 was given: the kernel chose it); nil for a unix socket.
  var port: UInt16? {
    guard isTCP else { return nil }
    var address = sockaddr_in6()
    var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
    let result = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe getsockname(descriptor, generic, &size)
      }
    }
    // The port stands at the same place for IPv4 and IPv6.
    return result == 0 ? UInt16(bigEndian: address.sin6_port) : nil
  }

  /// Refuses new clients from now on and removes the socket's file. The descriptor stays.
  func refuse() {
    guard !isInherited else { return }
    shutdown(descriptor, Int32(SHUT_RDWR))
    if let path { unsafe unlink(path) }
  }

  /// Closes the socket, which refuses already or never served.
  func end() { close(descriptor) }
}
