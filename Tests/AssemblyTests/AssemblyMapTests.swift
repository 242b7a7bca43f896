// Goal: the map that a mirror starts with never forgets what was durable, and doubts what it
// cannot know. Method: two-page maps (3000 regions) on mirrors made of labels.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Region map at the start")
struct AssemblyMapTests {
  private let intent = RegionWord.intent

  private func elect(
    _ mirror: TestMirror, _ legs: [Int], maps: [Int: LegMap], degraded: Bool = false,
    choose: String? = nil
  ) throws -> AssemblyMap {
    let plan = try mirror.plan(legs, degraded: degraded, choose: choose).get()
    return AssemblyMap.elect(plan: plan, maps: (0..<8).map { maps[$0] })
  }

  @Test("equal maps need nothing")
  func healthy() throws {
    let mirror = try TestMirror(legs: 2)
    let map = try elect(mirror, [0, 1], maps: [0: mirror.map(), 1: mirror.map()])
    #expect(map.words == Array(repeating: 0, count: 3000))
    #expect(map.pagesToRewrite.isEmpty && map.lostPages == 0 && map.uncertainPages == 0)
    #expect(map.sequences == [4, 4])
    #expect(map.newestCopy[0] == [0, 0] && map.newestCopy[1] == [0, 0] && map.newestCopy[2] == [])
  }

  @Test("the highest sequence of any online leg wins, and the others are written again")
  func newestWins() throws {
    let mirror = try TestMirror(legs: 2)
    let newer = mirror.map(sequence: 5) { $0[7] = 0x8000 }
    let map = try elect(mirror, [0, 1], maps: [0: mirror.map(), 1: newer])
    #expect(map.words[7] == intent && map.regionsWithIntent == 1)
    #expect(map.sequences == [5, 5])
    #expect(map.pagesToRewrite == [0])
  }

  @Test("of three different sequences only the highest counts, wherever it is")
  func highestOfThree() throws {
    let mirror = try TestMirror(legs: 3)
    for sequences: [UInt64] in [[4, 6, 5], [6, 5, 4], [4, 5, 6], [5, 4, 6], [4, 6, 4]] {
      let maps = (0..<3).map { leg in
        mirror.map(word: sequences[leg] == 6 ? 1 : 2, sequence: sequences[leg])
      }
      let map = try elect(mirror, [0, 1, 2], maps: [0: maps[0], 1: maps[1], 2: maps[2]])
      #expect(map.words.allSatisfy { $0 == 1 } && map.conflictingPages == 0, "\(sequences)")
    }
  }

