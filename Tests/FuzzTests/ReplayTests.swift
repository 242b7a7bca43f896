// Goal: what the fuzzer has found, or could have, holds in every test run. Method: each input of
// the corpus goes through the entry that the fuzzer calls; single tests show that the corpus gets
// where it matters.
import Foundation
import FuzzTargets
import Testing

@Suite("Fuzzing")
struct ReplayTests {
  /// The corpus of a target: inputs by the names of their files.
  private func corpus(_ target: FuzzTarget) throws -> [(name: String, input: [UInt8])] {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Fixtures/corpus/\(target.rawValue)")
    return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map { name in
      (name, [UInt8](try Data(contentsOf: folder.appendingPathComponent(name))))
    }
  }

  @Test("every input of the corpus keeps the properties", arguments: FuzzTarget.allCases)
  func replay(target: FuzzTarget) throws {
    let inputs = try corpus(target)
    #expect(inputs.count >= 5, "a corpus that says something")
    for (name, input) in inputs {
      do throws(FuzzProblem) { try target.run(input) } catch {
        Issue.record("\(target.rawValue)/\(name): \(error)")
      }
    }
  }

  @Test("no input, and inputs of one byte, mean something too", arguments: FuzzTarget.allCases)
  func shortest(target: FuzzTarget) throws {
    for input in [[]] + [0, 1, 0x7f, 0xff].map({ [$0] }) as [[UInt8]] { try target.run(input) }
  }

  @Test("the corpus is small enough to be looked at: less than 1 MiB in files of at most 8 KiB")
  func size() throws {
    var total = 0
    for target in FuzzTarget.allCases {
      for (name, input) in try corpus(target) {
        total += input.count
        #expect(input.count <= 8192, "\(target.rawValue)/\(name)")
      }
    }
    #expect(total < 1 << 20)
  }
}
