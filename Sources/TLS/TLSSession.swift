// One TLS connection in memory, sans-I/O: bytes from the wire in, bytes for the wire out, plaintext
// in and out. GnuTLS does the cryptography.
//
//                       handshaking ---------- close() -----------.
//                            |                                    |
//                            | the handshake is complete          |
//                            v                                    |
//               .---------- open ----------.                      |
//       close() |                          | close_notify came    |
//               v                          v                      |
//        closing(by: us)           closing(by: peer)              |
//               |                          |                      |
//               | close_notify or the      | close()              |
//               | wire's end came          |                      |
//               '---------> closed <-------'                      |
//                             ^-----------------------------------'
//
//        any but closed ---- a rule is broken, an alert came, the wire ended too early ---> failed
//
//   from              to                 by
//   handshaking       open               receive
//   handshaking       closed             close: nothing is said, the peer sees the wire end
//   open              closing(by: us)    close, when the output has room for close_notify
//   open              closing(by: peer)  receive; this end may go on sending, then closes
//   closing(by: us)   closed             receive, wireEnded (RFC 8446, 6.1: nobody has to wait for
//                                        the answer); until then plaintext may still come
//   closing(by: peer) closed             close
//   any but closed    failed             receive, send, close, wireEnded
//
// `closed` and `failed` are final. After `failed` one alert may still have to go out: `owesAlert`.
//
// Invariants
// 1. The session keeps no bytes of the caller's: each call is lent input and room, and what is not
//    taken stays with the caller. So nothing here could grow; GnuTLS keeps at most one record
//    (16 KiB and its overhead), and what came without any result: a peer may send 128 KiB that
//    neither complete the handshake nor, later, bring plaintext.
// 2. A record is begun only if all of it fits in the output, so that no half record waits inside.
//    (The messages of the handshake may wait; they go on with the next call.)
// 3. GnuTLS never sees the end of the wire: whether that is an error is decided here, and only
//    after all plaintext before it has been delivered.
// 4. No session is resumed and no secret leaves the process: tickets are off, and so is GnuTLS' key
//    log.
// 5. No call waits, none looks at a clock (GnuTLS compares a certificate's dates with the system's).
//    How long a handshake may take is for the owner to limit.
//
// A session belongs to one thread at a time. Every `unsafe` call below lends memory to the C shim,
// which keeps no pointer beyond the call, or names the shim's session, which `self` owns.
//
// Source: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2); GnuTLS manual, "Asynchronous operation".

import CTLS

/// A server's or client's end of one TLS 1.2 or 1.3 connection.
@safe public struct TLSSession: ~Copyable {
  /// With at least this much room for output every call makes progress; records of full length need
  /// 16 KiB and this.
  public static let outputBytesMin = 1024
  /// Output that a record needs beyond its plaintext.
  private static let overheadBytesMax = Int(NBDMIRROR_TLS_OVERHEAD_BYTES_MAX)
  /// Plaintext of one record.
  private static let recordBytesMax = Int(NBDMIRROR_TLS_RECORD_BYTES_MAX)

  /// See the diagram.
  public private(set) var state = TLSState.handshaking
  /// Whether a failed session still has an alert for the peer: `receive` with room for it.
  public private(set) var owesAlert = false
  private var hasWireEnded = false
  private let session: OpaquePointer
  /// The shim's session points into it.
  private let credentials: Credentials

  /// A session before its first byte. A client has its hello ready: call `receive` with nothing.
  public init(_ credentials: Credentials) throws(TLSError) {
    guard let session = unsafe nbdmirror_tls_session_new(credentials.shim) else {
      throw .outOfMemory
    }
    unsafe self.session = session
    self.credentials = credentials
  }

  deinit { unsafe nbdmirror_tls_session_free(session) }

