// I/O of legs with faults: a walk of its own beside the ordinary one, on the same ring.
//
//   decide --> (wait for the delay) --> (hang until released) --> (read what will be overwritten)
//          --> act --> done
//
// | stage    | next                                                                            |
// |----------|---------------------------------------------------------------------------------|
// | delayed  | its time has come, or the leg has no fault any more          [workFaults]       |
// | held     | its fault lets it go, or the server is over                  [workFaults]       |
// | keeping  | all pieces are read (what cannot be read is not kept)        [continueFaulty]   |
// | acting   | the kernel has done it                                       [continueFaulty]   |
//
// An I/O holds its place in the table of operations all the time, so the engine sees what a bad
// disk shows: nothing, until a completion comes. Allocating is allowed here.
//
// Every `unsafe` is of memory that the I/O owns (`memory`), or of the buffer that the engine lends
// it until its completion.

import Base
import Faults
import Glibc
import Legs
import MirrorEngine
import Ring

/// One I/O of a leg with faults.
@safe
final class FaultyIO {
  enum Stage {
    case delayed
    case held(fault: UInt32)
    case keeping
    case acting
  }

  /// As the engine wants it.
  let io: LegIO
  /// Its place in the table of operations.
  let place: Int
  /// The engine's memory.
  let address: UInt
  let order: FaultOrder
  /// Where on the PV it really goes.
  let range: ByteRange
  var stage = Stage.delayed
  var due: UInt64 = 0
  /// How much of what is overwritten has been read.
  var keptBytes: UInt64 = 0
  var keptPiece: UInt64 = 0
  var kept: [UInt64] = []
  // Owned; nil until it is needed.
  private(set) var memory: UnsafeMutableRawBufferPointer?

  init(_ io: LegIO, place: Int, address: UInt, order: FaultOrder, dataOffset: UInt64) {
    self.io = io
    self.place = place
    self.address = address
    self.order = order
    if case .misdirect(let offset) = order.decision.effect {
      range = ByteRange(offset: dataOffset + offset, count: io.count)
    } else {
      range = ByteRange(offset: io.offset, count: io.count)
    }
  }

  deinit { unsafe memory?.deallocate() }

  /// Memory of at least `bytes`, aligned for O_DIRECT.
  func ownMemory(_ bytes: Int) -> UnsafeMutableRawBufferPointer {
    if let memory = unsafe memory, memory.count >= bytes { return unsafe memory }
    unsafe memory?.deallocate()
    let made = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 4096)
    unsafe memory = made
    return unsafe made
  }

  var isTorn: Bool { if case .torn = order.decision.effect { true } else { false } }

  /// Whether what it overwrites has to be read first.
  var readsFirst: Bool { order.keeps || isTorn }

  /// The engine's memory; of a flush or of zeroing there is none.
  var engineMemory: UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(
      start: UnsafeMutableRawPointer(bitPattern: address), count: Int(io.count))
  }
}

/// A reactor's I/O on legs with faults.
struct FaultyTable {
  /// By place in the table of operations.
  var items: [FaultyIO?]
  /// Those that wait for their time, the soonest last.
  var delayed: [FaultyIO] = []
  /// Those that hang.
  var held: [FaultyIO] = []
  /// The revision of the list that `held` was last looked at for.
  var revision: UInt64 = 0

  /// When the soonest is due.
  var nextDue: UInt64 { delayed.last?.due ?? UInt64.max }

  mutating func delay(_ item: FaultyIO) {
    var low = 0
    var high = delayed.count
    while low < high {
      let middle = (low + high) / 2
      if delayed[middle].due > item.due { low = middle + 1 } else { high = middle }
    }
    delayed.insert(item, at: low)
  }
}

extension Reactor {
  private static let keepPieceBytes: UInt64 = 1 << 20

