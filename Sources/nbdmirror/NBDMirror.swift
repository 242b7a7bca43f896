// The command `nbdmirror`.

import ArgumentParser

@main
struct NBDMirror: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nbdmirror",
    abstract: "Export one block device that is mirrored over several legs.")
}
