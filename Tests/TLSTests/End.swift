// A connection in memory: two ends, and a wire that hands bytes on in pieces of any size.
import Base
import TLS

/// How many bytes a call is lent.
struct Pieces {
  /// The longest piece of the wire, and room for plaintext and for output.
  var wireMax: Int
  var plaintextMax: Int
  var outputMax: Int
  /// Draws sizes up to these; nil: these.
  var random: PRNG?

  static let whole = Pieces(wireMax: 1 << 16, plaintextMax: 1 << 16, outputMax: 1 << 16)
  static let single = Pieces(wireMax: 1, plaintextMax: 1, outputMax: 1)

  static func random(seed: UInt64, max: Int) -> Pieces {
    Pieces(wireMax: max, plaintextMax: max, outputMax: max, random: PRNG(seed: seed))
  }

  mutating func draw(_ max: Int) -> Int {
    guard var random else { return max }
    defer { self.random = random }
    return random.int(in: 1...max)
  }
}

/// One end.
struct End: ~Copyable {
  var session: TLSSession
  /// What the wire brought and the session has not taken.
  var inbox: [UInt8] = []
  /// What the session made for the wire.
  var outbox: [UInt8] = []
  /// Plaintext to send, and how much of it the session has taken.
  var toSend: [UInt8] = []
  var sentCount = 0
  var received: [UInt8] = []
  /// The most that one call left in `outbox`.
  var pieces: Pieces

  init(_ credentials: Credentials, _ pieces: Pieces = .whole) throws {
    session = try TLSSession(credentials)
    self.pieces = pieces
  }

  /// One call of `receive`.
  @discardableResult
  mutating func receive() -> TLSProgress {
    let wire = Array(inbox.prefix(pieces.draw(pieces.wireMax)))
    var plaintext = [UInt8](repeating: 0, count: pieces.draw(pieces.plaintextMax))
    var output = [UInt8](repeating: 0, count: pieces.draw(pieces.outputMax))
    // An alert is said only in one piece.
    if session.owesAlert { output = [UInt8](repeating: 0, count: TLSSession.outputBytesMin) }
    let progress = End.receive(&session, wire, &plaintext, &output)
    inbox.removeFirst(progress.wireTaken)
    received += plaintext[..<progress.plaintextMade]
    outbox += output[..<progress.wireMade]
    return progress
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

  /// One call of `send`, with room for at least a short record.
  @discardableResult
  mutating func send() -> TLSProgress {
    let text = Array(toSend[sentCount...].prefix(1 << 16))
    let room = TLSSession.outputBytesMin + pieces.draw(pieces.outputMax)
    let progress = End.send(&session, text, room: room, into: &outbox)
    sentCount += progress.plaintextTaken
    return progress
  }

  static func send(
    _ session: inout TLSSession, _ text: [UInt8], room: Int, into outbox: inout [UInt8]
  ) -> TLSProgress {
    var output = [UInt8](repeating: 0, count: room)
    let progress = text.withRawSpan { text in
      output.withMutableRawSpan { output in session.send(plaintext: text, output: &output) }
    }
    outbox += output[..<progress.wireMade]
    return progress
  }

  /// One call of `close`.
  @discardableResult
  mutating func close(room: Int = TLSSession.outputBytesMin) -> TLSProgress {
    End.close(&session, room: room, into: &outbox)
  }

  private static func close(
    _ session: inout TLSSession, room: Int, into outbox: inout [UInt8]
  ) -> TLSProgress {
    var output = [UInt8](repeating: 0, count: room)
    let progress = output.withMutableRawSpan { output in session.close(output: &output) }
    outbox += output[..<progress.wireMade]
    return progress
  }

  /// Whether plaintext can be sent.
  var canSend: Bool { session.state == .open || session.state == .closing(by: .peer) }

  /// Receives and sends once; whether anything happened.
  fileprivate mutating func turn() -> Bool {
    let state = session.state
    let progress = receive()
    var hasMoved = progress != TLSProgress() || state != session.state
    if canSend && sentCount < toSend.count { hasMoved = send() != TLSProgress() || hasMoved }
    return hasMoved
  }
}

/// Lets bytes pass both ways until nothing moves any more; whatever is said goes through `wire`.
func exchange(
  _ client: inout End, _ server: inout End,
  wire: (_ fromClient: Bool, _ bytes: [UInt8]) -> [UInt8] = { $1 }
) {
  var hasMoved = true
  while hasMoved {
    hasMoved = client.turn()
    if !client.outbox.isEmpty {
      server.inbox += wire(true, client.outbox)
      client.outbox = []
      hasMoved = true
    }
    hasMoved = server.turn() || hasMoved
    if !server.outbox.isEmpty {
      client.inbox += wire(false, server.outbox)
      server.outbox = []
      hasMoved = true
    }
  }
}

/// Random bytes that are the same in every run.
func randomBytes(_ count: Int, seed: UInt64) -> [UInt8] {
  var random = PRNG(seed: seed)
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count + 8)
  while bytes.count < count {
    var word = random.next()
    for _ in 0..<8 {
      bytes.append(UInt8(truncatingIfNeeded: word))
      word >>= 8
    }
  }
  return Array(bytes.prefix(count))
}
