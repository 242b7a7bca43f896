// The prober: what a client can do wrong, done to the real server, over every way to it.
//
// Each suite has one server for all its cases (`.server`), so that a case that harms it is noticed by
// the next at the latest; `probe` asks already at the end of each case whether the same process
// serves a new client, who writes and reads. At the end of a suite the server has to stop cleanly
// and leave equal legs: what the prober did to its connections did nothing to the data.

import Fixtures
import Foundation
import Testing

/// All probes, one suite after the other: each has a server of its own on two cores.
@Suite(.serialized, .keys)
enum Prober {}

/// A server that is probed.
struct Target: Sendable {
  /// The unix socket.
  let socket: String
  /// The TCP port on 127.0.0.1.
  let port: UInt16
  /// The process.
  let pid: Int32
  /// Keys for TLS: threads of a test don't see its task's.
  let keys: Keys

  /// The server of the suite that runs.
  @TaskLocal static var current: Target?

  /// Size of the export of a suite's server.
  static let exportBytes: UInt64 = 192 << 20
  /// The last part of it is for the honest clients.
  static let honestOffset: UInt64 = exportBytes - (1 << 20)

  init(_ mirror: MirrorUnderTest) throws {
    socket = mirror.socket
    let server = try #require(mirror.server)
    pid = server.pid
    let line = server.output.split(separator: "\n").first { $0.contains("://127.0.0.1:") }
    let rest = try #require(line, "the server tells no TCP address").split(separator: ":").last
    port = try #require(rest.flatMap { UInt16($0.prefix { $0.isNumber }) })
    keys = Keys.current
  }

  /// Options of `serve` that a target needs.
  static var options: [String] {
    ["--listen", "127.0.0.1:0", "--tls", "on", "--tls-psk", Keys.current["users.psk"]]
  }

  /// Expects that the same process is there and serves a new client.
  func expectAlive(
    _ kind: WireKind, at offset: UInt64 = honestOffset,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    try #require(isRunning, "the server has ended", sourceLocation: sourceLocation)
    let client = try ProbeClient.transmitting(kind, self, structured: true)
    try client.expectWorks(at: offset, sourceLocation: sourceLocation)
    try client.send(client.header(Cmd.disconnect))
    try client.expectEnd(sourceLocation: sourceLocation)
  }

  /// Whether the process that was started is there and no zombie.
  var isRunning: Bool {
    let file = FileManager.default.contents(atPath: "/proc/\(pid)/stat") ?? Data()
    let text = String(decoding: file, as: UTF8.self)
    return !text.isEmpty && !text.contains(") Z ")
  }

  /// A field of /proc/PID/status in KiB, such as VmRSS or VmHWM (the highest VmRSS so far).
  func memoryKibibytes(_ field: String) throws -> Int {
    let text = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("\(field):") })
    return try #require(Int(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]))
  }

  /// Open descriptors of the server.
  func descriptorCount() throws -> Int {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count
  }
}

/// Whether the server has a sanitizer in it (Tests/sanitize.sh): then its memory is no measure.
let isSanitized = ProcessInfo.processInfo.environment["NBDMIRROR_SANITIZED"] != nil

/// Runs one case against the suite's server, and expects that the server is none the worse for it.
///
/// A case that asks for a memory bound sees `VmRSS` before and after through `memoryGrowthMebibytes`.
func probe(
  _ kind: WireKind, memoryGrowthMebibytes: Int? = nil,
  sourceLocation: SourceLocation = #_sourceLocation, _ body: (Target) throws -> Void
) throws {
  let target = try #require(Target.current, sourceLocation: sourceLocation)
  let before = try target.memoryKibibytes("VmRSS")
  try body(target)
  try target.expectAlive(kind, sourceLocation: sourceLocation)
  if let memoryGrowthMebibytes, !isSanitized {
    let grown = (try target.memoryKibibytes("VmRSS") - before) / 1024
    #expect(
      grown <= memoryGrowthMebibytes, "the server is larger by \(grown) MiB",
      sourceLocation: sourceLocation)
  }
}

/// Gives a suite its server.
struct ServerTrait: SuiteTrait, TestScoping {
  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    try await withMirror(size: "\(Target.exportBytes >> 20)M") { mirror in
      try await mirror.serve(Target.options)
      let target = try Target(mirror)
      try await Target.$current.withValue(target) { try await function() }
      let difference = try await mirror.stopAndCompare()
      #expect(difference == nil)
    }
  }
}

/// Gives the prober keys for TLS.
struct KeysTrait: SuiteTrait, TestScoping {
  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let keys = try Keys.make()
    defer { keys.remove() }
    try await Keys.$current.withValue(keys) { try await function() }
  }
}

extension Trait where Self == KeysTrait {
  /// Keys for all tests of the suite.
  static var keys: Self { Self() }
}

extension Trait where Self == ServerTrait {
  /// One server for all tests of the suite.
  static var server: Self { Self() }
}

/// Bytes that tell their place and their writer.
func pattern(_ seed: UInt64, _ count: Int) -> [UInt8] {
  var draws = SplitMix(seed: seed)
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count + 8)
  while bytes.count < count { bytes.append(big: draws.next(in: 0...UInt64.max - 1)) }
  return Array(bytes.prefix(count))
}
