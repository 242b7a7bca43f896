// The events of a mirror: numbered, kept in a ring, told to whoever follows.
//
// Invariants
//  1. Numbers go up by one. The last `capacity` events are kept.
//  2. Appending never blocks on a reader: readers are woken, and come for the events themselves.

import ControlModel
import Glibc
import Synchronization

/// Events in order. Safe from any thread.
public final class EventLog: Sendable {
  private struct State {
    /// In order; as many as `capacity`, the oldest at `first`.
    var events: [EventRecord] = []
    var first = 0
    var last: UInt64 = 0
    var readers: [Int: @Sendable () -> Void] = [:]
    var nextReader = 0
  }

  private let state = Mutex(State())
  private let capacity: Int

  /// An empty log that keeps `capacity` events.
  public init(capacity: Int = 4096) {
    precondition(capacity > 0, "a log keeps something")
    self.capacity = capacity
  }

  /// Appends an event, which gets its number and its time; returns it with both.
  @discardableResult
  public func append(_ event: EventRecord) -> EventRecord {
    var now = timespec()
    // A local that lives through the call.
    unsafe clock_gettime(CLOCK_REALTIME, &now)
    let time = EventTime.text(
      seconds: UInt64(max(0, now.tv_sec)), milliseconds: UInt64(now.tv_nsec / 1_000_000))
    let (kept, readers) = state.withLock { state in
      state.last += 1
      var event = event
      event.sequence = state.last
      event.time = time
      if state.events.count < capacity {
        state.events.append(event)
      } else {
        state.events[state.first] = event
        state.first = (state.first + 1) % capacity
      }
      return (event, Array(state.readers.values))
    }
    for wake in readers { wake() }
    return kept
  }

  /// Up to `countMax` events with numbers above `after`, in order. If older ones are not kept any
  /// more, an `events-lost` stands for them. A number that this log has not reached is of another
  /// server's life: then all events are new.
  public func events(after: UInt64, countMax: Int = Int.max) -> [EventRecord] {
    state.withLock { state in
      let after = after > state.last ? 0 : after
      let oldest = state.last - UInt64(state.events.count) + 1
      var result: [EventRecord] = []
      var next = after + 1
      if next < oldest {
        let lost = oldest - next
        var record = EventRecord(
          .eventsLost, "\(lost) events are not kept any more", count: lost)
        record.sequence = oldest - 1
        record.time = state.events[state.first].time
        result.append(record)
        next = oldest
      }
      while next <= state.last, result.count < countMax {
        let index = (state.first + Int(next - oldest)) % state.events.count
        result.append(state.events[index])
        next += 1
      }
      return result
    }
  }

  /// The number of the last event; 0: none.
  public var last: UInt64 { state.withLock { $0.last } }

  /// Calls `wake` after each event, from the thread that appended it, which it must not hold up.
  /// - Returns: what `unsubscribe` takes.
  func subscribe(_ wake: @escaping @Sendable () -> Void) -> Int {
    state.withLock { state in
      state.nextReader += 1
      state.readers[state.nextReader] = wake
      return state.nextReader
    }
  }

  /// No more calls begin after this returns.
  func unsubscribe(_ reader: Int) { state.withLock { $0.readers[reader] = nil } }
}
