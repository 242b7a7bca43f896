// The load of the crash tests: a Python process beside this file that writes, reads, flushes and
// trims through libnbd and knows from the answers what every block may hold (its header has the
// model). It lives through many lives of the server.
import Foundation

/// A conversation with `verifying_load.py`.
public final class VerifyingLoad {
  private let process: BackgroundProcess

  /// Starts the load's process; it connects at `begin` only.
  ///
  /// - Parameters:
  ///   - mirror: the mirror to work on, from block 0 up.
  ///   - seed: decides every request.
  ///   - blocks: how many blocks of 4 KiB it works on.
  ///   - connections: how many connections it opens, each at depth 8.
  /// - Throws: when the process can't be started.
  public init(_ mirror: MirrorUnderTest, seed: UInt32, blocks: Int, connections: Int) throws {
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("verifying_load.py").path
    process = try BackgroundProcess(
      ["/usr/bin/python3", script, mirror.uri, "\(seed)", "\(blocks)", "\(connections)"],
      directory: mirror.directory, conversation: true)
  }

  /// Connects and begins to work, until the server goes away.
  ///
  /// - Throws: `FixtureError` when it can't connect.
  public func begin() async throws {
    try process.tell("load")
    let answer = try await process.answer(seconds: 60)
    guard answer == "working" else { throw FixtureError("the load saw: \(answer)") }
  }

  /// Waits for the load to notice that the server is gone.
  ///
  /// - Returns: how many requests it had made and how many flushes were answered.
  /// - Throws: `FixtureError` with what was wrong, when a reply was.
  public func serverGone() async throws -> (requests: Int, flushes: Int) {
    let words = try await process.answer(seconds: 60).split(separator: " ")
    guard words.count == 3, words[0] == "dead", let requests = Int(words[1]),
      let flushes = Int(words[2])
    else { throw FixtureError("the load saw: \(words.joined(separator: " "))") }
    return (requests, flushes)
  }

  /// Works until so many requests are answered, and waits for that.
  ///
  /// - Throws: `FixtureError` with what was wrong, when a reply was.
  public func work(requests: Int) async throws {
    try process.tell("work \(requests)")
    let answer = try await process.answer(seconds: 120)
    guard answer.hasPrefix("done ") else { throw FixtureError("the load saw: \(answer)") }
  }

  /// Reads every block and checks it against what it may hold.
  ///
  /// - Returns: nil if every block is right, else what is wrong.
  /// - Throws: when there is no answer.
  public func verify() async throws -> String? {
    try process.tell("verify")
    let answer = try await process.answer(seconds: 120)
    return answer.hasPrefix("good ") ? nil : answer
  }

  /// Checks every sector after a power loss, and writes everything anew.
  ///
  /// - Returns: how many sectors lost what they would have kept had only the server died.
  /// - Throws: `FixtureError` with what is wrong: a flushed write is lost, or a sector is nobody's.
  public func losses() async throws -> Int {
    try process.tell("lost")
    let words = try await process.answer(seconds: 120).split(separator: " ")
    guard words.count == 3, words[0] == "good", let lost = Int(words[2]) else {
      throw FixtureError("after the power loss: \(words.joined(separator: " "))")
    }
    return lost
  }

  /// Ends the process.
  public func end() { process.end() }
}
