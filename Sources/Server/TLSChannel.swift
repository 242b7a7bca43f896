// What a connection has besides if it is encrypted: the session, and memory for what is on the wire.
//
//   socket --receive--> incoming --decrypt--> the connection's receive memory, or a request's buffer
//   parts of replies --encrypt--> outgoing --send--> socket
//
// Invariants
//  1. `incoming` is written by the kernel only while a receive is in flight, and taken from only
//     while none is.
//  2. `outgoing` only grows behind what a send in flight covers; it begins anew when all is sent.
//  3. Plaintext takes no more of `outgoing` than leaves room for what the session itself has to say
//     (the handshake, a key update, an alert).
//
// One channel belongs to one reactor. Every `unsafe` below is an address inside the channel's own
// memory, or memory that the caller lends for the call.

import Glibc
import TLS

/// The TLS side of one connection.
@safe
final class TLSChannel {
  /// The session; never looked at by two calls at once.
  private var session: TLSSession
  private let memory: UnsafeMutableRawPointer
  private var inStart = 0
  private var inEnd = 0
  private var outStart = 0
  private var outEnd = 0
  /// The session has something to say for which there was no room: after the next send it goes on.
  private(set) var needsOutputRoom = false

  static let incomingBytes = 64 << 10
  static let outgoingBytes = 128 << 10
  /// What plaintext leaves free in `outgoing`.
  private static let reservedBytes = 4096
  private static let recordBytes = 16 << 10
  /// Both directions, one record that is put together of small parts, and a `struct iovec`.
  private static let memoryBytes = incomingBytes + outgoingBytes + recordBytes + 4096

