// Goal: whatever a leg is, explain says what is, what will happen and what to type. Method: mirrors of
// labels, one for each case, by whole sentences.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

@Suite("Explanations")
struct ExplanationTests {
  private let ids = (0..<3).map { TestMirror.legId($0).description }

  /// The sentences of a start with these legs.
  private func lines(
    _ mirror: TestMirror, _ legs: [Int], degraded: Bool = false, choose: String? = nil
  ) throws -> [String] {
    try mirror.plan(legs, degraded: degraded, choose: choose).get().explanation
  }

  @Test("a healthy mirror: its labels, its head, its legs, how it was stopped")
  func healthy() throws {
    var mirror = try TestMirror(legs: 2)
    let id = mirror.labels[0].lineage.current.id.short
    mirror.labels[0].writtenSeconds = 1_795_406_706
    mirror.isOtherCopyValid[1] = false
    #expect(
      try lines(mirror, [0, 1]) == [
        "PV /pv0: leg 0 (\(ids[0])) of mirror m, generation 1 (\(id)), clean, last written "
          + "2026-11-23 04:05:06 UTC",
        "PV /pv1: leg 1 (\(ids[1])) of mirror m, generation 1 (\(id)), clean, one label copy is not "
          + "valid (the next label makes it valid again)",
        "the head is generation 1 (\(id)), as PV /pv0 has it",
        "leg 0 (PV /pv0): online", "leg 1 (PV /pv1): online", "the mirror was stopped cleanly",
      ])
  }

  @Test("an unclean stop, with the log on disk and in memory")
  func unclean() throws {
    for (log, line) in [
      (
        LogKind.disk,
        "the mirror was not stopped cleanly: where it was being written its legs are made equal "
          + "while it is served"
      ),
      (
        .core,
        "the mirror was not stopped cleanly and its log was in memory: all of it is compared and "
          + "made equal while it is served"
      ),
    ] {
      var mirror = try TestMirror(legs: 2, logKind: log)
      mirror.labels[0].isClean = false
      #expect(try lines(mirror, [0, 1]).last == line)
    }
  }

  @Test("a leg that is offline, by its state, here and absent")
  func offline() throws {
    let cases: [(MemberState, String, String)] = [
      (
        .missing,
        "leg 1 (PV /pv1): missing since generation 2, comes back by itself and copies what it missed",
        "leg 1 (\(ids[1])): missing since generation 2, not here; the mirror starts without it. For "
          + "a new disk: nbdmirror leg replace 1 PV"
      ),
      (
        .failed,
        "leg 1 (PV /pv1): failed since generation 2, stays offline; if its disk is well again: "
          + "nbdmirror leg readd 1, for a new one: nbdmirror leg replace 1 PV",
        "leg 1 (\(ids[1])): failed since generation 2, not here; the mirror starts without it. For "
          + "a new disk: nbdmirror leg replace 1 PV"
      ),
      (
        .removed,
        "leg 1 (PV /pv1): removed since generation 2, stays out and need not be named; to take it "
          + "back: nbdmirror leg readd 1",
        "leg 1 (\(ids[1])): removed since generation 2, not needed"
      ),
    ]
    for (state, present, absent) in cases {
      var mirror = try TestMirror(legs: 2)
      mirror.lose([1], state: state, seenBy: 0, to: [0])
      #expect(try lines(mirror, [0, 1]).contains(present), "\(state)")
      #expect(try lines(mirror, [0]).contains(absent), "\(state)")
    }
  }

  @Test("a leg that should be online and is absent")
  func lost() throws {
    let mirror = try TestMirror(legs: 2)
    let line =
      "leg 1 (\(ids[1])): should be online and is not here: name its PV; without it the mirror "
      + "starts only with --degraded"
    #expect(mirror.plan([0]).refusal?.explanation.contains(line) == true)
    let degraded = try lines(mirror, [0], degraded: true)
    #expect(degraded.contains(line))
    #expect(
      degraded.contains(
        "--degraded: starts without the absent legs; when they are back they copy what they missed"
      ))
  }

  @Test("a leg that is syncing, one that replaces another, one that is write-mostly")
  func online() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.commit(seenBy: 0, to: [0, 1, 2]) { members in
      members[1].isSyncing = true
      members[1].replaces = LegSlot(0)
      members[2].isWriteMostly = true
    }
    let text = try lines(mirror, [0, 1, 2])
    #expect(
      text.contains(
        "leg 1 (PV /pv1): online; what it has not got yet is copied to it; it replaces leg 0, which "
          + "is removed when it is in sync"))
    #expect(text.contains("leg 2 (PV /pv2): online; write-mostly"))
  }

  @Test("a label that is older because of a crash")
  func older() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.lose([2], seenBy: 0, to: [0])
    #expect(
      try lines(mirror, [0, 1, 2]).contains(
        "leg 1 (PV /pv1): online; its label is older because a crash came between the label writes, "
          + "its data is current"))
  }

  @Test("a PV that was being added: known to a leg, emptied to come back, and unknown")
  func added() throws {
    var mirror = try TestMirror(legs: 3)
    var label = mirror.labels[2]
    label.members[2].state = .adding
    mirror.labels[2] = label
    mirror.commit(seenBy: 0, to: [0, 1]) { $0[2].isSyncing = true }
    #expect(
      try lines(mirror, [0, 1, 2]).contains(
        "leg 2 (PV /pv2): online; it was being brought in when the server died, everything is copied "
          + "to it"))
    mirror.lose([2], seenBy: 0, to: [0, 1])
    #expect(
      try lines(mirror, [0, 1, 2]).contains(
        "leg 2 (PV /pv2): was being added, comes back by itself, everything is copied to it"))
    mirror.commit(seenBy: 0, to: [0, 1]) { $0[2] = .vacant }
    #expect(
      try lines(mirror, [0, 1, 2]).contains(
        "PV /pv2: was being added when the server stopped; no leg knows of it, it is left out. To "
          + "add it: nbdmirror leg add /pv2"))
  }

  @Test("a spare: here, absent, and one that is none any more")
  func spare() throws {
    var mirror = try TestMirror(legs: 3)
    mirror.commit(seenBy: 0, to: [0, 1, 2]) { $0[2].state = .spare }
    #expect(
      try lines(mirror, [0, 1, 2]).contains(
        "leg 2 (PV /pv2): spare; it holds no data and takes the place of the next leg that fails"))
    #expect(
      try lines(mirror, [0, 1]).contains(
        "leg 2 (\(ids[2])): spare, not here: it takes over from nobody; name its PV next time, or "
          + "now: nbdmirror leg readd 2"))
    mirror.commit(seenBy: 0, to: [0, 1]) { $0[2] = .vacant }
    #expect(
      try lines(mirror, [0, 1, 2]).contains(
        "PV /pv2: was a spare and is none any more; it is left out. To use it again: nbdmirror leg "
          + "add /pv2"))
  }

  @Test("a split brain says when each side was last written, and what becomes of the one given up")
  func splitBrain() throws {
    var mirror = try TestMirror(legs: 2)
    mirror.lose([1], seenBy: 0, to: [0])
    mirror.lose([0], seenBy: 1, to: [1])
    mirror.labels[1].writtenSeconds = 951_782_400
    let refusal = try #require(mirror.plan([0, 1]).refusal)
    #expect(
      refusal.explanation.contains {
        $0.hasPrefix("history of /pv1") && $0.hasSuffix("last written 2000-02-29 00:00:00 UTC")
      })
    #expect(
      try lines(mirror, [0, 1], choose: "0").contains(
        "leg 1 (PV /pv1): what it has was given up; it comes back by itself, every region is stale, "
          + "everything is copied to it"))
  }

  @Test("a time is told as a date of the calendar")
  func times() {
    for (seconds, text) in [
      (0, "1970-01-01 00:00:00 UTC"), (68_169_599, "1972-02-28 23:59:59 UTC"),
      (951_868_799, "2000-02-29 23:59:59 UTC"), (4_107_542_400, "2100-03-01 00:00:00 UTC"),
      (253_402_300_799, "9999-12-31 23:59:59 UTC"), (UInt64.max, "\(UInt64.max) s after 1970"),
    ] as [(UInt64, String)] {
      #expect(AssemblyText.time(seconds) == text)
    }
  }
}
