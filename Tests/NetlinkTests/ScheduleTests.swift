// Goal: tries to reconnect back off, have an end, and never become a busy loop. Method: the clock is
// an argument.
import Base
import Netlink
import Testing

private let second = Nanoseconds.second

private func at(_ nanoseconds: UInt64) -> Instant { Instant(nanoseconds: nanoseconds) }

@Suite("Schedule")
struct ScheduleTests {
  /// The pauses between a loss at `start` and the tries that all fail, until it is over.
  private func pauses(_ schedule: inout ReconnectSchedule, from start: UInt64) -> [UInt64] {
    var now = start
    schedule.lost(at(now))
    var pauses: [UInt64] = []
    while let wait = schedule.wait(at(now)), !schedule.isOver(at(now)) {
      #expect(wait == 0 || !schedule.isDue(at(now + wait - 1)))
      now += wait
      guard schedule.isDue(at(now)) else { break }
      pauses.append(wait)
      schedule.failed(at(now))
    }
    #expect(schedule.isOver(at(now)))
    #expect(now == start + 10 * second)
    return pauses
  }

  @Test("pauses double from 20 ms to a second, and end at the timeout to the nanosecond")
  func backsOff() {
    var schedule = ReconnectSchedule(timeoutNanoseconds: 10 * second)
    #expect(!schedule.isLost && schedule.wait(at(0)) == nil && schedule.remaining(at(0)) == nil)
    #expect(!schedule.isDue(at(0)) && !schedule.isOver(at(UInt64.max)))
    let pauses = pauses(&schedule, from: 100 * second)
    let milliseconds = pauses.map { $0 / Nanoseconds.millisecond }
    #expect(milliseconds == [20, 40, 80, 160, 320, 640] + Array(repeating: 1000, count: 8))
  }

  @Test("a second loss changes nothing, a restoration everything")
  func losses() {
    var schedule = ReconnectSchedule(timeoutNanoseconds: 10 * second)
    schedule.lost(at(0))
    schedule.lost(at(9 * second))
    #expect(schedule.remaining(at(9 * second)) == second)
    #expect(schedule.restored(at(9 * second)) == 9 * second)
    #expect(!schedule.isLost && !schedule.isOver(at(99 * second)))
    schedule.lost(at(20 * second))
    #expect(schedule.remaining(at(20 * second)) == 10 * second)
    #expect(schedule.wait(at(20 * second)) == ReconnectSchedule.delayMin)
  }

  @Test("connections that die as soon as they are made are not made in a busy loop")
  func flapping() {
    var schedule = ReconnectSchedule(timeoutNanoseconds: 10 * second)
    var now: UInt64 = 0
    var tries = 0
    while now < 60 * second {
      schedule.lost(at(now))
      now += schedule.wait(at(now)) ?? 0
      #expect(schedule.isDue(at(now)))
      #expect(schedule.restored(at(now)) > 0)
      tries += 1
    }
    #expect(tries < 70)
    // One that held is a good one again.
    now += ReconnectSchedule.holdMin
    schedule.lost(at(now))
    #expect(schedule.wait(at(now)) == ReconnectSchedule.delayMin)
  }
}
