// What each server is asked to do, by fio's nbd engine over one connection, and what came of it.
import FoundationEssentials
import Glibc

/// One pattern of requests.
struct Workload {
  let name: String
  let pattern: String
  let blockKiB: Int
  let depth: Int

  /// The workloads of `peers`, in order.
  static let all = [
    Workload(name: "4 KiB random read, depth 1", pattern: "randread", blockKiB: 4, depth: 1),
    Workload(name: "4 KiB random write, depth 1", pattern: "randwrite", blockKiB: 4, depth: 1),
    Workload(name: "4 KiB random read, depth 32", pattern: "randread", blockKiB: 4, depth: 32),
    Workload(name: "4 KiB random write, depth 32", pattern: "randwrite", blockKiB: 4, depth: 32),
    Workload(name: "256 KiB sequential read, depth 8", pattern: "read", blockKiB: 256, depth: 8),
    Workload(name: "256 KiB sequential write, depth 8", pattern: "write", blockKiB: 256, depth: 8),
  ]

  /// Writes the whole export once, so that every file has its blocks.
  static let fill = Workload(name: "fill", pattern: "write", blockKiB: 256, depth: 8)

  /// Lets fio work on a server.
  ///
  /// - Parameters:
  ///   - server: a server that nobody else uses now.
  ///   - seconds: for how long; nil: once over the export.
  ///   - mebibytes: the size of the export.
  ///   - directory: for fio's output.
  /// - Returns: what fio and the kernel counted.
  /// - Throws: `BenchError` when fio fails or a signal came.
  func measure(
    _ server: RunningServer, seconds: Int?, mebibytes: Int, directory: String
  ) throws -> Sample {
    let output = "\(directory)/fio.json"
    var command = [
      "fio", "--name=peers", "--ioengine=nbd", "--uri=\(server.uri)", "--rw=\(pattern)",
      "--bs=\(blockKiB)k", "--iodepth=\(depth)", "--size=\(mebibytes)m", "--randrepeat=0",
      "--output-format=json", "--output=\(output)",
    ]
    if let seconds { command += ["--time_based", "--runtime=\(seconds)"] }
    let before = try ProcessTimes.microseconds(tree: server.process.pid)
    let fio = try ChildProcess(command, log: "\(directory)/fio.log")
    defer { fio.end() }
    try fio.succeed(seconds: Double(seconds ?? 0) + 120)
    let after = try ProcessTimes.microseconds(tree: server.process.pid)
    let direction = try Self.direction(of: output)
    guard direction.total_ios > 0 else { throw BenchError("fio made no request: \(fio.log)") }
    return Sample(
      iops: direction.iops, bytesPerSecond: Double(direction.bw_bytes),
      cpuMicrosecondsPerRequest: (after - before) / Double(direction.total_ios))
  }

  /// The parts of fio's report that are used here, by fio's own names.
  private struct FioReport: Decodable {
    struct Direction: Decodable {
      let iops: Double
      let bw_bytes: UInt64
      let total_ios: UInt64
    }
    struct Job: Decodable {
      let read: Direction
      let write: Direction
    }
    let jobs: [Job]
  }

  private static func direction(of output: String) throws -> FioReport.Direction {
    // fio may print warnings in front of its JSON.
    guard let text = TextFile.read(output), let start = text.firstIndex(of: "{") else {
      throw BenchError("fio left no report")
    }
    let report = try JSONDecoder().decode(FioReport.self, from: Data(text[start...].utf8))
    guard let job = report.jobs.first else { throw BenchError("fio's report has no job") }
    return job.read.total_ios > 0 ? job.read : job.write
  }
}

/// What one run of one workload on one server measured.
struct Sample: Codable {
  let iops: Double
  let bytesPerSecond: Double
  /// User and system time of the server's process tree.
  let cpuMicrosecondsPerRequest: Double
}
