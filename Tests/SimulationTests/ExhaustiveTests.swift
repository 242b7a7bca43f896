// Goal: a crash at any event of a short scenario, with any disk that it may leave, breaks no
// promise; and these runs can tell. Method: every scenario with a sample of its crashes (all of them:
// `nbdmirror-sim --exhaustive all`), and barriers taken away one at a time, outside of the engine
// and in it.
import MirrorEngine
import Simulator
import Testing

@Suite("The mirror, crashed at every event")
struct ExhaustiveTests {
  @Test("keeps its promises in every scenario", arguments: Exhaustive.names)
  func scenarios(name: String) {
    let result = Exhaustive.run(name, bounds: .coarse)
    #expect(result?.violation == nil, "\(result?.violation?.report ?? "")")
    // A scenario that is not crashed proves nothing.
    #expect((result?.counts.points ?? 0) > 1)
    #expect((result?.counts.states ?? 0) > 1)
    #expect((result?.counts.starts ?? 0) > 3)
  }

  @Test("is run in at least two hundred scenarios, each with a name of its own")
  func names() {
    #expect(Exhaustive.names.count >= 200)
    #expect(Set(Exhaustive.names).count == Exhaustive.names.count)
  }

  @Test("repeats a violation by its path, with the events that led to it")
  func replay() {
    let first = Exhaustive.run("write a sector", bounds: .coarse, mutation: .dropLogPages)
    let path = first?.violation?.path
    #expect(path != nil)
    let again = Exhaustive.run(
      "write a sector", bounds: .coarse, mutation: .dropLogPages, path: path)
    #expect(again?.violation?.text == first?.violation?.text)
    #expect(again?.violation?.trace == first?.violation?.trace)
    #expect((again?.violation?.trace.count ?? 0) > 10)
    #expect(again?.counts.states == 1)
  }

  @Test("runs the same way twice")
  func determinism() {
    let first = Exhaustive.run("fail, write, readd", bounds: .coarse)
    let second = Exhaustive.run("fail, write, readd", bounds: .coarse)
    #expect(first?.counts.states == second?.counts.states)
    #expect(first?.counts.starts == second?.counts.starts)
  }

  @Test("is found out when a barrier is missing", arguments: ExhaustiveMutation.allCases)
  func mutations(mutation: ExhaustiveMutation) {
    var found: [String] = []
    for name in Exhaustive.names {
      let result = Exhaustive.run(name, bounds: .coarse, mutation: mutation)
      guard let violation = result?.violation else { continue }
      found.append("\(name): \(violation.text)")
      break
    }
    print("\(mutation): \(found.first ?? "not found")")
    #expect(!found.isEmpty, "no scenario shows that \(mutation) is missing")
  }

  @Test(
    "is found out when the engine lacks a barrier of replacing, scrubs, first writes or repairs",
    arguments: [
      (Barrier.flushBeforeStaleIsCleared, "replace a leg"),
      (.copyUnderLock, "replace, write and read while it is copied"),
      (.mapBeforeLabel, "a spare takes over"),
      (.outvotedIsNoSource, "scrub: leg 0 is right"),
      (.outvotedIsNoSource, "scrub: two of three are right"),
      (.flushBeforeStaleIsCleared, "scrub: leg 0 is right"),
      (.zeroesBeforeFirstWrite, "unwritten: write a part of a sector"),
      (.alternatePageCopies, "unwritten: write"),
      (.rangeLock, "bad block: a write while it is repaired"),
    ])
  func barriers(barrier: Barrier, name: String) {
    // Without it there is no violation: `scenarios` has seen that.
    let violation = Exhaustive.run(name, removing: barrier)?.violation
    print("\(barrier), \(name): \(violation?.text ?? "not found")")
    #expect(violation != nil, "\(name) does not show that \(barrier) is missing")
  }
}
