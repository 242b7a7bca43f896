// `nbdmirror-bench`: figures that can be trusted because they come from one run on one machine, this
// server and others taking turns. It knows nbdmirror only by its command line.
import ArgumentParser

/// The program.
@main
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nbdmirror-bench",
    abstract: "Compare nbdmirror with other NBD servers, and with itself.",
    subcommands: [Peers.self, LargeReads.self, EncryptedCopies.self])
}

/// Why a benchmark ended, in one sentence.
struct BenchError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
