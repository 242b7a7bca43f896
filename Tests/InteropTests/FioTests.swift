// Goal: what fio wrote is what fio reads back, at every block size, depth and number of
// connections, and both PVs hold it.
import Fixtures
import Testing

/// One fio job: its name and the options that make it.
struct FioJob: Sendable, CustomTestStringConvertible {
  let name: String
  let options: [String]
  var testDescription: String { name }
}

let fioJobs = [
  FioJob(name: "4 KiB mixed, depth 32", options: ["--rw=randrw", "--bs=4k", "--iodepth=32"]),
  FioJob(name: "256 KiB writes, depth 8", options: ["--rw=write", "--bs=256k", "--iodepth=8"]),
  FioJob(name: "2 MiB writes, depth 4", options: ["--rw=write", "--bs=2m", "--iodepth=4"]),
  FioJob(
    name: "512 bytes to 64 KiB, depth 16",
    options: ["--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=0", "--iodepth=16"]),
  FioJob(name: "3 KiB mixed, depth 16", options: ["--rw=randrw", "--bs=3k", "--iodepth=16"]),
  FioJob(
    name: "4 KiB with a flush after every 16 writes",
    options: ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=16"]),
  FioJob(
    name: "four connections",
    options: [
      "--rw=randrw", "--bs=8k", "--iodepth=16", "--numjobs=4", "--offset_increment=16m",
      "--size=16m",
    ]),
]

extension Interop {
  struct Fio {
    @Test("fio verifies what it wrote, and both legs hold it", arguments: fioJobs)
    func verified(_ job: FioJob) async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await must(
          [
            "fio", "--name=verify", "--ioengine=nbd", "--uri=\(mirror.uri)", "--size=64m",
            "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0",
          ] + job.options)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("fio's trims and writes together leave equal legs")
    func trimmed() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await must([
          "fio", "--ioengine=nbd", "--uri=\(mirror.uri)", "--size=32m", "--iodepth=16",
          "--bs=16k", "--time_based", "--runtime=2",
          "--name=trim", "--rw=randtrim", "--name=write", "--rw=randwrite",
        ])
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
