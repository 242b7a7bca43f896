// Performing what the engine wants: I/O on legs, replies, releases.
//
// Every `unsafe` here turns a buffer reference of the engine into an address: of a request's
// buffer, leased until `Effect.release`, or of the engine's scratch memory, lent until the
// completion is handed back.

import Base
import Glibc
import Legs
import MirrorEngine
import Ring

extension Reactor {
  /// Performs effects until the list is empty, or something has to be handed back first.
  mutating func performEffects() {
    replyClock = 0
    while !effects.isEmpty {
      // Each effect finishes at most one I/O at once.
      guard done.room > 0 else { return }
      if case .io(let io) = effects.first {
        guard perform(io) else { return }
        _ = effects.pop()
      } else if let effect = effects.pop() {
        perform(effect)
      }
    }
  }

  private mutating func perform(_ effect: Effect) {
    switch effect {
    case .io: preconditionFailure("I/O is performed by its own function")
    case .merge(let owner, let requestOffset, let scratchOffset, let count):
      let slot = requests.slot(of: owner)
      let source = unsafe UnsafeRawPointer(
        bitPattern: requestAddress(slot, requestOffset, UInt64(count)))
      checkScratch(scratchOffset, count)
      if let source = unsafe source {
        unsafe memcpy(scratch.base + scratchOffset, source, count)
      }
    case .mergeZeros(_, let scratchOffset, let count):
      checkScratch(scratchOffset, count)
      unsafe memset(scratch.base + scratchOffset, 0, count)
    case .deliver(let token, let owner, let requestOffset, let scratchOffset, let count):
      let slot = requests.slot(of: owner)
      let target = unsafe UnsafeMutableRawPointer(
        bitPattern: requestAddress(slot, requestOffset, UInt64(count)))
      checkScratch(scratchOffset, count)
      if let target = unsafe target {
        unsafe memcpy(target, scratch.base + scratchOffset, count)
      }
      done.append(FinishedIO(token: token, error: 0))
    case .fillZeros(let owner, let requestOffset, let count):
      let target = unsafe UnsafeMutableRawPointer(
        bitPattern: requestAddress(requests.slot(of: owner), requestOffset, count))
      if let target = unsafe target { unsafe memset(target, 0, Int(count)) }
    case .reply(let token, let error): reply(requests.slot(of: token), error: error)
    case .replaceBuffer(let token): replaceBuffer(requests.slot(of: token))
    case .release(let token): release(requests.slot(of: token))
    case .event(let event): desk.post(event)
    case .legIdle(let slot): desk.postIdle(slot)
    }
  }

  // MARK: Memory

  private func checkScratch(_ offset: Int, _ count: Int) {
    precondition(
      offset >= 0 && count >= 0 && offset <= scratch.count - count, "outside the scratch memory")
  }

  /// Address of `count` bytes of a request's buffer, `offset` bytes after its range's start.
  @inline(__always)
  private func requestAddress(_ slot: Int, _ offset: UInt64, _ count: UInt64) -> UInt {
    guard let buffer = requests[slot].buffer else {
      preconditionFailure("the engine uses the buffer of a request that has none")
    }
    let start = UInt64(requests[slot].dataOffset) + offset
    precondition(start + count <= UInt64(buffer.bytes), "outside a request's buffer")
    return unsafe UInt(bitPattern: buffer.base) + UInt(start)
  }

  @inline(__always)
  func address(of io: LegIO) -> UInt {
    switch io.buffer {
    case .request(let token, let offset):
      return requestAddress(requests.slot(of: token), offset, io.count)
    case .scratch(let offset):
      checkScratch(offset, Int(io.count))
      return unsafe UInt(bitPattern: scratch.base) + UInt(offset)
    case .none: return 0
    }
  }

  /// Gives a read a buffer of its own: an I/O of a failed leg may still write into the old one.
  private mutating func replaceBuffer(_ slot: Int) {
    guard let old = requests[slot].buffer else {
      preconditionFailure("the engine replaces a buffer that is not there")
    }
    let bytes = requests[slot].dataOffset + Int(requests[slot].engineRange.count)
    guard let new = pool.allocate(bytes: bytes) ?? pool.allocateBeyondBudget(bytes: bytes) else {
      preconditionFailure("the kernel has no memory for a read that a leg failed")
    }
    retired.append((slot, old))
    requests[slot].buffer = new
  }

  // MARK: I/O