  /// Goes on with the handshake, or decrypts.
  ///
  /// Ends when all of `wire` is taken, `plaintext` is full, `output` is full, or the state is final
  /// or `closing(by: peer)`; bytes behind the peer's close_notify are not taken. When `plaintext`
  /// was filled there may be more of it: call again, even without new bytes from the wire.
  /// - Precondition: `plaintext` is not empty; `wire` is, once `wireEnded` was called.
  public mutating func receive(
    wire: RawSpan, plaintext: inout MutableRawSpan, output: inout MutableRawSpan
  ) -> TLSProgress {
    precondition(plaintext.byteCount > 0, "no room to receive plaintext")
    precondition(wire.byteCount == 0 || !hasWireEnded, "bytes behind the end of the wire")
    var progress = TLSProgress()
    unsafe wire.withUnsafeBytes { wire in
      unsafe plaintext.withUnsafeMutableBytes { plaintext in
        unsafe output.withUnsafeMutableBytes { output in
          var io = unsafe nbdmirror_tls_io(lending: wire, output)
          unsafe advance(&io, plaintext, &progress)
          unsafe progress.note(io)
        }
      }
    }
    settle()
    return progress
  }

  /// Encrypts: takes as much of `plaintext` as `output` has room for, in records of up to 16 KiB.
  /// Takes nothing during the handshake and after a failure.
  /// - Precondition: `close` was not called.
  public mutating func send(plaintext: RawSpan, output: inout MutableRawSpan) -> TLSProgress {
    var progress = TLSProgress()
    switch state {
    case .handshaking, .failed: return progress
    case .open, .closing(by: .peer): break
    case .closing(by: .us), .closed: preconditionFailure("plaintext is sent after close()")
    }
    unsafe plaintext.withUnsafeBytes { plaintext in
      unsafe output.withUnsafeMutableBytes { output in
        var io = unsafe nbdmirror_tls_io(lending: nil, output)
        unsafe encrypt(plaintext, &io, &progress)
        unsafe progress.note(io)
      }
    }
    return progress
  }

  /// Says close_notify, after which nothing can be sent; what the peer still sends can be received.
  /// Without enough room nothing happens but `needsOutputRoom`. During the handshake the session
  /// just ends. Does nothing when called again, or after a failure.
  public mutating func close(output: inout MutableRawSpan) -> TLSProgress {
    var progress = TLSProgress()
    switch state {
    case .closing(by: .us), .closed, .failed: return progress
    case .open, .closing(by: .peer): break
    case .handshaking:
      state = .closed
      return progress
    }
    guard output.byteCount >= TLSSession.overheadBytesMax else {
      progress.needsOutputRoom = true
      return progress
    }
    unsafe output.withUnsafeMutableBytes { output in
      var io = unsafe nbdmirror_tls_io(lending: nil, output)
      let result = unsafe nbdmirror_tls_session_close(session, &io)
      if result == NBDMIRROR_TLS_DONE {
        state = state == .open ? .closing(by: .us) : .closed
      } else {
        unsafe fail(result, &io)
      }
      unsafe progress.note(io)
    }
    settle()
    return progress
  }

  /// The peer will send nothing more (end of file, or a broken connection), and all that it sent
  /// has been taken by `receive`. Without close_notify that is `TLSError.truncated`, which shows
  /// as soon as the plaintext before it has been received.
  public mutating func wireEnded() {
    hasWireEnded = true
    settle()
  }

  /// Whether `receive` gives plaintext without anything more from the wire.
  public var hasPlaintext: Bool { unsafe nbdmirror_tls_session_pending(session) > 0 }

  /// What the end of the wire means now.
  private mutating func settle() {
    guard hasWireEnded else { return }
    switch state {
    case .handshaking: state = .failed(.truncated)
    case .open: if !hasPlaintext { state = .failed(.truncated) }
    case .closing(by: .us): if !hasPlaintext { state = .closed }
    case .closing(by: .peer), .closed, .failed: break
    }
  }

  /// The body of `receive`.
  private mutating func advance(
    _ io: inout nbdmirror_tls_io, _ plaintext: UnsafeMutableRawBufferPointer,
    _ progress: inout TLSProgress
  ) {
    while true {
      let result: Int32
      switch state {
      case .handshaking:
        result = unsafe nbdmirror_tls_session_handshake(session, &io)
        if result == NBDMIRROR_TLS_DONE { state = .open }
      case .open, .closing(by: .us):
        let room = plaintext.count - progress.plaintextMade
        guard room > 0 else { return }
        var made = 0
        result = unsafe nbdmirror_tls_session_read(
          session, &io, plaintext.baseAddress?.advanced(by: progress.plaintextMade), room, &made)
        progress.plaintextMade += made
      case .failed:
        unsafe sayAlert(&io)
        progress.needsOutputRoom = owesAlert
        return
      case .closing(by: .peer), .closed: return
      }
      guard result == NBDMIRROR_TLS_DONE else {
        progress.needsOutputRoom = unsafe stop(result, &io)
        return
      }
    }
  }

