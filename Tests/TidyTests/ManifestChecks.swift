// Package.swift against the table of rooms: a dependency that is declared but not drawn is an arrow
// that somebody will use.

/// Checks of the package's manifest.
enum ManifestChecks {
  /// Declared targets and the quoted names in their declarations.
  static func targets(_ manifest: TextFile) -> [(name: String, line: Int, names: Set<String>)] {
    let text = blanked(manifest.text, strings: false)
    var targets: [(name: String, line: Int, names: Set<String>)] = []
    let openings = ["room(", ".target(", ".executableTarget(", ".systemLibrary("]
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
    {
      let trimmed = line.drop { $0 == " " }
      guard openings.contains(where: trimmed.hasPrefix) else { continue }
      let lines = text.split(separator: "\n", omittingEmptySubsequences: false)[index...]
      let quoted = quotedNames(lines.joined(separator: "\n"))
      guard let name = quoted.first else { continue }
      targets.append((name, index + 1, Set(quoted.dropFirst())))
    }
    return targets
  }

  /// The strings up to the parenthesis that closes the first one opened.
  private static func quotedNames(_ text: String) -> [String] {
    var names: [String] = []
    var depth = 0
    var current: String?
    for character in text {
      if character == "\"" {
        if let name = current { names.append(name) }
        current = current == nil ? "" : nil
      } else if current != nil {
        current?.append(character)
      } else if character == "(" {
        depth += 1
      } else if character == ")" {
        depth -= 1
        if depth == 0 { break }
      }
    }
    return names
  }

  /// Dependencies that the table does not allow, and targets that it does not know.
  static func dependencies(
    _ manifest: TextFile, table: [String: Room] = Rooms.table, shims: Set<String> = Rooms.shims
  ) -> [Finding] {
    var findings: [Finding] = []
    let rooms = Set(table.keys).union(shims)
    for target in targets(manifest)
    where !shims.contains(target.name) && !Rooms.testSupport.contains(target.name) {
      guard let room = table[target.name] else {
        findings.append(
          Finding(path: manifest.path, line: target.line, what: "\(target.name): no such room"))
        continue
      }
      for name in target.names.intersection(rooms).subtracting(room.rooms).sorted() {
        findings.append(
          Finding(
            path: manifest.path, line: target.line, what: "\(target.name) depends on \(name)"))
      }
    }
    return findings
  }
}
