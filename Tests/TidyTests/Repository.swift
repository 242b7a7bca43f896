// The repository's own files as text, for the tidy checks.
//
// `code` is a file's text with comments and the contents of string literals blanked out, line breaks
// kept: a word in it is a word of the program.
import Foundation

/// One text file of the repository.
struct TextFile {
  /// Path from the root of the repository.
  let path: String
  /// The whole text.
  let text: String

  /// The lines, without their ends.
  var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }

  /// The lines of the Swift code: no comments, empty string literals.
  var codeLines: [Substring] {
    blanked(text, strings: true).split(separator: "\n", omittingEmptySubsequences: false)
  }

  /// The target folder below `Sources` or `Tests`, if the file is in one.
  var room: String? {
    let parts = path.split(separator: "/")
    return parts.count > 2 ? String(parts[1]) : nil
  }
}

/// Something that is not tidy.
struct Finding: Equatable, CustomStringConvertible {
  var path: String
  var line: Int
  var what: String

  var description: String { "\(path):\(line): \(what)" }
}

/// The checkout that this test was compiled from.
enum Repository {
  /// The root folder.
  static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// Text files below the named folders whose names end so; build products are not looked at.
  static func files(in folders: [String], endings: [String]) throws -> [TextFile] {
    var files: [TextFile] = []
    for folder in folders {
      for path in try paths(below: folder) where endings.contains(where: path.hasSuffix) {
        files.append(try file(path))
      }
    }
    return files
  }

  /// Swift files below `Sources`.
  static func sources() throws -> [TextFile] { try files(in: ["Sources"], endings: [".swift"]) }

  /// README.md and everything below `docs`.
  static func documents() throws -> [TextFile] {
    let readme = exists("README.md") ? [try file("README.md")] : []
    return readme + (try files(in: ["docs"], endings: [".md"]))
  }

  static func file(_ path: String) throws -> TextFile {
    TextFile(
      path: path,
      text: try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8))
  }

  static func exists(_ path: String) -> Bool {
    FileManager.default.fileExists(atPath: root.appendingPathComponent(path).path)
  }

  /// Regular files below a folder, sorted; none if the folder does not exist.
  static func paths(below folder: String) throws -> [String] {
    guard exists(folder) else { return [] }
    let start = root.appendingPathComponent(folder).path
    return try FileManager.default.subpathsOfDirectory(atPath: start).sorted()
      .filter { !$0.split(separator: "/").contains { $0 == "__pycache__" } }
      .map { "\(folder)/\($0)" }
      .filter { path in
        var isFolder: ObjCBool = false
        let full = root.appendingPathComponent(path).path
        let exists = unsafe FileManager.default.fileExists(atPath: full, isDirectory: &isFolder)
        return exists && !isFolder.boolValue
      }
  }
}

/// `text` with comments (and string contents, if asked) replaced by blanks; lines stay lines.
func blanked(_ text: String, strings: Bool) -> String {
  var scanner = Scanner(bytes: Array(text.utf8), blanksStrings: strings)
  scanner.scanCode(untilParenthesis: false)
  return String(decoding: scanner.bytes, as: UTF8.self)
}

/// Walks Swift text just well enough to know code from comments and strings.
private struct Scanner {
  var bytes: [UInt8]
  let blanksStrings: Bool
  var position = 0

  init(bytes: [UInt8], blanksStrings: Bool) {
    self.bytes = bytes
    self.blanksStrings = blanksStrings
  }

  private func has(_ text: String) -> Bool { bytes[position...].starts(with: text.utf8) }

  private mutating func skip(_ count: Int, blank: Bool) {
    let end = min(position + count, bytes.count)
    while position < end {
      if blank && bytes[position] != UInt8(ascii: "\n") { bytes[position] = UInt8(ascii: " ") }
      position += 1
    }
  }

  /// Code up to the end, or up to the parenthesis that closes an interpolation.
  mutating func scanCode(untilParenthesis: Bool) {
    var depth = 0
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: "/") where has("//"): scanLineComment()
      case UInt8(ascii: "/") where has("/*"): scanBlockComment()
      case UInt8(ascii: "\""): scanString(hashes: 0)
      case UInt8(ascii: "#"):
        let hashes = bytes[position...].prefix { $0 == UInt8(ascii: "#") }.count
        skip(hashes, blank: false)
        if position < bytes.count && bytes[position] == UInt8(ascii: "\"") {
          scanString(hashes: hashes)
        }
      case UInt8(ascii: "("):
        depth += 1
        position += 1
      case UInt8(ascii: ")"):
        depth -= 1
        position += 1
        if untilParenthesis && depth == 0 { return }
      default: position += 1
      }
    }
  }

  private mutating func scanLineComment() {
    let end = bytes[position...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
    skip(end - position, blank: true)
  }

  private mutating func scanBlockComment() {
    var depth = 0
    repeat {
      if has("/*") {
        depth += 1
        skip(2, blank: true)
      } else if has("*/") {
        depth -= 1
        skip(2, blank: true)
      } else {
        skip(1, blank: true)
      }
    } while depth > 0 && position < bytes.count
  }

  private mutating func scanString(hashes: Int) {
    let suffix = String(repeating: "#", count: hashes)
    let quotes = has("\"\"\"") ? "\"\"\"" : "\""
    skip(quotes.utf8.count, blank: false)
    while position < bytes.count && !has(quotes + suffix) {
      if has("\\" + suffix + "(") {
        skip(1 + hashes, blank: blanksStrings)
        scanCode(untilParenthesis: true)
      } else if hashes == 0 && bytes[position] == UInt8(ascii: "\\") {
        skip(2, blank: blanksStrings)
      } else if quotes.utf8.count == 1 && bytes[position] == UInt8(ascii: "\n") {
        return  // An unterminated literal: not Swift, so not our business.
      } else {
        skip(1, blank: blanksStrings)
      }
    }
    skip(quotes.utf8.count + hashes, blank: false)
  }
}
