// Performing the engine's effects: I/O on simulated legs, merges, answers.
//
// When a write's bytes are taken from its buffer, and when a read's bytes are taken from the leg,
// is drawn: at the start or at the end, as the hardware likes. A write changes the leg at its end.

import Base
import Faults
import MirrorEngine
import MirrorFormat

extension World {
  func drain() {
    while violation == nil, let effect = engine.popEffect() { perform(effect) }
  }

  private func perform(_ effect: Effect) {
    switch effect {
    case .io(let io): issue(io)
    case .merge(let owner, let requestOffset, let scratchOffset, let count):
      guard let slot = slot(of: owner), mutation != .dropMerges else { return }
      let buffer = buffers[requests[slot].buffer]
      let first = Int(requestOffset)
      guard first + count <= buffer.count else {
        fail("a merge beyond the request's buffer")
        return
      }
      toScratch(Array(buffer[first..<first + count]), at: scratchOffset)
    case .mergeZeros(_, let scratchOffset, let count):
      guard mutation != .dropMerges else { return }
      toScratch(Array(repeating: 0, count: count), at: scratchOffset)
    case .deliver(let token, let owner, let requestOffset, let scratchOffset, let count):
      guard let slot = slot(of: owner) else { return }
      let first = Int(requestOffset)
      guard first + count <= buffers[requests[slot].buffer].count else {
        fail("a delivery beyond the request's buffer")
        return
      }
      buffers[requests[slot].buffer].replaceSubrange(
        first..<first + count, with: fromScratch(at: scratchOffset, count: count))
      engine.completed(token, error: 0, now: now)
    case .fillZeros(let owner, let requestOffset, let count):
      store([UInt8](repeating: 0, count: Int(count)), of: owner, at: Int(requestOffset))
    case .replaceBuffer(let token): replaceBuffer(token)
    case .reply(let token, let error):
      if mutation == .loseReply, random.chance(1, in: 100) { return }
      replied(token, error: error)
      if mutation == .replyTwice, random.chance(1, in: 100) { replied(token, error: error) }
    case .release(let token):
      if mutation == .loseReply, slot(of: token).map({ !requests[$0].isAnswered }) ?? true {
        return
      }
      released(token)
    case .event(let event):
      note(.event, "", leg: event.leg?.index ?? -1, name: event.detail, value: Int64(kind(event)))
    case .legIdle(let leg): note(.idle, "", leg: leg.index)
    }
  }

  private func kind(_ event: MirrorEvent) -> Int {
    switch event.kind {
    case .legFailed: 1
    case .legRemoved: 2
    case .legOnline: 3
    case .resyncStarted: 4
    case .resyncDone: 5
    case .recoveryDone: 6
    case .generationRecorded: 7
    case .readRedirected: 8
    case .readFailed: 9
    case .flushLatched: 10
    case .copyFailed: 11
    case .spareDropped: 12
    case .replaceStarted: 13
    case .legReplaced: 14
    case .replaceEnded: 15
    case .readRepaired: 16
    case .scrubMismatch: 17
    case .scrubReadFailed: 18
    case .scrubDone: 19
    }
  }

  // MARK: Scratch memory

  private func toScratch(_ bytes: [UInt8], at offset: Int) {
    engine.scratch.withBytes(at: offset, count: bytes.count) { span in
      span.store(bytes, at: 0)
    }
  }

  private func fromScratch(at offset: Int, count: Int) -> [UInt8] {
    var copy: [UInt8] = []
    engine.scratch.withBytes(at: offset, count: count) { span in
      copy = span.bytes.copied(0..<count)
    }
    return copy
  }

  // MARK: Issuing

  private func issue(_ io: LegIO) {
    counts.legIO += 1
    let slot = io.leg.index
    note(
      .issue, World.name(io), leg: slot, name: io.token.raw,
      range: ByteRange(offset: io.offset, count: io.count), value: Int64(bitPattern: io.owner.raw))
    guard let leg = legs[slot] else {
      fail("I/O on leg \(slot), which is not there")
      return
    }
    guard let place = io.kind == .flush ? 0 : leg.place(offset: io.offset, count: io.count) else {
      fail("I/O on leg \(slot) outside labels, map and data: \(io.offset)+\(io.count)")
      return
    }
    let block = UInt64(layout.blockBytes)
    if (io.offset | io.count) & (block - 1) != 0 {
      fail("I/O on leg \(slot) is not aligned: \(io.offset)+\(io.count)")
    }
    checkProtection(io)
    var item = PendingIO(
      io: io, due: now, order: ioOrder, error: 0, place: place, buffer: -1, bytes: nil,
      mark: leg.sequence)
    ioOrder += 1
    if case .request(let token, _) = io.buffer, let request = self.slot(of: token) {
      item.buffer = requests[request].buffer
    }
    mutate(&item, leg)
    if random.chance(1, in: 2) {
      if io.kind == .write { item.bytes = sourceBytes(item) }
      if io.kind == .read, item.bytes == nil {
        item.bytes = leg.bytes(at: item.place, count: Int(io.count))
      }
    }
    schedule(item)
  }

  static func name(_ io: LegIO) -> StaticString {
    switch io.kind {
    case .read: "read"
    case .write: io.isDurable ? "durable write" : "write"
    case .flush: "flush"
    case .zero: "zero"
    case .discard: "discard"
    }
  }

  /// Bytes of the exported device that an I/O touches; nil: metadata, or none.
  private func deviceRange(_ io: LegIO) -> ByteRange? {
    guard io.kind != .flush, io.offset >= layout.dataOffset else { return nil }
    return ByteRange(offset: io.offset - layout.dataOffset, count: io.count)
  }

