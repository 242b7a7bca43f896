// The faults of a served mirror: one set for all reactors and the control plane.
//
// Invariants
//  1. `isTouched` is all that an I/O of a leg without faults pays: one relaxed load and a branch.
//     Everything else here is behind a lock that only I/O of legs with faults takes.
//  2. After each change of the list `revision` is higher and every reactor is woken: what a fault
//     holds goes on.
//  3. Once the power is cut nothing is performed any more (`isPowerCut`): reactors let the kernel
//     finish what it has, park, and the process ends.

import Base
import Faults
import Glibc
import Legs
import MirrorEngine
import Ring
import Synchronization

/// What a reactor has to do for an I/O of a leg with faults.
struct FaultOrder {
  var decision: FaultDecision
  /// What it overwrites has to be read first, and given to `FaultDesk.keep`.
  var keeps = false
  /// The desk has to hear of its completion.
  var reports = false
  /// Flush: what it covers.
  var mark: UInt64 = 0

  var isPlain: Bool { decision == .none && !keeps && !reports }
}

/// What a power cut took from a leg.
public struct PowerCutLoss: Equatable, Sendable {
  /// The leg.
  public var leg: LegSlot
  /// Whether the leg had a volatile cache: else nothing can be taken from it.
  public var hadVolatileCache: Bool
  /// Sectors of 512 bytes whose newest state was not flushed.
  public var unflushedSectors: Int
  /// How many of them lost it.
  public var lostSectors: Int
}

/// Faults of one mirror; safe from any thread.
public final class FaultDesk: Sendable {
  private struct State {
    var set: FaultSet
    /// By slot; nil: the leg has no volatile cache.
    var caches = [WriteLog?](repeating: nil, count: LegSlot.count)
    /// By slot; nil: no read of the leg can be stale.
    var histories = [WriteLog?](repeating: nil, count: LegSlot.count)
  }

  private let state: Mutex<State>
  private let touched = Atomic<UInt8>(0)
  private let powerIsCut = Atomic<Bool>(false)
  /// Counts changes of the list.
  let revision = Atomic<UInt64>(0)
  /// Reactors that have stopped for a power cut.
  let parked = Atomic<Int>(0)
  /// Where data begins on a PV.
  let dataOffset: UInt64

  /// No fault. `dataOffset`: where the data begins on a PV; `deviceBytes`: size of the export.
  public init(seed: UInt64, dataOffset: UInt64, deviceBytes: UInt64) {
    self.dataOffset = dataOffset
    state = Mutex(State(set: FaultSet(seed: seed, deviceBytes: deviceBytes)))
  }

  // MARK: The list

  /// All faults.
  public func reports(now: Instant) -> [FaultReport] {
    state.withLock { $0.set.reports(now: now) }
  }

  /// Adds a fault; returns its name.
  public func add(_ fault: Fault, now: Instant) throws(FaultSetError) -> String {
    try change { set throws(FaultSetError) in try set.add(fault, now: now) }
  }

  /// Removes a fault; what it holds goes on.
  public func remove(named name: String) throws(FaultSetError) {
    try change { set throws(FaultSetError) in try set.remove(named: name) }
  }

  /// Removes all faults; what they hold goes on.
  public func removeAll() throws(FaultSetError) {
    try change { set throws(FaultSetError) in set.removeAll() }
  }

  /// Releases a hang.
  public func release(named name: String) throws(FaultSetError) {
    try change { set throws(FaultSetError) in try set.release(named: name) }
  }

  private func change<Result>(
    _ body: (inout FaultSet) throws(FaultSetError) -> Result
  ) throws(FaultSetError) -> Result {
    let outcome = state.withLock { state -> Swift.Result<Result, FaultSetError> in
      let result: Result
      do throws(FaultSetError) { result = try body(&state.set) } catch { return .failure(error) }
      for index in 0..<LegSlot.count {
        let leg = LegSlot(index)
        let hasCache = state.set.hasVolatileCache(leg)
        if hasCache != (state.caches[index] != nil) {
          state.caches[index] = hasCache ? WriteLog() : nil
        }
        let hasHistory = state.set.keepsOverwritten(leg)
        if hasHistory != (state.histories[index] != nil) {
          state.histories[index] = hasHistory ? WriteLog() : nil
        }
      }
      touched.store(state.set.legs.bits, ordering: .releasing)
      revision.wrappingAdd(1, ordering: .releasing)
      return .success(result)
    }
    return try outcome.get()
  }

  // MARK: Questions of reactors

  /// Whether a leg has faults.
  @inline(__always)
  func isTouched(_ leg: LegSlot) -> Bool {
    touched.load(ordering: .relaxed) & (1 << leg.raw) != 0
  }

  /// Whether a reactor has to look after I/O that waits.
  @inline(__always)
  func mayHaveNews(_ table: borrowing FaultyTable, _ now: Instant) -> Bool {
    table.nextDue <= now.nanoseconds || revision.load(ordering: .relaxed) != table.revision
  }

  /// Whether the power is cut: nothing may be performed any more.
  @inline(__always)
  var isPowerCut: Bool { powerIsCut.load(ordering: .relaxed) }

