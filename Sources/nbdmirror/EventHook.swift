// `serve --on-event PROGRAM`: each event as JSON on the standard input of a program.
//
// One run at a time, in the order of the events. At most `waitingMax` events wait for their turn;
// more are dropped, counted, and told by an `events-lost` in their place. A program that runs longer
// than `secondsMax` is killed. Nothing here is on the path of data: events are put into a list.

import Base
import ControlModel
import Glibc
import Ring
import Server
import Synchronization

/// The thread that runs the program.
final class EventHook: Sendable {
  static let waitingMax = 256
  static let secondsMax: UInt64 = 30
  /// How long a stop waits for events that wait.
  private static let stopSecondsMax: UInt64 = 5

  private struct State {
    var waiting: [EventRecord] = []
    var lost: UInt64 = 0
    var lastLost = EventRecord(.eventsLost, "")
    var stopAt: UInt64?
  }

  private let program: String
  private let state = Mutex(State())
  private let event: Event
  private let thread = Mutex<ServerThread?>(nil)

  /// - Throws: `CommandFailure` if there is no such program.
  init(_ program: String) throws {
    // The path lives through the call.
    guard !program.isEmpty, unsafe access(program, X_OK) == 0 else {
      throw CommandFailure("--on-event \(program): there is no such program that can be run")
    }
    self.program = program
    event = try Event()
  }

  /// Starts it; once.
  func start() throws(ServerError) {
    let made = try ServerThread { [self] in run() }
    thread.withLock { $0 = made }
  }

  /// Hands an event over; never blocks.
  func post(_ record: EventRecord) {
    state.withLock { state in
      if state.waiting.count < EventHook.waitingMax {
        state.waiting.append(record)
      } else {
        state.lost += 1
        state.lastLost = record
      }
    }
    event.signal()
  }

  /// Ends it after the events that wait, or some seconds.
  func stop() {
    state.withLock {
      $0.stopAt = monotonicNanoseconds() + EventHook.stopSecondsMax * Nanoseconds.second
    }
    event.signal()
    thread.withLock { $0 }?.join()
  }

  private func run() {
    while true {
      event.wait()
      event.clear()
      while let record = next() { tell(record) }
      if state.withLock({ $0.stopAt != nil }) { return }
    }
  }

  /// What is to be told next; nil: nothing, or the time is over.
  private func next() -> EventRecord? {
    state.withLock { state in
      if let stopAt = state.stopAt, monotonicNanoseconds() > stopAt { return nil }
      if !state.waiting.isEmpty { return state.waiting.removeFirst() }
      guard state.lost > 0 else { return nil }
      var record = EventRecord(
        .eventsLost, "\(state.lost) events came faster than the program took them",
        count: state.lost)
      record.sequence = state.lastLost.sequence
      record.time = state.lastLost.time
      state.lost = 0
      return record
    }
  }

  private func tell(_ record: EventRecord) {
    let text: String
    do { text = String(decoding: try ControlJSON.line(record), as: UTF8.self) + "\n" } catch {
      Journal.write("an event cannot be written: \(error.message)")
      return
    }
    let process = ProcessCalls.spawn(program, text: text)
    guard process > 0 else {
      Journal.write("--on-event \(program) cannot be run: \(SystemError(code: -process))")
      return
    }
    wait(for: process)
  }

  private func wait(for process: Int32) {
    let deadline = monotonicNanoseconds() + EventHook.secondsMax * Nanoseconds.second
    var isKilled = false
    while true {
      let ended = ProcessCalls.hasEnded(process)
      guard ended == 0 else {
        if ended > 1, !isKilled {
          Journal.write("--on-event \(program) ended with status \(ended - 1)")
        }
        return
      }
      let stopAt = state.withLock { $0.stopAt } ?? UInt64.max
      if !isKilled, monotonicNanoseconds() > min(deadline, stopAt) {
        Journal.write("--on-event \(program) took too long and is killed")
        kill(process, SIGKILL)
        isKilled = true
      }
      usleep(2000)
    }
  }
}
