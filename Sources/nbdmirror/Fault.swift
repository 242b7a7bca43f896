// `nbdmirror fault ...`: break a leg on purpose, and mend it.

import ArgumentParser
import Base
import ControlModel
import Faults
import Glibc

/// The verbs on faults.
struct FaultVerbs: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fault",
    abstract: "Make a leg fail on purpose: errors, delays, lies, a power cut.",
    subcommands: [
      FaultAdd.self, FaultList.self, FaultRemove.self, FaultClear.self, FaultRelease.self,
      FaultPowerCut.self,
    ],
    defaultSubcommand: FaultList.self)
}

/// The verb `fault add`.
struct FaultAdd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "add",
    abstract: "Arm a fault on a leg.",
    discussion: """
      KIND is one of \(FaultKind.list). docs/faults.md explains them. A fault goes with the slot: \
      it stays when the leg there is replaced, and ends with the server.
      """)

  @OptionGroup var mirror: MirrorSelection

  @Argument(help: "Slot number, leg id, or path of the PV.", completion: Completions.legs)
  var leg: String

  @Argument(help: "What happens.", completion: Completions.kinds)
  var kind: String

  @Option(help: "Only these kinds of I/O: read, write, flush, zero, comma separated. Default: all.")
  var op: String?

  @Option(help: "all (default), data, or metadata (labels and region map).")
  var area: String?

  @Option(help: ArgumentHelp("Only these bytes of the exported device.", valueName: "A-B"))
  var range: String?

  @Option(help: "Each time with this probability, 0 to 1.")
  var probability: String?

  @Option(help: "Only the Nth I/O, from 1; with --count that many from it on.")
  var nth: String?

  @Option(help: "So many times at most.")
  var count: String?

  @Option(name: .customLong("for"), help: ArgumentHelp("For so long.", valueName: "SECONDS"))
  var duration: String?

  @Option(help: "Seed of what the fault draws. Default: from the set's seed and the name.")
  var seed: String?

  @Option(help: "Name. Default: the kind and a number.")
  var name: String?

  @Option(help: "error, torn: the error, a name or a number. Default of error: EIO.")
  var errno: String?

  @Option(help: "delay: a time (20ms), a range (10ms-50ms), or exp:MEAN.")
  var delay: String?

  @Option(help: "corrupt: how many bits. Default: 1.")
  var bits: String?

  @Option(help: "torn: how many leading sectors of 512 bytes reach the leg. Default: drawn.")
  var sectors: String?

  @Option(help: "misdirect: offset in the device that is hit instead. Default: drawn.")
  var to: String?

  @Option(help: "throttle: operations per second.")
  var iops: String?

  @Option(help: "throttle: bytes per second.")
  var rate: String?

  private var options: [(FaultOption, String)] {
    FaultOption.allCases.compactMap { option in
      let value: String? =
        switch option {
        case .op: op
        case .area: area
        case .range: range
        case .probability: probability
        case .nth: nth
        case .count: count
        case .for: duration
        case .seed: seed
        case .name: name
        case .errno: errno
        case .delay: delay
        case .bits: bits
        case .sectors: sectors
        case .to: to
        case .iops: iops
        case .rate: rate
        }
      return value.map { (option, $0) }
    }
  }

  func validate() throws {
    do throws(FaultSyntaxError) {
      _ = try Fault.parse(kind: kind, options: options, leg: LegSlot(0))
    } catch {
      throw ValidationError(error.description)
    }
  }

  func run() throws {
    let client = try mirror.client()
    guard let found = LegPath.find(leg, in: try client.legs()) else {
      throw CommandFailure("no leg goes by the name '\(Table.printable(leg))'")
    }
    var words: [String: String] = [:]
    for (option, value) in options { words[option.rawValue] = value }
    let fault = try client.addFault(
      AddFaultRequest(leg: "\(found.slot)", kind: kind, options: words))
    Terminal.write("\(fault.name)\n")
  }
}

/// How `fault add` finds its mirror: `--name` is the fault's name there.
struct MirrorSelection: ParsableArguments {
  @Option(help: "The mirror, if more than one runs.")
  var mirror: String?

  @Option(help: "The mirror's control socket.")
  var control: String?

  func validate() throws {
    if mirror != nil && control != nil {
      throw ValidationError("--mirror and --control are two ways to say the same: give one.")
    }
  }

