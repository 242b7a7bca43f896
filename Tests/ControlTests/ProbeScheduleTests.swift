// Goal: failed legs are probed soon, then less and less often. Method: the schedule, second by
// second.
import Base
import Testing

@testable import nbdmirror

@Suite("probes of failed legs")
struct ProbeScheduleTests {
  @Test("the first probe comes after 10 s, the next ones twice as late, at most 5 min apart")
  func backOff() {
    var schedule = ProbeSchedule()
    var probes: [UInt64] = []
    for second in UInt64(100)..<1200 {
      let due = schedule.dueLegs(LegSet(bits: 2), seconds: second)
      if !due.isEmpty { probes.append(second - 100) }
    }
    #expect(probes == [10, 30, 70, 150, 310, 610, 910])
  }

  @Test("a leg that came back and failed again begins anew; legs do not wait for each other")
  func anew() {
    var schedule = ProbeSchedule()
    for second in UInt64(0)..<100 { _ = schedule.dueLegs(LegSet(bits: 1), seconds: second) }
    #expect(schedule.dueLegs(.none, seconds: 100).isEmpty)
    #expect(schedule.dueLegs(LegSet(bits: 3), seconds: 101).isEmpty)
    #expect(schedule.dueLegs(LegSet(bits: 3), seconds: 110).isEmpty)
    #expect(schedule.dueLegs(LegSet(bits: 3), seconds: 111) == LegSet(bits: 3))
  }
}
