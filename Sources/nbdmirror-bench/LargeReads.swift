// `nbdmirror-bench large-reads`: from which size on it pays to split a read over the legs. Two servers
// of two legs each take turns: one that splits, and one that does not. docs/benchmarks.md has figures.
//
// Method: as `peers`. What differs between the two is up to the caller: options of `serve`, or another
// build (`--against`), for instance one in which `Engine.splitBytesMin` is smaller. Offsets are random:
// a read ahead of the kernel or of a disk would hide what one read costs.
import ArgumentParser

/// The command.
struct LargeReads: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Large reads on two nbdmirrors taking turns: split over the legs, and not.")

  @Option(help: "Seconds of each measurement.")
  var seconds: Int = 1

  @Option(help: "Rounds of each workload.")
  var rounds: Int = 5

  @Option(help: "tmpfs, disk (O_DIRECT), or both.")
  var legsOn: LegsOn = .tmpfs

  @Option(help: "Size of each export in MiB.")
  var size: Int = 256

  @Option(help: "Directory on a disk for --legs-on disk. Default: TMPDIR or /tmp.")
  var diskDirectory: String?

  @Option(help: "The nbdmirror binary that splits. Default: the one beside this program.")
  var server: String?

  @Option(help: "The other nbdmirror binary. Default: the same.")
  var against: String?

  @Option(help: "An option for the first `nbdmirror serve`; may be repeated.")
  var serveOption: [String] = []

  @Option(help: "An option for the other one. Default: --read-policy=round-robin, never split.")
  var againstOption: [String] = []

  func validate() throws {
    guard seconds >= 1, rounds >= 1, size >= 16 else {
      throw ValidationError("--seconds and --rounds are at least 1, --size at least 16")
    }
  }

  /// Sizes around the threshold; alone, and with others in flight.
  private static let workloads: [Workload] = [1, 4].flatMap { depth in
    [128, 256, 512, 1024, 2048].map { kibibytes in
      Workload(
        name: "\(kibibytes) KiB, depth \(depth)", pattern: "randread", blockKiB: kibibytes,
        depth: depth)
    }
  }

  func run() throws {
    Interruption.watch()
    for medium in legsOn.media {
      print(
        "## Large reads, legs on \(medium.rawValue): medians of \(rounds) rounds of \(seconds) s (± MAD)\n"
      )
      print("| random read | IOPS | other: IOPS | ratio | CPU per request, ratio |")
      print("|---|---:|---:|---:|---:|")
      try measure(medium)
      print("")
    }
  }

  /// All workloads on one medium; nothing is left behind, also after an error or a signal.
  private func measure(_ medium: Medium) throws {
    let binary = try Place.serverBinary(server)
    let otherOptions =
      againstOption.isEmpty && against == nil ? ["--read-policy=round-robin"] : againstOption
    let directory = try Place.makeDirectory(medium, onDisk: diskDirectory)
    defer { Place.remove(directory) }
    var servers: [RunningServer] = []
    defer { for server in servers { server.process.end() } }
    for (name, binary, options) in [
      ("first", binary, serveOption), ("other", against ?? binary, otherOptions),
    ] {
      servers.append(
        try RunningServer(
          .nbdmirror, name: name, directory: directory, medium: medium, mebibytes: size,
          binary: binary, options: options))
    }
    for server in servers {
      _ = try Workload.fill.measure(server, seconds: nil, mebibytes: size, directory: directory)
    }
    for workload in Self.workloads {
      var series = servers.map {
        Series(medium: medium, workload: workload.name, contender: $0.contender)
      }
      for round in 0..<rounds {
        Place.progress("\(medium.rawValue): \(workload.name), round \(round + 1) of \(rounds)")
        for turn in servers.indices {
          let index = (turn + round) % servers.count
          series[index].samples.append(
            try workload.measure(
              servers[index], seconds: seconds, mebibytes: size, directory: directory))
        }
      }
      print(Report.pairRow(workload.name, series[0], series[1]))
    }
  }
}
