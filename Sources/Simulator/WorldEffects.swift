// Performing the engine's effects: mailboxes, merges, deliveries, I/O on simulated legs.
//
// When a read's bytes are taken from the leg is drawn: at the start or at the end, as the hardware
// likes. A write changes the leg at its end, with the bytes that are in its memory then: memory
// that the engine gave away too early shows.

import Base
import Faults
import MirrorEngine
import MirrorFormat

extension World {
  // MARK: Mail

  /// Takes all effects out of the engine: `reactor` performs its own, the others get mail.
  mutating func drain(by reactor: Int) {
    while let effect = engine.popEffect() {
      let target = World.reactor(of: effect) ?? reactor
      guard target < reactors.count else {
        fail("an effect for a reactor that is not there")
        return
      }
      reactors[target].mail.append(effect)
      if target != reactor, !reactors[target].isWoken {
        reactors[target].isWoken = true
        push(.mail, 0, to: target, after: random.below(50 * Nanoseconds.microsecond))
      }
    }
    guard reactors[reactor].mailHead < reactors[reactor].mail.count else { return }
    // Between its turn at the engine and this others may have theirs.
    if reactors.count > 1, random.chance(1, in: 4) {
      if !reactors[reactor].isWoken {
        reactors[reactor].isWoken = true
        push(.mail, 0, to: reactor, after: random.below(50 * Nanoseconds.microsecond))
      }
      return
    }
    while violation == nil, reactors[reactor].mailHead < reactors[reactor].mail.count {
      let effect = reactors[reactor].mail[reactors[reactor].mailHead]
      reactors[reactor].mailHead += 1
      perform(effect, reactor)
    }
    reactors[reactor].mail.removeAll(keepingCapacity: true)
    reactors[reactor].mailHead = 0
  }

  /// The reactor that has to perform an effect; nil: any.
  private static func reactor(of effect: Effect) -> Int? {
    switch effect {
    case .io(let io): reactor(of: io.owner)
    case .merge(let owner, _, _, _): reactor(of: owner)
    case .mergeZeros(let owner, _, _): reactor(of: owner)
    case .deliver(_, let owner, _, _, _): reactor(of: owner)
    case .fillZeros(let owner, _, _): reactor(of: owner)
    case .reply(let token, _): reactor(of: token)
    case .replaceBuffer(let token): reactor(of: token)
    case .release(let token): reactor(of: token)
    case .event, .legIdle: nil
    }
  }

  private static func reactor(of token: RequestToken) -> Int? {
    token.raw == 0 ? nil : Int(token.raw >> 56) - 1
  }

  private mutating func perform(_ effect: Effect, _ reactor: Int) {
    switch effect {
    case .io(let io): issue(io, reactor)
    case .merge(let owner, let requestOffset, let scratchOffset, let count):
      guard let buffer = buffer(of: owner, Int(requestOffset), count) else { return }
      buffers.memories[buffer].copy(
        at: Int(requestOffset), to: engine.scratch, at: scratchOffset, count: count)
    case .mergeZeros(_, let scratchOffset, let count):
      engine.scratch.withBytes(at: scratchOffset, count: count) { span in
        for offset in 0..<count { span.store(0 as UInt8, at: offset) }
      }
    case .deliver(let token, let owner, let requestOffset, let scratchOffset, let count):
      guard let buffer = buffer(of: owner, Int(requestOffset), count) else { return }
      buffers.memories[buffer].copy(
        from: engine.scratch, at: scratchOffset, to: Int(requestOffset), count: count)
      push(.delivered, token.raw, to: reactor, after: 0)
    case .fillZeros(let owner, let requestOffset, let count):
      guard let buffer = buffer(of: owner, Int(requestOffset), Int(count)) else { return }
      buffers.memories[buffer].fill(0, at: Int(requestOffset), count: Int(count))
    case .replaceBuffer(let token): replaceBuffer(token)
    case .reply(let token, let error): replied(token, error: error)
    case .release(let token): released(token)
    case .event(let event): told(event)
    case .legIdle(let leg):
      note(.idle, "", leg: leg.index)
      if !attached.contains(leg) { fail("leg \(leg) is called idle twice") }
      attached.remove(leg)
      if soonBack.contains(leg) {
        soonBack.remove(leg)
        bringBack(leg)
      }
      if ios.contains(where: { $0.isInUse && $0.io.leg == leg }) {
        fail("leg \(leg) is called idle while I/O of it is in flight")
      }
    }
  }

