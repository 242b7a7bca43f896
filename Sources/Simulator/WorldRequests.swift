// The clients' side of the world: submitting requests, taking answers, buffers.

import Base
import MirrorEngine

extension World {
  /// A connection has room for another request.
  func canSubmit(_ connection: Int) -> Bool {
    var inside = 0
    var free = false
    for request in requests {
      if !request.isInUse {
        free = true
      } else if request.connection == connection, !request.isAnswered {
        inside += 1
      }
    }
    return free && inside < scenario.depth && submitted < scenario.operations
  }

  var openRequests: Int { requests.filter { $0.isInUse && !$0.isAnswered }.count }

  func submit(connection: Int) {
    submitted += 1
    var think = random.below(300) * Nanoseconds.microsecond
    if random.chance(1, in: 50) { think = random.below(20) * Nanoseconds.millisecond }
    submitAt[connection] = now.advanced(byNanoseconds: think)
    if scenario.hasPauses, random.chance(1, in: 60) {
      let pause = random.below(16) * Nanoseconds.second
      for index in submitAt.indices {
        submitAt[index] = max(submitAt[index], now.advanced(byNanoseconds: pause))
      }
    }
    let (request, cells) = client.next(&random)
    submit(request, cells: cells, connection: connection)
  }

  func submit(_ asked: MirrorRequest, cells: Range<Int>, connection: Int) {
    guard let slot = requests.firstIndex(where: { !$0.isInUse }) else { return }
    var request = asked
    requests[slot].generation += 1
    request.token = RequestToken(
      raw: UInt64(requests[slot].generation) << 16 | UInt64(slot + 1))
    requests[slot].isInUse = true
    requests[slot].isAnswered = false
    requests[slot].isAckedEarly = false
    requests[slot].connection = connection
    requests[slot].request = request
    requests[slot].cells = cells
    requests[slot].oldBuffers = []
    requests[slot].buffer = -1
    requests[slot].write = 0
    switch request.kind {
    case .read:
      requests[slot].start = oracle.beginRead()
      requests[slot].buffer = takeBuffer(Int(request.range.count))
    case .write:
      let write = oracle.beginWrite(cells: cells, isZero: false)
      requests[slot].write = write
      let buffer = takeBuffer(Int(request.range.count))
      Pattern.fill(
        &buffers[buffer], id: write, firstCell: cells.lowerBound, grain: scenario.grain)
      requests[slot].buffer = buffer
    case .zero, .trim:
      requests[slot].write = oracle.beginWrite(cells: cells, isZero: true)
    case .flush: requests[slot].start = oracle.beginFlush()
    }
    note(
      .submit, name(request.kind), name: request.token.raw, range: request.range,
      value: Int64(requests[slot].write))
    if mutation == .ackBeforeWrite, request.kind == .write {
      requests[slot].isAckedEarly = true
      oracle.writeAcked(requests[slot].write, isDurable: request.isFUA)
    }
    engine.submit(request, now: now)
  }

  private func name(_ kind: MirrorRequest.Kind) -> StaticString {
    switch kind {
    case .read: "read"
    case .write: "write"
    case .zero: "zero"
    case .trim: "trim"
    case .flush: "flush"
    }
  }

  // MARK: Buffers

  func takeBuffer(_ count: Int) -> Int {
    let bytes = [UInt8](repeating: Pattern.garbage, count: count)
    guard let index = freeBuffers.popLast() else {
      buffers.append(bytes)
      return buffers.count - 1
    }
    buffers[index] = bytes
    return index
  }

  func giveBuffer(_ index: Int) {
    // Whoever still uses it shall notice.
    buffers[index] = []
    freeBuffers.append(index)
  }

  /// The slot of a request that the engine speaks of; nil (and a violation) if there is none.
  func slot(of token: RequestToken) -> Int? {
    let slot = Int(token.raw & 0xffff) - 1
    guard slot >= 0, slot < requests.count, requests[slot].isInUse,
      requests[slot].request.token == token
    else {
      fail("the engine speaks of request \(String(token.raw, radix: 16)), which is not there")
      return nil
    }
    return slot
  }

  // MARK: Answers

  func replied(_ token: RequestToken, error: Int32) {
    guard let slot = slot(of: token) else { return }
    note(.reply, "", name: token.raw, value: Int64(error))
    guard !requests[slot].isAnswered else {
      fail("request \(String(token.raw, radix: 16)) is answered twice")
      return
    }
    requests[slot].isAnswered = true
    counts.operations += 1
    if error != 0 { counts.errors += 1 }
    guard error == 0 || error == 5 || error == 28 || error == 108 else {
      fail("errno \(error) is not one of the protocol's")
      return
    }
    let request = requests[slot]
    if error != 0, scenario.mustSucceed || isCalm && !isStopping {
      fail("a request failed with errno \(error) although no leg fails anything")
    }
    switch request.request.kind {
    case .read:
      if error == 0 {
        let bytes = buffers[request.buffer]
        if let wrong = oracle.readReturned(bytes, cells: request.cells, start: request.start) {
          fail("read \(request.request.range): \(wrong)")
        }
      } else {
        oracle.endRead(start: request.start)
      }
    case .write, .zero, .trim:
      guard !request.isAckedEarly else { break }
      if error == 0 {
        oracle.writeAcked(request.write, isDurable: request.request.isFUA)
      } else {
        oracle.writeFailed(request.write)
      }
    case .flush:
      if error == 0 { oracle.flushAcked(start: request.start) }
    }
  }

  func released(_ token: RequestToken) {
    guard let slot = slot(of: token) else { return }
    note(.release, "", name: token.raw)
    guard requests[slot].isAnswered else {
      fail("request \(String(token.raw, radix: 16)) is released before its answer")
      return
    }
    let used =
      requests[slot].oldBuffers + (requests[slot].buffer < 0 ? [] : [requests[slot].buffer])
    for io in pending.items + held where io.buffer >= 0 && used.contains(io.buffer) {
      fail("a buffer is released while leg \(io.io.leg) still uses it")
    }
    for buffer in used { giveBuffer(buffer) }
    requests[slot].isInUse = false
  }

  func replaceBuffer(_ token: RequestToken) {
    guard let slot = slot(of: token) else { return }
    note(.replace, "", name: token.raw)
    requests[slot].oldBuffers.append(requests[slot].buffer)
    requests[slot].buffer = takeBuffer(Int(requests[slot].request.range.count))
  }
}