  /// The body of `send`.
  private mutating func encrypt(
    _ plaintext: UnsafeRawBufferPointer, _ io: inout nbdmirror_tls_io,
    _ progress: inout TLSProgress
  ) {
    while progress.plaintextTaken < plaintext.count {
      let room = unsafe io.output_count - io.output_made - TLSSession.overheadBytesMax
      guard room > 0 else {
        progress.needsOutputRoom = true
        return
      }
      let left = plaintext.count - progress.plaintextTaken
      var taken = 0
      let result = unsafe nbdmirror_tls_session_write(
        session, &io, plaintext.baseAddress?.advanced(by: progress.plaintextTaken),
        min(left, room, TLSSession.recordBytesMax), &taken)
      progress.plaintextTaken += taken
      guard result == NBDMIRROR_TLS_DONE else {
        unsafe fail(result, &io)
        return
      }
    }
  }

  /// What a result that is not done means to the state; returns whether it wants room for output.
  private mutating func stop(_ result: Int32, _ io: inout nbdmirror_tls_io) -> Bool {
    switch Int(result) {
    case NBDMIRROR_TLS_WANTS_WIRE: return false
    case NBDMIRROR_TLS_WANTS_ROOM: return true
    case NBDMIRROR_TLS_PEER_CLOSED:
      state = state == .open ? .closing(by: .peer) : .closed
      return false
    default:
      unsafe fail(result, &io)
      return owesAlert
    }
  }

  private mutating func fail(_ result: Int32, _ io: inout nbdmirror_tls_io) {
    let detail = unsafe nbdmirror_tls_session_detail(session)
    state = .failed(TLSError(result: result, detail: detail))
    owesAlert = true
    unsafe sayAlert(&io)
  }

  /// Says the alert that is owed, if there is room.
  private mutating func sayAlert(_ io: inout nbdmirror_tls_io) {
    let room = unsafe io.output_count - io.output_made
    guard owesAlert, room >= TLSSession.overheadBytesMax else { return }
    unsafe nbdmirror_tls_session_alert(session, &io)
    owesAlert = false
  }
}

extension TLSSession {
  /// "TLS1.3" or "TLS1.2"; nil during the handshake.
  public var version: String? {
    // The shim returns constant strings.
    guard let name = unsafe nbdmirror_tls_session_version(session) else { return nil }
    return unsafe String(cString: name)
  }

  /// The cipher as GnuTLS calls it, "AES-128-GCM"; nil during the handshake.
  public var cipher: String? {
    // The shim returns constant strings.
    guard let name = unsafe nbdmirror_tls_session_cipher(session) else { return nil }
    return unsafe String(cString: name)
  }

  /// Who the peer is: the user of a pre-shared key, or the distinguished name in a certificate
  /// (at most 512 bytes of it; it is proven only where the certificate is verified). Control
  /// characters are replaced. Nil if nobody said. Allocates.
  public var peer: String? {
    let name = unsafe [UInt8](unsafeUninitializedCapacity: 512) { bytes, count in
      count = unsafe nbdmirror_tls_session_peer(session, bytes.baseAddress, bytes.count)
    }
    if name.isEmpty { return nil }
    let printable = name.map { $0 < 0x20 || $0 == 0x7f ? UInt8(ascii: "?") : $0 }
    return String(decoding: printable, as: UTF8.self)
  }
}

extension nbdmirror_tls_io {
  /// What a call is lent; the pointers are good for that call.
  fileprivate init(
    lending wire: UnsafeRawBufferPointer?, _ output: UnsafeMutableRawBufferPointer
  ) {
    unsafe self.init(
      wire: wire?.baseAddress, wire_count: wire?.count ?? 0, output: output.baseAddress,
      output_count: output.count, wire_taken: 0, output_made: 0)
  }
}

extension TLSProgress {
  /// What a call took from the wire and made for it.
  fileprivate mutating func note(_ io: nbdmirror_tls_io) {
    wireTaken = unsafe io.wire_taken
    wireMade = unsafe io.output_made
  }
}