  /// The buffer of a request, if it has `count` bytes from `offset` on; else a violation.
  private mutating func buffer(of owner: RequestToken, _ offset: Int, _ count: Int) -> Int? {
    guard let slot = slot(of: owner) else { return nil }
    let buffer = requests[slot].buffer
    guard buffer >= 0, offset + count <= buffers.size(buffer) else {
      fail("the engine goes beyond the buffer of request \(String(owner.raw, radix: 16))")
      return nil
    }
    return buffer
  }

  private mutating func told(_ event: MirrorEvent) {
    note(
      .event, event.kind.word, leg: event.leg?.index ?? -1, name: event.detail)
    switch event.kind {
    case .resyncDone, .recoveryDone: counts.resyncs += 1
    case .readRepaired: counts.repairs += 1
    case .scrubDone: counts.scrubs += 1
    case .scrubMismatch:
      // Nothing makes legs differ for long but a leg that lies, and what a failed flush took.
      if liar == nil, !hasLostData {
        fail("a scrub found legs that differ at byte \(event.detail)")
      }
    default: break
    }
  }

  // MARK: Issuing

  private mutating func takeIO(_ io: SimulatedIO) -> Int {
    iosInFlight += 1
    guard freeIO >= 0 else {
      ios.append(io)
      return ios.count - 1
    }
    let index = Int(freeIO)
    freeIO = ios[index].nextFree
    ios[index] = io
    return index
  }

  private mutating func giveIO(_ index: Int) {
    iosInFlight -= 1
    if ios[index].buffer >= 0 { buffers.unuse(ios[index].buffer) }
    ios[index].isInUse = false
    ios[index].nextFree = freeIO
    freeIO = Int32(index)
  }

