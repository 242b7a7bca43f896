// `nbdmirror-bench encrypted-copies`: what TLS leaves of a stream, for this server with one leg and
// with two, and for nbdkit with one file, in one run. docs/benchmarks.md has figures.
//
// Method: as `peers`, with nbdcopy, since fio may not be told of files of keys. A whole export is copied
// in and out; both servers have the same certificate, with which either
// chooses AES-GCM. (With a pre-shared key nbdkit comes to CHACHA20, which is slower.)
import ArgumentParser
import Glibc

/// The command.
struct EncryptedCopies: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "encrypted-copies",
    abstract: "nbdmirror with one leg and two, and nbdkit, under nbdcopy with TLS.",
    discussion: "Needs nbdcopy, nbdkit and certtool (gnutls-bin).")

  @Option(help: "Rounds of each direction.")
  var rounds: Int = 7

  @Option(help: "Size of each export in MiB.")
  var size: Int = 512

  @Option(help: "Connections of nbdcopy, which by itself takes 4.")
  var connections: Int = 4

  @Option(help: "Size of nbdcopy's requests in KiB; 256 is its own.")
  var request: Int = 256

  @Option(help: "The nbdmirror binary. Default: the one beside this program.")
  var server: String?

  @Option(help: "An option for `nbdmirror serve`; may be repeated.")
  var serveOption: [String] = []

  /// An authority, and a certificate for localhost.
  private static let makeKeys = """
    set -euo pipefail
    cd "$1"
    printf 'cn = ca\nca\ncert_signing_key\n' >ca
    printf 'cn = localhost\ndns_name = localhost\ntls_www_server\nsigning_key\n' >server
    for name in ca server; do
      certtool --generate-privkey --key-type ecdsa --outfile "$name-key.pem"
    done
    certtool --generate-self-signed --load-privkey ca-key.pem --template ca --outfile ca-cert.pem
    certtool --generate-certificate --load-privkey server-key.pem --load-ca-certificate ca-cert.pem \\
      --load-ca-privkey ca-key.pem --template server --outfile server-cert.pem
    """

  func validate() throws {
    guard rounds >= 1, size >= 16, connections >= 1, request >= 4 else {
      throw ValidationError(
        "--rounds and --connections are at least 1, --size at least 16, --request at least 4")
    }
  }

  func run() throws {
    Interruption.watch()
    let binary = try Place.serverBinary(server)
    let directory = try Place.makeDirectory(.tmpfs, onDisk: nil)
    defer { Place.remove(directory) }
    let log = "\(directory)/tools.log"
    try ChildProcess(["bash", "-c", Self.makeKeys, "-", directory], log: log).succeed(seconds: 30)
    let image = "\(directory)/image"
    try ChildProcess(
      ["dd", "if=/dev/urandom", "of=\(image)", "bs=1M", "count=\(size)"], log: log
    ).succeed(seconds: 120)
    var servers: [RunningServer] = []
    defer { for server in servers { server.process.end() } }
    for (contender, legs) in [(Contender.nbdmirror, 1), (.nbdmirror, 2), (.nbdkit, 1)] {
      servers.append(
        try RunningServer(
          contender, name: "\(contender)-\(legs)-", directory: directory, medium: .tmpfs,
          mebibytes: size, binary: binary, options: serveOption, keys: directory, legs: legs))
    }
    print("## Encrypted copies: medians of \(rounds) rounds of \(size) MiB (± MAD)\n")
    print(
      "| nbdcopy, \(connections) x \(request) KiB | nbdmirror: MB/s | nbdkit: MB/s | ratio | CPU, ratio |"
    )
    print("|---|---:|---:|---:|---:|")
    for (name, isWrite) in [("in", true), ("out", false)] {
      var series = servers.map { Series(medium: .tmpfs, workload: name, contender: $0.contender) }
      // The first round fills files and caches.
      for round in 0...rounds {
        Place.progress("\(name), round \(round) of \(rounds)")
        for turn in servers.indices {
          let index = (turn + round) % servers.count
          let uri = servers[index].uri
          let sample = try copy(
            isWrite ? [image, uri] : [uri, "null:"], servers[index], log: log)
          if round > 0 { series[index].samples.append(sample) }
        }
      }
      print(Report.pairRow("\(name), 1 leg", series[0], series[2]))
      print(Report.pairRow("\(name), 2 legs", series[1], series[2]))
    }
  }

  /// One copy; its rate is in MB/s.
  private func copy(_ paths: [String], _ server: RunningServer, log: String) throws -> Sample {
    let before = try ProcessTimes.microseconds(tree: server.process.pid)
    let begun = Self.seconds()
    let copy = try ChildProcess(
      ["nbdcopy", "--connections=\(connections)", "--request-size=\(request << 10)"] + paths,
      log: log)
    defer { copy.end() }
    try copy.succeed(seconds: 120)
    let took = Self.seconds() - begun
    let after = try ProcessTimes.microseconds(tree: server.process.pid)
    let bytes = Double(size << 20)
    return Sample(
      iops: bytes / took / 1e6, bytesPerSecond: bytes / took,
      cpuMicrosecondsPerRequest: (after - before) / Double(size))
  }

  private static func seconds() -> Double {
    var now = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &now)
    return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
  }
}
