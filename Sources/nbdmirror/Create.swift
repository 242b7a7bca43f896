// `nbdmirror create`: makes a mirror of files and block devices, without a server.

import ArgumentParser
import Glibc
import Legs
import MirrorFormat

extension PVInitialContent: ExpressibleByArgument {}

/// The verb.
struct Create: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Make a mirror of 1 to 8 PVs (files, block devices).",
    discussion: """
      A PV that does not exist becomes a sparse file of the needed size. SIZE is a number of bytes \
      with K, M, G, T or P for powers of 1024. A PV that holds something else is refused.
      """)

  /// Where the region map lives.
  enum Log: String, CaseIterable, ExpressibleByArgument {
    case disk
    case core
  }

  @Argument(help: "The mirror's name: also the name of its export.")
  var name: String

  @Argument(
    help: ArgumentHelp("Path of a file or block device.", valueName: "PV"), completion: .file())
  var pv: [String]

  @Option(help: "Size of the exported device. Default: what fits on the smallest existing PV.")
  var size: ByteSize?

  @Option(help: "Where the region map lives between starts.")
  var log: Log = .disk

  @Option(help: "Size of a region, a power of two. Default: 1M or more, by the size.")
  var regionSize: ByteSize?

  @Option(
    name: .customLong("init"),
    help: ArgumentHelp(
      "What the data is at first.",
      discussion: """
        auto: zeros where they cost nothing (new files, holes), else as lazy. \
        zero: zeros are written to all PVs now. \
        lazy: the mirror reads as zeros; the server zeroes a region at its first write. \
        sync: the first PV's data is kept and copied to the others by the server. \
        assume-clean: all PVs hold the same data already.
        """))
  var content: PVInitialContent = .auto

  @Flag(help: "Give new files all their storage at once.")
  var preallocate = false

  @Flag(help: "Overwrite whatever the PVs hold.")
  var force = false

  func validate() throws {
    if let problem = Label.nameProblem(name) { throw ValidationError(problem.description) }
    guard pv.count <= 8 else {
      throw ValidationError("a mirror has 1 to 8 PVs, not \(pv.count)")
    }
  }

  func run() throws {
    var creation = PVCreation(name: name, paths: pv)
    creation.sizeBytes = size?.bytes
    creation.regionBytes = regionSize?.bytes
    creation.logKind = log == .disk ? .disk : .core
    creation.content = content
    creation.isPreallocated = preallocate
    creation.isForced = force
    do throws(PVCreation.Failure) {
      let now = time(nil)
      report(try creation.run(createdSeconds: UInt64(clamping: now)))
    } catch .wish(let text) {
      throw ValidationError(text)
    } catch .pv(let error) {
      throw CommandFailure(error.description)
    }
  }

  private func report(_ outcome: PVCreation.Outcome) {
    guard let label = outcome.labels.first else { return }
    let layout = label.layout
    print(
      "mirror \(name): \(ByteSize(bytes: layout.sizeBytes).text), regions of "
        + "\(ByteSize(bytes: layout.regionBytes).text), set \(label.setId)")
    for (index, path) in pv.enumerated() {
      let isStale = outcome.stale.bits & (1 << UInt8(index)) != 0
      let unused = outcome.unusedBytes[index]
      print(
        "leg \(index): \(path)\(outcome.newFiles.contains(path) ? " (new file)" : ""), "
          + (isStale ? "to be copied by the server" : "in sync")
          + (unused > 0 ? ", \(unused) bytes at its end stay unused" : ""))
    }
    if outcome.isUnwritten {
      print("the mirror reads as zeros; the server zeroes each region at its first write")
    }
  }
}
