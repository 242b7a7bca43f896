// `nbdmirror serve`: assembles a mirror from its PVs and serves it until it is told to stop.
//
// The order matters: signals are blocked before any thread exists; every PV is opened and locked
// before anything is decided; sockets are bound before the first write to a PV; `ready` is printed
// when clients are served.

import ArgumentParser
import Base
import ControlModel
import ControlPlane
import Glibc
import Legs
import MirrorEngine
import MirrorFormat
import NBDProtocol
import Ring
import Server

/// The verb.
struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve a mirror over NBD until SIGTERM, SIGINT or `nbdmirror stop`.",
    discussion: """
      Prints the URIs to attach to, then `ready` on a line of its own. Without --socket and \
      --listen it listens on a unix socket in /run/nbdmirror (root) or \
      $XDG_RUNTIME_DIR/nbdmirror.
      """)

  /// How PVs are opened.
  enum Cache: String, CaseIterable, ExpressibleByArgument {
    case direct
    case buffered
  }

  @Argument(
    help: ArgumentHelp("Path of a file or block device.", valueName: "PV"), completion: .file())
  var pv: [String]

  @Option(help: ArgumentHelp("Listen on this unix socket.", valueName: "PATH"), completion: .file())
  var socket: String?

  @Option(help: ArgumentHelp("Listen on TCP; may be repeated.", valueName: "HOST:PORT"))
  var listen: [String] = []

  @Option(
    help: ArgumentHelp("Where the control socket goes.", valueName: "PATH"), completion: .file())
  var control: String?

  @Option(
    help: ArgumentHelp(
      "Serve the control interface over TCP, too; without HOST on the loopback address. Requests "
        + "have to show a token, see docs/control.md.",
      valueName: "HOST:PORT"))
  var controlListen: String?

  @Option(
    help: ArgumentHelp(
      "The file of that token; it is made if it is not there. Default: the path of the control "
        + "socket with .token behind it.",
      valueName: "FILE"), completion: .file())
  var controlToken: String?

  @OptionGroup(title: "TLS") var encryption: TLSOptions

  @Flag(help: "Write nothing at all, not even labels.")
  var readOnly = false

  @Flag(help: "Start although legs are missing.")
  var degraded = false

  @Option(
    help: ArgumentHelp(
      "After a split brain: the leg (slot, leg id or path) whose history is kept.",
      valueName: "LEG"))
  var chooseLeg: String?

  @Option(
    help: ArgumentHelp(
      "How a leg is chosen for a read. LEG is a slot, a leg id or a path.", valueName: "POLICY"))
  var readPolicy: ReadPolicyOption = .adaptive

  @Option(help: "Number of reactor threads. Default: up to 4, by the cores.")
  var threads: Int?

  @Option(help: "How PVs are opened.")
  var cache: Cache = .direct

  @Option(help: ArgumentHelp("A leg that does not answer for so long fails.", valueName: "SECONDS"))
  var legTimeout: Double = 8

  @Flag(help: "Bring legs that failed back by themselves once their PV can be read again.")
  var autoReadd = false

  @Option(
    help: ArgumentHelp(
      "Run this program for each event, with the event as JSON on its standard input.",
      valueName: "PROGRAM"), completion: .file())
  var onEvent: String?

  @Option(
    help: ArgumentHelp(
      "Arm the faults in this file, one a line as after `fault add`, before the first client.",
      valueName: "FILE"), completion: .file())
  var faults: String?

  @Flag(
    help: "Keep the server in memory and from the OOM killer: for exports attached on this host.")
  var lockMemory = false

  @Option(
    help: ArgumentHelp(
      "Busy wait for up to so many microseconds before a thread sleeps; 0: never.",
      valueName: "MICROSECONDS"))
  var pollUs: UInt64 = 50

  func validate() throws {
    guard pv.count <= 8 else {
      throw ValidationError("a mirror has 1 to 8 PVs, not \(pv.count)")
    }
    guard legTimeout >= 0.1, legTimeout <= 3600 else {
      throw ValidationError("--leg-timeout is 0.1 to 3600 seconds")
    }
    guard controlToken == nil || controlListen != nil else {
      throw ValidationError("--control-token goes with --control-listen")
    }
    guard pollUs <= 10_000 else { throw ValidationError("--poll-us is at most 10000") }
    if let threads, threads < 1 || threads > 32 {
      throw ValidationError("--threads is 1 to 32")
    }
  }

  func run() throws {
    do {
      try serve()
    } catch let error as ServerError {
      throw CommandFailure(error.description)
    }
  }

  private func serve() throws {
    let signals = try TerminationSignals.block()
    // Before any thread exists: it holds for them all. Without the privilege, memory pressure on
    // this host can block an export that is attached here: best effort.
    let isFlusher = becomeIOFlusher()
    if lockMemory { LocalUse.lockMemory(isFlusher: isFlusher) }
    let mirror = try OpenMirror(self)
    let configuration = try configure(mirror)
    let server = try MirrorServer(
      configuration, engine: mirror.makeEngine(), legs: mirror.adapter.files.table,
      faults: try mirror.makeFaults(self), observer: mirror.adapter)
    mirror.adapter.connect(server)
    let hook = try onEvent.map { try EventHook($0) }
    mirror.adapter.hook.withLock { $0 = hook }
    mirror.tellAssembly()
    try hook?.start()
    defer { hook?.stop() }
    let ticker = EventTicker(mirror.adapter)
    try ticker.start()
    defer { ticker.stop() }
    let control = try startControl(mirror)
    defer { control.stop() }
    let prober = AutoReadd(mirror.adapter)
    if autoReadd && !mirror.plan.isReadOnly { try prober.start() }
    defer { prober.stop() }
    let outcome = try server.run(signals: signals) {
      mirror.bringReturningLegsIn(server)
      mirror.adapter.tell(EventRecord(.serverStarted, "the mirror \(mirror.plan.name) is served"))
      announce(mirror.plan.name, configuration, server, control)
    }
    Systemd.notify("STOPPING=1")
    mirror.adapter.tellStopping("the server stops")
    if outcome == .unclean {
      throw CommandFailure(
        "stopped before the mirror was clean (a leg does not answer): the next start recovers")
    }
  }

  private func startControl(_ mirror: OpenMirror) throws -> ControlServer {
    let path: String
    if let control {
      path = control
    } else {
      let folder = try ControlEndpoint.current.serveFolder()
      path = ControlEndpoint.controlPath(name: mirror.plan.name, in: folder)
    }
    let tcp = try controlAddress(besides: path)
    do throws(ControlServerError) {
      return try ControlServer.start(path: path, tcp: tcp, controller: mirror.adapter)
    } catch {
      throw CommandFailure("\(error)")
    }
  }

  /// Where the control plane is served over TCP, if it is.
  private func controlAddress(besides path: String) throws -> [ControlTCP] {
    guard let controlListen else { return [] }
    let address = try ListenAddress(controlListen)
    let token = try TokenFile(path: controlToken ?? path + ".token").readOrMake()
    return [
      ControlTCP(
        host: address.host.isEmpty ? "127.0.0.1" : address.host, port: address.port, token: token)
    ]
  }

  /// How PVs are opened.
  var pvCache: PVFile.Cache { cache == .direct ? .direct : .buffered }

  private func configure(_ mirror: OpenMirror) throws -> ServerConfiguration {
    let layout = mirror.plan.layout
    let export = ExportInfo(
      name: mirror.plan.name, description: "mirror \(mirror.plan.setId)",
      sizeBytes: layout.sizeBytes, isReadOnly: mirror.plan.isReadOnly,
      minimumBlockBytes: 1, preferredBlockBytes: max(4096, layout.blockBytes))
    var configuration = ServerConfiguration(
      export: export, blockBytes: UInt64(layout.blockBytes))
    configuration.inheritedListeners = Systemd.inheritedListeners()
    configuration.listenAddresses = listen
    if let socket {
      configuration.socketPaths = [socket]
    } else if listen.isEmpty && configuration.inheritedListeners.isEmpty {
      let folder = try ControlEndpoint.current.serveFolder()
      configuration.socketPaths = [
        ControlEndpoint.exportPath(name: mirror.plan.name, in: folder)
      ]
    }
    let cores = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    configuration.threads = threads ?? min(4, cores)
    configuration.pollNanosecondsMax = pollUs * Nanoseconds.microsecond
    try encryption.configure(&configuration)
    configuration.connectionsMax = DescriptorLimit.connections(
      wanted: configuration.connectionsMax)
    return configuration
  }

  private func announce(
    _ name: String, _ configuration: ServerConfiguration, _ server: MirrorServer,
    _ control: ControlServer
  ) {
    let unix = configuration.tlsRequired.contains(.unix) ? "nbds" : "nbd"
    for path in configuration.socketPaths {
      print("\(unix)+unix:///\(URIText.escape(name))?socket=\(URIText.escape(path))")
    }
    for (address, port) in zip(configuration.listenAddresses, server.ports) {
      let host = address[..<(address.lastIndex(of: ":") ?? address.endIndex)]
      let scheme = configuration.tlsRequired.contains(.tcp) ? "nbds" : "nbd"
      print(
        "\(scheme)://\(host.isEmpty ? "localhost" : String(host)):\(port)/\(URIText.escape(name))")
    }
    for address in control.addresses { print("http://\(address)/") }
    print("ready")
    // Whoever waits for the line reads it through a pipe.
    fflush(nil)
    Systemd.notify("READY=1")
  }
}

/// Percent-encoding of the parts of a URI.
enum URIText {
  /// `text` with everything escaped but unreserved characters and `/`.
  static func escape(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF")
    var result = ""
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
        UInt8(ascii: "_"), UInt8(ascii: "~"), UInt8(ascii: "/"):
        result.unicodeScalars.append(Unicode.Scalar(byte))
      default:
        result += "%"
        result.append(digits[Int(byte >> 4)])
        result.append(digits[Int(byte & 15)])
      }
    }
    return result
  }
}
