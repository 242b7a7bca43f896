// The check of docs/promises.md: each promise names tests, and each test that it names is there.
//
// A row of its table is `| P1 | what | [File.swift](path): "name of the test", "another"; [...] |`.

/// Checks of the table of promises and tests.
enum PromiseChecks {
  /// The promises of the design.
  static let promises = (1...10).map { "P\($0)" }

  /// A test that a row names.
  struct Reference: Equatable {
    var line: Int
    var promise: String
    /// The link's target as written.
    var target: String
    var test: String
  }

  /// All tests that the rows of the table name.
  static func references(_ document: TextFile) -> [Reference] {
    var references: [Reference] = []
    for (index, line) in document.lines.enumerated() {
      let cells = line.split(separator: "|").map { $0.trimmed }
      guard cells.count == 3, promises.contains(cells[0]) else { continue }
      var rest = cells[2][...]
      while let link = rest.range(of: "](") {
        rest = rest[link.upperBound...]
        let target = rest.prefix { $0 != ")" }
        rest = rest[target.endIndex...]
        let end = rest.range(of: "](")?.lowerBound ?? rest.endIndex
        let quoted = rest[..<end].split(separator: "\"", omittingEmptySubsequences: false)
        for (part, text) in quoted.enumerated() where part % 2 == 1 {
          references.append(
            Reference(
              line: index + 1, promise: cells[0], target: String(target), test: String(text)))
        }
      }
    }
    return references
  }

  /// Promises without a test, and tests that are not where the table says.
  static func findings(_ document: TextFile, text: (String) -> String?) -> [Finding] {
    let references = references(document)
    var findings: [Finding] = []
    for promise in promises where !references.contains(where: { $0.promise == promise }) {
      findings.append(Finding(path: document.path, line: 1, what: "\(promise) has no test"))
    }
    for reference in references {
      let path =
        reference.target.hasPrefix("../")
        ? String(reference.target.dropFirst(3)) : "docs/" + reference.target
      guard let source = text(path), source.contains("\"\(reference.test)\"") else {
        findings.append(
          Finding(
            path: document.path, line: reference.line,
            what: "no test \"\(reference.test)\" in \(path)"))
        continue
      }
    }
    return findings
  }
}

extension Substring {
  /// Without the blanks around it.
  fileprivate var trimmed: String {
    String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
  }
}
