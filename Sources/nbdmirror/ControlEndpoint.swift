// Where mirrors are found: the default folders of the sockets, and the choice of one mirror.
//
// root's mirrors live in /run/nbdmirror, everybody else's in $XDG_RUNTIME_DIR/nbdmirror. Admin
// commands of root look in both, so a mirror that a service started is found from any shell.

import ArgumentParser
import ControlModel
import FoundationEssentials
import Glibc

/// Default endpoints of mirrors.
struct ControlEndpoint {
  /// Folders to look in, the first is the one to serve in; none if the system gives us no place.
  let folders: [String]

  /// The folders of the user `userId` with this environment.
  init(environment: [String: String], userId: UInt32) {
    let ofUser = environment["XDG_RUNTIME_DIR"].flatMap { $0.hasPrefix("/") ? $0 : nil }
    folders =
      (userId == 0 ? ["/run/nbdmirror"] : []) + (ofUser.map { [$0 + "/nbdmirror"] } ?? [])
  }

  /// The folders of this process.
  static var current: ControlEndpoint {
    ControlEndpoint(environment: ProcessInfo.processInfo.environment, userId: geteuid())
  }

  /// The folder to serve in, made if it is not there.
  func serveFolder() throws(CommandFailure) -> String {
    guard let folder = folders.first else {
      throw CommandFailure(
        "XDG_RUNTIME_DIR is not set: say where the sockets go with --socket and --control")
    }
    // Only the owner may look into it: the folder guards the sockets too.
    guard unsafe mkdir(folder, 0o700) == 0 || errno == EEXIST else {
      throw CommandFailure("cannot make the folder \(folder): \(SystemError(code: errno))")
    }
    return folder
  }

  /// The control socket of the mirror `name` in `folder`.
  static func controlPath(name: String, in folder: String) -> String { "\(folder)/\(name).ctl" }

  /// The NBD socket of the mirror `name` in `folder`.
  static func exportPath(name: String, in folder: String) -> String { "\(folder)/\(name).nbd" }

  /// The control socket of the mirror `name`, or of the only one that runs.
  func find(name: String?) throws(CommandFailure) -> String {
    let places =
      folders.isEmpty
      ? "no folder (XDG_RUNTIME_DIR is not set)"
      : folders.joined(
        separator: " or ")
    if let name {
      let paths = folders.map { ControlEndpoint.controlPath(name: name, in: $0) }
      if let running = paths.first(where: isListening) { return running }
      throw CommandFailure("no mirror called '\(name)' runs; looked in \(places)")
    }
    let running = folders.flatMap { controlSockets(in: $0) }.filter { isListening($0) }
    if running.count == 1 { return running[0] }
    if running.isEmpty {
      throw CommandFailure(
        "no mirror runs; looked in \(places). Say --control PATH if it was served with that")
    }
    let names = running.map(mirrorName)
    throw CommandFailure(
      "\(running.count) mirrors run (\(names.joined(separator: ", "))): say which with --name")
  }

  /// The names of the mirrors that run.
  var names: [String] {
    folders.flatMap { controlSockets(in: $0) }.filter { isListening($0) }.map(mirrorName)
  }

  private func mirrorName(_ path: String) -> String {
    String(path.split(separator: "/").last?.dropLast(".ctl".count) ?? "")
  }

  private func controlSockets(in folder: String) -> [String] {
    do {
      let files = try FileManager.default.contentsOfDirectory(atPath: folder)
      return files.filter { $0.hasSuffix(".ctl") }.sorted().map { "\(folder)/\($0)" }
    } catch {
      // No folder, no mirrors; the caller says where it looked.
      return []
    }
  }

  private func isListening(_ path: String) -> Bool {
    ControlClient(path: path, timeoutMilliseconds: 1000).isListening()
  }
}

/// The options by which every admin command finds its mirror.
struct MirrorOptions: ParsableArguments {
  @Option(help: "The mirror, if more than one runs.", completion: Completions.mirrors)
  var name: String?

  @Option(help: "The mirror's control socket.", completion: .file())
  var control: String?

  func validate() throws {
    if name != nil && control != nil {
      throw ValidationError("--name and --control are two ways to say the same: give one.")
    }
    if let name, name.isEmpty || name.utf8.contains(UInt8(ascii: "/")) || name.utf8.contains(0) {
      throw ValidationError("'\(name)' is not the name of a mirror.")
    }
  }

  /// A client of the mirror that the options name.
  func client(timeoutMilliseconds: Int = 60_000) throws(CommandFailure) -> ControlClient {
    let path =
      if let control { control } else { try ControlEndpoint.current.find(name: name) }
    return ControlClient(path: path, timeoutMilliseconds: timeoutMilliseconds)
  }
}
