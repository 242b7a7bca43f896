// The faults that are in force: pure matching.
//
// 1. The order of insertion is the order of precedence: the first fault with an effect that fires
//    decides the effect. Delays (and what throttles impose) of all faults add up and come first.
// 2. Each fault draws from a generator of its own, and only when it selects an I/O: the same seed
//    and the same I/O give the same decisions, whatever other faults there are.
// 3. A fault that reached its count or its end, or was released, stays in the list with its
//    counters, and is inert.
// 4. `decide` allocates nothing, and costs one comparison for a leg without faults.

import Base

/// What a fault has come to.
public enum FaultState: String, CaseIterable, Sendable {
  /// It hits what it selects.
  case armed
  /// It hit as often as it may, or (bad sectors) nothing of it is left.
  case spent
  /// Its time is over.
  case expired
  /// It was released.
  case released
}

/// A fault with its counters.
public struct FaultReport: Sendable {
  /// The fault, with its name.
  public var fault: Fault
  /// Whether it is in force.
  public var state: FaultState
  /// I/O that it selected, fired or not.
  public var matched: UInt64
  /// I/O that it hit.
  public var fired: UInt64
  /// `bad-sector`: bytes that are still bad.
  public var badBytes: UInt64
}

/// Why a set refuses something.
public enum FaultSetError: Error, Equatable, CustomStringConvertible {
  /// The name is taken.
  case nameInUse(String)
  /// There is no fault of that name.
  case unknown(String)
  /// It cannot be released, for it holds nothing.
  case notHang(String, FaultKind)
  /// No more faults than this.
  case tooMany(Int)

  /// A sentence.
  public var description: String {
    switch self {
    case .nameInUse(let name): "there is a fault named '\(name)' already; remove it first"
    case .unknown(let name): "there is no fault named '\(name)'"
    case .notHang(let name, let kind):
      "fault '\(name)' is of kind \(kind.rawValue): only a hang can be released"
    case .tooMany(let most): "there are \(most) faults, the most that a mirror takes"
    }
  }
}

/// All faults of a mirror, seeded.
public struct FaultSet: Sendable {
  /// As many as a set takes.
  public static let countMax = 256

  /// Size of the exported device: where misdirected I/O can go.
  public var deviceBytes: UInt64
  /// Seed of all faults that have none of their own.
  public let seed: UInt64
  /// Legs that a fault is listed for.
  public private(set) var legs = LegSet.none

  private var rules: [FaultRule] = []
  private var faults: [Fault] = []
  private var bad: [SectorRanges] = []
  private var nextId: UInt32 = 1

  /// No fault.
  public init(seed: UInt64, deviceBytes: UInt64) {
    self.seed = seed
    self.deviceBytes = deviceBytes
  }

  /// Whether no fault is listed.
  public var isEmpty: Bool { rules.isEmpty }

  // MARK: The list

  /// Adds a fault and arms it; returns its name.
  @discardableResult
  public mutating func add(_ fault: Fault, now: Instant) throws(FaultSetError) -> String {
    guard faults.count < FaultSet.countMax else { throw .tooMany(FaultSet.countMax) }
    var fault = fault
    let kind = fault.action.kind
    if fault.name.isEmpty { fault.name = freeName(kind) }
    if index(of: fault.name) != nil { throw .nameInUse(fault.name) }
    if kind.isOfDataOnly, fault.area == .everywhere { fault.area = .data }
    if kind == .badSector, case .range(let range) = fault.area {
      fault.area = .range(FaultSector.cover(range))
    }
    let seed = fault.seed ?? FaultSeed.derive(self.seed, name: fault.name)
    rules.append(
      FaultRule(
        id: nextId, leg: fault.leg, operations: fault.operations.intersection(kind.operations),
        area: fault.area, trigger: fault.trigger,
        countMax: fault.countMax ?? (fault.isNth ? 1 : UInt64.max),
        until: fault.durationNanoseconds.map { now.advanced(byNanoseconds: $0) }
          ?? Instant(nanoseconds: UInt64.max),
        action: fault.action, random: PRNG(seed: seed)))
    faults.append(fault)
    if kind == .badSector, case .range(let range) = fault.area {
      bad.append(SectorRanges(range))
    } else {
      bad.append(SectorRanges(ByteRange(offset: 0, count: 0)))
    }
    nextId += 1
    legs.insert(fault.leg)
    return fault.name
  }

  /// Removes a fault; what it holds goes on.
  public mutating func remove(named name: String) throws(FaultSetError) {
    guard let index = index(of: name) else { throw .unknown(name) }
    removeAll { $0 == index }
  }

  /// Removes all faults of a leg.
  public mutating func removeAll(on leg: LegSlot) {
    let rules = rules
    removeAll { rules[$0].leg == leg }
  }

