// The checks of Swift code. Each takes a file and gives what it found, so that each can be tried on
// a bad sample too.

/// Checks of one file of Swift code.
enum CodeChecks {
  /// The module that a line imports, or nil. `import struct A.B` imports A.
  static func importedModule(_ line: Substring) -> String? {
    guard line.contains("import") else { return nil }
    let kinds: Set<Substring> = [
      "struct", "class", "enum", "protocol", "typealias", "func", "var", "let",
    ]
    let modifiers: Set<Substring> = ["public", "package", "internal", "fileprivate", "private"]
    var words = line.split { $0 == " " || $0 == ";" }[...]
    while let word = words.first, word.hasPrefix("@") || modifiers.contains(word) {
      words.removeFirst()
    }
    guard words.popFirst() == "import" else { return nil }
    if let word = words.first, kinds.contains(word) { words.removeFirst() }
    return words.first.map { String($0.prefix { $0 != "." }) }
  }

  /// Every import that the table does not allow, and code in a folder that the table does not know.
  static func imports(_ file: TextFile, table: [String: Room] = Rooms.table) -> [Finding] {
    guard let name = file.room, let room = table[name] else {
      return [Finding(path: file.path, line: 1, what: "no room of the design")]
    }
    return each(file) { line in
      guard let module = importedModule(line) else { return nil }
      if module == name || room.rooms.contains(module) || room.modules.contains(module) {
        return nil
      }
      return "\(name) must not import \(module)"
    }
  }

  /// Clocks, randomness, I/O and suspension in a core.
  static func coreWords(_ file: TextFile, table: [String: Room] = Rooms.table) -> [Finding] {
    guard let name = file.room, let room = table[name], room.isCore else { return [] }
    let words = [
      "ContinuousClock", "SuspendingClock", "clock_gettime", "gettimeofday", "Date()", ".random(",
      "SystemRandomNumberGenerator", ".shuffle()", ".shuffled()", ".randomElement()", "await ",
      "Task {", "Task.detached", "Task(", "async ", "Thread", "DispatchQueue",
    ]
    let modules = ["Glibc", "NIO", "Dispatch", "Foundation"]
    return each(file) { line in
      if let module = importedModule(line), modules.contains(where: module.hasPrefix) {
        return "a core imports \(module)"
      }
      return words.first(where: line.contains).map { "a core says \($0)" }
    }
  }

  /// What no source may say: crashes without a sentence, forced casts and tries.
  static func forbiddenCode(_ file: TextFile) -> [Finding] {
    each(file) { line in
      if line.contains("try!") { return "try!" }
      if line.contains("as!") { return "as!" }
      for trap in ["fatalError()", "preconditionFailure()"] where line.contains(trap) {
        return "\(trap) without a sentence"
      }
      if importedModule(line) == "Foundation" { return "imports all of Foundation" }
      return nil
    }
  }

  /// Notes to oneself, in comments too.
  static func notes(_ file: TextFile) -> [Finding] {
    let notes: Set<Substring> = ["TODO", "FIXME", "XXX"]
    return each(file, file.lines) { line in
      line.split { !($0.isLetter || $0.isNumber || $0 == "_") }
        .first(where: notes.contains).map { "\($0)" }
    }
  }

  /// More than 500 lines.
  static func fileLength(_ file: TextFile) -> [Finding] {
    let count = file.lines.count - (file.text.hasSuffix("\n") ? 1 : 0)
    return count > 500
      ? [Finding(path: file.path, line: 501, what: "\(count) lines, at most 500")] : []
  }

  /// Functions of more than 70 lines, from the line of the name to that of the closing brace.
  static func functionLength(_ file: TextFile) -> [Finding] {
    let lines = file.codeLines
    var findings: [Finding] = []
    for (index, line) in lines.enumerated() where declaresFunction(line) {
      guard let end = bodyEnd(lines[index...]) else { continue }
      let count = end - index + 1
      guard count > 70 else { continue }
      findings.append(
        Finding(path: file.path, line: index + 1, what: "function of \(count) lines, at most 70"))
    }
    return findings
  }

  private static func declaresFunction(_ line: Substring) -> Bool {
    guard line.contains("func ") || line.contains("init") || line.contains("subscript") else {
      return false
    }
    let modifiers: Set<Substring> = [
      "public", "package", "internal", "fileprivate", "private", "static", "class", "final",
      "mutating", "nonmutating", "borrowing", "consuming", "override", "required", "convenience",
      "nonisolated", "isolated", "unsafe", "prefix", "postfix", "infix", "async", "indirect",
    ]
    let words = withoutAttributes(line).split { " (?<{".contains($0) }
    let first = words.first { !modifiers.contains($0) }
    return first == "func" || first == "init" || first == "deinit" || first == "subscript"
  }

  /// The line from behind its leading attributes and their arguments on.
  private static func withoutAttributes(_ line: Substring) -> Substring {
    var rest = line.drop { $0 == " " }
    while rest.hasPrefix("@") {
      var depth = 0
      rest = rest.drop { character in
        if character == "(" { depth += 1 }
        if character == ")" { depth -= 1 }
        return depth > 0 || character != " "
      }
      rest = rest.drop { $0 == " " }
    }
    return rest
  }

  /// The index of the line that closes the body; nil: a requirement without one.
  private static func bodyEnd(_ lines: ArraySlice<Substring>) -> Int? {
    var parentheses = 0
    var braces = 0
    for index in lines.indices {
      if index > lines.startIndex && braces == 0 && parentheses == 0
        && startsDeclaration(lines[index])
      {
        return nil
      }
      for character in lines[index].utf8 {
        switch character {
        case UInt8(ascii: "("), UInt8(ascii: "["): parentheses += 1
        case UInt8(ascii: ")"), UInt8(ascii: "]"): parentheses -= 1
        case UInt8(ascii: "{") where parentheses == 0 || braces > 0: braces += 1
        case UInt8(ascii: "}") where braces > 0:
          braces -= 1
          if braces == 0 { return index }
        case UInt8(ascii: "}") where parentheses == 0: return nil
        default: break
        }
      }
    }
    return nil
  }

  private static func startsDeclaration(_ line: Substring) -> Bool {
    declaresFunction(line) || line.contains("var ") || line.contains("let ")
  }

  /// Tabs, blanks at the end of a line, and a last line without its end.
  static func whitespace(_ file: TextFile) -> [Finding] {
    var findings = each(file, file.lines) { line in
      if line.contains("\t") { return "tab" }
      return line.hasSuffix(" ") || line.hasSuffix("\r") ? "white space at the end" : nil
    }
    if !file.text.isEmpty && !file.text.hasSuffix("\n") {
      findings.append(Finding(path: file.path, line: file.lines.count, what: "no end of line"))
    }
    return findings
  }

  private static func each(
    _ file: TextFile, _ lines: [Substring]? = nil, _ check: (Substring) -> String?
  ) -> [Finding] {
    var findings: [Finding] = []
    for (index, line) in (lines ?? file.codeLines).enumerated() {
      guard let what = check(line) else { continue }
      findings.append(Finding(path: file.path, line: index + 1, what: what))
    }
    return findings
  }
}
