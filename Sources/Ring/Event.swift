// Waking a thread that sleeps in its ring.

import CRing
import Glibc

/// An eventfd: any thread signals it, one ring polls it. Closed with its owner.
public final class Event: Sendable {
  /// For `Ring.preparePoll`.
  public let descriptor: Int32

  /// - Throws: `RingError.failed` if the process has no descriptors left.
  public init() throws(RingError) {
    descriptor = nbdmirror_event_create()
    guard descriptor >= 0 else { throw RingError.failed(errno: -descriptor) }
  }

  deinit { close(descriptor) }

  /// Wakes whoever polls.
  public func signal() { nbdmirror_event_signal(descriptor) }

  /// Takes back all signals so far.
  public func clear() { nbdmirror_event_clear(descriptor) }
}
