// `nbdmirror scrub ...`: compare the legs, repair what differs.

import ArgumentParser
import ControlModel

/// The verbs of `scrub`.
struct Scrub: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compare the legs, and repair what differs.",
    subcommands: [
      ScrubCheck.self, ScrubRepair.self, ScrubShow.self, ScrubStop.self, ScrubWait.self,
    ],
    defaultSubcommand: ScrubShow.self)
}

/// A range of the exported device on the command line: `A-B`, from A up to, not including, B.
struct ScrubRange: Equatable, ExpressibleByArgument {
  /// First byte.
  var offset: UInt64
  /// Number of bytes, at least 1.
  var bytes: UInt64

  /// Nil if the text is not two sizes with the larger one behind.
  init?(argument: String) {
    let parts = argument.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let first = ByteSize(argument: String(parts[0])),
      let end = ByteSize(argument: String(parts[1])), first.bytes < end.bytes
    else { return nil }
    offset = first.bytes
    bytes = end.bytes - first.bytes
  }
}

/// The verb `scrub check`.
struct ScrubCheck: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Start to compare the legs; what differs is reported.",
    discussion: "Returns at once; 'scrub wait' waits and tells what was found.")

  @OptionGroup var mirror: MirrorOptions

  @Option(help: "Compare only A-B, offsets in the exported device; B is not included.")
  var range: ScrubRange?

  func run() throws {
    let report = try mirror.client().startScrub(
      ScrubRequest(mode: .check, offset: range?.offset, bytes: range?.bytes))
    Terminal.write(ScrubText.report(report))
  }
}

/// The verb `scrub repair`.
struct ScrubRepair: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "repair",
    abstract: "Start to compare the legs; what differs is copied from the legs that are right.",
    discussion: """
      With three or more legs the majority is right; where there is none, and with two legs, the \
      leg that --prefer names. Without it nothing is touched there. Returns at once; 'scrub wait' \
      waits until everything is compared and copied.
      """)

  @OptionGroup var mirror: MirrorOptions

  @Option(help: "Slot number, leg id or path of the LEG that is right without a majority.")
  var prefer: String?

  @Option(help: "Repair only A-B, offsets in the exported device, widened to whole regions.")
  var range: ScrubRange?

  func run() throws {
    let client = try mirror.client()
    var leg: String?
    if let prefer {
      guard let found = LegPath.find(prefer, in: try client.legs()) else {
        throw CommandFailure("no leg goes by the name '\(Table.printable(prefer))'")
      }
      leg = found.id
    }
    let report = try client.startScrub(
      ScrubRequest(mode: .repair, prefer: leg, offset: range?.offset, bytes: range?.bytes))
    Terminal.write(ScrubText.report(report))
  }
}

/// The verb `scrub status`.
struct ScrubShow: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Show how far the scrub is and what it found.")

  @OptionGroup var mirror: MirrorOptions

  @Flag(help: "Print JSON, as GET /v1/scrub on the control socket.")
  var json = false

  func run() throws {
    let report = try mirror.client().scrub()
    Terminal.write(try json ? ControlJSON.text(report) : ScrubText.report(report))
  }
}

/// The verb `scrub stop`.
struct ScrubStop: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop",
    abstract: "Stop the scrub; what it has decided to repair is still copied.")

  @OptionGroup var mirror: MirrorOptions

  func run() throws {
    Terminal.write(ScrubText.report(try mirror.client().stopScrub()))
  }
}

/// The verb `scrub wait`.
struct ScrubWait: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wait",
    abstract: "Wait until the scrub is done, and tell what it found.",
    discussion: """
      Fails if legs still differ: after a check with any mismatch, after a repair that could not \
      decide somewhere. Fails too if no scrub ran, if it was stopped, if the server goes away, or \
      after the timeout.
      """)

  @OptionGroup var mirror: MirrorOptions

  @Option(help: "Seconds to wait at most; by default as long as it takes.")
  var timeout: Double?

  func validate() throws {
    if let timeout, !(timeout >= 0 && timeout < 1e9) {
      throw ValidationError("--timeout takes a number of seconds.")
    }
  }

  func run() async throws {
    let client = try mirror.client()
    let printer = ProgressPrinter(isTerminal: Terminal.isPresent, width: Terminal.width)
    defer { printer.finish() }
    let deadline = timeout.map { ContinuousClock.now + .seconds($0) }
    while true {
      let report = try client.scrub()
      let now = ContinuousClock.now
      guard report.running else {
        printer.finish()
        return try tell(report)
      }
      printer.show(ScrubText.progress(report), at: now)
      if let deadline, now >= deadline { throw CommandFailure("the scrub is not done yet") }
      try await Task.sleep(for: .milliseconds(200))
    }
  }

  private func tell(_ report: ScrubReport) throws {
    guard report.mode != nil else { throw CommandFailure("no scrub ran since the server started") }
    Terminal.write(ScrubText.report(report))
    guard report.complete else { throw CommandFailure("the scrub was stopped before its end") }
    guard report.unrepairedBytes == 0 else {
      throw CommandFailure("\(Quantity.bytes(report.unrepairedBytes)) differ and are not repaired")
    }
  }
}

/// What the scrub verbs print for people. Pure.
enum ScrubText {
  /// The scrub as a progress that can be printed like a resync's.
  static func progress(_ report: ScrubReport) -> ResyncStatus {
    ResyncStatus(
      running: report.running, bytesDone: report.bytesDone, bytesTotal: report.bytesTotal,
      bytesPerSecond: report.bytesPerSecond, etaSeconds: report.etaSeconds)
  }

  /// How far it is, what was found, and where.
  static func report(_ report: ScrubReport) -> String {
    guard let mode = report.mode else { return "Scrub: none ran\n" }
    let state = report.running ? "runs" : report.complete ? "done" : "stopped"
    var text =
      "Scrub: \(mode.rawValue) \(state), \(Quantity.bytes(report.bytesDone)) of "
      + "\(Quantity.bytes(report.bytesTotal)) compared\n"
    if report.bytesSkipped > 0 {
      text +=
        "Left out, for fewer than two legs have it or it is not recovered yet: "
        + "\(Quantity.bytes(report.bytesSkipped))\n"
    }
    if report.readErrors > 0 { text += "Failed reads: \(report.readErrors)\n" }
    guard report.mismatches > 0 else { return text + "No mismatches\n" }
    text +=
      "Mismatches: \(report.mismatches) \(report.mismatches == 1 ? "range" : "ranges"), "
      + "\(Quantity.bytes(report.mismatchBytes)); not repaired: "
      + "\(Quantity.bytes(report.unrepairedBytes))\n"
    var table = Table([("Offset", .right), ("Bytes", .right), ("Legs", .left)])
    for range in report.ranges {
      table.add([
        "\(range.offset)", "\(range.bytes)", range.legs.map { "\($0)" }.joined(separator: ","),
      ])
    }
    text += table.rendered()
    let more = report.mismatches - min(report.mismatches, UInt64(report.ranges.count))
    return more > 0 ? text + "and \(more) more\n" : text
  }
}
