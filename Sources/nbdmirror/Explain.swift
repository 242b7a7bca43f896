// `nbdmirror explain`: how a server would start from these PVs, without starting one.

import ArgumentParser
import Legs
import MirrorEngine
import MirrorFormat

/// The verb. It is done when the reasoning is told, whatever the verdict; a PV that cannot be
/// read is a failure.
struct Explain: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show how a server would start from these PVs, and why, without starting it.")

  @Argument(
    help: ArgumentHelp("Path of a file or block device.", valueName: "PV"), completion: .file())
  var pv: [String]

  @Flag(help: "Reason as if serve --degraded were called.")
  var degraded = false

  @Option(help: ArgumentHelp("Reason as if serve --choose-leg were called.", valueName: "LEG"))
  var chooseLeg: String?

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    var files: [PVFile] = []
    var candidates: [AssemblyCandidate] = []
    for path in pv {
      do throws(PVError) {
        let file = try PVFile.open(path: path, access: .readOnly)
        files.append(file)
        candidates.append(
          AssemblyCandidate(
            path: path, label: file.readLabel(), legBytes: file.legBytes,
            logicalBlockBytes: file.logicalBlockBytes))
      } catch {
        throw CommandFailure(error.description)
      }
    }
    let options = AssemblyOptions(isDegradedAllowed: degraded, chooseLeg: chooseLeg)
    let report: ExplainReport
    switch Assembly.plan(candidates, options: options) {
    case .success(let plan):
      var maps: [LegMap?] = Array(repeating: nil, count: 8)
      for leg in plan.legs {
        guard let leg else { continue }
        maps[leg.slot.index] = files[leg.candidate].readMap(
          layout: plan.layout, setId: plan.setId)
      }
      report = ExplainReport(plan: plan, map: AssemblyMap.elect(plan: plan, maps: maps))
    case .failure(let refusal):
      report = ExplainReport(refusal: refusal)
    }
    print(json ? try JSONText.of(report) : report.text)
  }
}

/// The reasoning, for people and for programs; the names of the fields are the JSON's.
struct ExplainReport: Encodable, Equatable {
  /// A leg that is present.
  struct LegReport: Encodable, Equatable {
    var slot: Int
    var path: String
    /// online, returning, offline, diverged, spare.
    var role: String
  }

  /// `starts`, `starts-degraded` or `refused`.
  var verdict: String
  /// Why it is refused.
  var reason: String?
  /// One line per step.
  var explanation: [String]
  var name: String?
  var setId: String?
  var generation: UInt64?
  var clean: Bool?
  var legs: [LegReport]?
  /// Slots of legs that should be online and are not there.
  var lost: [Int]?
  /// Regions whose legs may differ.
  var unresolvedRegions: Int?
  /// Regions that no online leg has.
  var unreadableRegions: Int?

  /// A mirror that would start.
  init(plan: AssemblyPlan, map: AssemblyMap) {
    verdict = plan.isDegradedStart ? "starts-degraded" : "starts"
    explanation = plan.explanation + map.explanation
    name = plan.name
    setId = plan.setId.description
    generation = plan.lineage.current.counter
    clean = plan.wasClean
    legs = plan.legs.compactMap { leg in
      leg.map { LegReport(slot: $0.slot.index, path: $0.path, role: "\($0.role)") }
    }
    lost = (0..<8).filter { plan.lost.bits & (1 << UInt8($0)) != 0 }
    unresolvedRegions = map.regionsWithIntent
    unreadableRegions = map.regionsWithoutSource
  }

  /// A mirror that would not start.
  init(refusal: AssemblyRefusal) {
    verdict = "refused"
    reason = refusal.description
    explanation = refusal.explanation
  }

  /// Lines for people, without a newline at the end.
  var text: String {
    let last =
      switch verdict {
      case "starts": "the mirror would start"
      case "starts-degraded": "the mirror would start degraded"
      default: "refused: \(reason ?? "")"
      }
    return (explanation + [last]).joined(separator: "\n")
  }
}
