// From received bytes to requests: the walk over the receive memory.
//
// Back-pressure: a connection stops here, with its bytes where they are, when it has too many
// requests or too much memory in use (`.own`: its next reply lets it go on), or when the reactor
// has no slot or no memory left (`.shared`: it waits in a queue and is resumed in that order when
// something is freed). A connection that is stalled is not received from.
//
// Nobody holds others up for long by holding on to what is shared:
//   - a large payload gets memory when its first bytes are there, not when it is announced;
//   - who waits for a large buffer waits in a queue of its own (`.huge`);
//   - a part of memory and slots is kept for those who use little; they pass those who wait;
//   - who stands still while others wait is given up (`Reactor.expire`).
//
// Every `unsafe` here is an address inside a connection's receive memory or a request's buffer.

import Base
import Glibc
import MirrorEngine
import NBDProtocol
import Ring

/// What became of the frame at the front of the receive memory.
private enum FrameOutcome {
  /// It is taken; look at the next one.
  case taken
  /// More bytes have to come first.
  case needMore
  /// It has to wait.
  case stalled(StallReason)
}

extension Reactor {
  /// Takes every request that is there.
  mutating func parse(_ place: Int) {
    connections[place].stall = .none
    while connections[place].phase == .transmission {
      if connections[place].drainBytes > 0 || connections[place].drainSlot >= 0 {
        guard throwAway(place) || refill(place) else { return wantReceive(place) }
        continue
      }
      if connections[place].payloadSlot >= 0 {
        guard refill(place) else { return wantReceive(place) }
        continue
      }
      switch takeFrame(place) {
      case .taken: continue
      case .needMore: guard refill(place) else { return wantReceive(place) }
      case .stalled(let reason): return stall(place, reason)
      }
    }
  }

  private mutating func stall(_ place: Int, _ reason: StallReason) {
    // Without a request of its own no reply would ever let it go on.
    let isAlone = connections[place].outstanding == 0 && reason == .own
    connections[place].stall = isAlone ? .shared : reason
    switch connections[place].stall {
    case .none, .own: break
    case .shared:
      guard !connections[place].isWaiting else { return }
      connections[place].isWaiting = true
      if waiting.room == 0 { waiting.compact() }
      waiting.append(Int32(place))
    case .huge:
      guard !connections[place].isWaitingHuge else { return }
      connections[place].isWaitingHuge = true
      if waitingHuge.room == 0 { waitingHuge.compact() }
      waitingHuge.append(Int32(place))
    }
  }

  /// Whether a connection waits for what is shared.
  var isAnyoneWaiting: Bool { !waiting.isEmpty || !waitingHuge.isEmpty }

  /// Lets connections go on whose own replies allow it.
  mutating func resumeParsing() {
    while let listed = toParse.pop() {
      let place = Int(listed)
      connections[place].isListedToParse = false
      if mayGoOn(place) { parse(place) }
    }
  }

  /// Whether a stalled connection's own replies let it go on, wherever it waits.
  func mayGoOn(_ place: Int) -> Bool {
    switch connections[place].stall {
    case .own: true
    case .shared: isModest(place, 0)
    case .none, .huge: false
    }
  }

  /// Lets connections that wait go on, in their order, as far as what was freed reaches.
  mutating func resumeWaiting() {
    somethingFreed = false
    while !waiting.isEmpty {
      let place = Int(waiting.first)
      guard resume(place, .shared) else { break }
      _ = waiting.pop()
      connections[place].isWaiting = false
      // One request each, then it is the next one's turn.
      if isWaitingStill(place, .shared) { stall(place, .shared) }
    }
    while !waitingHuge.isEmpty {
      let place = Int(waitingHuge.first)
      guard resume(place, .huge) else { return }
      _ = waitingHuge.pop()
      connections[place].isWaitingHuge = false
      if isWaitingStill(place, .huge) { stall(place, .huge) }
    }
  }

  /// Lets the head of a queue go on; false: nothing is there for it yet.
  private mutating func resume(_ place: Int, _ reason: StallReason) -> Bool {
    guard connections[place].stall == reason else { return true }
    resuming = Int32(place)
    parse(place)
    // Whoever took something had its turn.
    let hadTurn = resuming < 0
    resuming = -1
    return hadTurn || !isWaitingStill(place, reason)
  }