  /// Starts an I/O, or does it; false if it has to wait for a slot.
  @inline(__always)
  private mutating func perform(_ io: LegIO) -> Bool {
    let leg = legs.leg(io.leg)
    precondition(leg.isAttached, "I/O on leg \(io.leg), which is not attached")
    // An I/O that has to wait for a place comes again.
    guard freeOperation >= 0 else { return false }
    countIO(io)
    if faults.isTouched(io.leg), performFaulty(io, leg) { return true }
    if leg.isMemory, performNow(io, leg) { return true }
    let place = Int(freeOperation)
    freeOperation = operations[place].nextFree
    operations[place] = LegOperation(
      token: io.token, kind: io.kind,
      way: leg.zeroWay(mayPunchHoles: io.kind == .discard), leg: io.leg,
      isDurable: io.isDurable, offset: io.offset, count: io.count, address: address(of: io))
    prepare(place, leg)
    return true
  }

  /// Does a small I/O on a file system in memory at once; false if it is none.
  @inline(__always)
  private mutating func performNow(_ io: LegIO, _ leg: FileLeg) -> Bool {
    let error: Int32
    switch io.kind {
    case .read:
      guard io.count <= FileLeg.directBytesMax,
        let buffer = unsafe UnsafeMutableRawPointer(bitPattern: address(of: io))
      else { return false }
      error = unsafe leg.readNow(into: buffer, count: Int(io.count), offset: io.offset)
    case .write:
      guard io.count <= FileLeg.directBytesMax,
        let buffer = unsafe UnsafeRawPointer(bitPattern: address(of: io))
      else { return false }
      error = unsafe leg.writeNow(
        from: buffer, count: Int(io.count), offset: io.offset, isDurable: io.isDurable)
    case .flush: error = leg.flushNow()
    case .zero, .discard: return false
    }
    done.append(FinishedIO(token: io.token, error: error))
    return true
  }

  /// Fills the submission for what is left of an operation.
  mutating func prepare(_ place: Int, _ leg: FileLeg) {
    let userData = CompletionKind.leg.userData(place)
    let offset = operations[place].offset
    let count = operations[place].count
    switch operations[place].kind {
    case .read:
      guard let buffer = unsafe UnsafeMutableRawPointer(bitPattern: operations[place].address)
      else { preconditionFailure("a read without memory") }
      unsafe leg.prepareRead(
        ring, into: buffer, count: Int(count), offset: offset, userData: userData)
    case .write:
      guard let buffer = unsafe UnsafeRawPointer(bitPattern: operations[place].address)
      else { preconditionFailure("a write without memory") }
      unsafe leg.prepareWrite(
        ring, from: buffer, count: Int(count), offset: offset,
        isDurable: operations[place].isDurable, userData: userData)
    case .flush: leg.prepareFlush(ring, userData: userData)
    case .zero, .discard:
      if operations[place].way == .write {
        unsafe leg.prepareWrite(
          ring, from: zeros.base, count: min(Int(count), ZeroPages.bytes), offset: offset,
          isDurable: false, userData: userData)
      } else {
        leg.prepareZero(
          ring, way: operations[place].way, offset: offset, count: count, userData: userData)
      }
    }
  }

  /// A completion from the ring: done, or to be continued.
  mutating func finishOperation(_ place: Int, _ result: Int32) {
    let error: Int32
    if result >= 0 {
      guard let left = remaining(place, UInt64(result)) else {
        return retire(place, error: EIO)
      }
      if left == 0 { return retire(place, error: 0) }
      operations[place].offset += operations[place].count - left
      if operations[place].address != 0 {
        operations[place].address += UInt(operations[place].count - left)
      }
      operations[place].count = left
      error = 0
    } else {
      error = -result
    }
    switch error {
    case 0, EINTR, EAGAIN: break
    case EOPNOTSUPP where isZeroing(place) && operations[place].way != .write:
      operations[place].way = legs.refused(
        operations[place].way, on: operations[place].leg,
        mayPunchHoles: operations[place].kind == .discard)
    default: return retire(place, error: error)
    }
    let leg = legs.leg(operations[place].leg)
    precondition(leg.isAttached, "a leg was detached with I/O in flight")
    prepare(place, leg)
  }

  private func isZeroing(_ place: Int) -> Bool {
    operations[place].kind == .zero || operations[place].kind == .discard
  }

  /// Bytes that are left of an operation after `result`; nil if the file cannot go on.
  private func remaining(_ place: Int, _ result: UInt64) -> UInt64? {
    // fallocate does everything or fails.
    if operations[place].kind == .flush { return 0 }
    if isZeroing(place) && operations[place].way != .write { return 0 }
    let count = operations[place].count
    precondition(result <= count, "the kernel did more than it was asked for")
    if result == 0 && count > 0 { return nil }
    return count - result
  }

  private mutating func retire(_ place: Int, error: Int32) {
    if operations[place].isFaulty { return continueFaulty(place, error: error) }
    done.append(FinishedIO(token: operations[place].token, error: error))
    operations[place].nextFree = freeOperation
    freeOperation = Int32(place)
  }
}
