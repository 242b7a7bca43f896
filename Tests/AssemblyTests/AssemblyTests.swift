// Goal: every rule of DESIGN 4.6: what starts, with which legs in which role, and what does not
// start. Method: mirrors made of labels; each plan is made in several orders of the PVs.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Assembly")
struct AssemblyTests {
  @Test("a healthy mirror starts with all legs online", arguments: 1...8)
  func healthy(count: Int) throws {
    let mirror = try TestMirror(legs: count)
    let plan = try mirror.plan(Array(0..<count)).get()
    #expect(plan.online.count == count)
    #expect(plan.lost.isEmpty && !plan.isDegradedStart && plan.wasClean && !plan.isReadOnly)
    #expect(plan.name == "m" && plan.setId == Identifier(high: 0x5e7, low: 1))
    #expect(plan.nextLabelSequence == 3)
    for index in 0..<count {
      #expect(plan.legs[index]?.path == TestMirror.path(index))
      #expect(plan.legs[index]?.candidate == index)
    }
  }

  @Test("candidates keep their index whatever the order")
  func candidateIndexes() throws {
    let mirror = try TestMirror(legs: 3)
    let plan = try Assembly.plan(mirror.candidates([2, 0, 1])).get()
    #expect(plan.legs.map { $0?.candidate } == [1, 2, 0, nil, nil, nil, nil, nil])
  }

