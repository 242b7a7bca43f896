// An NBD client as plain as can be: a blocking socket, frames by hand, a deadline on every call.
//
// Every `unsafe` passes the address of memory that lives through the call.

import Base
import Foundation
import NBDProtocol
import Testing

/// A reply to a request.
struct RawReply: Equatable {
  var cookie: UInt64
  var error: UInt32
  var data: [UInt8]
}

/// One connection, in transmission unless said otherwise. Not for more than one thread at a time.
final class RawClient: @unchecked Sendable {
  let socket: Int32
  private(set) var export = ClientExport()
  /// Sizes of the reads that were sent, by cookie: simple replies do not tell.
  private var readBytes: [UInt64: Int] = [:]

  /// Connects to a unix socket without a word.
  init(silent path: String) throws {
    socket = Foundation.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    try connect(&address)
  }

  /// Connects to 127.0.0.1 and does the handshake. `receiveBytes` is how much the kernel may take in
  /// before it is read; nil: as it likes.
  init(
    port: UInt16, wishes: ClientWishes = ClientWishes(structuredReplies: false),
    receiveBytes: Int32? = nil
  ) throws {
    socket = Foundation.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    if var bytes = receiveBytes {
      let size = socklen_t(MemoryLayout<Int32>.size)
      unsafe setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &bytes, size)
    }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    try connect(&address)
    try handshake(wishes)
  }

  /// Connects to a unix socket and does the handshake.
  convenience init(
    _ path: String, wishes: ClientWishes = ClientWishes(structuredReplies: false)
  ) throws {
    try self.init(silent: path)
    try handshake(wishes)
  }

  deinit { close(socket) }

  private func connect<Address>(_ address: inout Address) throws {
    // No call waits longer than this: a server that stalls fails the test.
    var limit = timeval(tv_sec: 20, tv_usec: 0)
    let limitSize = socklen_t(MemoryLayout<timeval>.size)
    unsafe setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, limitSize)
    unsafe setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, limitSize)
    let size = socklen_t(MemoryLayout<Address>.size)
    let result = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe Foundation.connect(socket, generic, size)
      }
    }
    guard result == 0 else { throw FixtureError(text: "connect: errno \(errno)") }
  }

  private func handshake(_ wishes: ClientWishes) throws {
    var session = ClientSession(wishes)
    while true {
      // Byte by byte: nothing of what follows the handshake is swallowed.
      guard let bytes = receive(1) else { throw FixtureError(text: "the handshake ends early") }
      var output: [UInt8] = []
      let step = bytes.withRawSpan { session.receive($0, output: &output) }
      if !output.isEmpty { try send(output) }
      switch step {
      case .needMore: continue
      case .ready(let export, _):
        self.export = export
        return
      case .refused, .malformed: throw FixtureError(text: "the handshake fails")
      }
    }
  }

  // MARK: Bytes

  /// Sends all bytes.
  func send(_ bytes: [UInt8]) throws {
    var done = 0
    while done < bytes.count {
      let sent = unsafe bytes.withUnsafeBytes { memory in
        unsafe Foundation.send(
          socket, memory.baseAddress?.advanced(by: done), bytes.count - done,
          Int32(MSG_NOSIGNAL))
      }
      guard sent > 0 else { throw FixtureError(text: "send: errno \(errno)") }
      done += sent
    }
  }

  /// Receives exactly `count` bytes; nil at the end of the stream or after the deadline.
  func receive(_ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let got = unsafe bytes.withUnsafeMutableBytes { memory in
        unsafe recv(socket, memory.baseAddress?.advanced(by: done), count - done, 0)
      }
      guard got > 0 else { return nil }
      done += got
    }
    return bytes
  }

  /// Whether the server has closed the connection (and sent nothing before).
  func isAtEnd() -> Bool {
    var byte: UInt8 = 0
    let got = unsafe recv(socket, &byte, 1, 0)
    return got == 0 || (got < 0 && errno == ECONNRESET)
  }

  /// Whether the stream ends here, in order: `isAtEnd` takes a reset for an end, too.
  func endsInOrder() -> Bool {
    var byte: UInt8 = 0
    return unsafe recv(socket, &byte, 1, 0) == 0
  }

  /// Sends nothing more; replies can still be read.
  func halfClose() { shutdown(socket, Int32(SHUT_WR)) }

  // MARK: Requests

  /// A request's bytes, with its payload.
  func frame(
    _ type: CommandType, offset: UInt64 = 0, count: Int = 0, cookie: UInt64 = 1,
    flags: CommandFlags = [], payload: [UInt8] = []
  ) -> [UInt8] {
    if type == .read { readBytes[cookie] = count }
    return ClientFrames.request(
      RequestHeader(
        flags: flags, type: type.rawValue, cookie: cookie, offset: offset, count: UInt64(count)))
      + payload
  }

  /// The next reply, simple or one chunk.
  func reply() throws -> RawReply {
    guard let magic = receive(4) else { throw FixtureError(text: "no reply") }
    if magic.withRawSpan({ $0.bigEndianUInt32(at: 0) }) == Magic.simpleReply {
      guard let rest = receive(12) else { throw FixtureError(text: "half a reply") }
      let error = rest.withRawSpan { $0.bigEndianUInt32(at: 0) }
      let cookie = rest.withRawSpan { $0.bigEndianUInt64(at: 4) }
      let count = error == 0 ? readBytes.removeValue(forKey: cookie) ?? 0 : 0
      guard let data = receive(count) else { throw FixtureError(text: "half a read") }
      return RawReply(cookie: cookie, error: error, data: data)
    }
    guard let rest = receive(16) else { throw FixtureError(text: "half a chunk") }
    let type = rest.withRawSpan { $0.bigEndianUInt16(at: 2) }
    let cookie = rest.withRawSpan { $0.bigEndianUInt64(at: 4) }
    let length = Int(rest.withRawSpan { $0.bigEndianUInt32(at: 12) })
    guard let payload = receive(length) else { throw FixtureError(text: "half a chunk") }
    readBytes.removeValue(forKey: cookie)
    if type == ChunkType.error.rawValue {
      let error = payload.withRawSpan { $0.bigEndianUInt32(at: 0) }
      return RawReply(cookie: cookie, error: error, data: [])
    }
    if type == ChunkType.offsetHole.rawValue {
      let count = payload.withRawSpan { Int($0.bigEndianUInt32(at: 8)) }
      return RawReply(cookie: cookie, error: 0, data: [UInt8](repeating: 0, count: count))
    }
    return RawReply(
      cookie: cookie, error: 0,
      data: type == ChunkType.offsetData.rawValue ? Array(payload.dropFirst(8)) : [])
  }

  /// Reads; the error if there is one.
  func read(_ offset: UInt64, _ count: Int) throws -> RawReply {
    try send(frame(.read, offset: offset, count: count))
    return try reply()
  }

  /// Writes; 0 or the error.
  func write(_ offset: UInt64, _ payload: [UInt8], flags: CommandFlags = []) throws -> UInt32 {
    try send(
      frame(.write, offset: offset, count: payload.count, flags: flags, payload: payload))
    return try reply().error
  }

  /// A command without payload; 0 or the error.
  func command(
    _ type: CommandType, _ offset: UInt64 = 0, _ count: Int = 0, flags: CommandFlags = []
  ) throws -> UInt32 {
    try send(frame(type, offset: offset, count: count, flags: flags))
    return try reply().error
  }
}