  /// Starts an I/O of a leg with faults; false: do it as usual. There is a free place for it.
  mutating func performFaulty(_ io: LegIO, _ leg: FileLeg) -> Bool {
    let order = faults.decide(io, now: now)
    if order.isPlain { return false }
    let place = Int(freeOperation)
    freeOperation = operations[place].nextFree
    let item = FaultyIO(
      io, place: place, address: address(of: io), order: order, dataOffset: faults.dataOffset)
    operations[place] = LegOperation(
      token: io.token, kind: io.kind,
      way: leg.zeroWay(mayPunchHoles: io.kind == .discard), leg: io.leg,
      isDurable: io.isDurable, offset: item.range.offset, count: io.count, address: item.address)
    operations[place].isFaulty = true
    faulty.items[place] = item
    if order.decision.delayNanoseconds > 0 {
      item.due = now.nanoseconds.addingReportingOverflow(order.decision.delayNanoseconds).0
      faulty.delay(item)
    } else {
      afterDelay(item)
    }
    return true
  }

  /// Lets I/O go on whose time has come or whose fault has let it go.
  mutating func workFaults() {
    while let item = faulty.delayed.last, item.due <= now.nanoseconds, done.room > 0 {
      faulty.delayed.removeLast()
      afterDelay(item)
    }
    let revision = faults.revision.load(ordering: .acquiring)
    guard revision != faulty.revision else { return }
    faulty.revision = revision
    let freed = faulty.delayed.filter { !faults.isTouched($0.io.leg) }
    faulty.delayed.removeAll { !faults.isTouched($0.io.leg) }
    for item in freed {
      item.due = now.nanoseconds
      faulty.delayed.append(item)
    }
    releaseHeld()
  }

  /// Looks at everything that hangs; also called with each tick, for faults that end by themselves.
  mutating func releaseHeld() {
    guard !faulty.held.isEmpty else { return }
    let held = faulty.held
    faulty.held.removeAll()
    for item in held {
      guard case .held(let fault) = item.stage, !faults.isHolding(fault, now: now),
        done.room > 0
      else {
        faulty.held.append(item)
        continue
      }
      startFaulty(item)
    }
  }

  private mutating func afterDelay(_ item: FaultyIO) {
    switch item.order.decision.effect {
    case .error(let errno): finishFaulty(item, error: errno)
    case .drop: finishFaulty(item, error: 0)
    case .hang(let fault):
      item.stage = .held(fault: fault)
      faulty.held.append(item)
    case .none, .corrupt, .torn, .misdirect, .stale: startFaulty(item)
    }
  }

  private mutating func startFaulty(_ item: FaultyIO) {
    if item.readsFirst, item.range.count > 0 { readOverwritten(item) } else { act(item) }
  }

  // MARK: Keeping what is overwritten

  private mutating func readOverwritten(_ item: FaultyIO) {
    item.stage = .keeping
    let left = item.range.count - item.keptBytes
    // A torn write is put together from the old data and the new: it needs all of it at once.
    item.keptPiece = item.isTorn ? left : min(left, Reactor.keepPieceBytes)
    let memory = unsafe item.ownMemory(Int(item.keptPiece))
    let place = item.place
    operations[place].kind = .read
    operations[place].offset = item.range.offset + item.keptBytes
    operations[place].count = item.keptPiece
    operations[place].address = UInt(bitPattern: memory.baseAddress)
    prepare(place, legs.leg(item.io.leg))
  }

  private mutating func keep(_ item: FaultyIO) {
    guard item.order.keeps else { return }
    let memory = unsafe item.ownMemory(Int(item.keptPiece))
    let bytes = unsafe [UInt8](memory.prefix(Int(item.keptPiece)))
    let offset = item.range.offset + item.keptBytes
    if let number = faults.keep(bytes, at: offset, on: item.io.leg) { item.kept.append(number) }
  }

  // MARK: Acting

  private mutating func act(_ item: FaultyIO) {
    item.stage = .acting
    let place = item.place
    let io = item.io
    operations[place].kind = io.kind
    operations[place].offset = item.range.offset
    operations[place].count = io.count
    operations[place].address = item.address
    if io.kind == .write {
      switch item.order.decision.effect {
      case .corrupt(let flips):
        let copy = unsafe item.ownMemory(Int(io.count))
        unsafe copy.copyMemory(from: UnsafeRawBufferPointer(item.engineMemory))
        unsafe Reactor.flip(flips, in: copy)
        operations[place].address = UInt(bitPattern: copy.baseAddress)
      case .torn(let sectors, _):
        let leading = min(Int(sectors) * Int(FaultSector.bytes), Int(io.count))
        let old = unsafe item.ownMemory(Int(io.count))
        let new = unsafe UnsafeRawBufferPointer(rebasing: item.engineMemory.prefix(leading))
        unsafe old.copyMemory(from: new)
        operations[place].address = UInt(bitPattern: old.baseAddress)
      case .none, .error, .hang, .drop, .misdirect, .stale: break
      }
    }
    prepare(place, legs.leg(io.leg))
  }

