// `nbdmirror events`: what happened, and what happens.

import ArgumentParser
import ControlModel
import Glibc

/// What was learned from the events so far.
private final class Seen {
  var isStopping = false
}

/// The verb `events`.
struct Events: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the events of a running mirror.",
    discussion: """
      The server keeps the last 4096 events. Each has a number; --after goes on where a reader \
      stopped. With --json each event is one line.
      """)

  @OptionGroup var mirror: MirrorOptions

  @Flag(help: "Go on with events as they happen, until the server stops.")
  var follow = false

  @Option(help: ArgumentHelp("Leave out events up to this number.", valueName: "N"))
  var after: UInt64 = 0

  @Flag(help: "Print JSON, one event per line.")
  var json = false

  func run() throws {
    let client = try mirror.client()
    guard follow else {
      for event in try client.events(after: after) { show(event) }
      return
    }
    let seen = Seen()
    do throws(ControlClientError) {
      try client.followEvents(after: after) { event in
        if event.kind == .serverStopping { seen.isStopping = true }
        show(event)
      }
    } catch {
      // The stream may break off because the server has ended.
      guard seen.isStopping, error.isServerGone || error.isBadAnswer else {
        throw error
      }
    }
    if !seen.isStopping { throw CommandFailure("the server ended without saying that it stops") }
  }

  private func show(_ event: EventRecord) {
    if json {
      do {
        Terminal.write(String(decoding: try ControlJSON.line(event), as: UTF8.self) + "\n")
      } catch {
        Terminal.write("{}\n")
      }
    } else {
      Terminal.write(Events.line(event))
    }
  }

  /// One event as a line.
  static func line(_ event: EventRecord) -> String {
    "\(event.time) \(event.sequence) \(event.kind.rawValue): \(Table.printable(event.message))\n"
  }
}
