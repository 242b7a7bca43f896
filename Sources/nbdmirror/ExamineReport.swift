// What `examine` says of one PV.

import Legs
import MirrorFormat

/// The label of a PV, for people and for programs; the names of the fields are the JSON's.
struct ExamineReport: Encodable, Equatable {
  /// A line of the member table.
  struct MemberReport: Encodable, Equatable {
    var slot: Int
    var legId: String
    var state: String
    var writeMostly: Bool
    var syncing: Bool
    var offlineSince: UInt64
  }

  /// Path as given.
  var path: String
  /// Why nothing else is here.
  var error: String?
  var name: String?
  var setId: String?
  var legId: String?
  var slot: Int?
  /// Bytes of the exported device.
  var size: UInt64?
  var blockSize: UInt32?
  var regionSize: UInt64?
  var regions: Int?
  /// Offset of the region map on the PV.
  var mapOffset: UInt64?
  /// Offset of the data on the PV.
  var dataOffset: UInt64?
  /// Bytes that the PV has.
  var pvSize: UInt64?
  var logKind: String?
  var clean: Bool?
  /// Seconds since 1970.
  var created: UInt64?
  /// The generation's counter.
  var generation: UInt64?
  var generationId: String?
  /// Ancestors of the generation, newest first.
  var parents: [String]?
  var sequence: UInt64?
  /// Label copies that are valid.
  var validCopies: [Int]?
  var resyncMinBytesPerSecond: UInt64?
  /// 0: unlimited.
  var resyncMaxBytesPerSecond: UInt64?
  /// Copying was paused by command.
  var resyncPaused: Bool?
  var members: [MemberReport]?

  /// A PV of which nothing is known but why.
  init(path: String, error: String) {
    self.path = path
    self.error = error
  }

  /// What a label says.
  init(path: String, pvBytes: UInt64, elected: ElectedLabel) {
    let label = elected.label
    self.path = path
    name = label.name
    setId = label.setId.description
    legId = label.legId.description
    slot = label.slot.index
    size = label.layout.sizeBytes
    blockSize = label.layout.blockBytes
    regionSize = label.layout.regionBytes
    regions = label.layout.regionCount
    mapOffset = label.layout.mapOffset
    dataOffset = label.layout.dataOffset
    pvSize = pvBytes
    logKind = "\(label.logKind)"
    clean = label.isClean
    created = label.createdSeconds
    generation = label.lineage.current.counter
    generationId = label.lineage.current.id.description
    parents = label.lineage.parents.map(\.description)
    sequence = label.sequence
    validCopies = elected.isOtherCopyValid ? [0, 1] : [elected.copy]
    resyncMinBytesPerSecond = label.resyncMinBytesPerSecond
    resyncMaxBytesPerSecond = label.resyncMaxBytesPerSecond
    resyncPaused = label.isResyncPaused
    members = label.members.enumerated().compactMap { index, member in
      guard member.state != .vacant else { return nil }
      return MemberReport(
        slot: index, legId: member.legId.description, state: "\(member.state)",
        writeMostly: member.isWriteMostly, syncing: member.isSyncing,
        offlineSince: member.offlineSince)
    }
  }

  /// Reads the label of the PV at `path`.
  static func read(path: String) throws(PVError) -> ExamineReport {
    let pv = try PVFile.open(path: path, access: .readOnly)
    switch pv.readLabel() {
    case .success(let elected):
      return ExamineReport(path: path, pvBytes: pv.legBytes, elected: elected)
    case .failure(let error):
      if error == .noLabel, let other = try pv.findForeign().first {
        throw .noLabel(path: path, why: "there is no nbdmirror label, but \(other.what)")
      }
      throw .noLabel(path: path, why: error.description)
    }
  }

  /// Lines for people, without a newline at the end.
  var text: String {
    var lines = ["PV \(path)"]
    func line(_ key: String, _ value: String) {
      lines.append("  \(key):" + String(repeating: " ", count: max(1, 13 - key.count)) + value)
    }
    func bytes(_ value: UInt64?) -> String {
      guard let value else { return "-" }
      return "\(value) bytes (\(ByteSize(bytes: value).text))"
    }
    line("mirror", name ?? "-")
    line("set", setId ?? "-")
    line("leg", "\(slot ?? 0) (\(legId ?? "-"))")
    line("size", bytes(size))
    line("blocks", bytes(blockSize.map { UInt64($0) }))
    line("regions", "\(regions ?? 0) of \(bytes(regionSize))")
    line("region map", "at \(bytes(mapOffset)), log \(logKind ?? "-")")
    line("data", "at \(bytes(dataOffset))")
    line("generation", "\(generation ?? 0) (\(generationId ?? "-"))")
    line("stopped", clean == true ? "cleanly" : "not cleanly, or still running")
    if resyncPaused == true { line("resync", "paused; 'nbdmirror resync resume' goes on") }
    line(
      "label",
      "sequence \(sequence ?? 0), \((validCopies ?? []).count) of 2 copies valid")
    for member in members ?? [] {
      let flags =
        (member.syncing ? ", syncing" : "") + (member.writeMostly ? ", write-mostly" : "")
      let since =
        member.offlineSince > 0 && member.state != "online"
        ? " since generation \(member.offlineSince)" : ""
      line("member \(member.slot)", "\(member.legId) \(member.state)\(since)\(flags)")
    }
    return lines.joined(separator: "\n")
  }
}