  private static func flip(_ flips: FaultFlips, in memory: UnsafeMutableRawBufferPointer) {
    for index in 0..<flips.count {
      let (byte, mask) = flips.bit(index)
      unsafe memory[Int(byte)] ^= mask
    }
  }

  /// The kernel has done a step of an I/O of a leg with faults.
  mutating func continueFaulty(_ place: Int, error: Int32) {
    guard let item = faulty.items[place] else {
      preconditionFailure("an operation with faults has lost its story")
    }
    switch item.stage {
    case .delayed, .held: preconditionFailure("an I/O completes that was not begun")
    case .acting: finishFaulty(item, error: error, isPerformed: true)
    case .keeping:
      guard error == 0 else {
        // What cannot be read cannot be torn or taken back: done as usual.
        return item.isTorn ? finishFaulty(item, error: error) : act(item)
      }
      keep(item)
      item.keptBytes += item.keptPiece
      if item.keptBytes < item.range.count { readOverwritten(item) } else { act(item) }
    }
  }

  private mutating func finishFaulty(_ item: FaultyIO, error: Int32, isPerformed: Bool = false) {
    let place = item.place
    let io = item.io
    var error = error
    if isPerformed, error == 0 {
      switch io.kind {
      case .read: spoil(item)
      case .write, .zero, .discard: reportWritten(item)
      case .flush: if item.order.reports { faults.flushed(item.order.mark, on: io.leg) }
      }
    }
    if isPerformed, error == 0, case .torn(_, let errno) = item.order.decision.effect {
      error = errno
    }
    faulty.items[place] = nil
    done.append(FinishedIO(token: io.token, error: error))
    operations[place].isFaulty = false
    operations[place].nextFree = freeOperation
    freeOperation = Int32(place)
  }

  /// Spoils what a read returned.
  private func spoil(_ item: FaultyIO) {
    switch item.order.decision.effect {
    case .corrupt(let flips): unsafe Reactor.flip(flips, in: item.engineMemory)
    case .stale(let part):
      unsafe faults.overlay(
        item.range, part: part, on: item.io.leg, into: item.engineMemory)
    case .none, .error, .hang, .torn, .drop, .misdirect: break
    }
  }

  private func reportWritten(_ item: FaultyIO) {
    var range = item.range
    if case .torn(let sectors, _) = item.order.decision.effect {
      range.count = min(range.count, UInt64(sectors) * FaultSector.bytes)
    }
    faults.wrote(range, on: item.io.leg, kept: item.kept, isDurable: item.io.isDurable)
  }

  // MARK: Power cut

  /// Lets the kernel finish what it has, for a second at most, and then does nothing any more.
  mutating func parkForPowerCut() -> Never {
    let waiting = faulty.delayed.count + faulty.held.count
    let deadline = monotonicNanoseconds() + Nanoseconds.second
    while operationsInUse > waiting, monotonicNanoseconds() < deadline {
      ring.submitAndWait(timeoutNanoseconds: 10 * Nanoseconds.millisecond)
      let count = ring.reap()
      for index in 0..<count {
        let completion = ring.completion(at: index)
        guard CompletionKind(rawValue: completion.userData >> 56) == .leg else { continue }
        let place = Int(completion.userData & 0x00ff_ffff_ffff_ffff)
        operations[place].nextFree = freeOperation
        freeOperation = Int32(place)
      }
    }
    faults.parked.wrappingAdd(1, ordering: .acquiringAndReleasing)
    while true { pause() }
  }

  private var operationsInUse: Int {
    var free = 0
    var place = freeOperation
    while place >= 0 {
      free += 1
      place = operations[Int(place)].nextFree
    }
    return Reactor.operationCount - free
  }
}