  /// A channel before its first byte; nil: there is no memory.
  init?(_ credentials: Credentials) {
    let address = unsafe mmap(
      nil, TLSChannel.memoryBytes, PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else { return nil }
    do {
      session = try TLSSession(credentials)
      unsafe memory = address
    } catch {
      unsafe munmap(address, TLSChannel.memoryBytes)
      return nil
    }
  }

  deinit { unsafe munmap(memory, TLSChannel.memoryBytes) }

  private var outgoing: UnsafeMutableRawPointer { unsafe memory + TLSChannel.incomingBytes }
  private var record: UnsafeMutableRawPointer { unsafe outgoing + TLSChannel.outgoingBytes }
  private var part: UnsafeMutablePointer<iovec> {
    unsafe (record + TLSChannel.recordBytes).assumingMemoryBound(to: iovec.self)
  }

  /// Where the session stands.
  var state: TLSState { session.state }

  // MARK: Receiving

  /// Room for the next receive, which may be empty. No receive is in flight.
  func receiveRoom() -> UnsafeMutableRawBufferPointer {
    if inStart > 0 {
      if inEnd > inStart { unsafe memmove(memory, memory + inStart, inEnd - inStart) }
      inEnd -= inStart
      inStart = 0
    }
    return unsafe UnsafeMutableRawBufferPointer(
      start: memory + inEnd, count: TLSChannel.incomingBytes - inEnd)
  }

  /// So many bytes came into that room.
  func received(_ count: Int) {
    inEnd += count
    precondition(inEnd <= TLSChannel.incomingBytes, "more was received than there was room for")
  }

  /// Decrypts what came, up to `room`, and answers what the handshake asks for.
  /// - Returns: How many bytes of plaintext stand in `room`; 0: more has to come, or the state says
  ///   that it will not.
  func decrypt(into room: UnsafeMutableRawBufferPointer) -> Int {
    guard let base = room.baseAddress, room.count > 0 else { return 0 }
    let wire = unsafe RawSpan(_unsafeStart: memory + inStart, byteCount: inEnd - inStart)
    var plaintext = unsafe MutableRawSpan(_unsafeStart: base, byteCount: room.count)
    var output = unsafe MutableRawSpan(
      _unsafeStart: outgoing + outEnd, byteCount: TLSChannel.outgoingBytes - outEnd)
    let progress = session.receive(wire: wire, plaintext: &plaintext, output: &output)
    inStart += progress.wireTaken
    outEnd += progress.wireMade
    needsOutputRoom = progress.needsOutputRoom
    return progress.plaintextMade
  }

  // MARK: Sending

  /// Encrypts the parts from `index` on, as far as there is room, and moves them on.
  /// - Returns: false if the session cannot send any more.
  func encrypt(_ parts: UnsafeMutablePointer<iovec>, _ index: inout Int, _ count: Int) -> Bool {
    while index < count {
      // A record needs at most `outputBytesMin` beyond its plaintext.
      let room = TLSChannel.outgoingBytes - TLSChannel.reservedBytes - outEnd
      guard room > 2 * TLSSession.outputBytesMin else { return true }
      if unsafe parts[index].iov_len >= TLSChannel.recordBytes {
        guard let base = unsafe parts[index].iov_base else { return false }
        let taken = unsafe send(UnsafeRawPointer(base), parts[index].iov_len)
        guard taken > 0 else { return false }
        unsafe TLSChannel.move(parts, &index, by: taken)
      } else {
        let staged = unsafe stage(parts, &index, count, room - TLSSession.outputBytesMin)
        guard unsafe send(UnsafeRawPointer(record), staged) == staged else { return false }
      }
    }
    return true
  }

  /// Puts one record together of small parts: header and data of replies go out as few records.
  private func stage(
    _ parts: UnsafeMutablePointer<iovec>, _ index: inout Int, _ count: Int, _ room: Int
  ) -> Int {
    let limit = min(room, TLSChannel.recordBytes)
    var staged = 0
    while index < count, staged < limit {
      let taken = unsafe min(parts[index].iov_len, limit - staged)
      if taken > 0 { unsafe memcpy(record + staged, parts[index].iov_base, taken) }
      staged += taken
      unsafe TLSChannel.move(parts, &index, by: taken)
    }
    return staged
  }

  private static func move(
    _ parts: UnsafeMutablePointer<iovec>, _ index: inout Int, by count: Int
  ) {
    unsafe parts[index].iov_len -= count
    unsafe parts[index].iov_base += count
    if unsafe parts[index].iov_len == 0 { index += 1 }
  }

  private func send(_ base: UnsafeRawPointer, _ count: Int) -> Int {
    let plaintext = unsafe RawSpan(_unsafeStart: base, byteCount: count)
    var output = unsafe MutableRawSpan(
      _unsafeStart: outgoing + outEnd,
      byteCount: TLSChannel.outgoingBytes - TLSChannel.reservedBytes - outEnd)
    let progress = session.send(plaintext: plaintext, output: &output)
    outEnd += progress.wireMade
    return progress.plaintextTaken
  }

  /// Whether something waits to be sent.
  var hasOutput: Bool { outEnd > outStart }

  /// What waits to be sent, as one part; it stays in place until `sent`.
  func nextPart() -> UnsafeMutablePointer<iovec> {
    unsafe part[0] = iovec(iov_base: outgoing + outStart, iov_len: outEnd - outStart)
    return unsafe part
  }

  /// So many bytes of it are sent; no send is in flight.
  func sent(_ count: Int) {
    outStart += count
    precondition(outStart <= outEnd, "more was sent than there was")
    if outStart == outEnd { (outStart, outEnd) = (0, 0) }
  }

  /// Makes the last words: close_notify, or the alert of a session that failed. No send is in flight.
  func sayGoodbye() {
    var output = unsafe MutableRawSpan(
      _unsafeStart: outgoing + outEnd, byteCount: TLSChannel.outgoingBytes - outEnd)
    if session.owesAlert {
      var nothing = unsafe MutableRawSpan(_unsafeStart: record, byteCount: 1)
      let none = unsafe RawSpan(_unsafeStart: record, byteCount: 0)
      outEnd += session.receive(wire: none, plaintext: &nothing, output: &output).wireMade
    } else {
      outEnd += session.close(output: &output).wireMade
    }
  }
}
