// The clients' side of the world: submitting requests, taking answers, buffers.

import Base
import MirrorEngine

extension World {
  /// When a connection thinks of its next request.
  mutating func schedule(_ connection: Int, after delay: UInt64) {
    push(.submit, UInt64(connection), to: connection % reactors.count, after: delay)
  }

  /// A connection sends its next request if it has room for it; else when it has.
  mutating func submitNext(connection: Int, isExtra: Bool) {
    guard !isCalm, submitted < scenario.operations else { return }
    guard inside[connection] < scenario.depth, freeRequests.count > 1 else {
      if !isExtra { isBlocked[connection] = true }
      return
    }
    submitted += 1
    if !isExtra { scheduleNext(connection) }
    let (request, cells) = client.next(&random)
    submit(request, cells: cells, connection: connection)
  }

  private mutating func scheduleNext(_ connection: Int) {
    var think = random.below(scenario.ioNanoseconds)
    if random.chance(1, in: 64) { think += random.below(20 * Nanoseconds.millisecond) }
    if scenario.has(.pauses), random.chance(1, in: 128) {
      think += random.below(16) * Nanoseconds.second
    }
    schedule(connection, after: think)
  }

  mutating func submit(_ asked: MirrorRequest, cells: Range<Int>, connection: Int) {
    guard let slot = freeRequests.popLast() else { return }
    let grain = scenario.grain
    var request = asked
    requests[slot].generation += 1
    request.token = RequestToken(
      raw: UInt64(connection % reactors.count + 1) << 56 | UInt64(slot) << 32
        | UInt64(requests[slot].generation))
    requests[slot].isInUse = true
    requests[slot].isAnswered = false
    requests[slot].isTainted = false
    requests[slot].isSending = false
    requests[slot].isReleased = false
    requests[slot].connection = connection
    requests[slot].request = request
    requests[slot].cells = cells
    requests[slot].buffer = -1
    requests[slot].write = 0
    openRequests += 1
    inside[connection] += 1
    switch request.kind {
    case .read:
      requests[slot].start = oracle.beginRead()
      requests[slot].buffer = buffers.take(Int(request.range.count), grain: grain)
    case .write:
      let write = oracle.beginWrite(cells: cells, isZero: false)
      requests[slot].write = write
      let buffer = buffers.take(Int(request.range.count), grain: grain)
      Pattern.fill(buffers.memories[buffer], id: write, cells: cells, grain: grain)
      requests[slot].buffer = buffer
    case .zero, .trim:
      requests[slot].write = oracle.beginWrite(cells: cells, isZero: true)
    case .flush: requests[slot].start = oracle.beginFlush()
    }
    note(
      .submit, World.name(request.kind), name: request.token.raw, range: request.range,
      value: Int64(requests[slot].write))
    engine.submit(request, now: now)
  }

  private static func name(_ kind: MirrorRequest.Kind) -> StaticString {
    switch kind {
    case .read: "read"
    case .write: "write"
    case .zero: "zero"
    case .trim: "trim"
    case .flush: "flush"
    }
  }

  /// The slot of a request that the engine speaks of; nil (and a violation) if there is none.
  mutating func slot(of token: RequestToken) -> Int? {
    let slot = Int(token.raw >> 32 & 0xff_ffff)
    guard slot < requests.count, requests[slot].isInUse, requests[slot].request.token == token
    else {
      fail("the engine speaks of request \(String(token.raw, radix: 16)), which is not there")
      return nil
    }
    return slot
  }

  // MARK: Answers

  mutating func replied(_ token: RequestToken, error: Int32) {
    guard let slot = slot(of: token) else { return }
    note(.reply, "", name: token.raw, value: Int64(error))
    guard !requests[slot].isAnswered else {
      fail("request \(String(token.raw, radix: 16)) is answered twice")
      return
    }
    requests[slot].isAnswered = true
    openRequests -= 1
    answered(requests[slot].connection)
    counts.operations += 1
    if error != 0 { counts.errors += 1 }
    guard error == 0 || error == 5 || error == 28 || error == 108 else {
      fail("errno \(error) is not one of the protocol's")
      return
    }
    if error != 0, scenario.mustSucceed || isCalm && !isStopping {
      fail("a request failed with errno \(error) although no leg fails anything")
    }
    judge(slot, error: error)
  }

