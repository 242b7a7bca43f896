// `nbdmirror leg ...`: take legs out, bring them back, add new ones.

import ArgumentParser
import ControlModel
import Glibc

/// The verbs `leg fail`, `leg remove`, `leg readd`, `leg add`.
struct Leg: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Fail, remove, bring back or add a leg.",
    subcommands: [LegFail.self, LegRemove.self, LegReadd.self, LegAdd.self])
}

/// The options of verbs on one leg.
struct LegOptions: ParsableArguments {
  @OptionGroup var mirror: MirrorOptions

  @Argument(help: "Slot number, leg id, or path of the PV.")
  var leg: String

  /// A client, and the id of the leg that the argument names.
  func find() throws -> (ControlClient, LegStatus) {
    let client = try mirror.client()
    guard let found = LegPath.find(leg, in: try client.legs()) else {
      throw CommandFailure("no leg goes by the name '\(Table.printable(leg))'")
    }
    return (client, found)
  }
}

/// The verb `leg fail`.
struct LegFail: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fail",
    abstract: "Take a leg offline as failed; it stays part of the mirror.")

  @OptionGroup var options: LegOptions

  func run() throws {
    let (client, leg) = try options.find()
    Terminal.write(LegPath.report(try client.failLeg(leg.id)))
  }
}

/// The verb `leg remove`.
struct LegRemove: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove",
    abstract: "Take a leg out of the mirror.")

  @OptionGroup var options: LegOptions

  func run() throws {
    let (client, leg) = try options.find()
    try client.removeLeg(leg.id)
    Terminal.write("leg \(leg.slot): removed\n")
  }
}

/// The verb `leg readd`.
struct LegReadd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "readd",
    abstract: "Bring a leg back; it copies only what it missed.",
    discussion: "Returns when the leg is online again; 'resync wait' waits until it is in sync.")

  @OptionGroup var options: LegOptions

  @Flag(help: "Take the leg as a new one if its history is unknown or diverged: copies all.")
  var force = false

  func run() throws {
    let (client, leg) = try options.find()
    Terminal.write(LegPath.report(try client.readdLeg(leg.id, force: force)))
  }
}

/// The verb `leg add`.
struct LegAdd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "add",
    abstract: "Add a leg on a PV, in a free slot.",
    discussion: "Returns when the leg is online; 'resync wait' waits until it is in sync.")

  @OptionGroup var mirror: MirrorOptions

  @Argument(help: "The PV: a file or a block device.")
  var pv: String

  func run() throws {
    let client = try mirror.client()
    Terminal.write(LegPath.report(try client.addLeg(path: LegPath.absolute(pv))))
  }
}

/// Paths of legs as people type them, and as the server knows them.
enum LegPath {
  /// The leg that `reference` names; paths may be relative, or lead there through links.
  static func find(_ reference: String, in legs: [LegStatus]) -> LegStatus? {
    if let leg = LegStatus.find(reference, in: legs) { return leg }
    if let leg = LegStatus.find(absolute(reference), in: legs) { return leg }
    guard let real = resolved(reference) else { return nil }
    let same = legs.filter { $0.state != .removed && resolved($0.path) == real }
    return same.count == 1 ? same[0] : nil
  }

  /// `path` from the root; names of other kinds of PVs (`nbd://...`) stay as they are.
  static func absolute(_ path: String) -> String {
    if path.isEmpty || path.hasPrefix("/") || path.contains("://") { return path }
    // getcwd allocates the text itself, and it is freed after the copy.
    guard let folder = unsafe getcwd(nil, 0) else { return path }
    defer { unsafe free(folder) }
    let base = unsafe String(cString: folder)
    return base == "/" ? "/\(path)" : "\(base)/\(path)"
  }

  /// What a command did to `leg`.
  static func report(_ leg: LegStatus) -> String {
    let stale = leg.staleBytes == 0 ? "" : ", \(Quantity.bytes(leg.staleBytes)) stale"
    return "leg \(leg.slot): \(leg.state.rawValue)\(stale)\n"
  }

  private static func resolved(_ path: String) -> String? {
    // realpath allocates the text itself, and it is freed after the copy.
    guard !path.isEmpty, let text = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(text) }
    return unsafe String(cString: text)
  }
}
