// `nbdmirror leg ...`: take legs out, bring them back, add new ones.

import ArgumentParser
import ControlModel
import Glibc

/// The verbs on legs.
struct Leg: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Fail, remove, bring back, add, replace or change a leg.",
    subcommands: [
      LegFail.self, LegRemove.self, LegReadd.self, LegRefresh.self, LegAdd.self, LegReplace.self,
      LegOptionsSet.self,
    ])
}

/// The options of verbs on one leg.
struct LegOptions: ParsableArguments {
  @OptionGroup var mirror: MirrorOptions

  @Argument(help: "Slot number, leg id, or path of the PV.", completion: Completions.legs)
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

  @Argument(help: "The PV: a file or a block device.", completion: .file())
  var pv: String

  @Flag(help: "Keep it as a spare: it takes the place of the next leg that fails.")
  var spare = false

  func run() throws {
    let client = try mirror.client()
    let leg = try client.addLeg(path: LegPath.absolute(pv), spare: spare)
    Terminal.write(LegPath.reportNew(leg))
  }
}

/// The verb `leg replace`.
struct LegReplace: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replace",
    abstract: "Put a new leg in the place of another one.",
    discussion: """
      The old leg serves until the new one is in sync, then it is removed. Returns when the new leg \
      is online; 'resync wait' waits until it is in sync.
      """)

  @OptionGroup var options: LegOptions

  @Argument(help: "The new leg's PV: a file or a block device.", completion: .file())
  var pv: String

  func run() throws {
    let (client, leg) = try options.find()
    let path = LegPath.absolute(pv)
    Terminal.write(LegPath.reportNew(try client.replaceLeg(leg.id, path: path)))
  }
}

/// The verb `leg refresh`.
struct LegRefresh: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "refresh",
    abstract: "Begin anew with a leg whose disk was repaired.",
    discussion: """
      An offline leg comes back as by readd. Of an online one the errors are forgotten, blocks that \
      could not be read are tried again, and flushes that fail since one failed may succeed again; \
      what it may have lost is copied to it from the others.
      """)

  @OptionGroup var options: LegOptions

  @Flag(help: "Copy everything to it again that another leg has.")
  var whole = false

  func run() throws {
    let (client, leg) = try options.find()
    let hasFailed = try client.mirror().state == .failed
    Terminal.write(LegPath.report(try client.refreshLeg(leg.id, whole: whole)))
    if hasFailed, try client.mirror().state != .failed {
      Journal.write(
        "flushes succeed again; what clients wrote and had not flushed when they began to fail may be "
          + "lost: check file systems and databases")
    }
  }
}

/// The verb `leg set`.
struct LegOptionsSet: ParsableCommand {
  /// on or off.
  enum Switch: String, CaseIterable, ExpressibleByArgument {
    case on
    case off
  }

  static let configuration = CommandConfiguration(
    commandName: "set",
    abstract: "Change a leg's options; they are kept in its label.")

  @OptionGroup var options: LegOptions

  @Option(help: "Read the leg only if nothing else can.")
  var writeMostly: Switch

  func run() throws {
    let (client, leg) = try options.find()
    Terminal.write(LegPath.report(try client.setLeg(leg.id, writeMostly: writeMostly == .on)))
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
    let replaces = leg.replaces.map { ", replaces leg \($0)" } ?? ""
    let writeMostly = leg.writeMostly ? ", write-mostly" : ""
    return "leg \(leg.slot): \(leg.state.rawValue)\(stale)\(replaces)\(writeMostly)\n"
  }

  /// What a command did that brought `leg` in: also what of its PV is of no use.
  static func reportNew(_ leg: LegStatus) -> String {
    guard let unused = leg.unusedBytes, unused > 0 else { return report(leg) }
    return report(leg)
      + "  \(unused) bytes at the end of \(Table.printable(leg.path)) stay unused\n"
  }

  private static func resolved(_ path: String) -> String? {
    // realpath allocates the text itself, and it is freed after the copy.
    guard !path.isEmpty, let text = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(text) }
    return unsafe String(cString: text)
  }
}