  @Test("a leg that is not online does not vote, but its sequences are passed")
  func returningLeg() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    let own = mirror.map { $0[3] = 2 }
    let others = mirror.map(word: 1, sequence: 90)
    let map = try elect(mirror, [0, 1], maps: [0: own, 1: others])
    #expect(map.words[3] == 2 && map.words[4] == 0)
    #expect(map.sequences == [90, 90])
    #expect(map.pagesToRewrite.isEmpty)
  }

  @Test("on an offline leg intent counts as stale, on an absent one not before the next label")
  func intentIsStale() throws {
    var mirror = try TestMirror(legs: 4)
    mirror.lose([3], state: .failed, seenBy: 0, to: [0, 1, 2])
    let own = mirror.map { $0[9] = 0x8000 }
    let map = try elect(mirror, [0, 1], maps: [0: own, 1: own], degraded: true)
    #expect(map.words[9] == intent | 8 && map.words[8] == 0)
    #expect(map.pagesToRewrite == [0])
    #expect(map.explanation.contains("leg 2: 1 regions are stale"))
    #expect(map.explanation.contains("leg 3: 1 regions are stale"))
  }

  @Test("who was offline before lacks what a leg has that is only absent")
  func goodLegIsAbsent() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.lose([2], state: .failed, seenBy: 0, to: [0, 1])
    let own = mirror.map { $0[9] = 0x8000 | 1 }
    let map = try elect(mirror, [0], maps: [0: own], degraded: true)
    #expect(map.words[9] == intent | 0b101)
    #expect(map.pagesToRewrite == [0] && map.regionsWithoutSource == 1)
    // What leg 1 may hold in flight does not pass for this, should it be back too early.
    #expect(map.sequences == [5, 5])
    // Everybody is here: leg 0 is made good, and nothing is known of leg 2.
    let whole = try elect(mirror, [0, 1], maps: [0: own, 1: own])
    #expect(whole.words[9] == intent | 0b101 && whole.sequences == [4, 4])
  }

  @Test("a page whose newest copy is not valid on any leg is doubted, and only that page")
  func uncertainPage() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    let old = mirror.map(invalidNewest: [0]) { $0[5] = 0x4000 }
    let map = try elect(mirror, [0], maps: [0: old])
    #expect(map.uncertainPages == 1 && map.lostPages == 0)
    // Unwritten stays: data is written only when no copy has the bit any more.
    #expect(map.words[5] == RegionWord.unwritten && map.unwrittenRegions == 1)
    #expect(map.words[..<2032].indices.allSatisfy { $0 == 5 || map.words[$0] == intent | 2 })
    #expect(map.words[2032...].allSatisfy { $0 == 0 })
    #expect(map.pagesToRewrite == [0])
  }

  @Test("an uncertain page does not call the only online leg stale, unless its label does")
  func loneLeg() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    let old = mirror.map(word: 1, invalidNewest: [0])
    let map = try elect(mirror, [0], maps: [0: old])
    #expect(map.words[..<2032].allSatisfy { $0 == intent | 2 })
    // A certain page is believed.
    #expect(map.words[2032...].allSatisfy { $0 == 1 })
    // Of two that the label lists one is absent: that one may be good.
    let pair = try TestMirror(legs: 2)
    let degraded = try elect(pair, [0], maps: [0: old], degraded: true)
    #expect(degraded.words[..<2032].allSatisfy { $0 & 1 == 1 })
  }

  @Test(
    "the newest image decides what is unwritten; pages of which an older copy says so are named")
  func unwrittenByNewest() throws {
    let mirror = try TestMirror(legs: 2)
    let older = mirror.map { $0[2100] = 0x4000 }
    let newer = mirror.map(sequence: 5) { $0[9] = 0x4000 | 0x8000 | 2 }
    let map = try elect(mirror, [0, 1], maps: [0: older, 1: newer])
    #expect(map.words[9] == RegionWord.unwritten && map.words[2100] == 0)
    #expect(map.unwrittenRegions == 1 && map.unwrittenPages == [true, true])
    #expect(map.regionsWithIntent == 0 && map.pagesToRewrite == [0, 1])
    let none = try elect(mirror, [0, 1], maps: [0: mirror.map(), 1: mirror.map()])
    #expect(none.unwrittenPages == [false, false])
    // Equally new and different: who says that it is written is right.
    let same = try elect(mirror, [0, 1], maps: [0: older, 1: mirror.map()])
    #expect(same.words[2100] == intent && same.conflictingPages == 1)
  }

  @Test("a page that is lost on all legs is not unwritten any more")
  func unwrittenLost() throws {
    let mirror = try TestMirror(legs: 1)
    let lost = mirror.map(lost: [0]) { $0[5] = 0x4000 }
    let map = try elect(mirror, [0], maps: [0: lost])
    #expect(map.words[5] == intent && map.unwrittenRegions == 0 && map.lostPages == 1)
  }

  @Test("one leg with both copies makes the page certain")
  func certainByOther() throws {
    let mirror = try TestMirror(legs: 2)
    let map = try elect(
      mirror, [0, 1], maps: [0: mirror.map(invalidNewest: [0, 1]), 1: mirror.map()])
    #expect(map.uncertainPages == 0 && map.words.allSatisfy { $0 == 0 })
    #expect(map.pagesToRewrite == [0, 1])
    #expect(map.newestCopy[0] == [1, 1] && map.newestCopy[1] == [0, 0])
  }

  @Test("a page lost on all legs: intent, and stale on every leg not known to be complete")
  func lostPage() throws {
    var mirror = try TestMirror(legs: 4)
    mirror.lose([3], state: .failed, seenBy: 0, to: [0, 1, 2])
    mirror.commit(seenBy: 0, to: [0, 1, 2]) { $0[1].isSyncing = true }
    let damaged = mirror.map(lost: [1])
    let map = try elect(mirror, [0, 1, 2], maps: [0: damaged, 1: damaged, 2: damaged])
    #expect(map.lostPages == 1)
    #expect(map.words[2032...].allSatisfy { $0 == intent | 0b1010 })
    #expect(map.words[..<2032].allSatisfy { $0 == 0 })
    #expect(map.pagesToRewrite == [1])
    #expect(map.newestCopy[0] == [0, AssemblyMap.noCopy])
    #expect(map.explanation.contains { $0.hasPrefix("1 pages of the region map are lost") })
  }

  @Test("a map that could not be read at all is a map of lost pages")
  func noMap() throws {
    let mirror = try TestMirror(legs: 1)
    let map = try elect(mirror, [0], maps: [:])
    #expect(map.lostPages == 2 && map.words.allSatisfy { $0 == intent })
    #expect(map.pagesToRewrite == [0, 1])
  }

  @Test("pages of one sequence that differ: every stale bit and every intent is kept")
  func conflict() throws {
    let mirror = try TestMirror(legs: 3)
    let map = try elect(
      mirror, [0, 1, 2],
      maps: [
        0: mirror.map { $0[1] = 0x4002 }, 1: mirror.map { $0[1] = 0x4004 }, 2: mirror.map(),
      ])
    #expect(map.conflictingPages == 1)
    #expect(map.words[1] == intent | 6 && map.words[0] == 0)
    #expect(map.pagesToRewrite == [0])
  }

  @Test("with the log in memory an unclean stop means intent everywhere, a clean one none")
  func coreLog() throws {
    var mirror = try TestMirror(legs: 2, logKind: .core)
    let maps = [0: mirror.map { $0[2] = 2 }, 1: mirror.map { $0[2] = 2 }]
    let clean = try elect(mirror, [0, 1], maps: maps)
    #expect(clean.words[2] == 2 && clean.words[3] == 0)
    mirror.labels[0].isClean = false
    let unclean = try elect(mirror, [0, 1], maps: maps)
    // The stale bits on disk are of the last clean stop; the label, which calls leg 1 complete, knows
    // better.
    #expect(unclean.words.allSatisfy { $0 == intent })
    #expect(unclean.regionsWithIntent == 3000)
    mirror.labels[1].isClean = false
    let degraded = try elect(mirror, [1], maps: maps, degraded: true)
    #expect(degraded.words.allSatisfy { $0 == intent }, "the engine makes the absent leg stale")
    mirror.commit(seenBy: 0, to: [0, 1], isClean: true) { $0[1].isSyncing = true }
    let stopped = try elect(mirror, [0, 1], maps: maps)
    #expect(stopped.words[2] == 2 && stopped.words[3] == 0, "a clean stop kept the stale bits")
    mirror.labels[1].isClean = false
    let crashed = try elect(mirror, [0, 1], maps: maps)
    #expect(crashed.words.allSatisfy { $0 == intent | 2 }, "a syncing leg is stale everywhere")
    let lazy = mirror.map { $0[2] = 0x4000 }
    let kept = try elect(mirror, [0, 1], maps: [0: lazy, 1: lazy])
    #expect(kept.words[2] == RegionWord.unwritten && kept.words[3] == intent | 2)
  }

  @Test("a leg whose history was given up is stale everywhere")
  func diverged() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    mirror.lose([0], seenBy: 1, to: [1])
    let map = try elect(
      mirror, [0, 1], maps: [0: mirror.map(), 1: mirror.map(sequence: 50)], choose: "0")
    #expect(map.words.allSatisfy { $0 == 2 })
    #expect(map.sequences == [50, 50])
  }

  @Test("bits of vacant slots and bits without a meaning are dropped")
  func strayBits() throws {
    let mirror = try TestMirror(legs: 2)
    let stray = mirror.map { $0[0] = 0x3f00 | 0xfc | 2 }
    let map = try elect(mirror, [0, 1], maps: [0: stray, 1: stray])
    #expect(map.words[0] == 2)
  }

  @Test("regions that no online leg has are counted")
  func noSource() throws {
    let mirror = try TestMirror(legs: 2)
    let maps = [1: mirror.map { for region in 10..<15 { $0[region] = 2 } }]
    let map = try elect(mirror, [1], maps: maps, degraded: true)
    #expect(map.regionsWithoutSource == 5)
    #expect(map.explanation.contains { $0.contains("5 regions are current on no online leg") })
  }
}
