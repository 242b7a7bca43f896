// Receiving: one receive at a time per connection, many requests per receive.
//
// Bytes land in the connection's receive memory; small write payloads are copied from there into
// aligned buffers, the rest of a large payload is received straight into its buffer.
//
// Every `unsafe` here is an address inside a connection's receive memory or a request's buffer;
// neither is touched while a receive into it is in flight.

import Base
import Glibc
import NBDProtocol
import Ring

extension Reactor {
  /// Notes that a connection wants to receive.
  mutating func wantReceive(_ place: Int) {
    guard !connections[place].isListedToReceive else { return }
    connections[place].isListedToReceive = true
    toReceive.append(Int32(place))
  }

  /// Prepares the receives that are wanted.
  mutating func armReceives() {
    while let listed = toReceive.pop() {
      let place = Int(listed)
      connections[place].isListedToReceive = false
      armReceive(place)
    }
  }

  mutating func armReceive(_ place: Int) {
    guard connections[place].receiving == .idle, connections[place].stall == .none else { return }
    switch connections[place].phase {
    case .handshake: guard connections[place].outputMemory == 0 else { return }
    case .transmission: break
    case .lingering: return armDiscard(place)
    case .free, .draining, .closing: return
    }
    if let channel = connections[place].tls {
      armEncrypted(place, channel)
    } else if connections[place].payloadSlot >= 0 {
      armPayload(place)
    } else {
      armStream(place)
    }
  }

  /// Moves the bytes that are not yet taken to the front of the receive memory; returns how many.
  mutating func compactReceived(_ place: Int) -> Int {
    let start = connections[place].start
    let kept = connections[place].end - start
    if start > 0 {
      let base = unsafe memory.receiveBase(place)
      if kept > 0 { unsafe memmove(base, base + start, kept) }
      connections[place].start = 0
      connections[place].end = kept
    }
    return kept
  }

  private mutating func armStream(_ place: Int) {
    let base = unsafe memory.receiveBase(place)
    let kept = compactReceived(place)
    let room = Connection.receiveMemoryBytes - kept
    precondition(room > 0, "the receive memory holds any header with a small payload")
    let options: SubmissionOptions = connections[place].socketHasMore ? [] : .pollFirst
    connections[place].receiving = .stream
    unsafe ring.prepareReceive(
      connections[place].socket, into: base + kept,
      count: min(room, connections[place].receiveBytes), options: options,
      userData: CompletionKind.receive.userData(place))
  }

  /// Receives what a connection that is over still brings.
  private mutating func armDiscard(_ place: Int) {
    connections[place].receiving = .stream
    unsafe ring.prepareReceive(
      connections[place].socket, into: memory.receiveBase(place),
      count: Connection.receiveMemoryBytes, options: [],
      userData: CompletionKind.receive.userData(place))
  }

  private mutating func armPayload(_ place: Int) {
    let slot = connections[place].payloadSlot
    guard let buffer = requests[slot].buffer else {
      preconditionFailure("a payload without a buffer")
    }
    let position = requests[slot].dataOffset + connections[place].payloadDone
    let count = Int(requests[slot].count) - connections[place].payloadDone
    precondition(position + count <= buffer.bytes, "a payload outside its buffer")
    connections[place].receiving = .payload
    unsafe ring.prepareReceive(
      connections[place].socket, into: buffer.base + position, count: count,
      options: .waitAll, userData: CompletionKind.receive.userData(place))
  }

  /// A receive has ended.
  mutating func received(_ place: Int, _ completion: Completion) {
    let what = connections[place].receiving
    let wasLooking = connections[place].isLooking
    connections[place].receiving = .idle
    connections[place].isLooking = false
    connections[place].socketHasMore = completion.socketHasMore
    let phase = connections[place].phase
    if phase == .lingering {
      return completion.result > 0 ? wantReceive(place) : abort(place)
    }
    guard phase == .handshake || phase == .transmission else {
      // The server stops, or the connection was given up: nothing that comes now counts.
      dropPayload(place)
      wantSettle(place)
      return
    }
    switch completion.result {
    case 1...: took(place, what, Int(completion.result))
    case 0: endOfStream(place)
    case -EINTR, -EAGAIN: wantReceive(place)
    case -ECANCELED where wasLooking: wantReceive(place)
    default: abort(place)
    }
    if wasLooking { judgePayload(place) }
  }

