// Tables of text: columns as wide as their widest cell, two spaces between them.

/// A table of text.
struct Table {
  /// Where a column's cells stand.
  enum Alignment { case left, right }

  private let titles: [String]
  private let alignments: [Alignment]
  private var rows: [[String]] = []

  /// An empty table with these columns.
  init(_ columns: [(String, Alignment)]) {
    titles = columns.map { $0.0 }
    alignments = columns.map { $0.1 }
  }

  /// Appends a row.
  /// - Precondition: it has a cell for each column.
  mutating func add(_ cells: [String]) {
    precondition(cells.count == titles.count, "a row with another number of columns")
    rows.append(cells.map(Table.printable))
  }

  /// The lines, each ended, without spaces at their ends.
  func rendered() -> String {
    let all = [titles] + rows
    let widths = titles.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
    return all.map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        line += column == 0 ? "" : "  "
        line += alignments[column] == .left ? cell + padding : padding + cell
      }
      while line.last == " " { line.removeLast() }
      return line + "\n"
    }.joined()
  }

  /// `text` without characters that command a terminal: a path may hold any byte.
  static func printable(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .unassigned:
        result += "\\u{\(String(scalar.value, radix: 16))}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// `text` in lines of at most `width` columns, broken at spaces; lines after the first begin
  /// with `indent` spaces.
  static func wrapped(_ text: String, width: Int, indent: Int) -> String {
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
      if line.isEmpty {
        line = String(word)
      } else if line.count + 1 + word.count <= width {
        line += " " + word
      } else {
        lines.append(line)
        line = String(repeating: " ", count: indent) + word
      }
    }
    return (lines + [line]).joined(separator: "\n") + "\n"
  }
}