  /// Tells the oracle how a request ended.
  private mutating func judge(_ slot: Int, error: Int32) {
    switch requests[slot].request.kind {
    case .read:
      guard error == 0, !requests[slot].isTainted || isHealed else {
        oracle.endRead(start: requests[slot].start)
        return
      }
      let wrong = oracle.readReturned(
        buffers.memories[requests[slot].buffer], cells: requests[slot].cells,
        start: requests[slot].start)
      if let wrong { fail("read \(requests[slot].request.range): \(wrong)") }
      if random.chance(1, in: 4) { beginSending(slot) }
    case .write, .zero, .trim:
      if error == 0 {
        oracle.writeAcked(requests[slot].write, isDurable: requests[slot].request.isFUA)
      } else {
        oracle.writeFailed(requests[slot].write)
      }
    case .flush:
      guard error == 0 else { return }
      oracle.flushAcked(start: requests[slot].start)
      planCrash(1, in: scenario.crashOdds)
    }
  }

  /// The socket takes its time: until it has the data they must stay what they are.
  private mutating func beginSending(_ slot: Int) {
    requests[slot].isSending = true
    requests[slot].answer = checksum(slot)
    push(
      .sent, UInt64(slot), to: requests[slot].connection % reactors.count,
      after: random.below(2 * scenario.ioNanoseconds))
  }

  private func checksum(_ slot: Int) -> UInt64 {
    let buffer = requests[slot].buffer
    return buffers.memories[buffer].checksum(
      count: Int(requests[slot].request.range.count), step: scenario.grain)
  }

  mutating func sent(_ slot: Int) {
    requests[slot].isSending = false
    if checksum(slot) != requests[slot].answer {
      fail("the data of read \(requests[slot].request.range) change after the answer")
    }
    if requests[slot].isReleased { finish(slot) }
  }

  private mutating func answered(_ connection: Int) {
    inside[connection] -= 1
    if isBlocked[connection], freeRequests.count > 1 { unblock(connection) }
  }

  private mutating func unblock(_ connection: Int) {
    isBlocked[connection] = false
    schedule(connection, after: random.below(scenario.ioNanoseconds))
  }

  mutating func released(_ token: RequestToken) {
    guard let slot = slot(of: token) else { return }
    note(.release, "", name: token.raw)
    guard requests[slot].isAnswered else {
      fail("request \(String(token.raw, radix: 16)) is released before its answer")
      return
    }
    requests[slot].isReleased = true
    if !requests[slot].isSending { finish(slot) }
  }

  /// Nobody needs the request any more.
  private mutating func finish(_ slot: Int) {
    if requests[slot].buffer >= 0 { giveBuffer(requests[slot].buffer) }
    if !requests[slot].oldBuffers.isEmpty {
      for buffer in requests[slot].oldBuffers { giveBuffer(buffer) }
      requests[slot].oldBuffers.removeAll()
    }
    requests[slot].isInUse = false
    freeRequests.append(slot)
    for connection in isBlocked.indices
    where isBlocked[connection] && inside[connection] < scenario.depth {
      unblock(connection)
    }
  }

  private mutating func giveBuffer(_ buffer: Int) {
    if buffers.isUsed(buffer) { fail("a buffer is released while a leg still uses it") }
    buffers.give(buffer, grain: scenario.grain)
  }

  mutating func replaceBuffer(_ token: RequestToken) {
    guard let slot = slot(of: token) else { return }
    note(.replace, "", name: token.raw)
    requests[slot].oldBuffers.append(requests[slot].buffer)
    requests[slot].buffer = buffers.take(
      Int(requests[slot].request.range.count), grain: scenario.grain)
  }

  /// The server is gone, and with it every connection; clients connect again.
  mutating func forgetRequests() {
    for slot in requests.indices {
      requests[slot].isInUse = false
      requests[slot].oldBuffers.removeAll()
    }
    freeRequests = (0..<World.requestsMax).reversed().map { $0 }
    openRequests = 0
    buffers.reset()
    ios.removeAll(keepingCapacity: true)
    freeIO = -1
    iosInFlight = 0
    for reactor in reactors.indices {
      reactors[reactor].queue.removeAll()
      reactors[reactor].mail.removeAll(keepingCapacity: true)
      reactors[reactor].mailHead = 0
      reactors[reactor].isWoken = false
    }
    for connection in inside.indices {
      inside[connection] = 0
      isBlocked[connection] = false
      schedule(connection, after: random.below(Nanoseconds.millisecond))
    }
  }
}
