// A folder of its own for each test, and the command as a process.
import Foundation
import Testing

@testable import Legs
@testable import MirrorFormat

/// A folder that goes with its owner.
final class TemporaryFolder: Sendable {
  let path: String

  init() throws {
    path = FileManager.default.temporaryDirectory.path + "/nbdmirror-pv-\(UUID().uuidString)"
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true, attributes: nil)
  }

  deinit {
    do { try FileManager.default.removeItem(atPath: path) } catch {
      Issue.record("the folder \(path) stays: \(error)")
    }
  }

  /// The path of `name` inside.
  func at(_ name: String) -> String { path + "/" + name }

  /// A file of `bytes` zeros (a hole) with `content` at `offset`.
  func file(
    _ name: String, bytes: UInt64, content: [UInt8] = [], offset: UInt64 = 0
  ) throws -> String {
    #expect(FileManager.default.createFile(atPath: at(name), contents: nil))
    let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: at(name)))
    try handle.truncate(atOffset: bytes)
    if !content.isEmpty {
      try handle.seek(toOffset: offset)
      try handle.write(contentsOf: content)
    }
    try handle.close()
    return at(name)
  }
}

/// What a process said and how it ended.
struct Run: Equatable {
  var status: Int32
  var output: String
  var errors: String

  /// Runs the command `nbdmirror` that was built beside the tests.
  static func nbdmirror(_ arguments: String...) throws -> Run {
    try nbdmirrorArray(arguments)
  }

  /// The same, for arguments in an array.
  static func nbdmirrorArray(_ arguments: [String]) throws -> Run {
    let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let folder = URL(
      fileURLWithPath: CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? own
    )
    .deletingLastPathComponent().path
    return try tool(folder + "/nbdmirror", arguments)
  }

  static func tool(_ path: String, _ arguments: [String]) throws -> Run {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    let output = Pipe()
    let errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    // The texts are far smaller than a pipe: one after the other cannot block.
    let said = output.fileHandleForReading.readDataToEndOfFile()
    let complained = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Run(
      status: process.terminationStatus, output: String(decoding: said, as: UTF8.self),
      errors: String(decoding: complained, as: UTF8.self))
  }

  /// The first of the usual places where a tool is; nil if it is not installed.
  static func find(_ name: String) -> String? {
    ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"].map { $0 + name }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }
}

/// The error that `body` throws; nil if it throws none.
func failure<Failure: Error>(_ body: () throws(Failure) -> Void) -> Failure? {
  do throws(Failure) {
    try body()
    return nil
  } catch {
    return error
  }
}
