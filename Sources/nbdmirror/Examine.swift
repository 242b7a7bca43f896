// `nbdmirror examine`: what stands on PVs; works while a server runs.

import ArgumentParser
import FoundationEssentials
import Legs
import MirrorFormat

/// The verb.
struct Examine: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what the labels of PVs say.")

  @Argument(
    help: ArgumentHelp("Path of a file or block device.", valueName: "PV"), completion: .file())
  var pv: [String]

  @Flag(help: "Print JSON: one object, or an array with one entry per PV where several are given.")
  var json = false

  func run() throws {
    var reports: [ExamineReport] = []
    var failures: [String] = []
    for path in pv {
      do throws(PVError) {
        reports.append(try ExamineReport.read(path: path))
      } catch {
        failures.append(error.description)
        reports.append(ExamineReport(path: path, error: error.description))
      }
    }
    if json {
      print(try reports.count == 1 ? JSONText.of(reports[0]) : JSONText.of(reports))
    } else if failures.count < reports.count {
      print(reports.filter { $0.error == nil }.map(\.text).joined(separator: "\n\n"))
    }
    // All PVs that can be shown are shown; the call failed nevertheless.
    guard failures.isEmpty else {
      throw CommandFailure(failures.joined(separator: "\nnbdmirror: "))
    }
  }
}

/// JSON as the commands print it.
enum JSONText {
  /// Keys in alphabetical order, indented.
  static func of(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }
}