  /// Removes all faults.
  public mutating func removeAll() { removeAll { _ in true } }

  /// Lets everything go that a `hang` holds, and disarms it.
  public mutating func release(named name: String) throws(FaultSetError) {
    guard let index = index(of: name) else { throw .unknown(name) }
    let kind = faults[index].action.kind
    guard kind == .hang else { throw .notHang(name, kind) }
    rules[index].isReleased = true
  }

  /// All faults in the order they were added.
  public func reports(now: Instant) -> [FaultReport] {
    faults.indices.map { index in
      FaultReport(
        fault: faults[index], state: state(index, now), matched: rules[index].matched,
        fired: rules[index].fired, badBytes: bad[index].byteCount)
    }
  }

  private func state(_ index: Int, _ now: Instant) -> FaultState {
    if rules[index].isReleased { return .released }
    if now >= rules[index].until { return .expired }
    if rules[index].fired >= rules[index].countMax { return .spent }
    return rules[index].action == .badSector && bad[index].ranges.isEmpty ? .spent : .armed
  }

  private func index(of name: String) -> Int? { faults.firstIndex { $0.name == name } }

  private func freeName(_ kind: FaultKind) -> String {
    var number = 1
    while index(of: "\(kind.rawValue)-\(number)") != nil { number += 1 }
    return "\(kind.rawValue)-\(number)"
  }

  private mutating func removeAll(where isRemoved: (Int) -> Bool) {
    let kept = faults.indices.filter { !isRemoved($0) }
    faults = kept.map { faults[$0] }
    rules = kept.map { rules[$0] }
    bad = kept.map { bad[$0] }
    legs = faults.reduce(into: LegSet.none) { $0.insert($1.leg) }
  }

  // MARK: Questions of who performs I/O

  /// Whether a fault that held an I/O still holds it.
  public func isHolding(_ id: UInt32, now: Instant) -> Bool {
    guard let rule = rules.first(where: { $0.id == id }) else { return false }
    // Its count limits what it catches, not how long it holds it.
    return !rule.isReleased && now < rule.until
  }

  /// Whether writes to the leg's data must be preceded by keeping what they overwrite, because a
  /// read may have to return it (`stale-read`).
  public func keepsOverwritten(_ leg: LegSlot) -> Bool { has(.staleRead, leg) }

  /// Whether the leg must remember what unflushed writes overwrote (`volatile-cache`).
  public func hasVolatileCache(_ leg: LegSlot) -> Bool { has(.volatileCache, leg) }

  private func has(_ action: FaultAction, _ leg: LegSlot) -> Bool {
    legs.contains(leg) && rules.contains { $0.leg == leg && $0.action == action }
  }

  /// These bytes of the exported device reached the leg: what they cover is no longer bad.
  public mutating func wrote(_ range: ByteRange, on leg: LegSlot) {
    guard legs.contains(leg) else { return }
    for index in rules.indices where rules[index].leg == leg {
      if rules[index].action == .badSector { bad[index].subtract(range) }
    }
  }

  /// What happens to an I/O.
  public mutating func decide(_ io: FaultIO, now: Instant) -> FaultDecision {
    guard legs.contains(io.leg) else { return .none }
    var decision = FaultDecision.none
    for index in rules.indices {
      guard rules[index].selects(io, now) else { continue }
      switch rules[index].action {
      case .delay(let delay):
        guard rules[index].triggers() else { continue }
        rules[index].fired += 1
        decision.delayNanoseconds = decision.delayNanoseconds.addingCapped(
          delay.draw(&rules[index].random))
      case .throttle(let operations, let bytes):
        guard rules[index].triggers() else { continue }
        let wait = rules[index].throttle(io, operations, bytes, now)
        if wait > 0 { rules[index].fired += 1 }
        decision.delayNanoseconds = decision.delayNanoseconds.addingCapped(wait)
      case .error, .hang, .badSector, .corrupt, .torn, .drop, .misdirect, .staleRead, .full,
        .offline, .volatileCache:
        guard decision.effect == .none else { continue }
        if rules[index].action == .badSector, !bad[index].overlaps(io.range) { continue }
        guard rules[index].triggers() else { continue }
        decision.effect = rules[index].effect(on: io, deviceBytes: deviceBytes)
        if decision.effect != .none { rules[index].fired += 1 }
      }
    }
    return decision
  }
}

extension Fault {
  var isNth: Bool {
    if case .nth = trigger { true } else { false }
  }
}

extension UInt64 {
  func addingCapped(_ other: UInt64) -> UInt64 {
    let sum = addingReportingOverflow(other)
    return sum.overflow ? UInt64.max : sum.partialValue
  }
}
