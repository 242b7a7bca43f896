// The client of the differential tests: a Python process beside this file that does the same random
// requests to the export and to a plain file, and compares (its header has the rules).
import Foundation

/// A conversation with `differential.py`.
public final class DifferentialTrace {
  /// The plain file.
  public let path: String
  private let process: BackgroundProcess

  /// Makes the plain file and starts the process; it connects at each of its commands.
  ///
  /// - Parameters:
  ///   - mirror: a mirror that holds zeros; its PVs must be made already.
  ///   - seed: decides every request.
  ///   - connections: how many connections it opens, each at depth 8.
  /// - Throws: when the file can't be made or the process can't be started.
  public init(_ mirror: MirrorUnderTest, seed: UInt32, connections: Int) async throws {
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("differential.py").path
    let pv = try await mirror.examine(mirror.paths[0])
    path = "\(mirror.directory)/plain"
    guard FileManager.default.createFile(atPath: path, contents: nil),
      let file = FileHandle(forWritingAtPath: path)
    else { throw FixtureError("can't create \(path)") }
    try file.truncate(atOffset: pv.size)
    try file.close()
    process = try BackgroundProcess(
      [
        "/usr/bin/python3", script, mirror.uri, path, "\(seed)", "\(pv.blockSize)",
        "\(connections)",
      ], directory: mirror.directory, conversation: true)
  }

  /// Lets it do something: `trace N`, `race N`, `compare` or `selftest`; `result` has the answer.
  public func begin(_ command: String) throws { try process.tell(command) }

  /// What the last command came to: nil if the export and the file agree, else what is wrong.
  public func result(seconds: Double = 120) async throws -> String? {
    let answer = try await process.answer(seconds: seconds)
    guard answer.hasPrefix("done ") else { return answer }
    count += Int(answer.dropFirst(5)) ?? 0
    return nil
  }

  /// Does one command to its end.
  public func run(_ command: String) async throws -> String? {
    try begin(command)
    return try await result()
  }

  /// The sum of the numbers answered: bytes compared, and racing requests.
  public private(set) var count = 0

  /// Ends the process.
  public func end() { process.end() }
}
