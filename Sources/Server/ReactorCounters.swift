// What a reactor counts: a flat table of numbers, written by the reactor only, copied out four times
// a second.

import Base
import MirrorEngine
import NBDProtocol
import Synchronization

/// What clients ask for, as statistics name it.
public enum ClientOperation: Int, CaseIterable, Sendable {
  /// Reads.
  case read
  /// Writes.
  case write
  /// Flushes.
  case flush
  /// Trims.
  case trim
  /// Zeroes.
  case zero
  /// Hints to read ahead.
  case cache
  /// Questions for block status.
  case blockStatus

  init(_ kind: Request.Kind) {
    switch kind {
    case .read: self = .read
    case .write: self = .write
    case .flush: self = .flush
    case .trim: self = .trim
    case .writeZeroes: self = .zero
    case .cache: self = .cache
    case .blockStatus: self = .blockStatus
    }
  }
}

/// Places in the table of a reactor.
enum Counter {
  /// Requests, bytes, errors, nanoseconds, then buckets.
  static let perOperation = 4 + LatencyBuckets.count
  static let kinds = 5
  /// I/O and bytes, per kind of I/O.
  static let perLeg = 2 * kinds
  static let legs = ClientOperation.allCases.count * perOperation
  static let turns = legs + LegSlot.count * perLeg
  static let refused = turns + 1
  static let leasedBytes = refused + 1
  static let pinnedBytes = leasedBytes + 1
  static let connections = pinnedBytes + 1
  static let count = connections + 1

  @inline(__always)
  static func operation(_ operation: Int) -> Int { operation * perOperation }

  @inline(__always)
  static func leg(_ leg: LegSlot, _ kind: IOKind) -> Int {
    legs + leg.index * perLeg + 2 * Int(kind.rawValue)
  }
}

/// Buckets of latencies: bounds are powers of two of microseconds, from 16 us to 16.8 s, then the
/// rest.
public enum LatencyBuckets {
  /// Exponent of the first bound.
  public static let firstPower = 4
  /// How many, with the rest.
  public static let count = 22
  /// The bound of a bucket in microseconds; nil: the rest.
  public static func microseconds(_ bucket: Int) -> UInt64? {
    bucket < count - 1 ? 1 << UInt64(firstPower + bucket) : nil
  }

  @inline(__always)
  static func bucket(nanoseconds: UInt64) -> Int {
    let power = 64 - (nanoseconds / 1000).leadingZeroBitCount
    return min(max(power - firstPower, 0), count - 1)
  }
}

extension Reactor {
  /// A request was taken.
  @inline(__always)
  func countRequest(_ slot: Int, _ kind: Request.Kind, bytes: UInt64) {
    let operation = ClientOperation(kind).rawValue
    requests[slot].operation = UInt8(operation)
    requests[slot].begun = now.nanoseconds
    counters[Counter.operation(operation)] &+= 1
    counters[Counter.operation(operation) + 1] &+= bytes
  }

  /// A request is answered. The clock is read once for all answers of a batch of effects.
  @inline(__always)
  mutating func countReply(_ slot: Int, isError: Bool) {
    if replyClock == 0 { replyClock = now.nanoseconds }
    let place = Counter.operation(Int(requests[slot].operation))
    let time = replyClock > requests[slot].begun ? replyClock - requests[slot].begun : 0
    if isError { counters[place + 2] &+= 1 }
    counters[place + 3] &+= time
    counters[place + 4 + LatencyBuckets.bucket(nanoseconds: time)] &+= 1
  }

  /// An I/O of a leg begins.
  @inline(__always)
  func countIO(_ io: LegIO) {
    let place = Counter.leg(io.leg, io.kind)
    counters[place] &+= 1
    counters[place + 1] &+= io.count
  }

  /// Copies the table to where others look.
  func publishCounters() {
    counters[Counter.leasedBytes] = UInt64(pool.leasedBytes)
    counters[Counter.pinnedBytes] = UInt64(pinnedBytes)
    counters[Counter.connections] = connectionNumber
    port.counters.withLock { list in
      for index in 0..<Counter.count { list[index] = counters[index] }
    }
  }
}

/// What a server has done since its start, at most a quarter of a second old.
public struct ServerStatistics: Sendable {
  /// Requests of one kind.
  public struct Operation: Sendable {
    /// Requests that were taken.
    public var requests: UInt64 = 0
    /// Bytes that they are about.
    public var bytes: UInt64 = 0
    /// Answers that were errors.
    public var errors: UInt64 = 0
    /// From taking to answering, all together.
    public var nanoseconds: UInt64 = 0
    /// Answers per bucket of `LatencyBuckets`.
    public var buckets = [UInt64](repeating: 0, count: LatencyBuckets.count)
  }

  /// I/O of one kind on one leg.
  public struct LegOperation: Sendable {
    /// I/O that was begun.
    public var count: UInt64 = 0
    /// Its bytes.
    public var bytes: UInt64 = 0
  }

  /// By `ClientOperation`.
  public var operations = [Operation](
    repeating: Operation(), count: ClientOperation.allCases.count)
  /// By slot and `IOKind`.
  public var legs = [[LegOperation]](
    repeating: [LegOperation](repeating: LegOperation(), count: Counter.kinds),
    count: LegSlot.count)
  /// Turns of the loop, by reactor.
  public var turns: [UInt64] = []
  /// Requests that were refused before they were taken: they made no sense.
  public var refused: UInt64 = 0
  /// Memory that payloads hold now.
  public var leasedBytes: UInt64 = 0
  /// Of that, what legs that hang hold although the client has its answer.
  public var pinnedBytes: UInt64 = 0
  /// Connections that were accepted.
  public var connections: UInt64 = 0

  mutating func add(_ counters: [UInt64]) {
    for index in operations.indices {
      let place = Counter.operation(index)
      operations[index].requests += counters[place]
      operations[index].bytes += counters[place + 1]
      operations[index].errors += counters[place + 2]
      operations[index].nanoseconds += counters[place + 3]
      for bucket in 0..<LatencyBuckets.count {
        operations[index].buckets[bucket] += counters[place + 4 + bucket]
      }
    }
    for leg in legs.indices {
      for kind in 0..<Counter.kinds {
        let place = Counter.legs + leg * Counter.perLeg + 2 * kind
        legs[leg][kind].count += counters[place]
        legs[leg][kind].bytes += counters[place + 1]
      }
    }
    turns.append(counters[Counter.turns])
    refused += counters[Counter.refused]
    leasedBytes += counters[Counter.leasedBytes]
    pinnedBytes += counters[Counter.pinnedBytes]
    connections += counters[Counter.connections]
  }
}

extension MirrorServer {
  /// What it has done.
  public func statistics() -> ServerStatistics {
    var statistics = ServerStatistics()
    // Read under the lock: who takes the array along leaves the reactor one to copy.
    for port in share.ports { port.counters.withLock { statistics.add($0) } }
    return statistics
  }
}
