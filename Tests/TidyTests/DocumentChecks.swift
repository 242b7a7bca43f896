// The checks of what users read: links that lead nowhere, options that nobody explains.

/// Checks of Markdown documents.
enum DocumentChecks {
  /// A link's target and where it stands. Code blocks and code in lines have no links.
  static func links(_ document: TextFile) -> [(line: Int, target: String)] {
    var links: [(line: Int, target: String)] = []
    for (index, line) in prose(document) {
      var rest = line[...]
      while let start = rest.range(of: "](") {
        rest = rest[start.upperBound...]
        guard let end = rest.firstIndex(of: ")") else { break }
        let target = rest[..<end].split(separator: " ").first ?? ""
        links.append((index + 1, String(target)))
        rest = rest[end...]
      }
    }
    return links
  }

  /// Lines outside of code blocks, with code in back quotes taken out.
  private static func prose(_ document: TextFile) -> [(Int, String)] {
    var isCode = false
    var lines: [(Int, String)] = []
    for (index, line) in document.lines.enumerated() {
      if line.drop(while: { $0 == " " }).hasPrefix("```") {
        isCode.toggle()
      } else if !isCode {
        let parts = line.split(separator: "`", omittingEmptySubsequences: false)
        let text = parts.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
        lines.append((index, text.joined(separator: " ")))
      }
    }
    return lines
  }

  /// The anchors that headings make: lower case, blanks as hyphens, no punctuation.
  static func anchors(_ document: TextFile) -> Set<String> {
    var isCode = false
    var anchors: Set<String> = []
    for line in document.lines {
      if line.hasPrefix("```") { isCode.toggle() }
      guard !isCode && line.hasPrefix("#") else { continue }
      let title = line.drop { $0 == "#" }.drop { $0 == " " }.lowercased()
      anchors.insert(
        String(
          title.compactMap { character -> Character? in
            if character == " " { return "-" }
            let isKept = character.isLetter || character.isNumber || "-_".contains(character)
            return isKept ? character : nil
          }))
    }
    return anchors
  }

  /// Relative links to files or headings that do not exist.
  static func deadLinks(
    _ document: TextFile, exists: (String) -> Bool, read: (String) throws -> TextFile
  ) rethrows -> [Finding] {
    var findings: [Finding] = []
    let folder = document.path.split(separator: "/").dropLast().map(String.init)
    for (line, target) in links(document) {
      if target.contains("://") || target.hasPrefix("mailto:") { continue }
      let parts = target.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
      let path = parts[0].isEmpty ? document.path : joined(folder, String(parts[0]))
      guard exists(path) else {
        findings.append(Finding(path: document.path, line: line, what: "dead link \(target)"))
        continue
      }
      guard parts.count == 2, path.hasSuffix(".md") else { continue }
      let other = path == document.path ? document : try read(path)
      if !anchors(other).contains(String(parts[1])) {
        findings.append(Finding(path: document.path, line: line, what: "no heading \(target)"))
      }
    }
    return findings
  }

  private static func joined(_ folder: [String], _ path: String) -> String {
    var parts = path.hasPrefix("/") ? [] : folder
    for part in path.split(separator: "/") where part != "." {
      if part == ".." {
        _ = parts.popLast()
      } else {
        parts.append(String(part))
      }
    }
    return parts.joined(separator: "/")
  }
}

/// Checks that the command line is documented.
enum OptionChecks {
  /// Long names that `@Option` and `@Flag` declare, without the hyphens. Hidden ones do not count.
  static func longNames(_ file: TextFile) -> [(line: Int, name: String)] {
    let text = blanked(file.text, strings: false)
    var names: [(line: Int, name: String)] = []
    for wrapper in ["@Option", "@Flag"] {
      var rest = text[...]
      while let start = rest.range(of: wrapper) {
        rest = rest[start.upperBound...]
        guard let next = rest.first, next == "(" || next.isWhitespace else { continue }
        let line = text[..<start.lowerBound].filter { $0 == "\n" }.count + 1
        let arguments = balanced(rest)
        rest = rest[arguments.endIndex...]
        guard let declaration = rest.range(of: "var ") else { break }
        let variable = rest[declaration.upperBound...].prefix { $0.isLetter || $0.isNumber }
        for name in long(arguments, variable: String(variable)) { names.append((line, name)) }
      }
    }
    return names
  }

  /// The parenthesis at the start of `text` up to its end; empty if there is none.
  private static func balanced(_ text: Substring) -> Substring {
    var depth = 0
    var isString = false
    var previous: Character = " "
    for index in text.indices {
      let character = text[index]
      if character == "\"" && previous != "\\" { isString.toggle() }
      previous = character
      if isString { continue }
      if character == "(" { depth += 1 }
      if character == ")" { depth -= 1 }
      if depth == 0 {
        return character == ")" ? text[...index] : text[..<text.startIndex]
      }
    }
    return text[..<text.startIndex]
  }

  private static func long(_ arguments: Substring, variable: String) -> [String] {
    for hidden in [".hidden", "visibility: .private", "help: .private"]
    where arguments.contains(hidden) {
      return []
    }
    var names: [String] = []
    var rest = arguments
    while let start = rest.range(of: ".customLong(\"") {
      rest = rest[start.upperBound...]
      names.append(String(rest.prefix { $0 != "\"" }))
    }
    let isNamed = arguments.contains("name:")
    let isLong = arguments.contains(".long") || arguments.contains(".shortAndLong")
    if !isNamed || isLong { names.append(kebab(variable)) }
    return names
  }

  /// `legTimeout` is `leg-timeout`, as ArgumentParser makes it.
  private static func kebab(_ name: String) -> String {
    var text = ""
    for character in name {
      if character.isUppercase { text += "-" }
      text += character.lowercased()
    }
    return text
  }

  /// Options that no document mentions as `--name`.
  static func undocumented(_ file: TextFile, documents: [TextFile]) -> [Finding] {
    longNames(file).compactMap { line, name in
      documents.contains { mentions($0.text, "--" + name) }
        ? nil : Finding(path: file.path, line: line, what: "--\(name) is not documented")
    }
  }

  private static func mentions(_ text: String, _ option: String) -> Bool {
    var rest = text[...]
    while let found = rest.range(of: option) {
      rest = rest[found.upperBound...]
      guard let next = rest.first, next.isLetter || next.isNumber || next == "-" else {
        return true
      }
    }
    return false
  }
}