  private func isWaitingStill(_ place: Int, _ reason: StallReason) -> Bool {
    connections[place].stall == reason && connections[place].phase == .transmission
  }

  // MARK: Frames

  private mutating func takeFrame(_ place: Int) -> FrameOutcome {
    let start = connections[place].start
    let available = connections[place].end - start
    let base = unsafe memory.receiveBase(place) + start
    // The bytes stay as they are during the call: no receive is in flight.
    let bytes = unsafe RawSpan(_unsafeStart: base, byteCount: available)
    switch connections[place].terms.nextRequest(bytes) {
    case .needMore: return .needMore
    case .request(let request):
      if request.kind == .writeZeroes, request.mustBeFast,
        !legs.zeroFast(mayPunchHoles: request.mayPunchHoles)
      {
        return take(
          place,
          Answer(
            cookie: request.cookie, offset: request.offset, refusal: .notFast, isRead: false,
            headerBytes: request.headerBytes))
      }
      return begin(place, request, available: available)
    case .answer(let answer): return take(place, answer)
    case .disconnect:
      drain(place)
      return .taken
    case .drop:
      abort(place)
      return .taken
    }
  }

  /// Answers a frame that the engine never hears of.
  private mutating func take(_ place: Int, _ answer: Answer) -> FrameOutcome {
    guard let slot = takeSlot(place, isPrivileged: isModest(place, 0)) else {
      return .stalled(slotStall(place))
    }
    connections[place].start += answer.headerBytes
    encode(slot, answer)
    counters[Counter.refused] &+= 1
    if answer.drainBytes > 0 {
      connections[place].drainBytes = answer.drainBytes
      connections[place].drainSlot = slot
    } else {
      enqueueReply(slot)
    }
    return .taken
  }

  private mutating func begin(_ place: Int, _ request: Request, available: Int) -> FrameOutcome {
    let payload = request.payloadBytes
    let header = request.headerBytes
    if available < header + bytesBeforeMemory(payload) { return .needMore }
    let range = engineRange(of: request)
    var offset = 0
    var bytes = 0
    if request.kind == .read || request.kind == .write {
      offset = Int(range.offset % UInt64(BufferPool.pageBytes))
      bytes = offset + Int(range.count)
    } else if request.kind == .blockStatus {
      bytes = BlockStatusReply.bytesMax
    }
    if connections[place].chargedBytes > 0,
      connections[place].chargedBytes + bytes > quotaBytes, bytes > 0
    {
      return .stalled(.own)
    }
    let isModest = isModest(place, bytes)
    // There are few huge ones at once: they need not wait for slots.
    let isHuge = bytes > 0 && pool.isHuge(bytes: bytes)
    guard let slot = takeSlot(place, isPrivileged: isModest || isHuge) else {
      return .stalled(slotStall(place))
    }
    if bytes > 0 {
      guard !isHuge || waitingHuge.isEmpty || resuming == Int32(place),
        let buffer = pool.allocate(bytes: bytes, mayUseReserve: isModest)
      else {
        giveBackSlot(slot, place)
        return .stalled(isHuge ? .huge : .shared)
      }
      requests[slot].buffer = buffer
      requests[slot].chargedBytes = buffer.bytes
      connections[place].chargedBytes += buffer.bytes
    }
    if resuming == Int32(place), !isModest { resuming = -1 }
    fill(slot, request, range, dataOffset: offset)
    connections[place].start += header
    count(place, request)
    countRequest(slot, request.kind, bytes: request.count)
    guard payload > 0 else {
      if request.kind == .cache {
        encodeSuccess(slot)
        countReply(slot, isError: false)
        enqueueReply(slot)
      } else if request.kind == .blockStatus {
        answerStatus(slot, request)
      } else {
        submit(slot)
      }
      return .taken
    }
    takePayload(place, slot, min(payload, available - header))
    return .taken
  }

  /// The range that the engine is asked for: reads are widened to whole blocks.
  private func engineRange(of request: Request) -> ByteRange {
    guard request.kind == .read else { return request.range }
    let block = configuration.blockBytes
    let start = Bytes.alignDown(request.offset, to: block)
    let end = Bytes.alignUp(request.offset + request.count, to: block)
    return ByteRange(offset: start, count: end - start)
  }