  /// A client of the mirror that the options name.
  func client() throws(CommandFailure) -> ControlClient {
    let path =
      if let control { control } else { try ControlEndpoint.current.find(name: mirror) }
    return ControlClient(path: path)
  }
}

/// The verb `fault list`.
struct FaultList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "Show the faults and how often they hit.",
    discussion: "Matched counts the I/O that a fault selects, Fired those that it hit.")

  @OptionGroup var mirror: MirrorOptions

  @Flag(help: "Print JSON, as GET /v1/faults on the control socket.")
  var json = false

  func run() throws {
    let faults = try mirror.client().faults()
    Terminal.write(try json ? ControlJSON.text(faults) : FaultList.table(faults))
  }

  static func table(_ faults: [FaultStatus]) -> String {
    guard !faults.isEmpty else { return "No faults.\n" }
    var table = Table([
      ("Name", .left), ("Leg", .right), ("State", .left), ("Matched", .right), ("Fired", .right),
      ("Fault", .left),
    ])
    for fault in faults {
      table.add([
        fault.name, "\(fault.leg)", fault.state.rawValue, "\(fault.matched)", "\(fault.fired)",
        fault.words,
      ])
    }
    return table.rendered()
  }
}

/// The verb `fault remove`.
struct FaultRemove: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove",
    abstract: "Remove a fault; I/O that it holds goes on.")

  @OptionGroup var mirror: MirrorOptions

  @Argument(
    help: ArgumentHelp("The fault's name.", valueName: "NAME"), completion: Completions.faults)
  var fault: String

  func run() throws { try mirror.client().removeFault(fault) }
}

/// The verb `fault clear`.
struct FaultClear: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "clear",
    abstract: "Remove all faults; I/O that they hold goes on.")

  @OptionGroup var mirror: MirrorOptions

  func run() throws { try mirror.client().clearFaults() }
}

/// The verb `fault release`.
struct FaultRelease: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "release",
    abstract: "Let go the I/O that a hang holds; it catches no more.")

  @OptionGroup var mirror: MirrorOptions

  @Argument(
    help: ArgumentHelp("The fault's name.", valueName: "NAME"), completion: Completions.faults)
  var fault: String

  func run() throws { _ = try mirror.client().releaseFault(fault) }
}

/// The verb `fault power-cut`.
struct FaultPowerCut: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "power-cut",
    abstract: "Take unflushed writes back and end the server as a power loss would.",
    discussion: """
      Only a leg with a fault of kind volatile-cache remembers what its unflushed writes overwrote; \
      of other legs nothing is taken back. The server ends at once and cleans nothing up.
      """)

  @OptionGroup var mirror: MirrorOptions

  @Option(help: "Leg that loses unflushed writes (slot, leg id or path); may be repeated.")
  var leg: [String] = []

  @Flag(help: "All legs lose unflushed writes. This is the default.")
  var all = false

  @Option(help: "Fixes what is lost. Default: drawn, and told.")
  var seed: UInt64?

  func validate() throws {
    if all && !leg.isEmpty { throw ValidationError("--leg and --all exclude each other.") }
  }

  func run() throws {
    let client = try mirror.client()
    let process = try client.serverProcess().flatMap(ServerProcess.init)
    var legs: [String]?
    if !leg.isEmpty {
      let known = try client.legs()
      legs = try leg.map { name in
        guard let found = LegPath.find(name, in: known) else {
          throw CommandFailure("no leg goes by the name '\(Table.printable(name))'")
        }
        return found.id
      }
    }
    let report = try client.cutPower(PowerCutRequest(legs: legs, seed: seed))
    Terminal.write(FaultPowerCut.text(report))
    guard waitFor(milliseconds: 10_000, { !(process?.isRunning ?? client.isListening()) }) else {
      throw CommandFailure("the power is cut, but the server's process is still there")
    }
  }

  static func text(_ report: PowerCutReport) -> String {
    var text = "power cut, seed \(report.seed)\n"
    for leg in report.legs {
      text +=
        leg.volatileCache
        ? "leg \(leg.leg): \(leg.lostSectors) of \(leg.unflushedSectors) unflushed sectors lost\n"
        : "leg \(leg.leg): nothing lost, for it had no fault of kind volatile-cache\n"
    }
    return text
  }
}
