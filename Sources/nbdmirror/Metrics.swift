// `nbdmirror metrics`: the metrics as Prometheus reads them.

import ArgumentParser
import ControlModel

/// The verb `metrics`.
struct Metrics: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print the metrics of a running mirror in Prometheus' text format.",
    discussion: "docs/metrics.md explains them; Examples/prometheus collects them.")

  @OptionGroup var mirror: MirrorOptions

  func run() throws { Terminal.write(try mirror.client().metrics()) }
}
