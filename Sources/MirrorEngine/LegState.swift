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
  /// Client reads in flight, for the read policy.
  var readsInFlight: Int = 0

  var readErrors: UInt64 = 0
  var writeErrors: UInt64 = 0
  /// Read errors since the last time the leg came online; too many and it fails.
  var readErrorsSinceJoin: UInt64 = 0
  var repairedBlocks: UInt64 = 0
  var readLatency = LatencyHistogram()
  var writeLatency = LatencyHistogram()
}

/// Counts of latencies in buckets a quarter of a power of two wide, from 1 us to 2^30 us.
public struct LatencyHistogram: Sendable {
  private var counts = [UInt32](repeating: 0, count: 120)
  /// How many latencies were recorded.
  public private(set) var total: UInt64 = 0

  /// An empty histogram.
  public init() {}

  /// Records one latency.
  public mutating func record(nanoseconds: UInt64) {
    let micros = max(nanoseconds / 1000, 1)
    let power = 63 - micros.leadingZeroBitCount
    let quarter = power >= 2 ? Int(micros >> UInt64(power - 2)) & 3 : 0
    let bucket = min(power * 4 + quarter, counts.count - 1)
    counts[bucket] &+= 1
    total += 1
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
