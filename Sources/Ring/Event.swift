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

  /// Sleeps until it is signalled; for threads without a ring.
  public func wait() {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    // The address of a local that lives through the call.
    while unsafe poll(&entry, 1, -1) < 0, errno == EINTR {}
  }

  /// Takes back all signals so far.
  public func clear() { nbdmirror_event_clear(descriptor) }
}
