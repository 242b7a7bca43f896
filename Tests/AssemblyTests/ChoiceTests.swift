// Goal: what an administrator decided once is not asked again, and nothing else is taken as
// decided; data that only an absent leg has is not given up unasked. Method: mirrors of labels.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Choices")
struct ChoiceTests {
  /// Legs 0 and 1 went on separately, leg 0 was chosen, and the mirror ran so: its labels.
  private func chosen(rounds: Int) throws -> TestMirror {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    mirror.lose([0], seenBy: 1, to: [1])
    for _ in 0..<rounds { mirror.commit(seenBy: 1, to: [1]) { _ in } }
    let plan = try mirror.plan([0, 1], choose: "0").get()
    let empty = AssemblyMap.elect(plan: plan, maps: Array(repeating: nil, count: 8))
    let start = EngineStart(plan: plan, map: empty, seed: 1)
    #expect(start.members[1].isGivenUp)
    #expect(start.members[1].offeredId == mirror.labels[1].lineage.current.id)
    mirror.labels[0].members[1] = start.members[1]
    mirror.labels[0].sequence += 1
    return mirror
  }

  @Test("a split brain that was decided is not reported again", arguments: [0, 5, 40])
  func decided(rounds: Int) throws {
    var mirror = try chosen(rounds: rounds)
    for _ in 0..<3 {
      let plan = try mirror.plan([0, 1]).get()
      #expect(plan.roles == [0: .online, 1: .diverged])
      for _ in 0..<20 { mirror.commit(seenBy: 0, to: [0]) { _ in } }
    }
    #expect(try mirror.plan([0]).get().roles == [0: .online])
  }

  @Test("a leg that went on after its history was given up is asked about again")
  func wentOn() throws {
    var mirror = try chosen(rounds: 2)
    mirror.commit(seenBy: 1, to: [1]) { _ in }
    guard case .splitBrain = mirror.plan([0, 1]).refusal?.reason else {
      Issue.record("what leg 1 took since is given up unasked")
      return
    }
    #expect(try mirror.plan([0, 1], choose: "1").get().roles == [0: .diverged, 1: .online])
  }

  @Test("histories that gave up each other, in pairs or in a circle, are a split brain")
  func mutual() throws {
    for count in 2...3 {
      var mirror = try TestMirror(legs: count)
      for leg in 0..<count {
        mirror.lose((0..<count).filter { $0 != leg }, seenBy: leg, to: [leg])
      }
      for leg in 0..<count {
        let other = (leg + 1) % count
        mirror.labels[leg].members[other].isGivenUp = true
        mirror.labels[leg].members[other].offeredId = mirror.labels[other].lineage.current.id
      }
      guard case .splitBrain(let heads) = mirror.plan(Array(0..<count)).refusal?.reason else {
        Issue.record("\(count) histories, none of them chosen")
        continue
      }
      #expect(heads.count == count)
      #expect(try mirror.plan(Array(0..<count), choose: "1").get().online == LegSet(bits: 2))
    }
  }

  @Test("--log core: a start without the only complete leg is refused, and can be insisted on")
  func onlyComplete() throws {
    var mirror = try TestMirror(legs: 3, logKind: .core)
    mirror.commit(seenBy: 0, to: [0, 1, 2]) { members in
      members[1].isSyncing = true
      members[2].isSyncing = true
    }
    let missing = AssemblyRefusal.MissingLeg(slot: LegSlot(0), legId: TestMirror.legId(0))
    #expect(
      mirror.plan([1, 2], degraded: true).refusal?.reason
        == .onlyCompleteLeg([missing], present: ["/pv1", "/pv2"]))
    #expect(mirror.plan([1, 2], choose: "1").refusal?.reason == .missingLegs([missing]))
    let plan = try mirror.plan([1, 2], degraded: true, choose: "1").get()
    #expect(plan.insistedOn == LegSlot(1))
    let map = AssemblyMap.elect(plan: plan, maps: Array(repeating: nil, count: 8))
    #expect(map.regionsWithoutSource == 0)
    #expect(map.words.allSatisfy { $0 & 0xff == 0b101 })
    let start = EngineStart(plan: plan, map: map, seed: 1)
    #expect(start.members[0].isGivenUp && !start.lost.isEmpty)
    // The complete leg, or another complete one, is enough.
    #expect(try mirror.plan([0, 1], degraded: true).get().insistedOn == nil)
    mirror.commit(seenBy: 0, to: [0, 1, 2]) { $0[2].isSyncing = false }
    #expect(try mirror.plan([1, 2], degraded: true).get().lost == LegSet(bits: 1))
  }

  @Test("--log disk: the map says what is stale, so nothing has to be insisted on")
  func onlyCompleteWithLog() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.commit(seenBy: 0, to: [0, 1]) { $0[1].isSyncing = true }
    #expect(try mirror.plan([1], degraded: true).get().online == LegSet(bits: 2))
  }
}
