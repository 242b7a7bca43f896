// What the engine knows of one leg.
//
//   vacant -> joining -> online -> offline -> joining ...
//
// | from    | to      | performed by                                                        |
// | vacant  | joining | Engine.add                                                          |
// | offline | joining | Engine.readd (only when no I/O of the leg is in flight)             |
// | joining | online  | Engine.labelFinished: our map and a label naming it are durable     |
// | joining | offline | Engine.failJoin                                                     |
// | online  | offline | Engine.failLeg (error, timeout, command), unless it holds the only  |
// |         |         | good copy of a region                                               |
// | vacant  | spare   | Engine.add                                                          |
// | spare   | joining | Engine.takeOver, when a leg has failed                              |
// | spare   | vacant  | Engine.remove, Engine.dropSpare                                     |
// | joining | spare   | Engine.failJoin at a stop; when it failed: vacant                   |
//
// Online: gets every write; may be read where it is not stale. Joining: gets the log and the
// label, no data. Spare: gets labels, which nobody waits for. Offline, vacant: gets nothing.

import Base
import MirrorFormat

struct LegState {
  enum Phase: UInt8 {
    case vacant, offline, joining, online, spare
  }

  var phase = Phase.vacant
  /// Why it is offline, as the label will say; only meaningful while `phase` is `offline`.
  var offlineState = MemberState.missing
  var legId = Identifier.zero
  var isWriteMostly = false
  /// The lowest counter that a generation made by this leg alone could have (`Member.offlineSince`).
  var ownFrom: UInt64 = 0
  /// The newest generation whose label was sent to it, whether it arrived or not.
  var offeredId = Identifier.zero
  /// What stands on it was given up: a label of `offeredId` on it is another history.
  var isGivenUp = false
  /// The leg that it is to replace.
  var replaces: LegSlot?

  /// The copy (0, 1) that holds its newest label.
  var labelCopy = 0

  /// Spares only: its file is open.
  var isPresent = true

  /// Added by command and not yet listed in any label.
  var isNew = false

  /// `legIdle` was told since it went offline; nobody holds a file for it then.
  var isIdleTold = true
  /// I/O in flight, of any purpose.
  var inFlight: Int = 0
  /// Client reads in flight on it, from the oldest to the newest, linked through their records;
  /// -1: none.
  var oldestRead: Int32 = -1
  var newestRead: Int32 = -1
  /// The oldest that was not yet looked at for hedging.
  var hedgeNext: Int32 = -1
  /// When the oldest was issued.
  var oldestReadStart = Instant.zero
  /// What is known of its reads since it came online.
  var speed = LegSpeed()

  var readErrors: UInt64 = 0
  var writeErrors: UInt64 = 0
  /// Puts a read at the end of the list; returns the one before it, or -1.
  mutating func link(_ record: Int32, start: Instant) -> Int32 {
    let older = newestRead
    newestRead = record
    if hedgeNext < 0 { hedgeNext = record }
    if older < 0 {
      oldestRead = record
      oldestReadStart = start
    }
    return older
  }

  /// What the read errors since the last time the leg came online weigh; too much and it fails.
  var readErrorScore: UInt64 = 0
  /// When that was last halved for its age.
  var readErrorsAgedAt = Instant.zero
  var repairedBlocks: UInt64 = 0
  var hedgedReads: UInt64 = 0
  var hedgesWon: UInt64 = 0
  var readLatency = LatencyHistogram()
  var writeLatency = LatencyHistogram()
}

/// Counts of latencies in buckets a quarter of a power of two wide, from 1 us to 2^30 us.
public struct LatencyHistogram: Sendable {
  private var counts = [UInt32](repeating: 0, count: 120)
  /// How many latencies were recorded.
  public private(set) var total: UInt64 = 0
  /// Their sum.
  public private(set) var nanoseconds: UInt64 = 0

  /// An empty histogram.
  public init() {}

  /// Records one latency.
  public mutating func record(nanoseconds: UInt64) {
    counts[LatencyHistogram.bucket(nanoseconds: nanoseconds, of: counts.count)] &+= 1
    total += 1
    self.nanoseconds &+= nanoseconds
  }

  /// The same in memory of its own: while somebody else held this one's, the next `record` would have
  /// to copy it, in the midst of I/O.
  func detached() -> LatencyHistogram {
    var copy = self
    copy.counts = counts.map { $0 }
    return copy
  }

  /// The bucket of a latency: four for each power of two of microseconds.
  static func bucket(nanoseconds: UInt64, of count: Int) -> Int {
    let micros = max(nanoseconds / 1000, 1)
    let power = 63 - micros.leadingZeroBitCount
    let quarter = power >= 2 ? Int(micros >> UInt64(power - 2)) & 3 : 0
    return min(power * 4 + quarter, count - 1)
  }

  /// How many were below 2^`power` microseconds.
  public func count(belowPower power: Int) -> UInt64 {
    counts.prefix(4 * max(power, 0)).reduce(0) { $0 + UInt64($1) }
  }

  /// The latency in microseconds that `percent` of all stay below or at, within a quarter of a
  /// power of two; nil if none was recorded.
  public func quantileMicroseconds(percent: Double) -> Double? {
    guard total > 0 else { return nil }
    let wanted = max(1, UInt64(Double(total) * percent / 100))
    var seen: UInt64 = 0
    for bucket in counts.indices {
      seen += UInt64(counts[bucket])
      if seen >= wanted {
        let low = Double(UInt64(1) << UInt64(bucket / 4))
        return low * (1 + Double(bucket % 4 + 1) / 4)
      }
    }
    return nil
  }
}
