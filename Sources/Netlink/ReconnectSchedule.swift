// When to try to reach the server again, as values: the clock is an argument.
//
//   connected --lost--> lost, first try after 20 ms --failed--> the next after twice as long, up to 1 s
//       ^                 |                                       ...
//       +----restored-----+                      timeout after the loss: over
//
// Invariants
//  1. Between two tries is at least `delayMin`, also when every connection dies as soon as it is
//     made: a loss that soon after a restoration goes on with the delay of before.
//  2. A further loss while lost changes nothing: the deadline counts from the first.

import Base

/// The tries to reconnect after a loss.
public struct ReconnectSchedule: Sendable {
  /// Nanoseconds from a loss to the first try: all connections of a server die together, and those
  /// that were not yet found dead take no new socket.
  public static let delayMin = 20 * Nanoseconds.millisecond
  /// Nanoseconds between tries at most.
  public static let delayMax = Nanoseconds.second
  /// A connection that held so many nanoseconds was a good one.
  public static let holdMin = 5 * Nanoseconds.second

  private let timeout: UInt64
  private var lostAt: Instant?
  private var nextTry = Instant.zero
  private var delay = ReconnectSchedule.delayMin
  private var restoredAt: Instant?

  /// A schedule that gives up `timeout` nanoseconds after a loss.
  public init(timeoutNanoseconds timeout: UInt64) { self.timeout = timeout }

  /// Whether a connection is missing.
  public var isLost: Bool { lostAt != nil }

  /// A connection died.
  public mutating func lost(_ now: Instant) {
    guard lostAt == nil else { return }
    if let restoredAt, now.nanoseconds(since: restoredAt) < ReconnectSchedule.holdMin {
      delay = min(delay * 2, ReconnectSchedule.delayMax)
    } else {
      delay = ReconnectSchedule.delayMin
    }
    lostAt = now
    nextTry = now.advanced(byNanoseconds: delay)
  }

  /// Whether to try now.
  public func isDue(_ now: Instant) -> Bool { isLost && now >= nextTry }

  /// A try at `now` failed.
  public mutating func failed(_ now: Instant) {
    delay = min(delay * 2, ReconnectSchedule.delayMax)
    nextTry = now.advanced(byNanoseconds: delay)
  }

  /// All connections are there again; returns the nanoseconds that one was missing.
  public mutating func restored(_ now: Instant) -> UInt64 {
    let missing = lostAt.map { now.nanoseconds(since: $0) } ?? 0
    lostAt = nil
    restoredAt = now
    return missing
  }

  /// Whether it is too late to try again.
  public func isOver(_ now: Instant) -> Bool { remaining(now) == 0 }

  /// Nanoseconds until it is too late; nil while nothing is lost.
  public func remaining(_ now: Instant) -> UInt64? {
    guard let lostAt else { return nil }
    let gone = now.nanoseconds(since: lostAt)
    return gone < timeout ? timeout - gone : 0
  }

  /// Nanoseconds to sleep until there is something to do; nil while nothing is lost.
  public func wait(_ now: Instant) -> UInt64? {
    remaining(now).map { min($0, nextTry.nanoseconds(since: now)) }
  }
}