  /// Looks how far a payload came that takes long while others wait: a receive in flight tells it
  /// only when it is ended.
  mutating func lookAtPayload(_ place: Int) {
    guard connections[place].receiving == .payload else { return judgePayload(place) }
    guard !connections[place].isLooking else { return }
    connections[place].isLooking = true
    ring.prepareCancel(
      CompletionKind.receive.userData(place), userData: CompletionKind.ignored.userData(0))
  }

  /// Gives the client up if too little of its payload came since the last look.
  private mutating func judgePayload(_ place: Int) {
    // It may be complete, and the next one has its own time.
    let slot = connections[place].payloadSlot
    guard connections[place].phase == .transmission, slot >= 0,
      isOver(connections[place].payloadDeadline)
    else { return }
    let came = connections[place].payloadDone - connections[place].payloadLooked
    connections[place].payloadLooked = connections[place].payloadDone
    connections[place].payloadDeadline = now.nanoseconds + configuration.stillNanoseconds
    if came < Int(requests[slot].count) / ServerConfiguration.looksPerPayload { abort(place) }
  }

  private mutating func took(_ place: Int, _ what: ReceiveState, _ count: Int) {
    switch what {
    case .idle: preconditionFailure("a receive that nobody prepared")
    case .payload:
      connections[place].payloadDone += count
      let slot = connections[place].payloadSlot
      if connections[place].payloadDone == Int(requests[slot].count) {
        connections[place].payloadSlot = -1
        submit(slot)
        parse(place)
      } else {
        wantReceive(place)
      }
    case .stream:
      if let channel = connections[place].tls {
        channel.received(count)
        if connections[place].phase == .handshake {
          continueEncryptedHandshake(place)
        } else {
          parse(place)
        }
        return
      }
      if count >= connections[place].receiveBytes {
        connections[place].receiveBytes = min(
          2 * connections[place].receiveBytes, Connection.receiveMemoryBytes)
      }
      connections[place].end += count
      if connections[place].phase == .handshake {
        continueHandshake(place)
      } else {
        parse(place)
      }
    }
  }

  /// The client sends nothing more: what is in flight is still answered. A payload that is only
  /// partly there is thrown away.
  mutating func endOfStream(_ place: Int) {
    if connections[place].phase == .handshake {
      abort(place)
    } else {
      drain(place)
    }
  }

  /// Frees the slot of a payload that will never be complete, and of a refusal that waits for the
  /// payload to be thrown away.
  mutating func dropPayload(_ place: Int) {
    if connections[place].receiving == .payload { return }
    let payload = connections[place].payloadSlot
    if payload >= 0 {
      connections[place].payloadSlot = -1
      replied(payload)
    }
    let refused = connections[place].drainSlot
    if refused >= 0 {
      connections[place].drainSlot = -1
      connections[place].drainBytes = 0
      replied(refused)
    }
  }

  // MARK: Handshake

  mutating func continueHandshake(_ place: Int) {
    guard var session = connections[place].session.take() else {
      preconditionFailure("a handshake without a session")
    }
    session.isShuttingDown = phase != .running
    let start = connections[place].start
    let count = connections[place].end - start
    let base = unsafe memory.receiveBase(place) + start
    // The bytes stay as they are during the call: no receive is in flight.
    let bytes = unsafe RawSpan(_unsafeStart: base, byteCount: count)
    let step = session.receive(bytes, output: &connections[place].output)
    switch step {
    case .needMore:
      connections[place].start = connections[place].end
      connections[place].session = session
    case .enteredTransmission(let terms, let consumed):
      connections[place].start += consumed
      connections[place].terms = terms
    case .startTLS(let consumed):
      // Whatever follows in plain text is somebody's in the middle.
      guard consumed == count else { return abort(place) }
      connections[place].start = connections[place].end
      connections[place].session = session
      connections[place].startsTLS = true
    case .close:
      connections[place].start = connections[place].end
      connections[place].closesAfterOutput = true
    }
    if connections[place].output.isEmpty {
      outputSent(place)
    } else {
      sendOutput(place)
    }
  }

  /// All output of the handshake so far is with the client.
  mutating func outputSent(_ place: Int) {
    if connections[place].closesAfterOutput {
      drain(place)
    } else if connections[place].startsTLS {
      startTLS(place)
    } else if connections[place].tls != nil, connections[place].session != nil {
      continueEncryptedHandshake(place)
    } else if connections[place].session != nil {
      wantReceive(place)
    } else {
      connections[place].phase = .transmission
      connections[place].deadline = 0
      connections[place].info.isTransmitting = true
      connections[place].info.isStructured = connections[place].terms.isStructured
      desk.post(connections[place].info, isGone: false)
      parse(place)
    }
  }
}
