// A Linux kernel of a test's own: User-Mode Linux, a kernel that is a program. It has the real NBD
// driver and the real file systems; its root is this host's, read-only, so that the binary under
// test and Debian's tools run in it as they are. What happens in it is in `guest.sh`.
import Fixtures
import Foundation
import Testing

/// All tests with a guest, one after the other: each keeps a processor busy.
@Suite(.serialized, .timeLimit(.minutes(15)))
enum Kernel {}

/// One boot.
struct Guest {
  /// The lines that the guest told, without their mark.
  let lines: [String]
  /// Everything on its console.
  let console: String

  /// Boots, runs a scenario of `guest.sh` with `parameters`, and waits for the end.
  ///
  /// - Throws: `FixtureError` with the console if the guest has not passed within `seconds`.
  static func run(
    _ scenario: String, _ parameters: [String: String] = [:], seconds: Int = 400
  ) async throws -> Guest {
    let folder = try TemporaryDirectory()
    defer { folder.remove() }
    // modprobe looks for lib/modules below the directory that it is told.
    try FileManager.default.createDirectory(
      atPath: folder.path + "/lib", withIntermediateDirectories: false)
    try FileManager.default.createSymbolicLink(
      atPath: folder.path + "/lib/modules", withDestinationPath: "/usr/lib/uml/modules")
    let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path
    let library = folder.path + "/large_state.so"
    try await mustRun([
      "clang", "-shared", "-fPIC", "-O2", "-o", library, sources + "/large_state.c",
    ])
    let binary = URL(fileURLWithPath: try serverBinary()).standardizedFileURL.path
    let assignments = parameters.merging([
      "BINARY": binary, "MODULES": folder.path, "SCENARIO": scenario,
    ]) { $1 }
    try assignments.map { "\($0.key)='\($0.value)'\n" }.joined()
      .write(toFile: folder.path + "/parameters", atomically: true, encoding: .utf8)
    // SIGTERM lets the guest's kernel end its processes on the host.
    let process = try BackgroundProcess(
      [
        "timeout", "--kill-after=5", "\(seconds)", "linux.uml", "mem=768M", "root=none",
        "rootfstype=hostfs", "rootflags=/", "ro", "init=\(sources)/guest.sh", "con=null",
        "con0=fd:0,fd:1",
        "quiet", "uml_dir=\(folder.path)/", "umid=guest",
        "PARAMETERS=\(folder.path)/parameters",
      ], directory: folder.path, environment: ["LD_PRELOAD": library])
    _ = try await process.wait(seconds: Double(seconds + 10))
    let console = process.output
    let lines = console.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("guest: ") }
      .map { String($0.dropFirst("guest: ".count)) }
    guard lines.last == "PASS" else {
      throw FixtureError("the guest has not passed \(scenario) \(parameters):\n\(console)")
    }
    return Guest(lines: lines, console: console)
  }

  /// Whether the guest told this step as done.
  func did(_ step: String) -> Bool { lines.contains { $0.hasPrefix("ok: \(step)") } }
}
