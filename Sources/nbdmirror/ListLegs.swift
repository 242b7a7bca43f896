// `nbdmirror legs`: the legs with their caches and latencies.

import ArgumentParser
import ControlModel

/// The verb `legs`.
struct ListLegs: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "legs",
    abstract: "Show the legs of a running mirror.",
    discussion: "Read us and Write us are the median and the 99th percentile in microseconds.")

  @OptionGroup var mirror: MirrorOptions

  @Flag(help: "Print JSON, as GET /v1/legs on the control socket.")
  var json = false

  func run() throws {
    let legs = try mirror.client().legs()
    Terminal.write(try json ? ControlJSON.text(legs) : StatusText.legs(legs))
  }
}
