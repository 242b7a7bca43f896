// Goal: every drill in Examples/drills ends well: what it tells an administrator to type works, and
// each of its checks holds. Method: the scripts are run as they are, with the built `nbdmirror`; a
// check that fails ends a script with a status other than 0. They need root.
import Fixtures
import Foundation
import Testing

/// Where the drills are.
private let folder =
  URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent().path + "/Examples/drills"

/// The stories that have to be there.
private let drills = [
  "dead-disk", "loose-cable", "silent-corruption", "split-brain", "emergency-backup", "power-cut",
]

@Suite(.serialized)
struct Drills {
  @Test("a drill ends well", .timeLimit(.minutes(3)), arguments: drills)
  func passes(_ drill: String) async throws {
    let result = try await run(
      ["env", "NBDMIRROR_BIN=\(try serverBinary())", "bash", "\(folder)/\(drill).sh"],
      seconds: 150)
    #expect(result.status == 0, "\(result)")
    #expect(result.output.hasSuffix("Drill passed.\n"), "\(result)")
    #expect(!result.output.contains("[FAILED]"))
  }

  @Test("every drill is run")
  func complete() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: folder)
      .filter { $0.hasSuffix(".sh") && $0 != "common.sh" }.map { String($0.dropLast(3)) }
    #expect(Set(names) == Set(drills))
  }
}