  private mutating func fill(
    _ slot: Int, _ request: Request, _ range: ByteRange, dataOffset: Int
  ) {
    switch request.kind {
    case .read: requests[slot].kind = .read
    case .write: requests[slot].kind = .write
    case .flush, .cache, .blockStatus: requests[slot].kind = .flush
    case .trim: requests[slot].kind = .trim
    case .writeZeroes: requests[slot].kind = .zero
    }
    requests[slot].isFUA = request.isFUA
    requests[slot].mayPunchHoles = request.mayPunchHoles
    requests[slot].engineRange = range
    requests[slot].isRead = request.kind == .read
    requests[slot].cookie = request.cookie
    requests[slot].offset = request.offset
    requests[slot].count = request.count
    requests[slot].dataOffset = dataOffset
  }

  private func count(_ place: Int, _ request: Request) {
    connections[place].info.requests &+= 1
    if request.kind == .read {
      connections[place].info.readBytes &+= request.count
    } else if request.kind == .write {
      connections[place].info.writtenBytes &+= request.count
    }
  }

  /// Copies what is there of a payload; the rest is received into its place.
  private mutating func takePayload(_ place: Int, _ slot: Int, _ there: Int) {
    guard let buffer = requests[slot].buffer else {
      preconditionFailure("a payload without a buffer")
    }
    let total = Int(requests[slot].count)
    precondition(requests[slot].dataOffset + total <= buffer.bytes, "a payload fits its buffer")
    let source = unsafe memory.receiveBase(place) + connections[place].start
    unsafe memcpy(buffer.base + requests[slot].dataOffset, source, there)
    connections[place].start += there
    if there == total {
      submit(slot)
    } else {
      connections[place].payloadSlot = slot
      connections[place].payloadDone = there
      connections[place].payloadLooked = 0
      connections[place].payloadDeadline = now.nanoseconds + configuration.stillNanoseconds
    }
  }

  /// Throws refused payload away as far as it is there; true when all of it is gone and the reply
  /// is on its way.
  private mutating func throwAway(_ place: Int) -> Bool {
    let there = connections[place].end - connections[place].start
    let count = min(there, connections[place].drainBytes)
    connections[place].start += count
    connections[place].drainBytes -= count
    guard connections[place].drainBytes == 0 else { return false }
    let slot = connections[place].drainSlot
    connections[place].drainSlot = -1
    enqueueReply(slot)
    return true
  }

  // MARK: Slots

  /// Hands a request to the engine with the next batch.
  mutating func submit(_ slot: Int) {
    requests[slot].isInEngine = true
    submissions.append(Int32(slot))
  }

  private mutating func takeSlot(_ place: Int, isPrivileged: Bool) -> Int? {
    guard connections[place].outstanding < configuration.requestsPerConnection,
      submissions.room > 0,
      isPrivileged || (mayTakeShared(place) && requests.freeCount > reserveSlots),
      let slot = requests.take()
    else { return nil }
    requests[slot].connection = Int32(place)
    connections[place].outstanding += 1
    return slot
  }

  private func slotStall(_ place: Int) -> StallReason {
    connections[place].outstanding < configuration.requestsPerConnection ? .shared : .own
  }

  private mutating func giveBackSlot(_ slot: Int, _ place: Int) {
    connections[place].outstanding -= 1
    requests[slot].isReplyPending = false
    requests.free(slot)
  }

  /// Who waits goes first: nobody but the modest overtakes the head of the queue.
  private func mayTakeShared(_ place: Int) -> Bool {
    waiting.isEmpty || resuming == Int32(place)
  }

  /// Whether a connection uses little, also with a request of `bytes` more.
  private func isModest(_ place: Int, _ bytes: Int) -> Bool {
    connections[place].outstanding < Connection.modestRequests
      && connections[place].chargedBytes + bytes <= Connection.modestBytes
  }

  /// How much of a payload has to be there before the request takes anything. A small one is
  /// taken when it is complete, until then it stays where it is; a large one when it has begun.
  private func bytesBeforeMemory(_ payload: Int) -> Int {
    if payload < Connection.directPayloadBytes { return payload }
    return payload > Connection.promptPayloadBytes ? Connection.directPayloadBytes : 0
  }
}