  @Test("a mirror is clean only if every online leg's label of the head's generation says so")
  func cleanliness() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.labels[1].isClean = false
    #expect(try !mirror.plan([0, 1]).get().wasClean)
    mirror = try TestMirror(legs: 2)
    mirror.commit(seenBy: 0, to: [0], isClean: true) { _ in }
    #expect(try !mirror.plan([0, 1]).get().wasClean)
  }

  @Test("a leg that the head lists online and that is absent needs --degraded")
  func missingLeg() throws {
    let mirror = try TestMirror(legs: 3)
    let refusal = try #require(mirror.plan([0, 2]).refusal)
    #expect(
      refusal.reason
        == .missingLegs([.init(slot: LegSlot(1), legId: TestMirror.legId(1))]))
    let plan = try mirror.plan([0, 2], degraded: true).get()
    #expect(plan.isDegradedStart && plan.lost == LegSet(LegSlot(1)))
    #expect(plan.online == LegSet(bits: 0b101) && plan.offline == LegSet(bits: 0b010))
  }

  @Test("a leg that the head lists offline may stay away without --degraded")
  func knownOffline() throws {
    for state in [MemberState.missing, .failed, .removed] {
      var mirror = try TestMirror(legs: 2)
      mirror.lose([1], state: state, seenBy: 0, to: [0])
      let plan = try mirror.plan([0]).get()
      #expect(!plan.isDegradedStart && plan.online == LegSet(bits: 1))
      #expect(plan.offline == LegSet(bits: 2))
    }
  }

  @Test("a stale leg alone does not start, although its own label calls it online")
  func staleLegAlone() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], state: .failed, seenBy: 0, to: [0])
    #expect(mirror.plan([1]).refusal != nil)
  }

  @Test("a missing leg comes back by itself; failed and removed ones stay offline")
  func offlineRoles() throws {
    for (state, role) in [
      (MemberState.missing, AssemblyRole.returning), (.failed, .offline), (.removed, .offline),
    ] {
      var mirror = try TestMirror(legs: 2)
      mirror.lose([1], state: state, seenBy: 0, to: [0])
      let plan = try mirror.plan([0, 1]).get()
      #expect(plan.roles == [0: .online, 1: role], "\(state)")
      #expect(plan.online == LegSet(bits: 1) && !plan.isDegradedStart)
    }
  }

  @Test("a leg that was away for more generations than a label remembers is stale, no stranger")
  func longAway() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.lose([1], seenBy: 0, to: [0, 2])
    for _ in 0..<40 { mirror.commit(seenBy: 0, to: [0, 2]) { _ in } }
    let plan = try mirror.plan([0, 1, 2]).get()
    #expect(plan.roles == [0: .online, 1: .returning, 2: .online])
  }

  @Test("a leg that went on alone is a split brain, also after many generations")
  func splitBrain() throws {
    for rounds in [0, 1, 30] {
      var mirror = try TestMirror(legs: 2)
      mirror.lose([1], seenBy: 0, to: [0])
      mirror.lose([0], seenBy: 1, to: [1])
      for _ in 0..<rounds { mirror.commit(seenBy: 0, to: [0]) { _ in } }
      let refusal = try #require(mirror.plan([0, 1]).refusal)
      guard case .splitBrain(let heads) = refusal.reason else {
        Issue.record("not a split brain but \(refusal)")
        continue
      }
      #expect(heads.map(\.paths) == [["/pv0"], ["/pv1"]])
      #expect(heads.map(\.lineage) == mirror.labels.map(\.lineage))
      #expect(mirror.plan([0, 1], degraded: true).refusal != nil)
    }
  }

  @Test("a fork further back is a split brain, although the lost leg's counter is lower")
  func earlyFork() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.commit(seenBy: 0, to: [0, 1]) { _ in }
    mirror.lose([1], seenBy: 0, to: [0])  // generation 3, without leg 1
    for _ in 0..<20 { mirror.commit(seenBy: 0, to: [0]) { _ in } }
    mirror.lose([0], seenBy: 1, to: [1])  // generation 3 as well, another one
    #expect(mirror.labels[1].lineage.current.counter == 3)
    guard case .splitBrain = mirror.plan([0, 1]).refusal?.reason else {
      Issue.record("generation 3 of leg 1 is not an ancestor")
      return
    }
  }

  @Test("--choose-leg keeps one history; the other leg has every region stale")
  func chooseLeg() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    mirror.lose([0], seenBy: 1, to: [1])
    for (choice, slot) in [
      ("/pv0", 0), ("0", 0), (TestMirror.legId(0).description, 0), ("/pv1", 1), ("1", 1),
    ] {
      let plan = try mirror.plan([0, 1], choose: choice).get()
      #expect(plan.roles == [slot: .online, 1 - slot: .diverged], "\(choice)")
      #expect(plan.lineage == mirror.labels[slot].lineage)
    }
  }

  @Test("--choose-leg cannot choose an ancestor, or somebody who is not there")
  func wrongChoice() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.lose([1], seenBy: 0, to: [0, 2])
    #expect(
      mirror.plan([0, 1, 2], choose: "1").refusal?.reason
        == .staleChoice(path: "/pv1", newer: "/pv0"))
    mirror.lose([2], seenBy: 0, to: [0])
    mirror.lose([0], seenBy: 2, to: [2])
    #expect(
      mirror.plan([0, 1, 2], choose: "1").refusal?.reason
        == .staleChoice(path: "/pv1", newer: "/pv0"))
    #expect(mirror.plan([0, 1, 2], choose: "7").refusal?.reason == .unknownChoice("7"))
    #expect(mirror.plan([0, 1, 2], choose: "/pv9").refusal?.reason == .unknownChoice("/pv9"))
  }

  @Test("--choose-leg changes nothing where there is one history")
  func needlessChoice() throws {
    let mirror = try TestMirror(legs: 2)
    #expect(try mirror.plan([0, 1], choose: "1").get().roles == [0: .online, 1: .online])
  }

  @Test("after --choose-leg a leg of the chosen history that is absent still needs --degraded")
  func chosenDegraded() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.lose([2], seenBy: 0, to: [0, 1])
    mirror.lose([0, 1], seenBy: 2, to: [2])
    #expect(mirror.plan([0, 2], choose: "0").refusal != nil)
    let plan = try mirror.plan([0, 2], degraded: true, choose: "0").get()
    #expect(plan.roles == [0: .online, 2: .diverged] && plan.lost == LegSet(LegSlot(1)))
  }

  @Test("a label commit that reached only some legs: the others are trusted, in every subset")
  func tornCommit() throws {
    for reached in 1...6 {  // subsets of legs 0, 1, 2 that have the new label; not all
      var mirror = try TestMirror(legs: 4)
      let legs = (0..<3).filter { reached >> $0 & 1 == 1 }
      mirror.lose([3], state: .failed, seenBy: 0, to: legs)
      let plan = try mirror.plan([0, 1, 2, 3]).get()
      #expect(plan.roles == [0: .online, 1: .online, 2: .online, 3: .offline])
      #expect(plan.lineage.current.counter == 2 && !plan.wasClean && !plan.isDegradedStart)
    }
  }

  @Test("a commit that brought a leg back reached only one side: the leg is online")
  func tornReturn() throws {
    for reached in [[0], [1], [0, 2], [1, 2], [2]] {
      var mirror = try TestMirror(legs: 3)
      mirror.lose([1], seenBy: 0, to: [0, 2])
      for _ in 0..<30 { mirror.commit(seenBy: 0, to: [0, 2]) { _ in } }
      mirror.commit(seenBy: 0, to: reached) { members in
        members[1].state = .online  // offlineSince stays until the next change
        members[1].isSyncing = true
      }
      let plan = try mirror.plan([0, 1, 2]).get()
      #expect(plan.roles == [0: .online, 1: .online, 2: .online], "reached \(reached)")
      #expect(plan.incomplete == LegSet(LegSlot(1)))
    }
  }

  @Test("of labels of one generation the one written last speaks for the mirror")
  func sameGeneration() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.labels[1].sequence = 3
    mirror.labels[1].resyncMaxBytesPerSecond = 77
    let plan = try mirror.plan([0, 1]).get()
    #expect(plan.head.resyncMaxBytesPerSecond == 77 && plan.nextLabelSequence == 4)
  }

  @Test("a spare waits, however old its label is, and starts nothing alone")
  func spares() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.commit(seenBy: 0, to: [0, 1, 2]) { $0[2].state = .spare }
    for _ in 0..<40 { mirror.commit(seenBy: 0, to: [0, 1]) { _ in } }
    let plan = try mirror.plan([0, 1, 2]).get()
    #expect(plan.roles == [0: .online, 1: .online, 2: .spare])
    #expect(plan.configured == LegSet(bits: 3))
    #expect(try mirror.plan([0, 1]).get().lost.isEmpty)
    #expect(mirror.plan([2], degraded: true).refusal?.reason == .nothingOnline(paths: ["/pv2"]))
  }

  @Test("a leg with features that this version may only read makes the mirror read-only")
  func readOnly() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.labels[1].features.readOnlyCompatible = 1
    #expect(try mirror.plan([0, 1]).get().isReadOnly)
  }

  @Test("random histories: no leg is online that the head does not list online and descend from")
  func randomHistories() throws {
    var random = PRNG(seed: 51)
    var outcomes: [String: Int] = [:]
    for _ in 0..<300 {
      var mirror = try TestMirror(legs: 4)
      for _ in 0..<random.int(in: 1...6) {
        let seenBy = random.int(in: 0...3)
        let others = (0..<4).filter { $0 != seenBy && random.chance(1, in: 3) }
        let to = (0..<4).filter {
          $0 == seenBy
            || !others.contains($0) && mirror.labels[$0].lineage == mirror.labels[seenBy].lineage
              && random.chance(7, in: 8)
        }
        mirror.lose(
          others, state: random.chance(1, in: 2) ? .missing : .failed, seenBy: seenBy, to: to)
      }
      switch mirror.plan([0, 1, 2, 3]) {
      case .success(let plan):
        outcomes["plan", default: 0] += 1
        for leg in plan.legs {
          guard let leg, leg.role == .online else { continue }
          #expect(plan.members[leg.slot.index].state == .online)
          let lineage = leg.label.label.lineage
          #expect(
            lineage.current == plan.lineage.current
              || Assembly.isAncestor(leg.label.label, of: plan.head))
        }
      case .failure(let refusal):
        if case .splitBrain = refusal.reason { outcomes["split", default: 0] += 1 }
        #expect(!refusal.description.isEmpty && !refusal.explanation.isEmpty)
      }
    }
    #expect(outcomes["plan", default: 0] > 20 && outcomes["split", default: 0] > 20)
  }
}
