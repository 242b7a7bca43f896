// The command `nbdmirror`: its verbs and its exit statuses.
//
// 0: done. 1: the operation failed, one sentence on the standard error output. 2: the call is
// wrong, with the usage.

import ArgumentParser
import Glibc

/// The command.
@main
struct NBDMirror: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nbdmirror",
    abstract: "Export one block device that is mirrored over several legs.",
    subcommands: [
      Create.self, Serve.self, Examine.self, Explain.self, Status.self, ListLegs.self,
      ListConnections.self,
      Watch.self,
      Leg.self,
      Resync.self, Scrub.self, FaultVerbs.self, Events.self, Metrics.self,
      Stop.self,
      AttachDevice.self, DetachDevice.self,
    ])

  /// Parses, runs, exits.
  static func main() async {
    do {
      var command = try parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch {
      end(error)
    }
  }

  /// Prints what `error` says and exits with its status.
  private static func end(_ error: any Error) -> Never {
    let code = exitCode(for: error)
    if code == .success {
      print(fullMessage(for: error))
      Glibc.exit(0)
    }
    if code == .validationFailure {
      complain(fullMessage(for: error).replacingPrefix("Error: ", by: "nbdmirror: "))
      Glibc.exit(2)
    }
    if let code = error as? ExitCode { Glibc.exit(code.rawValue) }
    complain("nbdmirror: \(error)")
    Glibc.exit(1)
  }

  private static func complain(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    // The array lives through the call; there is nobody left to tell of a failure.
    unsafe bytes.withUnsafeBytes { buffer in
      _ = unsafe write(STDERR_FILENO, buffer.baseAddress, buffer.count)
    }
  }
}

extension String {
  fileprivate func replacingPrefix(_ prefix: String, by other: String) -> String {
    hasPrefix(prefix) ? other + dropFirst(prefix.count) : self
  }
}
