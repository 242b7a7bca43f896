// Connections that are encrypted: the same walk as every other, with a TLSChannel on both ends.
//
//   received -> refill -> parse          what was received is decrypted where it is wanted
//   gather -> startSend -> sendEncrypted what is to be sent is encrypted as far as there is room
//
// Invariants
//  1. A receive is armed only when nothing can be decrypted any more: `parse` asks `refill` first.
//  2. What the session says by itself (the handshake, key updates) and replies share one send.
//  3. A session that failed says its alert, and the connection is over; that the client has nothing
//     more to say is the end of its stream, as without TLS.
//
// Every `unsafe` here is an address inside a connection's receive memory or a request's buffer.

import Glibc
import MirrorEngine
import NBDProtocol
import Ring
import TLS

extension Reactor {
  /// How much plaintext is decrypted into the receive memory at once: a large payload behind its
  /// header goes into its buffer instead.
  private static let refillBytes = 32 << 10

  /// The client was told that it may encrypt, and waits for our side of it.
  mutating func startTLS(_ place: Int) {
    guard let credentials = configuration.credentials, let channel = TLSChannel(credentials) else {
      return abort(place)
    }
    connections[place].startsTLS = false
    connections[place].tls = channel
    connections[place].info.isEncrypted = true
    wantReceive(place)
  }

  /// Decrypts what was received, into the payload that is wanted or the receive memory; false if it
  /// gave no plaintext, or if the connection is not encrypted.
  mutating func refill(_ place: Int) -> Bool {
    guard let channel = connections[place].tls else { return false }
    let isPayload = connections[place].payloadSlot >= 0
    let made = unsafe channel.decrypt(into: isPayload ? payloadRoom(place) : streamRoom(place))
    if channel.hasOutput { sendEncrypted(place) }
    // A session that cannot send has given the connection up: what it brought is nobody's.
    guard connections[place].phase != .closing else { return false }
    if made > 0 {
      took(plaintext: made, place, isPayload: isPayload)
      return true
    }
    switch channel.state {
    case .failed(let error):
      desk.post(connections[place].info, failed: error)
      // Only its alert can still be said.
      drain(place)
    case .closing, .closed: endOfStream(place)
    case .handshaking, .open: break
    }
    return false
  }

  private func payloadRoom(_ place: Int) -> UnsafeMutableRawBufferPointer {
    let slot = connections[place].payloadSlot
    guard let buffer = requests[slot].buffer else {
      preconditionFailure("a payload without a buffer")
    }
    let position = requests[slot].dataOffset + connections[place].payloadDone
    let count = Int(requests[slot].count) - connections[place].payloadDone
    precondition(position + count <= buffer.bytes, "a payload outside its buffer")
    return unsafe UnsafeMutableRawBufferPointer(start: buffer.base + position, count: count)
  }

  private mutating func streamRoom(_ place: Int) -> UnsafeMutableRawBufferPointer {
    let kept = compactReceived(place)
    return unsafe UnsafeMutableRawBufferPointer(
      start: memory.receiveBase(place) + kept,
      count: min(Reactor.refillBytes, Connection.receiveMemoryBytes - kept))
  }

  private mutating func took(plaintext count: Int, _ place: Int, isPayload: Bool) {
    guard isPayload else {
      connections[place].end += count
      return
    }
    connections[place].payloadDone += count
    let slot = connections[place].payloadSlot
    if connections[place].payloadDone == Int(requests[slot].count) {
      connections[place].payloadSlot = -1
      submit(slot)
    }
  }

  /// Arms the receive of an encrypted connection.
  mutating func armEncrypted(_ place: Int, _ channel: TLSChannel) {
    let room = unsafe channel.receiveRoom()
    // Without room the session waits for a send: its end goes on from here.
    guard let base = room.baseAddress, room.count > 0, !channel.needsOutputRoom else {
      return
    }
    let options: SubmissionOptions = connections[place].socketHasMore ? [] : .pollFirst
    connections[place].receiving = .stream
    unsafe ring.prepareReceive(
      connections[place].socket, into: base, count: room.count, options: options,
      userData: CompletionKind.receive.userData(place))
  }

  /// Goes on with the handshake, of TLS and inside it.
  mutating func continueEncryptedHandshake(_ place: Int) {
    // What is being said has to be said first: the rest comes after it (`outputSent`).
    guard connections[place].phase == .handshake, connections[place].outputMemory == 0 else {
      return
    }
    if refill(place) {
      continueHandshake(place)
    } else {
      wantReceive(place)
    }
  }

  /// Encrypts what is to be sent as far as there is room, and sends it unless a send is in flight.
  mutating func sendEncrypted(_ place: Int) {
    guard let channel = connections[place].tls, !connections[place].isSending else { return }
    let isGood = unsafe channel.encrypt(
      memory.parts(place), &connections[place].partIndex, connections[place].partCount)
    guard isGood else {
      abort(place)
      // What was gathered will not be sent.
      return finishSent(place)
    }
    guard channel.hasOutput else { return }
    noteSending(place)
    unsafe ring.prepareSend(
      connections[place].socket, message: memory.message(place),
      parts: UnsafeMutableRawPointer(channel.nextPart()), count: 1, options: .waitAll,
      userData: CompletionKind.send.userData(place))
  }

  /// A send of an encrypted connection has ended; true if there is more of the same to be sent.
  mutating func sentEncrypted(_ place: Int, _ channel: TLSChannel, _ count: Int) -> Bool {
    channel.sent(count)
    guard channel.hasOutput || connections[place].partIndex < connections[place].partCount else {
      return false
    }
    sendEncrypted(place)
    return true
  }

  /// Everything is sent; what waited for room goes on.
  mutating func resumeAfterSend(_ place: Int) {
    guard connections[place].receiving == .idle, connections[place].stall == .none else { return }
    switch connections[place].phase {
    case .handshake: continueEncryptedHandshake(place)
    case .transmission: parse(place)
    case .free, .draining, .lingering, .closing: break
    }
  }

  /// Begins to send the last words of an encrypted connection that is done, once.
  mutating func sayGoodbye(_ place: Int) {
    guard let channel = connections[place].tls, !connections[place].saidGoodbye else { return }
    connections[place].saidGoodbye = true
    channel.sayGoodbye()
    sendEncrypted(place)
  }
}
