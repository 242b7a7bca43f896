// `nbdmirror-bench peers`: this server with two legs, nbdkit with one file and qemu-nbd's quorum over
// two files, in one run. docs/benchmarks.md says how to read the result.
//
// Method: all servers are up from begin to end, each with its own files and unix socket, every file
// written once before. Per workload and round the servers take turns (A B C, then B C A, ...), so
// that whatever else the machine does hits all of them; only one works at a time. CPU is the
// server's own, from /proc, over the same span in which fio counted its requests.
import ArgumentParser
import FoundationEssentials

/// The command.
struct Peers: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "nbdmirror, nbdkit and qemu-nbd taking turns under fio's nbd engine.")

  @Flag(help: "A first impression: 3 rounds of 1 second.")
  var quick = false

  @Option(help: "Seconds of each measurement. Default: 3.")
  var seconds: Int?

  @Option(help: "Rounds of each workload. Default: 5.")
  var rounds: Int?

  @Option(help: "tmpfs, disk (O_DIRECT where the server can), or both.")
  var legsOn: LegsOn = .tmpfs

  @Option(help: "Size of each export in MiB.")
  var size: Int = 256

  @Option(help: "Directory on a disk for --legs-on disk. Default: TMPDIR or /tmp.")
  var diskDirectory: String?

  @Option(help: "The nbdmirror binary. Default: the one beside this program.")
  var server: String?

  @Option(help: "An option for `nbdmirror serve`, as --serve-option=--threads=1; may be repeated.")
  var serveOption: [String] = []

  @Flag(help: "All samples as JSON instead of tables of medians.")
  var json = false

  func validate() throws {
    guard (seconds ?? 1) >= 1, (rounds ?? 1) >= 1, size >= 16 else {
      throw ValidationError("--seconds and --rounds are at least 1, --size at least 16")
    }
  }

  func run() throws {
    Interruption.watch()
    let binary = try Place.serverBinary(server)
    let (rounds, seconds) = (self.rounds ?? (quick ? 3 : 5), self.seconds ?? (quick ? 1 : 3))
    let media = legsOn.media
    var all: [Series] = []
    for medium in media {
      all += try measure(medium, rounds: rounds, seconds: seconds, binary: binary)
      if !json {
        print(Report.markdown(all, medium: medium, rounds: rounds, seconds: seconds))
      }
    }
    if json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      print(String(decoding: try encoder.encode(all), as: UTF8.self))
    } else if media.contains(.disk) {
      print(
        "On disk, nbdkit's file plugin has no O_DIRECT: its figures are those of the page cache.")
    }
  }

  /// All workloads on one medium; nothing is left behind, also after an error or a signal.
  private func measure(
    _ medium: Medium, rounds: Int, seconds: Int, binary: String
  ) throws -> [Series] {
    let directory = try Place.makeDirectory(medium, onDisk: diskDirectory)
    defer { Place.remove(directory) }
    var servers: [RunningServer] = []
    defer { for server in servers { server.process.end() } }
    for contender in Contender.allCases {
      servers.append(
        try RunningServer(
          contender, directory: directory, medium: medium, mebibytes: size, binary: binary,
          options: serveOption))
    }
    for server in servers {
      _ = try Workload.fill.measure(
        server, seconds: nil, mebibytes: size, directory: directory)
    }
    var all: [Series] = []
    for workload in Workload.all {
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
      all += series
    }
    return all
  }
}