  private mutating func issue(_ io: LegIO, _ reactor: Int) {
    counts.legIO += 1
    let slot = io.leg.index
    note(
      .issue, World.name(io), leg: slot, name: io.token.raw,
      range: ByteRange(offset: io.offset, count: io.count), value: Int64(bitPattern: io.owner.raw))
    guard let leg = legs[slot], attached.contains(io.leg) else {
      fail("I/O on leg \(slot), which is not there")
      return
    }
    let place = io.kind == .flush ? 0 : leg.place(offset: io.offset, count: io.count)
    guard place >= 0 else {
      fail("I/O on leg \(slot) outside labels, map and data: \(io.offset)+\(io.count)")
      return
    }
    let block = UInt64(layout.blockBytes)
    if (io.offset | io.count) & (block - 1) != 0 {
      fail("I/O on leg \(slot) is not aligned: \(io.offset)+\(io.count)")
    }
    checkProtection(io)
    checkMetadata(io, leg)
    if io.offset < layout.dataOffset, io.kind == .write { planCrash(1, in: scenario.crashOdds) }
    var item = SimulatedIO(io: io, reactor: reactor, place: place, buffer: -1, mark: leg.sequence)
    if case .request(let token, let offset) = io.buffer {
      guard let buffer = buffer(of: token, Int(offset), Int(io.count)) else { return }
      item.buffer = buffer
      buffers.use(buffer)
    }
    schedule(takeIO(item))
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

  /// An I/O as faults see it.
  private func faultIO(_ io: LegIO) -> FaultIO {
    let operation: FaultOperation =
      switch io.kind {
      case .read: .read
      case .write: .write
      case .flush: .flush
      case .zero, .discard: .zero
      }
    if operation == .flush { return .flush(leg: io.leg) }
    let isMetadata = io.offset < layout.dataOffset
    let first = isMetadata ? io.offset : io.offset - layout.dataOffset
    return FaultIO(
      operation, leg: io.leg, range: ByteRange(offset: first, count: io.count),
      isMetadata: isMetadata)
  }

  private mutating func schedule(_ index: Int) {
    let io = ios[index].io
    var delay = 20 * Nanoseconds.microsecond + random.below(scenario.ioNanoseconds)
    if random.chance(1, in: 64) { delay += random.below(40 * Nanoseconds.millisecond) }
    if !faults.isEmpty {
      let decision = faults.decide(faultIO(io), now: now)
      if decision.delayNanoseconds > 0 { counts.hit(.delay) }
      delay += decision.delayNanoseconds
      switch decision.effect {
      case .none: break
      case .error(let errno):
        ios[index].error = errno
        countError(errno)
      case .hang:
        counts.hit(.hang)
        note(.hang, World.name(io), leg: io.leg.index, name: io.token.raw)
        ios[index].isHeld = true
        return
      case .torn(_, let errno):
        ios[index].effect = decision.effect
        ios[index].error = errno
        counts.hit(.torn)
      case .corrupt, .drop, .misdirect, .stale:
        ios[index].effect = decision.effect
        countLie(decision.effect)
      }
    }
    if io.kind == .read, ios[index].effect == .none, ios[index].error == 0, random.chance(1, in: 2),
      let leg = legs[io.leg.index]
    {
      ios[index].isTaken = true
      take(ios[index], leg)
    }
    push(.io, UInt64(index), to: ios[index].reactor, after: delay)
  }

  private mutating func countError(_ error: Int32) {
    switch error {
    case FaultErrno.noSpace: counts.hit(.noSpace)
    case FaultErrno.noDevice: counts.hit(.offline)
    default: counts.hit(.error)
    }
  }

  private mutating func countLie(_ effect: FaultEffect) {
    switch effect {
    case .corrupt: counts.hit(.corrupt)
    case .drop: counts.hit(.drop)
    case .misdirect: counts.hit(.misdirect)
    case .stale: counts.hit(.staleRead)
    case .none, .error, .hang, .torn: break
    }
  }

  /// Hung I/O of a leg goes on.
  mutating func releaseHeld(on slot: LegSlot) {
    for index in ios.indices where ios[index].isInUse && ios[index].isHeld {
      guard ios[index].io.leg == slot else { continue }
      ios[index].isHeld = false
      ios[index].isLate = !engine.onlineLegs.contains(slot)
      if !scenario.mustSucceed, random.chance(1, in: 3) { ios[index].error = 5 }
      push(
        .io, UInt64(index), to: ios[index].reactor,
        after: random.below(3 * scenario.ioNanoseconds))
    }
  }

  /// The kernel often gives back what hung soon after its leg was given up.
  mutating func releaseGivenUp(_ gone: LegSet) {
    var rest = gone
    while let slot = rest.popFirst() {
      if random.chance(1, in: 2) { releaseHeld(on: slot) }
    }
  }

  // MARK: Completing

  /// The bytes that a write takes to its leg.
  func source(_ item: SimulatedIO) -> ByteSource {
    switch item.io.buffer {
    case .scratch(let offset): .scratch(engine.scratch, at: offset)
    case .request(_, let offset): .memory(buffers.memories[item.buffer], at: Int(offset))
    case .none: .zeros
    }
  }

  /// The leg's bytes go into the memory of a read.
  private mutating func take(_ item: SimulatedIO, _ leg: SimulatedLeg) {
    let count = Int(item.io.count)
    var place = item.place
    var isOld = false
    switch item.effect {
    case .misdirect(let offset):
      place = leg.place(offset: layout.dataOffset + offset, count: item.io.count)
    case .stale: isOld = true
    case .none, .error, .hang, .corrupt, .torn, .drop: break
    }
    let isOfLiar = item.io.leg == liar
    switch item.io.buffer {
    case .scratch(let offset):
      leg.read(at: place, into: engine.scratch, at: offset, count: count, isOld: isOld)
      if isOfLiar { taint(item.io.owner) }
      if case .corrupt(let flips) = item.effect {
        for index in 0..<flips.count {
          let (byte, mask) = flips.bit(index)
          engine.scratch.withBytes(at: offset + Int(byte), count: 1) { span in
            span.store(span.bytes.uint8(at: 0) ^ mask, at: 0)
          }
        }
      }
    case .request(let token, let offset):
      if item.isLate {
        // Whatever a leg that was given up still moves: nobody may see it.
        buffers.memories[item.buffer].fill(Pattern.garbage, at: Int(offset), count: count)
        return
      }
      leg.read(
        at: place, into: buffers.memories[item.buffer], at: Int(offset), count: count,
        isOld: isOld)
      if isOfLiar { taint(token) }
      if case .corrupt(let flips) = item.effect {
        for index in 0..<flips.count {
          let (byte, mask) = flips.bit(index)
          buffers.memories[item.buffer].flip(mask, at: Int(offset + byte))
        }
      }
    case .none: fail("a read without memory")
    }
  }

  /// The leg that lies may have answered a part of this request, if it is still there.
  private mutating func taint(_ token: RequestToken) {
    let slot = Int(token.raw >> 32 & 0xff_ffff)
    if slot < requests.count, requests[slot].request.token == token {
      requests[slot].isTainted = true
    }
  }

  mutating func complete(_ index: Int) {
    let item = ios[index]
    let io = item.io
    note(
      .complete, World.name(io), leg: io.leg.index, name: io.token.raw, value: Int64(item.error))
    if let leg = legs[io.leg.index] { apply(item, leg) }
    if item.error == 0 { learnCopy(io) }
    giveIO(index)
    engine.completed(io.token, error: item.error, now: now)
  }

  private mutating func apply(_ item: SimulatedIO, _ leg: SimulatedLeg) {
    let io = item.io
    switch io.kind {
    case .read: if item.error == 0, !item.isTaken { take(item, leg) }
    case .write, .zero, .discard: applyWrite(item, leg)
    case .flush:
      if item.effect == .drop { return }
      if item.error == 0 {
        leg.flushed(mark: item.mark)
      } else {
        leg.flushFailed(mark: item.mark, &random)
      }
    }
  }

  private mutating func applyWrite(_ item: SimulatedIO, _ leg: SimulatedLeg) {
    let count = Int(item.io.count)
    let isDurable = item.io.isDurable
    var place = item.place
    switch item.effect {
    case .none: break
    case .drop: return
    case .torn(let sectors, _):
      let part = min(count, Int(sectors) * SimulatedLeg.sectorBytes)
      if part > 0 { leg.write(source(item), at: place, count: part, isDurable: isDurable) }
      return
    case .misdirect(let offset):
      place = leg.place(offset: layout.dataOffset + offset, count: item.io.count)
    case .corrupt(let flips):
      leg.write(source(item), at: place, count: count, isDurable: isDurable)
      for index in 0..<flips.count {
        let (byte, mask) = flips.bit(index)
        leg.flip(mask, at: place + Int(byte))
      }
      return
    case .error, .hang, .stale: break
    }
    if item.error != 0 {
      leg.writeTorn(source(item), at: place, count: count, &random)
      return
    }
    leg.write(source(item), at: place, count: count, isDurable: isDurable)
    guard !faults.isEmpty, item.io.offset >= layout.dataOffset else { return }
    faults.wrote(faultIO(item.io).range, on: item.io.leg)
  }
}
