// Goal: each refusal says in one sentence what is wrong, names the PVs, and says what to do.
// Method: every refusal, by its whole text.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Refusals")
struct RefusalTests {
  private let legs = (0..<3).map { TestMirror.legId($0).description }

  private func text(_ result: Result<AssemblyPlan, AssemblyRefusal>) -> String? {
    result.refusal?.description
  }

  @Test("no PV at all")
  func noCandidates() throws {
    #expect(text(Assembly.plan([])) == "no PV was named")
  }

  @Test("a PV without a label, and one of a later version")
  func noLabel() throws {
    let mirror = try TestMirror(legs: 1)
    let missing = AssemblyCandidate(
      path: "/pvx", label: .failure(.noLabel), legBytes: 0, logicalBlockBytes: 512)
    #expect(
      text(Assembly.plan(mirror.candidates([0]) + [missing]))
        == "PV /pvx: there is no nbdmirror label; name the PVs of the mirror only. If this is one, "
        + "leave it out, start with --degraded, and replace its leg")
    let later = AssemblyCandidate(
      path: "/pvx", label: .failure(.unknownFeatures(8)), legBytes: 0, logicalBlockBytes: 512)
    #expect(
      text(Assembly.plan([later]))
        == "PV /pvx: the label uses features unknown to this nbdmirror (0x8); use the nbdmirror "
        + "that wrote it")
  }

  @Test("PVs of different mirrors")
  func foreignSet() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.labels[1].setId = Identifier(high: 0, low: 2)
    mirror.labels[1].name = "other"
    #expect(
      text(mirror.plan([0, 1, 2]))
        == "the PVs belong to different mirrors: m (00000000-0000-05e7-0000-000000000001): "
        + "/pv0, /pv2; other (00000000-0000-0000-0000-000000000002): /pv1; name those of one "
        + "of them")
  }

  @Test("two copies of one PV, of one age or of two")
  func duplicate() throws {
    for isOld in [false, true] {
      var mirror = try TestMirror(legs: 2)
      mirror.labels[1] = mirror.labels[0]
      if isOld { mirror.commit(seenBy: 0, to: [0]) { _ in } }
      #expect(
        text(mirror.plan([0, 1], degraded: true))
          == "PV /pv0 and PV /pv1 both are leg \(legs[0]): one is a copy of the other, name only "
          + "the right one")
    }
  }

  @Test("a split brain, with both histories in the explanation")
  func splitBrain() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    mirror.lose([0], seenBy: 1, to: [1])
    let refusal = try #require(mirror.plan([0, 1]).refusal)
    let ids = mirror.labels.map(\.lineage.current.id.short)
    #expect(
      refusal.description
        == "split brain: the legs went on separately: /pv0 at generation 2 (\(ids[0])); /pv1 at "
        + "generation 2 (\(ids[1])); --choose-leg LEG keeps that leg's data and overwrites the "
        + "others. To see what each has: serve --read-only --degraded with its PVs alone")
    #expect(refusal.explanation.contains { $0.hasPrefix("history of /pv0: generation 2") })
    #expect(refusal.explanation.contains { $0.hasPrefix("history of /pv1: generation 2") })
    #expect(
      refusal.explanation.contains("  leg 1 (\(legs[1])): missing since generation 2"))
  }

  @Test("wrong choices")
  func choices() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    #expect(
      text(mirror.plan([0, 1], choose: "x"))
        == "--choose-leg x names none of these PVs (give a path, a leg id or a slot number)")
    #expect(
      text(mirror.plan([0, 1], choose: "1"))
        == "--choose-leg cannot choose PV /pv1: its data is older than that of PV /pv0, no history "
        + "is in doubt")
  }

  @Test("a leg that has been replaced")
  func notMember() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.commit(seenBy: 0, to: [0]) { $0[1] = .vacant }
    #expect(
      text(mirror.plan([0, 1]))
        == "PV /pv1 was a leg of mirror m once and has been replaced: leave it out, or add it as a "
        + "new leg")
  }

  @Test("labels that describe different layouts")
  func geometry() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.labels[1].layout.dataOffset += 1 << 20
    #expect(
      text(mirror.plan([0, 1]))
        == "PV /pv1 and PV /pv0 are of one mirror but their labels describe different sizes or "
        + "offsets: one of the labels is damaged; leave one of them out and start with --degraded")
  }

  @Test("a PV that was cut off, by one byte, and one with larger sectors")
  func tooSmall() throws {
    let mirror = try TestMirror(legs: 2)
    var candidates = mirror.candidates([0, 1])
    candidates[1].legBytes -= 1
    let needed = mirror.labels[1].layout.pvBytes
    #expect(
      text(Assembly.plan(candidates))
        == "PV /pv1 has \(needed - 1) bytes, its label says \(needed): it was cut off; give it its "
        + "size back, or leave it out, start with --degraded, and replace its leg")
    candidates[1].legBytes += 1
    candidates[1].logicalBlockBytes = 4096
    #expect(
      text(Assembly.plan(candidates))
        == "PV /pv1 has sectors of 4096 bytes, the mirror has blocks of 512 bytes: it cannot be a leg "
        + "of this mirror; leave it out, start with --degraded, and replace its leg")
  }

  @Test("legs that are missing, one or several")
  func missing() throws {
    let mirror = try TestMirror(legs: 3)
    #expect(
      text(mirror.plan([0, 1]))
        == "leg 2 (\(legs[2])) is missing: name every PV, or start without with --degraded")
    #expect(
      text(mirror.plan([0]))
        == "legs 1 (\(legs[1])), 2 (\(legs[2])) are missing: name every PV, or start without with "
        + "--degraded")
  }

  @Test("nothing that is current")
  func nothingOnline() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.commit(seenBy: 0, to: [0, 1]) { members in
      members[0].state = .failed
      members[1].state = .removed
    }
    #expect(
      text(mirror.plan([0, 1], degraded: true))
        == "none of the PVs holds current data: /pv0, /pv1; name those that were online last")
  }

  @Test("--log core without the only leg that had everything")
  func onlyComplete() throws {
    var mirror = try TestMirror(legs: 2, logKind: .core)
    mirror.commit(seenBy: 0, to: [0, 1]) { $0[1].isSyncing = true }
    #expect(
      text(mirror.plan([1], degraded: true))
        == "leg 0 (\(legs[0])) is missing and alone had all data: the log is in memory, so what /pv1 "
        + "had not yet got would be lost for good. Name the missing PV; to give its data up, add "
        + "--choose-leg with the PV that is to count")
  }
}