  /// Bytes of the exported device that an I/O touches; nil: metadata, or none.
  func deviceRange(_ kind: IOKind, _ offset: UInt64, _ count: UInt64) -> ByteRange? {
    guard kind != .flush, offset >= dataOffset else { return nil }
    return ByteRange(offset: offset - dataOffset, count: count)
  }

  /// What happens to an I/O.
  func decide(_ io: LegIO, now: Instant) -> FaultOrder {
    let data = deviceRange(io.kind, io.offset, io.count)
    let subject = FaultIO(
      FaultDesk.operation(io.kind), leg: io.leg,
      range: data ?? ByteRange(offset: io.offset, count: io.count),
      isMetadata: data == nil && io.kind != .flush)
    return state.withLock { state in
      var order = FaultOrder(decision: state.set.decide(subject, now: now))
      let cache = state.caches[io.leg.index]
      switch io.kind {
      case .read: break
      case .flush:
        order.reports = cache != nil
        order.mark = cache?.mark ?? 0
      case .write, .zero, .discard:
        order.keeps =
          cache != nil || (data != nil && state.histories[io.leg.index] != nil)
        order.reports = true
      }
      return order
    }
  }

  private static func operation(_ kind: IOKind) -> FaultOperation {
    switch kind {
    case .read: .read
    case .write: .write
    case .flush: .flush
    case .zero, .discard: .zero
    }
  }

  /// Whether a hang still holds.
  func isHolding(_ fault: UInt32, now: Instant) -> Bool {
    state.withLock { $0.set.isHolding(fault, now: now) }
  }

  /// Keeps what a write is about to overwrite; nil if nobody wants it any more, else a number for
  /// `wrote`.
  func keep(_ before: [UInt8], at offset: UInt64, on leg: LegSlot) -> UInt64? {
    state.withLock { state in
      if offset >= dataOffset {
        _ = state.histories[leg.index]?.begin(offset: offset, before: before)
      }
      return state.caches[leg.index]?.begin(offset: offset, before: before)
    }
  }

  /// A write is done, at this place of the PV.
  func wrote(_ range: ByteRange, on leg: LegSlot, kept: [UInt64], isDurable: Bool) {
    state.withLock { state in
      for number in kept { state.caches[leg.index]?.complete(number, isDurable: isDurable) }
      if range.offset >= dataOffset {
        let data = ByteRange(offset: range.offset - dataOffset, count: range.count)
        state.set.wrote(data, on: leg)
      }
    }
  }

  /// A flush is done that began when the leg's mark was `mark`.
  func flushed(_ mark: UInt64, on leg: LegSlot) {
    state.withLock { $0.caches[leg.index]?.flushed(mark) }
  }

  /// Puts what was there before the last write into what a read returned.
  func overlay(
    _ range: ByteRange, part: ByteRange, on leg: LegSlot,
    into buffer: UnsafeMutableRawBufferPointer
  ) {
    // The buffer is the caller's for the length of the call.
    state.withLock { state in
      unsafe state.histories[leg.index]?.overlay(range, part: part, into: buffer)
    }
  }

  // MARK: Power cut

  /// Whether this is the call that cuts the power; there is one in the life of a process.
  func beginPowerCut() -> Bool {
    !powerIsCut.exchange(true, ordering: .acquiringAndReleasing)
  }

  /// Takes unflushed writes back. Every reactor is parked.
  func lose(_ cut: PowerCut, from table: LegTable) -> [PowerCutLoss] {
    state.withLock { state in
      var losses: [PowerCutLoss] = []
      var rest = cut.legs
      while let leg = rest.popFirst() {
        let file = table.leg(leg)
        guard file.isAttached else { continue }
        let (lost, count) = state.caches[leg.index]?.losses(cut, leg: leg) ?? ([], 0)
        let written = SectorRestore.write(lost, to: file)
        losses.append(
          PowerCutLoss(
            leg: leg, hadVolatileCache: state.caches[leg.index] != nil, unflushedSectors: count,
            lostSectors: written))
      }
      return losses
    }
  }
}

/// Writing old sectors back.
enum SectorRestore {
  private static let blockBytes = 4096

  /// Writes sectors (in ascending order) to a leg, in blocks that every device takes; returns how
  /// many could be written.
  static func write(_ sectors: [(sector: UInt64, bytes: [UInt8])], to leg: FileLeg) -> Int {
    // Owned here, aligned for O_DIRECT, used within its bounds only.
    let block = UnsafeMutableRawBufferPointer.allocate(
      byteCount: blockBytes, alignment: blockBytes)
    defer { unsafe block.deallocate() }
    guard let base = block.baseAddress else { return 0 }
    let perBlock = UInt64(blockBytes) / FaultSector.bytes
    var written = 0
    var index = 0
    while index < sectors.count {
      let number = sectors[index].sector / perBlock
      var end = index
      while end < sectors.count, sectors[end].sector / perBlock == number { end += 1 }
      let offset = number * UInt64(blockBytes)
      if unsafe leg.readNow(into: base, count: blockBytes, offset: offset) == 0 {
        for place in index..<end {
          let start = Int(sectors[place].sector % perBlock * FaultSector.bytes)
          for (at, byte) in sectors[place].bytes.enumerated() { unsafe block[start + at] = byte }
        }
        if unsafe leg.writeNow(from: base, count: blockBytes, offset: offset, isDurable: false)
          == 0
        {
          written += end - index
        }
      }
      index = end
    }
    return written
  }
}
