// The servers that take turns, each with its own command line, socket and files.
import Glibc

/// What holds the legs.
enum Medium: String, CaseIterable, Codable {
  case tmpfs
  case disk
}

/// A server in the comparison.
enum Contender: String, CaseIterable, Codable {
  case nbdmirror
  case nbdkit
  case qemu

  /// The heading of its column.
  var title: String {
    switch self {
    case .nbdmirror: "nbdmirror, 2 legs"
    case .nbdkit: "nbdkit file, 1 file"
    case .qemu: "qemu-nbd quorum, 2 files"
    }
  }
}

/// A running server.
final class RunningServer {
  let contender: Contender
  let uri: String
  let process: ChildProcess

  /// Makes the files in `directory` and starts the server; returns when it accepts connections.
  /// `name` tells its files from those of the others; nil: the contender's own. With `keys`, a folder
  /// of certificates, clients must encrypt. `legs` (1 or 2) counts for nbdmirror only.
  init(
    _ contender: Contender, name: String? = nil, directory: String, medium: Medium,
    mebibytes: Int, binary: String, options: [String], keys: String? = nil, legs: Int = 2
  ) throws {
    self.contender = contender
    let prefix = "\(directory)/\(name ?? contender.rawValue)"
    let socket = "\(prefix).sock"
    uri =
      keys.map {
        "nbds+unix://localhost/?socket=\(socket)&tls-certificates=\($0)&tls-hostname=localhost"
      } ?? "nbd+unix:///?socket=\(socket)"
    let files = (0...1).map { "\(prefix)\($0)" }
    let log = "\(prefix).log"
    func run(_ command: [String]) throws {
      try ChildProcess(command, log: log).succeed(seconds: 60)
    }
    let command: [String]
    switch contender {
    case .nbdmirror:
      let pvs = Array(files.prefix(legs))
      try run([binary, "create", "bench"] + pvs + ["--size", "\(mebibytes)M"])
      command =
        [binary, "serve"] + pvs
        + ["--socket", socket, "--control", "\(prefix).ctl"] + options
        + (keys.map { ["--tls", "require", "--tls-certificates", $0] } ?? [])
    case .nbdkit:
      try run(["truncate", "-s", "\(mebibytes)M", files[0]])
      command =
        ["nbdkit", "-f", "-U", socket]
        + (keys.map { ["--tls=require", "--tls-certificates=\($0)"] } ?? [])
        + ["file", files[0]]
    case .qemu:
      try run(["truncate", "-s", "\(mebibytes)M"] + files)
      command =
        ["qemu-nbd", "-k", socket, "-t", "-e", "16"]
        + (keys.map {
          ["--object", "tls-creds-x509,id=tls0,endpoint=server,dir=\($0)", "--tls-creds", "tls0"]
        } ?? [])
        + ["--image-opts", Self.quorum(files, medium: medium)]
    }
    process = try ChildProcess(command, log: log)
    do {
      try waitUntil("\(contender.title) accepts connections", seconds: 20) {
        guard process.isRunning else {
          throw BenchError("\(command.joined(separator: " ")) ended:\n\(process.log)")
        }
        return contender == .nbdmirror
          ? process.log.split(separator: "\n").contains("ready")
          : TextFile.exists(socket)
      }
    } catch {
      process.end()
      throw error
    }
  }

  /// The quorum driver as a mirror: writes to all, reads from the first that answers.
  private static func quorum(_ files: [String], medium: Medium) -> String {
    let file = medium == .disk ? "file.cache.direct=on,file.aio=io_uring" : "file.aio=threads"
    let children = files.enumerated().map { index, path in
      let options = file.split(separator: ",").map { "children.\(index).\($0)" }
      return "children.\(index).driver=raw,children.\(index).file.driver=file,"
        + "children.\(index).file.filename=\(path),\(options.joined(separator: ","))"
    }
    return "driver=quorum,vote-threshold=1,read-pattern=fifo," + children.joined(separator: ",")
  }
}
