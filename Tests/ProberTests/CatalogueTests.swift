// Goal: the catalogue in docs/protocol.md is complete: each of its lines has a probe. Method: the names
// of the tests here begin with the numbers of the lines that they probe, as do the entries of the
// tables `BadOption` and `BadRequest`.

import Fixtures
import Foundation
import Testing

@Suite("The catalogue of bad input")
struct CatalogueTests {
  private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()

  /// Numbers in the first column of the catalogue.
  private func lines() throws -> Set<Int> {
    let path = Self.folder.path + "/../../docs/protocol.md"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let rows = text.split(separator: "\n").compactMap { line -> Int? in
      guard line.hasPrefix("| ") else { return nil }
      return Int(line.dropFirst(2).prefix { $0.isNumber })
    }
    return Set(rows.filter { $0 > 0 })
  }

  /// Numbers that probes name.
  private func probed() throws -> Set<Int> {
    var numbers: Set<Int> = []
    for name in try FileManager.default.contentsOfDirectory(atPath: Self.folder.path) {
      let text = try String(contentsOfFile: "\(Self.folder.path)/\(name)", encoding: .utf8)
      for match in text.matches(of: #/"((?:\d+, )*\d+)\. /#) {
        numbers.formUnion(match.1.split(separator: ", ").compactMap { Int($0) })
      }
      for match in text.matches(of: #/Bad(?:Option|Request)\(\s*(\d+),/#) {
        if let number = Int(match.1) { numbers.insert(number) }
      }
    }
    return numbers
  }

  @Test("has a probe for each of its lines, and a line for each probe")
  func complete() throws {
    let (lines, probed) = (try lines(), try probed())
    #expect(lines.count >= 84)
    #expect(lines.subtracting(probed).sorted() == [], "lines without a probe")
    #expect(probed.subtracting(lines).sorted() == [], "probes without a line")
  }
}
