// What a fault that triggers does to an I/O, with everything drawn.

import Base

/// The part of a fault that decisions need; nothing in it is counted or allocated.
struct FaultRule {
  var id: UInt32
  var leg: LegSlot
  var operations: FaultOperations
  var area: FaultArea
  var trigger: FaultTrigger
  var countMax: UInt64
  var until: Instant
  var action: FaultAction
  var isReleased = false
  var matched: UInt64 = 0
  var fired: UInt64 = 0
  /// Throttle: when the next I/O may begin.
  var free = Instant.zero
  var random: PRNG

  @inline(__always)
  func isInForce(_ now: Instant) -> Bool {
    fired < countMax && now < until && !isReleased
  }

  @inline(__always)
  func selects(_ io: FaultIO, _ now: Instant) -> Bool {
    guard leg == io.leg, operations.contains(FaultOperations(io.operation)), isInForce(now)
    else { return false }
    switch area {
    case .everywhere: return true
    case .data: return !io.isMetadata && io.operation != .flush
    case .metadata: return io.isMetadata
    case .range(let range): return !io.isMetadata && range.overlaps(io.range)
    }
  }

  /// Counts a selected I/O; true if it is hit.
  @inline(__always)
  mutating func triggers() -> Bool {
    matched += 1
    switch trigger {
    case .always: return true
    case .probability(let millionths): return random.chance(UInt64(millionths), in: 1_000_000)
    case .nth(let number): return matched >= number
    }
  }
}

extension FaultRule {
  /// The effect; none if it can have none on this I/O (a misdirection with no other place to go, a
  /// tear behind the end).
  mutating func effect(on io: FaultIO, deviceBytes: UInt64) -> FaultEffect {
    switch action {
    case .error(let errno): return .error(errno: errno)
    case .hang: return .hang(fault: id)
    case .badSector: return .error(errno: FaultErrno.io)
    case .full: return .error(errno: FaultErrno.noSpace)
    case .offline: return .error(errno: FaultErrno.noDevice)
    case .drop: return .drop
    case .staleRead: return .stale(part: part(of: io))
    case .corrupt(let bits):
      let part = part(of: io)
      guard part.count > 0 else { return .none }
      let count = min(UInt64(bits), part.count * 8)
      return .corrupt(FaultFlips(count: Int(count), part: part, seed: random.next()))
    case .torn(let sectors, let errno):
      let whole = (io.range.count + FaultSector.bytes - 1) / FaultSector.bytes
      guard whole > 0 else { return .none }
      let kept = sectors.map(UInt64.init) ?? random.below(whole)
      return kept < whole ? .torn(sectors: UInt32(kept), errno: errno) : .none
    case .misdirect(let target):
      guard let offset = misdirected(io.range, target, deviceBytes) else { return .none }
      return .misdirect(offset: offset)
    case .delay, .throttle, .volatileCache: return .none
    }
  }

  /// The bytes of the I/O that lie in the fault's range, as offsets in the I/O's buffer.
  private func part(of io: FaultIO) -> ByteRange {
    guard case .range(let range) = area else { return ByteRange(offset: 0, count: io.range.count) }
    let first = max(range.offset, io.range.offset)
    let end = min(range.end, io.range.end)
    return ByteRange(offset: first - io.range.offset, count: end > first ? end - first : 0)
  }

  /// Another place for `range`, on the grid of 4096 bytes that `range` lies on.
  private mutating func misdirected(
    _ range: ByteRange, _ target: UInt64?, _ deviceBytes: UInt64
  ) -> UInt64? {
    let grain: UInt64 = 4096
    guard range.count > 0, range.count < deviceBytes else { return nil }
    let last = deviceBytes - range.count
    if let target {
      let offset = min(target, last)
      return offset == range.offset ? nil : offset
    }
    let phase = range.offset % grain
    guard last >= phase else { return nil }
    let places = (last - phase) / grain + 1
    guard places > 1 else { return nil }
    // One of the others: draw without the own place, and step over it.
    var place = random.below(places - 1)
    if place >= range.offset / grain { place += 1 }
    return phase + place * grain
  }

  /// How long the I/O has to wait so that the limits hold, in nanoseconds.
  mutating func throttle(
    _ io: FaultIO, _ operations: UInt64?, _ bytes: UInt64?, _ now: Instant
  ) -> UInt64 {
    var cost: UInt64 = 0
    if let operations { cost = Nanoseconds.second / max(operations, 1) }
    if let bytes {
      let product = io.range.count.multipliedFullWidth(by: Nanoseconds.second)
      let rate = max(bytes, 1)
      let ofBytes = product.high < rate ? rate.dividingFullWidth(product).quotient : UInt64.max
      cost = max(cost, ofBytes)
    }
    let begin = max(now, free)
    free = Instant(nanoseconds: begin.nanoseconds.addingCapped(cost))
    // An I/O completes no earlier than its own share of the time is over.
    return free.nanoseconds(since: now)
  }
}