  private func schedule(_ io: PendingIO) {
    var item = io
    let operation: FaultOperation =
      switch item.io.kind {
      case .read: .read
      case .write: .write
      case .flush: .flush
      case .zero, .discard: .zero
      }
    var delay = 20 * Nanoseconds.microsecond + random.below(400 * Nanoseconds.microsecond)
    if random.chance(1, in: 40) { delay += random.below(40 * Nanoseconds.millisecond) }
    let isMetadata = item.io.kind != .flush && item.io.offset < layout.dataOffset
    let decision = faults.decide(
      FaultIO(
        operation, leg: item.io.leg,
        range: deviceRange(item.io) ?? ByteRange(offset: 0, count: 0), isMetadata: isMetadata),
      now: now)
    delay += decision.delayNanoseconds
    switch decision.effect {
    case .none: break
    case .error(let errno): item.error = errno
    case .hang:
      note(.hang, World.name(item.io), leg: item.io.leg.index, name: item.io.token.raw)
      held.append(item)
      return
    case .corrupt, .torn, .drop, .misdirect, .stale:
      preconditionFailure("this simulator adds no faults that lie")
    }
    item.due = now.advanced(byNanoseconds: delay)
    pending.push(item)
  }

  /// Hung I/O of a leg goes on.
  func releaseHeld(on slot: LegSlot) {
    let released = held.filter { $0.io.leg == slot }
    held.removeAll { $0.io.leg == slot }
    for var item in released {
      if !scenario.mustSucceed, random.chance(1, in: 3) { item.error = 5 }
      item.due = now.advanced(byNanoseconds: random.below(5 * Nanoseconds.millisecond))
      pending.push(item)
    }
  }

  func sourceBytes(_ item: PendingIO) -> [UInt8] {
    let count = Int(item.io.count)
    switch item.io.buffer {
    case .scratch(let offset): return fromScratch(at: offset, count: count)
    case .request(_, let offset):
      let first = Int(offset)
      guard item.buffer >= 0, first + count <= buffers[item.buffer].count else {
        fail("an I/O of leg \(item.io.leg) outside its buffer")
        return Array(repeating: Pattern.garbage, count: count)
      }
      return Array(buffers[item.buffer][first..<first + count])
    case .none: return Array(repeating: 0, count: count)
    }
  }

  // MARK: Completing

  func complete(_ item: PendingIO) {
    let io = item.io
    note(
      .complete, World.name(io), leg: io.leg.index, name: io.token.raw, value: Int64(item.error))
    if let leg = legs[io.leg.index] { apply(item, leg) }
    engine.completed(io.token, error: item.error, now: now)
  }

  private func apply(_ item: PendingIO, _ leg: SimulatedLeg) {
    let io = item.io
    switch io.kind {
    case .read:
      guard item.error == 0 else { return }
      store(item.bytes ?? leg.bytes(at: item.place, count: Int(io.count)), of: item)
    case .write, .zero, .discard:
      guard !item.isDropped else { return }
      let bytes = item.bytes ?? sourceBytes(item)
      if item.error != 0 {
        leg.writeTorn(bytes, at: item.place, &random)
        return
      }
      leg.write(
        bytes, at: item.place, isDurable: io.isDurable && mutation != .ignoreDurable)
      if let range = deviceRange(io) { faults.wrote(range, on: io.leg) }
    case .flush:
      if item.isDropped { return }
      if item.error == 0 {
        leg.flushed(mark: item.mark)
      } else {
        leg.flushFailed(mark: item.mark, &random)
      }
    }
  }

  /// Bytes that come from no leg into a request's buffer.
  private func store(_ bytes: [UInt8], of owner: RequestToken, at first: Int) {
    guard let slot = slot(of: owner) else { return }
    let buffer = requests[slot].buffer
    guard buffer >= 0, first + bytes.count <= buffers[buffer].count else {
      fail("zeros beyond the request's buffer")
      return
    }
    buffers[buffer].replaceSubrange(first..<first + bytes.count, with: bytes)
  }

  private func store(_ bytes: [UInt8], of item: PendingIO) {
    switch item.io.buffer {
    case .scratch(let offset): toScratch(bytes, at: offset)
    case .request(_, let offset):
      let first = Int(offset)
      guard item.buffer >= 0, first + bytes.count <= buffers[item.buffer].count else {
        fail("a read of leg \(item.io.leg) outside its buffer")
        return
      }
      buffers[item.buffer].replaceSubrange(first..<first + bytes.count, with: bytes)
    case .none: fail("a read without memory")
    }
  }

  // MARK: Broken on purpose

  private func mutate(_ item: inout PendingIO, _ leg: SimulatedLeg) {
    guard let mutation else { return }
    let io = item.io
    let isData = io.kind != .flush && io.offset >= layout.dataOffset
    let isMap = !isData && io.kind == .write && io.offset >= layout.mapOffset
    switch mutation {
    case .dropLogPages: item.isDropped = isMap
    case .dropLabels: item.isDropped = io.kind == .write && !isData && !isMap
    case .skipFlush: item.isDropped = io.kind == .flush
    case .dropWrites:
      item.isDropped = isData && io.kind == .write && io.leg.index == 1 && random.chance(1, in: 2)
    case .readAnyLeg:
      guard isData, io.kind == .read else { return }
      for other in legs where other !== leg {
        if let other { item.bytes = other.bytes(at: item.place, count: Int(io.count)) }
      }
    case .ackBeforeWrite, .ignoreDurable, .dropMerges, .forgetIntent, .forgetStale, .replyTwice,
      .loseReply:
      break
    }
  }
}
