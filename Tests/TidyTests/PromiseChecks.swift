// The check of docs/promises.md: each promise names tests, and each test that it names is there. And of
// docs/clients.md: each client does.
//
// A row of a table is `| P1 | what | [File.swift](path): "name of the test", "another"; [...] |`.

/// Checks of tables whose last column names tests.
enum TestTableChecks {
  /// A row of such a table.
  struct Row {
    var line: Int
    var cells: [String]
  }

  /// The rows of all tables whose last heading is `tests`.
  static func rows(_ document: TextFile) -> [Row] {
    var rows: [Row] = []
    var isInside = false
    for (index, line) in document.lines.enumerated() {
      guard line.hasPrefix("|") else {
        isInside = false
        continue
      }
      let cells = line.dropFirst().split(separator: "|", omittingEmptySubsequences: false)
        .dropLast()
        .map(\.trimmed)
      if cells.last == "tests" {
        isInside = true
      } else if isInside, cells.last?.hasPrefix("--") != true {
        rows.append(Row(line: index + 1, cells: cells))
      }
    }
    return rows
  }

  /// The tests that a cell names, each with the link's target in front of it as written.
  static func tests(in cell: String) -> [(target: String, test: String)] {
    var tests: [(target: String, test: String)] = []
    var rest = cell[...]
    while let link = rest.range(of: "](") {
      rest = rest[link.upperBound...]
      let target = rest.prefix { $0 != ")" }
      rest = rest[target.endIndex...]
      let end = rest.range(of: "](")?.lowerBound ?? rest.endIndex
      let quoted = rest[..<end].split(separator: "\"", omittingEmptySubsequences: false)
      for (part, text) in quoted.enumerated() where part % 2 == 1 {
        tests.append((String(target), String(text)))
      }
    }
    return tests
  }

  /// Rows that name no test, and tests that are not where a row says.
  static func findings(_ document: TextFile, text: (String) -> String?) -> [Finding] {
    let rows = rows(document)
    guard !rows.isEmpty else {
      return [Finding(path: document.path, line: 1, what: "no table of tests")]
    }
    return rows.flatMap { row in
      let tests = tests(in: row.cells.last ?? "")
      guard !tests.isEmpty else {
        let name = row.cells.first ?? ""
        return [Finding(path: document.path, line: row.line, what: "\(name) has no test")]
      }
      return tests.compactMap { target, test in
        missing(test, in: target, text: text).map {
          Finding(path: document.path, line: row.line, what: $0)
        }
      }
    }
  }

  /// What is wrong with a reference from a document in `docs`; nil if the test is there.
  static func missing(_ test: String, in target: String, text: (String) -> String?) -> String? {
    let path = target.hasPrefix("../") ? String(target.dropFirst(3)) : "docs/" + target
    guard let source = text(path), source.contains("\"\(test)\"") else {
      return "no test \"\(test)\" in \(path)"
    }
    return nil
  }
}

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
    TestTableChecks.rows(document).flatMap { row -> [Reference] in
      guard row.cells.count == 3, promises.contains(row.cells[0]) else { return [] }
      return TestTableChecks.tests(in: row.cells[2]).map { target, test in
        Reference(line: row.line, promise: row.cells[0], target: target, test: test)
      }
    }
  }

  /// Promises without a test, and tests that are not where the table says.
  static func findings(_ document: TextFile, text: (String) -> String?) -> [Finding] {
    let references = references(document)
    var findings: [Finding] = []
    for promise in promises where !references.contains(where: { $0.promise == promise }) {
      findings.append(Finding(path: document.path, line: 1, what: "\(promise) has no test"))
    }
    for reference in references {
      if let what = TestTableChecks.missing(reference.test, in: reference.target, text: text) {
        findings.append(Finding(path: document.path, line: reference.line, what: what))
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
