// The progress of copying: one line of text, and where it is printed.

import ControlModel
import Glibc

/// One line of progress.
enum ProgressLine {
  /// Bar, share, done/total, rate, ETA, in at most `width` columns; without the bar where there is
  /// no room for it.
  static func text(_ resync: ResyncStatus, width: Int) -> String {
    let tail = numbers(resync)
    let room = min(width - tail.count - 4, 40)
    return room >= 8 ? "\(bar(share(resync), width: room))  \(tail)" : tail
  }

  /// Share that is done, 0...1.
  static func share(_ resync: ResyncStatus) -> Double {
    guard resync.bytesTotal > 0 else { return resync.running ? 0 : 1 }
    return min(Double(resync.bytesDone) / Double(resync.bytesTotal), 1)
  }

  /// The numbers without the bar.
  static func numbers(_ resync: ResyncStatus) -> String {
    let percent = Quantity.percent(share(resync) * 100, digits: 1)
    var text = String(repeating: " ", count: max(0, 5 - percent.count)) + percent + "%"
    text += "  \(Quantity.bytes(resync.bytesDone)) of \(Quantity.bytes(resync.bytesTotal))"
    if resync.paused { return text + "  paused" }
    text += "  \(Quantity.rate(bytesPerSecond: resync.bytesPerSecond))"
    return text + "  ETA " + (resync.etaSeconds.map { Quantity.clock(seconds: $0) } ?? "unknown")
  }

  private static func bar(_ share: Double, width: Int) -> String {
    let full = min(Int(share * Double(width)), width)
    let head = full < width ? ">" : ""
    let rest = width - full - head.count
    return "[" + String(repeating: "=", count: full) + head
      + String(repeating: " ", count: max(0, rest)) + "]"
  }
}

/// Prints progress: one line that is rewritten on a terminal, a line a second elsewhere.
final class ProgressPrinter {
  private let isTerminal: Bool
  private let width: Int
  private let write: (String) -> Void
  private var lastLine: ContinuousClock.Instant?
  private var isLineOpen = false

  /// A printer; `write` gets the text as it should come out.
  init(
    isTerminal: Bool, width: Int, write: @escaping (String) -> Void = Terminal.write
  ) {
    self.isTerminal = isTerminal
    self.width = width
    self.write = write
  }

  /// Shows the present state; away from a terminal at most once a second.
  func show(_ resync: ResyncStatus, at now: ContinuousClock.Instant) {
    if isTerminal {
      // Back to the first column, and erase what the line before was longer.
      write("\r" + ProgressLine.text(resync, width: width - 1) + "\u{1b}[K")
      isLineOpen = true
    } else if lastLine.map({ now - $0 >= .seconds(1) }) ?? true {
      write(ProgressLine.numbers(resync) + "\n")
      lastLine = now
    }
  }

  /// Leaves the progress line for whatever is printed next.
  func finish() {
    if isLineOpen { write("\n") }
    isLineOpen = false
  }
}

/// The terminal that the standard output is, if it is one.
enum Terminal {
  /// Whether the standard output is a terminal.
  static var isPresent: Bool { isatty(STDOUT_FILENO) == 1 }

  /// Columns of the terminal; 80 where there is none.
  static var width: Int {
    var size = winsize()
    // The kernel fills a plain struct.
    let result = unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size)
    return result == 0 && size.ws_col >= 20 ? Int(size.ws_col) : 80
  }

  /// Lines of the terminal; 24 where there is none.
  static var height: Int {
    var size = winsize()
    // The kernel fills a plain struct.
    let result = unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size)
    return result == 0 && size.ws_row >= 5 ? Int(size.ws_row) : 24
  }

  /// Writes `text` to the standard output at once; a reader that is gone gets no more.
  static func write(_ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      // The part that is left lives through the call.
      let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(1, $0.baseAddress, $0.count) }
      if count >= 0 { rest = rest.dropFirst(count) } else if errno != EINTR { return }
    }
  }
}
