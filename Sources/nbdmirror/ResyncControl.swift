// `nbdmirror resync pause`, `resume`, `limit`: what changes a resync.

import ArgumentParser
import ControlModel

/// The verb `resync pause`.
struct ResyncPause: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause",
    abstract: "Stop copying until 'resync resume'; kept in the labels.")

  @OptionGroup var mirror: MirrorOptions

  func run() throws {
    let resync = try mirror.client().changeResync(ResyncRequest(paused: true))
    Terminal.write(StatusText.resync(resync.status, Terminal.width))
  }
}

/// The verb `resync resume`.
struct ResyncResume: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume",
    abstract: "Go on copying.")

  @OptionGroup var mirror: MirrorOptions

  func run() throws {
    let resync = try mirror.client().changeResync(ResyncRequest(paused: false))
    Terminal.write(StatusText.resync(resync.status, Terminal.width))
  }
}

/// The verb `resync limit`.
struct ResyncLimit: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "limit",
    abstract: "Show or set how fast resync and scrub go.",
    discussion: """
      RATE is a number of bytes per second with K, M or G. Takes effect at once and is kept in the \
      labels. Without options the limits in force are shown.
      """)

  @OptionGroup var mirror: MirrorOptions

  @Option(help: "RATE that copying does not fall below while clients work.")
  var min: ByteSize?

  @Option(help: "RATE that copying does not exceed; 0: unlimited.")
  var max: ByteSize?

  func validate() throws {
    if let min, let max, max.bytes > 0, min.bytes > max.bytes {
      throw ValidationError("--min is above --max.")
    }
  }

  func run() throws {
    let client = try mirror.client()
    let resync =
      min == nil && max == nil
      ? try client.resync()
      : try client.changeResync(
        ResyncRequest(minBytesPerSecond: min?.bytes, maxBytesPerSecond: max?.bytes))
    Terminal.write(StatusText.limits(resync.status))
  }
}

extension StatusText {
  /// The lines about what could not be copied; none if all could.
  static func unreadable(_ resync: ResyncReport) -> String {
    guard resync.unreadable > 0 else { return "" }
    var table = Table([("Offset", .right), ("Bytes", .right)])
    for range in resync.unreadableRanges { table.add(["\(range.offset)", "\(range.bytes)"]) }
    return "Not copied, for no leg that has it can read it: \(resync.unreadable) "
      + "\(resync.unreadable == 1 ? "range" : "ranges")\n" + table.rendered()
  }

  /// The line about the limits.
  static func limits(_ resync: ResyncStatus) -> String {
    let high = resync.maxBytesPerSecond.map { Quantity.rate(bytesPerSecond: $0) } ?? "unlimited"
    let low = Quantity.rate(bytesPerSecond: resync.minBytesPerSecond)
    return "Resync limits: at least \(low) beside clients, at most \(high)\n"
  }
}
