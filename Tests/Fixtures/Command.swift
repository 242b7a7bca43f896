// Runs the programs of a test: the server under test, and the clients that other people wrote.
//
// Invariants
//  1. A command has a deadline. When it passes, the process is killed and the test fails with what
//     the process had printed so far; no test hangs.
//  2. Output goes to files, not pipes, so that a talkative program can't block on its reader.
//  3. Nobody reads the terminal: standard input is /dev/null, or a pipe from the test.
import Foundation
import Synchronization

/// One process is started at a time.
private let spawning = Mutex(())

/// What a finished command left behind.
public struct CommandResult: Sendable, CustomStringConvertible {
  /// The command line, for messages.
  public let command: [String]
  /// The exit status; 128 plus the number of the signal that ended it, as a shell counts.
  public let status: Int32
  /// Everything on standard output.
  public let output: String
  /// Everything on standard error.
  public let errors: String

  /// The non-empty lines on standard error.
  public var errorLines: [String] {
    errors.split(separator: "\n").map(String.init).filter { !$0.isEmpty }
  }

  /// The command line, the status and both outputs, as a failed test shows them.
  public var description: String {
    "`\(command.joined(separator: " "))` -> \(status)\n\(output)\(errors)"
  }
}

/// What a fixture can't go on after.
public struct FixtureError: Error, CustomStringConvertible {
  /// What happened, in one sentence.
  public let description: String

  /// Makes an error of a sentence.
  public init(_ description: String) { self.description = description }
}

/// A process in the background, with its outputs in files.
public final class BackgroundProcess {
  /// The command line, for messages.
  public let command: [String]
  private let process = Process()
  private let outputPath: String
  private let errorPath: String
  private let input: Pipe?
  private var linesRead = 0

  /// Starts `command`; a program without a slash is looked up in PATH.
  ///
  /// - Parameters:
  ///   - command: the program and its arguments.
  ///   - directory: an existing directory for the two output files.
  ///   - environment: added to the environment of this process.
  ///   - conversation: whether `ask` will be used; else standard input is /dev/null.
  /// - Throws: `FixtureError` when the output files can't be made; what `Process` throws.
  public init(
    _ command: [String], directory: String, environment: [String: String] = [:],
    conversation: Bool = false
  ) throws {
    self.command = command
    input = conversation ? Pipe() : nil
    let stem = "\(directory)/out-\(UUID().uuidString)"
    outputPath = stem + ".stdout"
    errorPath = stem + ".stderr"
    for path in [outputPath, errorPath] {
      guard FileManager.default.createFile(atPath: path, contents: nil) else {
        throw FixtureError("can't create \(path)")
      }
    }
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    // Foundation hands the thread's signal mask on, and a pool thread's blocks SIGTERM: undo that.
    process.arguments = ["--default-signal"] + command
    // The TLS tests of this process set it; a client that writes its secrets there is not their case.
    var inherited = ProcessInfo.processInfo.environment
    inherited["SSLKEYLOGFILE"] = nil
    process.environment = inherited.merging(environment) { $1 }
    process.standardInput = input ?? FileHandle.nullDevice
    let files = try [outputPath, errorPath].map {
      try FileHandle(forWritingTo: URL(fileURLWithPath: $0))
    }
    process.standardOutput = files[0]
    process.standardError = files[1]
    // The process has its own of them; a `Process` of Foundation keeps ours beyond its end.
    defer { for file in files { try? file.close() } }
    // Foundation's `run` on several threads at once crashed after some thousand processes.
    try spawning.withLock { _ in try process.run() }
  }

  /// The process id. `env` replaces itself by the program, so it is the program's.
  public var pid: Int32 { process.processIdentifier }
  /// Whether it has not ended yet.
  public var isRunning: Bool { process.isRunning }
  /// What it has printed on standard output so far.
  public var output: String { Self.text(of: outputPath) }
  /// What it has printed on standard error so far.
  public var errors: String { Self.text(of: errorPath) }

