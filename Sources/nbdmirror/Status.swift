// `nbdmirror status`: how the mirror is, for people or as JSON.

import ArgumentParser
import ControlModel

/// The verb `status`.
struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show how a running mirror and its legs are, and what to do about it.",
    discussion: """
      Rd-err and Wr-err count the errors of a leg since the server started, Fixed the blocks that \
      were rewritten from another leg after a read error.
      """)

  @OptionGroup var mirror: MirrorOptions

  @Flag(help: "Print JSON, as GET /v1/mirror on the control socket.")
  var json = false

  func run() throws {
    let status = try mirror.client().mirror()
    Terminal.write(
      try json ? ControlJSON.text(status) : StatusText.mirror(status, width: Terminal.width))
  }
}

extension ControlJSON {
  /// `value` as JSON text.
  static func text(_ value: some Encodable) throws(Failure) -> String {
    String(decoding: try encode(value), as: UTF8.self)
  }
}
