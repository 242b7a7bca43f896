// `nbdmirror attach` and `nbdmirror detach`: a mirror as a block device of this host's kernel, which
// outlives its server. See docs/kernel.md.
//
// `attach` stays in the foreground and watches: it gives the kernel new connections when a server
// comes back. What it does at SIGTERM is decided by whether the device is in use: taking a device
// away under a mounted file system destroys work, so that takes `detach --force`.

import ArgumentParser
import Attach
import Base
import Glibc
import NBDProtocol
import Ring
import Server

/// The verb `attach`.
struct AttachDevice: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach",
    abstract: "Attach a mirror as /dev/nbdX, and reconnect it when its server comes back.",
    discussion: """
      Runs in the foreground. SIGTERM and SIGINT detach the device, unless it is in use: then it \
      stays attached, without anybody who reconnects it, until the next attach takes it over. \
      docs/kernel.md has the whole story.
      """)

  @Argument(help: "The device, such as /dev/nbd0.", completion: .file())
  var device: String

  @Option(
    help: ArgumentHelp(
      "The export: nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT. Default: the mirror "
        + "that runs here.", valueName: "URI"))
  var uri: String?

  @Option(help: "The mirror, if more than one runs here.", completion: Completions.mirrors)
  var name: String?

  @Option(
    help: ArgumentHelp(
      "Connections, 1 to 16. Default: 4 if the server takes several, else 1.", valueName: "N"))
  var connections: Int?

  @Option(
    help: ArgumentHelp("The device's logical block: 512, 1024, 2048 or 4096.", valueName: "BYTES"))
  var blockSize: UInt32 = 512

  @Option(
    help: ArgumentHelp(
      "A request that is not answered for so long is sent again.", valueName: "SECONDS"))
  var timeout: UInt64 = 10

  @Option(
    help: ArgumentHelp(
      "I/O waits so long for a server, then it fails and the device is detached.",
      valueName: "SECONDS"))
  var deadTimeout: UInt64 = 120

  @Flag(help: "At SIGTERM and SIGINT leave the device attached.")
  var leave = false

  func validate() throws {
    guard DeviceFiles(device) != nil else {
      throw ValidationError("'\(device)' is no device of the NBD driver, such as /dev/nbd0.")
    }
    guard uri == nil || name == nil else {
      throw ValidationError("--uri and --name are two ways to say the same: give one.")
    }
    if let uri {
      do throws(ExportURIError) {
        _ = try ExportURI(uri)
      } catch {
        throw ValidationError("\(error).")
      }
    }
    guard (1...16).contains(connections ?? 1) else {
      throw ValidationError("--connections is 1 to 16")
    }
    guard [512, 1024, 2048, 4096].contains(blockSize) else {
      throw ValidationError("--block-size is 512, 1024, 2048 or 4096")
    }
    guard (1...3600).contains(timeout) else { throw ValidationError("--timeout is 1 to 3600") }
    guard (1...86_400).contains(deadTimeout) else {
      throw ValidationError("--dead-timeout is 1 to 86400")
    }
  }

  func run() throws {
    guard let device = DeviceFiles(device) else { preconditionFailure("validate() looked at it") }
    let signals = try TerminationSignals.block()
    // While the device waits for a server, nothing here may wait for the device.
    LocalUse.lockMemory(isFlusher: becomeIOFlusher())
    let attachment = try Attachment(
      AttachOptions(
        device: device, uri: try export(), connections: connections, blockBytes: blockSize,
        requestTimeoutSeconds: timeout, deadTimeoutSeconds: deadTimeout))
    announce(attachment)
    let end = try attachment.watch(signals: signals) { news in
      say("\(device.name): \(AttachText.sentence(news, deadTimeout: deadTimeout))")
    }
    switch end {
    case .signalled: try leave(attachment)
    case .detachedElsewhere: say("\(device.name): was detached")
    case .gaveUp:
      throw CommandFailure(
        "\(device.path): no server came within \(deadTimeout) s; it is detached, its I/O fails")
    }
  }

  private func announce(_ attachment: Attachment) {
    let identity = attachment.identity
    let device = attachment.device
    say(
      "\(device.name): \(attachment.wasAttached ? "taken over" : "attached") to '\(identity.name)', "
        + "\(identity.sizeBytes) bytes, connections: \(attachment.connections)")
    if !identity.isUnique {
      Journal.write(
        "the server does not say which mirror it is: name and size are all that a reconnect compares"
      )
    }
    Systemd.notify("READY=1")
  }

  private func leave(_ attachment: Attachment) throws {
    let device = attachment.device
    if leave {
      say("\(device.name): stays attached, nobody watches it")
      return
    }
    guard !device.isInUse else {
      throw CommandFailure(
        "\(device.path) is in use: it stays attached, but nobody reconnects it until the next "
          + "'nbdmirror attach'")
    }
    Systemd.notify("STOPPING=1")
    try attachment.detach()
    say("\(device.name): detached")
  }

  /// Where the export is: as said, or the default endpoint of the mirror that runs.
  private func export() throws -> ExportURI {
    if let uri { return try ExportURI(uri) }
    let control = try ControlEndpoint.current.find(name: name)
    guard let slash = control.lastIndex(of: "/"), control.hasSuffix(".ctl") else {
      throw CommandFailure("\(control) is not a default control socket: say --uri")
    }
    let mirror = String(control[control.index(after: slash)...].dropLast(4))
    return ExportURI(
      place: .unix(
        path: ControlEndpoint.exportPath(name: mirror, in: String(control[..<slash]))),
      exportName: mirror)
  }

  private func say(_ line: String) {
    print(line)
    // Whoever waits for the line reads it through a pipe.
    fflush(nil)
  }
}

/// The verb `detach`.
struct DetachDevice: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "detach", abstract: "Detach a device that 'attach' or nbd-client attached.")

  @Argument(help: "The device, such as /dev/nbd0.", completion: .file())
  var device: String

  @Flag(help: "Also if it is mounted or otherwise in use: its I/O fails from then on.")
  var force = false

  func validate() throws {
    guard DeviceFiles(device) != nil else {
      throw ValidationError("'\(device)' is no device of the NBD driver, such as /dev/nbd0.")
    }
  }

  func run() throws {
    guard let device = DeviceFiles(device) else { preconditionFailure("validate() looked at it") }
    let driver = try KernelDriver()
    guard device.isAttached else { throw CommandFailure("\(device.path) is not attached") }
    if !force {
      guard !device.isInUse else {
        throw CommandFailure("\(device.path) is in use (--force detaches it nevertheless)")
      }
      try device.flush()
    }
    try driver.disconnect(device)
  }
}

/// What `attach` says while it watches.
enum AttachText {
  /// A sentence for the news.
  static func sentence(_ news: AttachNews, deadTimeout: UInt64) -> String {
    switch news {
    case .lost: "connection lost; I/O waits for the server for up to \(deadTimeout) s"
    case .retrying(let why): "trying again: \(why)"
    case .restored(let connections, let nanoseconds):
      "reconnected after \(tenths(nanoseconds)) s, new connections: \(connections)"
    }
  }

  private static func tenths(_ nanoseconds: UInt64) -> String {
    let tenths = (nanoseconds + 50 * Nanoseconds.millisecond) / (100 * Nanoseconds.millisecond)
    return "\(tenths / 10).\(tenths % 10)"
  }
}
