// What a prober speaks through: a unix socket, TCP, or TLS over either.
//
// A wire sends what it is told, however wrong, and waits for nothing without a deadline. `send` gives
// up when the other side takes nothing; `receive` tells bytes, the end, and silence apart, because
// "the server hung up" and "the server said nothing" are different answers.
//
// Every `unsafe` passes the address of memory that lives through the call.

import Fixtures
import Foundation
import Testing

/// The ways to a server; each case of the catalogue runs over all of them.
enum WireKind: String, CaseIterable, Sendable, CustomTestStringConvertible {
  case unix
  case tcp
  case unixTLS
  case tcpTLS

  /// The ways without TLS: for what happens before it, and for what is done to a socket.
  static let plain = [WireKind.unix, .tcp]
  /// For what takes long: each transport, with and without TLS.
  static let pair = [WireKind.tcp, .unixTLS]
  /// The ways with TLS.
  static let encrypted = [WireKind.unixTLS, .tcpTLS]

  var testDescription: String { rawValue }
}

/// What came.
enum Received: Equatable {
  case bytes([UInt8])
  /// The other side closed or reset the connection.
  case end
  /// Nothing, up to the deadline.
  case silence
}

/// One connection's way of carrying bytes.
protocol Wire: AnyObject {
  /// What carries it.
  var socket: SocketWire { get }
  /// Sends all bytes.
  ///
  /// - Throws: `WireClosed` when the other side is gone; `FixtureError` when it takes nothing.
  func send(_ bytes: [UInt8], within seconds: Double) throws
  /// Sends what is taken now, from `start` on, or a part of it; 0: no more is taken.
  func sendSome(_ bytes: [UInt8], from start: Int) throws -> Int
  /// Receives what is there, at most `count` bytes.
  func receive(upTo count: Int, within seconds: Double) throws -> Received
  /// Says that nothing more comes; replies can still be read.
  func halfClose()
  /// Ends the connection so that the other side sees a reset.
  func reset()
  /// Ends the connection.
  func close()
}

extension Wire {
  /// Sends as much as is taken without waiting; the rest is dropped.
  func sendWhatFits(_ bytes: [UInt8]) throws {
    var sent = 0
    while sent < bytes.count {
      let count = try sendSome(bytes, from: sent)
      if count == 0 { return }
      sent += count
    }
  }
}

/// The other side closed the connection while something was sent.
struct WireClosed: Error {}

/// A stream socket.
final class SocketWire: Wire {
  private(set) var descriptor: Int32
  var socket: SocketWire { self }

  /// Connects to a unix socket.
  init(unix path: String) throws {
    descriptor = Foundation.socket(
      AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    try connect(&address)
  }

  /// Connects to a port of 127.0.0.1.
  init(port: UInt16) throws {
    descriptor = Foundation.socket(
      AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    try connect(&address)
    // A byte at a time is to be a segment at a time.
    var one: Int32 = 1
    unsafe setsockopt(
      descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
  }

  deinit { close() }

  private func connect<Address>(_ address: inout Address) throws {
    guard descriptor >= 0 else { throw FixtureError("no socket: \(systemError())") }
    let size = socklen_t(MemoryLayout<Address>.size)
    let result = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe Foundation.connect(descriptor, generic, size)
      }
    }
    guard result == 0 else { throw FixtureError("can't connect: \(systemError())") }
  }

  func send(_ bytes: [UInt8], within seconds: Double) throws {
    var done = 0
    while done < bytes.count {
      let count = try sendSome(bytes, from: done)
      done += count
      if count == 0, !isReady(POLLOUT, within: seconds) {
        throw FixtureError("the server takes nothing: \(done) of \(bytes.count) bytes are sent")
      }
    }
  }

  func sendSome(_ bytes: [UInt8], from start: Int) throws -> Int {
    let count = unsafe bytes.withUnsafeBytes { memory in
      unsafe Foundation.send(
        descriptor, memory.baseAddress?.advanced(by: start), bytes.count - start,
        Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
    }
    if count >= 0 { return count }
    switch errno {
    case EAGAIN, EINTR: return 0
    case EPIPE, ECONNRESET: throw WireClosed()
    default: throw FixtureError("can't send: \(systemError())")
    }
  }

  func receive(upTo count: Int, within seconds: Double) throws -> Received {
    guard isReady(POLLIN, within: seconds) else { return .silence }
    var isEnd = false
    let bytes = try unsafe [UInt8](unsafeUninitializedCapacity: count) { memory, filled in
      let got = unsafe recv(descriptor, memory.baseAddress, count, Int32(MSG_DONTWAIT))
      if got <= 0 && got < 0 && errno != ECONNRESET {
        throw FixtureError("can't receive: \(systemError())")
      }
      isEnd = got <= 0
      filled = max(0, got)
    }
    return isEnd ? .end : .bytes(bytes)
  }

  /// Waits for the socket.
  func isReady(_ events: Int32, within seconds: Double) -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while true {
      var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
      let left = (deadline - .now) / .milliseconds(1)
      if unsafe poll(&entry, 1, Int32(max(0, left.rounded(.up)))) > 0 { return true }
      if ContinuousClock.now >= deadline { return false }
    }
  }

  func halfClose() { shutdown(descriptor, Int32(SHUT_WR)) }

  func reset() {
    var hard = linger(l_onoff: 1, l_linger: 0)
    unsafe setsockopt(
      descriptor, SOL_SOCKET, SO_LINGER, &hard, socklen_t(MemoryLayout<linger>.size))
    close()
  }

  func close() {
    guard descriptor >= 0 else { return }
    Foundation.close(descriptor)
    descriptor = -1
  }
}

/// The text of errno.
func systemError() -> String { unsafe String(cString: strerror(errno)) }
