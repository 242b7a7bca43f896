// TLS over a socket, by the session that the server uses, in its other role: what is probed here is
// what passes inside, and the end of it; the sessions themselves have tests of their own.
//
// A lock guards the session, and no wait happens under it: a test may send on one thread and receive
// on another.

import Base
import Fixtures
import Foundation
import TLS

/// A client's end of TLS on a socket.
final class TLSWire: Wire {
  let socket: SocketWire
  private let lock = NSLock()
  private var session: TLSSession
  /// What the socket brought and the session has not taken.
  private var inbox: [UInt8] = []
  /// What was encrypted and the socket did not take.
  private var pending: [UInt8] = []
  private static let pieceBytes = 1 << 16

  /// Does the handshake; the socket's next bytes are TLS.
  init(_ socket: SocketWire, _ credentials: Credentials, within seconds: Double) throws {
    self.socket = socket
    session = try TLSSession(credentials)
    while true {
      let (plaintext, output) = step()
      try socket.send(output, within: seconds)
      guard plaintext.isEmpty else { throw FixtureError("plaintext before the handshake's end") }
      switch state {
      case .open: return
      case .handshaking: break
      case .failed(let error): throw FixtureError("the TLS handshake failed: \(error)")
      case .closed, .closing: throw FixtureError("the server closed during the TLS handshake")
      }
      switch try socket.receive(upTo: Self.pieceBytes, within: seconds) {
      case .bytes(let bytes): inbox += bytes
      case .end: throw FixtureError("the server hung up during the TLS handshake")
      case .silence: throw FixtureError("the server is silent in the TLS handshake")
      }
    }
  }

  private var state: TLSState { lock.withLock { session.state } }

  /// Lets the session take what there is; plaintext, and what has to go out.
  private func step() -> (plaintext: [UInt8], output: [UInt8]) {
    lock.withLock {
      var plaintext = [UInt8](repeating: 0, count: Self.pieceBytes)
      var output = [UInt8](repeating: 0, count: Self.pieceBytes)
      let progress = Self.receive(&session, inbox, &plaintext, &output)
      inbox.removeFirst(progress.wireTaken)
      return (
        Array(plaintext.prefix(progress.plaintextMade)), Array(output.prefix(progress.wireMade))
      )
    }
  }

  private static func receive(
    _ session: inout TLSSession, _ wire: [UInt8], _ plaintext: inout [UInt8],
    _ output: inout [UInt8]
  ) -> TLSProgress {
    wire.withRawSpan { wire in
      plaintext.withMutableRawSpan { plaintext in
        output.withMutableRawSpan { output in
          session.receive(wire: wire, plaintext: &plaintext, output: &output)
        }
      }
    }
  }

  private static func send(
    _ session: inout TLSSession, _ text: [UInt8], _ output: inout [UInt8]
  ) -> TLSProgress {
    text.withRawSpan { text in
      output.withMutableRawSpan { output in session.send(plaintext: text, output: &output) }
    }
  }

  /// Encrypts some of `bytes`; how many of them, and what has to go out.
  private func encrypt(_ bytes: [UInt8], from start: Int) throws -> (count: Int, wire: [UInt8]) {
    let text = Array(bytes[start..<min(bytes.count, start + (Self.pieceBytes >> 1))])
    var output = [UInt8](repeating: 0, count: Self.pieceBytes)
    let progress = lock.withLock { Self.send(&session, text, &output) }
    guard progress.plaintextTaken > 0 else { throw WireClosed() }
    return (progress.plaintextTaken, Array(output.prefix(progress.wireMade)))
  }

  func send(_ bytes: [UInt8], within seconds: Double) throws {
    try socket.send(pending, within: seconds)
    pending = []
    var done = 0
    while done < bytes.count {
      let (count, wire) = try encrypt(bytes, from: done)
      done += count
      try socket.send(wire, within: seconds)
    }
  }

  func sendSome(_ bytes: [UInt8], from start: Int) throws -> Int {
    pending.removeFirst(try socket.sendSome(pending, from: 0))
    guard pending.isEmpty, start < bytes.count else { return 0 }
    let (count, wire) = try encrypt(bytes, from: start)
    pending = Array(wire.dropFirst(try socket.sendSome(wire, from: 0)))
    return count
  }

  func receive(upTo count: Int, within seconds: Double) throws -> Received {
    while true {
      let (plaintext, output) = step()
      if !output.isEmpty { try socket.send(output, within: seconds) }
      if !plaintext.isEmpty { return .bytes(plaintext) }
      switch state {
      case .open, .handshaking, .closing(by: .us): break
      case .closed, .closing(by: .peer): return .end
      case .failed(let error): throw FixtureError("TLS failed: \(error)")
      }
      switch try socket.receive(upTo: Self.pieceBytes, within: seconds) {
      case .bytes(let bytes): lock.withLock { inbox += bytes }
      case .end: return .end
      case .silence: return .silence
      }
    }
  }

  /// Says close_notify: TLS has a half-close of its own.
  func halfClose() {
    var output = [UInt8](repeating: 0, count: TLSSession.outputBytesMin)
    let count = lock.withLock {
      output.withMutableRawSpan { session.close(output: &$0).wireMade }
    }
    do { try socket.send(Array(output.prefix(count)), within: 5) } catch {
      // The server is gone already.
    }
  }

  func reset() { socket.reset() }

  func close() {
    halfClose()
    socket.close()
  }
}
