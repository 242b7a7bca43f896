// `nbdmirror stop`: stops the server cleanly and waits until it is gone.
//
// Gone means: nobody listens on the control socket, and the server's process has ended, so that
// its PVs are unlocked and the next `serve` finds them free.

import ArgumentParser
import ControlModel
import FoundationEssentials
import Glibc

/// The verb `stop`.
struct Stop: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Stop a running mirror cleanly and wait until its server is gone.")

  @OptionGroup var mirror: MirrorOptions

  @Option(help: "Seconds to wait for the server's end.")
  var timeout: Double = 60

  func validate() throws {
    if !(timeout >= 0 && timeout < 1e9) {
      throw ValidationError("--timeout takes a number of seconds.")
    }
  }

  func run() async throws {
    let client = try mirror.client()
    let process = try client.serverProcess().flatMap(ServerProcess.init)
    do {
      try client.shutdown()
    } catch ControlClientError.problem(let problem) where problem.status == 503 {
      // It is stopping already.
    } catch {
      // A server that ends as it is asked may not get its answer out.
      if client.isListening() { throw error }
    }
    let deadline = ContinuousClock.now + .seconds(timeout)
    while client.isListening() || (process?.isRunning ?? false) {
      guard ContinuousClock.now < deadline else {
        throw CommandFailure("the server was told to stop, but runs on")
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }
}

/// A process that is told from a later one with the same number.
struct ServerProcess {
  private let number: Int32
  private let startTime: Substring

  /// The process `number`; nil if it cannot be seen, or is this one.
  init?(_ number: Int32) {
    guard number != getpid(), let status = ServerProcess.status(of: number) else { return nil }
    self.number = number
    startTime = status.startTime
  }

  /// Whether it has not ended. One that has ended and that its parent has not asked for counts as
  /// ended.
  var isRunning: Bool {
    guard let status = ServerProcess.status(of: number) else { return false }
    return status.startTime == startTime && status.state != "Z" && status.state != "X"
  }

  /// Source: proc(5), /proc/pid/stat: after the name in brackets come the state (field 3) and,
  /// as field 22, the start time.
  private static func status(of number: Int32) -> (state: Substring, startTime: Substring)? {
    do {
      let data = try Data(contentsOf: URL(filePath: "/proc/\(number)/stat"))
      let text = String(decoding: data, as: UTF8.self)
      guard let bracket = text.lastIndex(of: ")") else { return nil }
      let fields = text[text.index(after: bracket)...].split(separator: " ")
      return fields.count > 19 ? (fields[0], fields[19]) : nil
    } catch {
      // No such process.
      return nil
    }
  }
}
