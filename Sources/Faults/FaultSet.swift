// The faults that are in force: pure matching.
//
// 1. The order of insertion is the order of precedence: the first fault that applies decides, but
//    delays add up and errors win over delays that come before them.
// 2. Randomness comes from one seeded generator and is drawn only for faults that select the I/O:
//    the same seed and the same I/O give the same outcomes.
// 3. A fault that reached its count or its end stays in the list (it can be counted) and is inert.

import Base

/// A fault in force, with its counters.
public struct ActiveFault: Sendable {
  /// The fault.
  public var fault: Fault
  /// I/O that it selected.
  public internal(set) var selected: UInt64 = 0
  /// I/O that it hit.
  public internal(set) var hits: UInt64 = 0
  /// `bad-sector`: what is still bad of its range.
  public internal(set) var badRanges: [ByteRange] = []
}

/// All faults of a mirror, seeded.
public struct FaultSet: Sendable {
  static let eio: Int32 = 5
  static let enodev: Int32 = 19
  static let enospc: Int32 = 28

  /// In the order of insertion.
  public private(set) var faults: [ActiveFault] = []
  private var random: PRNG

  /// No fault.
  public init(seed: UInt64) { random = PRNG(seed: seed) }

  /// Whether no fault is listed: the one branch of a leg without faults.
  @inlinable public var isEmpty: Bool { faults.isEmpty }

  /// Adds a fault; one of the same name is replaced.
  public mutating func add(_ fault: Fault) {
    remove(named: fault.name)
    var active = ActiveFault(fault: fault)
    if fault.action == .badSector, let range = fault.range { active.badRanges = [range] }
    faults.append(active)
  }

  /// Removes a fault; false if there is none of that name.
  @discardableResult
  public mutating func remove(named name: String) -> Bool {
    guard let index = faults.firstIndex(where: { $0.fault.name == name }) else { return false }
    faults.remove(at: index)
    return true
  }

  /// Removes all faults of a leg.
  public mutating func removeAll(on leg: LegSlot) {
    faults.removeAll { $0.fault.leg == leg }
  }

  /// Removes all faults.
  public mutating func removeAll() { faults.removeAll() }

  /// What happens to an I/O. `range` is in bytes of the exported device; nil: metadata or flush.
  public mutating func decide(
    _ operation: FaultOperation, on leg: LegSlot, range: ByteRange?, now: Instant
  ) -> FaultOutcome {
    var delay: UInt64 = 0
    for index in faults.indices {
      guard selects(index, operation, leg, range, now), triggers(index) else { continue }
      faults[index].hits += 1
      switch faults[index].fault.action {
      case .error(let errno): return .error(errno: errno)
      case .badSector: return .error(errno: FaultSet.eio)
      case .full: return .error(errno: FaultSet.enospc)
      case .offline: return .error(errno: FaultSet.enodev)
      case .hang: return .hang
      case .delay(let least, let most):
        delay += least + (most > least ? random.below(most - least + 1) : 0)
      }
    }
    return delay == 0 ? .none : .delay(nanoseconds: delay)
  }

  /// A write reached the leg: what it covers is no longer bad.
  public mutating func rewritten(_ range: ByteRange, on leg: LegSlot) {
    for index in faults.indices where faults[index].fault.leg == leg {
      guard faults[index].fault.action == .badSector else { continue }
      var left: [ByteRange] = []
      for bad in faults[index].badRanges {
        guard bad.overlaps(range) else {
          left.append(bad)
          continue
        }
        if bad.offset < range.offset {
          left.append(ByteRange(offset: bad.offset, count: range.offset - bad.offset))
        }
        if range.end < bad.end {
          left.append(ByteRange(offset: range.end, count: bad.end - range.end))
        }
      }
      faults[index].badRanges = left
    }
  }

  private func selects(
    _ index: Int, _ operation: FaultOperation, _ leg: LegSlot, _ range: ByteRange?,
    _ now: Instant
  ) -> Bool {
    let active = faults[index]
    let fault = active.fault
    guard fault.leg == leg else { return false }
    if let until = fault.until, now >= until { return false }
    if let most = fault.countMax, active.hits >= most { return false }
    switch fault.action {
    case .offline: return true
    case .badSector:
      guard operation == .read, let range else { return false }
      return active.badRanges.contains { $0.overlaps(range) }
    case .full:
      guard operation == .write || operation == .zero else { return false }
    case .error, .delay, .hang:
      guard fault.operations.contains(FaultOperations(operation)) else { return false }
    }
    guard let wanted = fault.range else { return true }
    guard let range else { return false }
    return wanted.overlaps(range)
  }

  private mutating func triggers(_ index: Int) -> Bool {
    faults[index].selected += 1
    switch faults[index].fault.trigger {
    case .always: return true
    case .probability(let millionths): return random.chance(UInt64(millionths), in: 1_000_000)
    case .nth(let number): return faults[index].selected == number
    }
  }
}
