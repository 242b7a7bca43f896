// `nbdmirror watch`: the mirror as it lives, until Ctrl-C.

import ArgumentParser
import ControlModel
import Glibc

/// The verb `watch`.
struct Watch: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Watch a running mirror: legs, rates, progress, regions, events.",
    discussion: """
      On a terminal the picture is drawn anew each interval, as large as the window; elsewhere a line \
      is printed each time. Ends with Ctrl-C, or when the server stops.
      """)

  /// Events that a picture can show.
  private static let eventsKept = 32

  @OptionGroup var mirror: MirrorOptions

  @Option(help: ArgumentHelp("Seconds between two looks.", valueName: "SECONDS"))
  var interval: Double = 1

  @Option(help: ArgumentHelp("End after so many looks.", valueName: "N"))
  var count: Int?

  func validate() throws {
    guard interval >= 0.1, interval <= 3600 else {
      throw ValidationError("--interval is 0.1 to 3600 seconds.")
    }
    if let count, count < 1 { throw ValidationError("--count is at least 1.") }
  }

  func run() throws {
    let client = try mirror.client()
    var before: WatchSample?
    var looks = 0
    if Terminal.isPresent { Screen.open() }
    defer { if Terminal.isPresent { Screen.close() } }
    while true {
      let sample: WatchSample
      do throws(ControlClientError) {
        sample = try look(client, before)
      } catch {
        guard before != nil, error.isServerGone else { throw error }
        return
      }
      show(sample, before)
      before = sample
      looks += 1
      if let count, looks >= count { return }
      usleep(UInt32(interval * 1e6))
    }
  }

  private func look(
    _ client: ControlClient, _ before: WatchSample?
  ) throws(ControlClientError) -> WatchSample {
    let last = before?.events.last?.sequence ?? 0
    let events = (before?.events ?? []) + (try client.events(after: last))
    return WatchSample(
      mirror: try client.mirror(), regions: try client.regions(),
      counters: WatchCounters(metrics: try client.metrics()),
      events: events.suffix(Watch.eventsKept), seconds: Watch.seconds())
  }

  private func show(_ sample: WatchSample, _ before: WatchSample?) {
    guard Terminal.isPresent else {
      Terminal.write(WatchText.line(sample, before: before) + "\n")
      return
    }
    Screen.draw(
      WatchText.lines(
        sample, before: before, width: Terminal.width, height: Terminal.height))
  }

  private static func seconds() -> Double {
    var time = timespec()
    // The kernel fills the structure; it cannot fail for this clock.
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

/// The window: the other screen of the terminal, without a cursor.
private enum Screen {
  static func open() {
    // Whoever is interrupted leaves the terminal as it was; only async-signal-safe calls.
    for number in [SIGINT, SIGTERM] {
      _ = signal(number) { number in
        Terminal.write("\u{1b}[?25h\u{1b}[?1049l")
        _exit(128 + number)
      }
    }
    Terminal.write("\u{1b}[?1049h\u{1b}[?25l")
  }

  static func close() { Terminal.write("\u{1b}[?25h\u{1b}[?1049l") }

  static func draw(_ lines: [String]) {
    // From the top; each line erases what was longer before, and the last all below it.
    let text = lines.map { $0 + "\u{1b}[K" }.joined(separator: "\r\n")
    Terminal.write("\u{1b}[H" + text + "\u{1b}[J")
  }
}