  /// Sends a signal, unless the process has ended.
  public func signal(_ number: Int32) {
    if process.isRunning { _ = kill(process.processIdentifier, number) }
  }

  /// Writes a line to standard input.
  public func tell(_ line: String) throws {
    guard let input else { throw FixtureError("nobody reads what is told to \(command)") }
    try input.fileHandleForWriting.write(contentsOf: Data("\(line)\n".utf8))
  }

  /// Waits for the next line on standard output that was not read yet.
  public func answer(seconds: Double) async throws -> String {
    var lines: [Substring] = []
    try await eventually("\(command[0]) answers", within: seconds) {
      // What follows the last newline is not a whole line yet.
      lines = output.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
      guard lines.count > linesRead || process.isRunning else {
        throw FixtureError("\(command) ended without an answer: \(errors)")
      }
      return lines.count > linesRead
    }
    linesRead += 1
    return String(lines[linesRead - 1])
  }

  /// Waits until the process ends; kills it and throws when `seconds` have passed.
  public func wait(seconds: Double) async throws -> CommandResult {
    do {
      try await eventually("`\(command.joined(separator: " "))` ends", within: seconds) {
        !process.isRunning
      }
    } catch {
      signal(SIGKILL)
      process.waitUntilExit()
      throw FixtureError("\(error)\n\(output)\(errors)")
    }
    let signalled = process.terminationReason == .uncaughtSignal
    return CommandResult(
      command: command,
      status: process.terminationStatus + (signalled ? 128 : 0),
      output: output, errors: errors)
  }

  /// Ends the process with SIGKILL and waits for it; for cleaning up.
  public func end() {
    signal(SIGKILL)
    process.waitUntilExit()
  }

  private static func text(of path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
  }
}

/// Runs a command to its end.
///
/// - Throws: `FixtureError` when it is still running after `seconds`.
public func run(
  _ command: [String], seconds: Double = 120, environment: [String: String] = [:]
) async throws -> CommandResult {
  let directory = try TemporaryDirectory()
  defer { directory.remove() }
  let process = try BackgroundProcess(
    command, directory: directory.path, environment: environment)
  return try await process.wait(seconds: seconds)
}

/// Runs a command that has to succeed; throws `FixtureError` with what it said if it fails.
@discardableResult
public func mustRun(_ command: [String], seconds: Double = 120) async throws -> CommandResult {
  let result = try await run(command, seconds: seconds)
  guard result.status == 0 else { throw FixtureError("\(result)") }
  return result
}

/// Waits for a condition that something outside this process brings about.
///
/// - Parameters:
///   - what: the condition in words, for the message.
///   - seconds: the deadline.
///   - interval: the pause between two looks, in seconds.
///   - isolation: the caller's.
///   - condition: looked at until it is true.
/// - Throws: `FixtureError` when the deadline passes first.
public func eventually(
  _ what: String, within seconds: Double, every interval: Double = 0.005,
  isolation: isolated (any Actor)? = #isolation,
  _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + .seconds(seconds)
  while try await !condition() {
    guard ContinuousClock.now < deadline else {
      throw FixtureError("not within \(seconds) s: \(what)")
    }
    try await Task.sleep(for: .seconds(interval))
  }
}

/// A directory of this test's own.
public struct TemporaryDirectory: Sendable {
  /// Its path, short enough that a unix socket's path fits behind it.
  public let path: String

  /// Creates it under `parent`, by default TMPDIR or /tmp.
  public init(parent: String? = nil) throws {
    let root = parent ?? ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    path = "\(root)/nbdm-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o700])
  }

  /// Deletes it with everything in it.
  public func remove() {
    do {
      try FileManager.default.removeItem(atPath: path)
    } catch {
      FileHandle.standardError.write(Data("left behind: \(path): \(error)\n".utf8))
    }
  }
}
