// An honest client beside dishonest ones: it writes and reads back, and keeps the longest wait.

import Fixtures
import Foundation
import Synchronization
import Testing

/// A client on a thread of its own that works until it is told to stop.
final class HonestClient: Sendable {
  /// What it has done.
  struct Record: Sendable {
    var rounds = 0
    var longestSeconds = 0.0
    var problem: String?
  }

  private let state = Mutex((record: Record(), isOver: false, hasEnded: false))
  private let kind: WireKind
  private let target: Target
  private let offset: UInt64
  private let count: Int

  /// Begins to write and read `count` bytes at `offset`.
  init(_ kind: WireKind, _ target: Target, offset: UInt64, count: Int) {
    (self.kind, self.target, self.offset, self.count) = (kind, target, offset, count)
    Thread { [self] in run() }.start()
  }

  private func run() {
    do {
      let client = try ProbeClient.transmitting(kind, target)
      var round: UInt64 = 0
      while !state.withLock({ $0.isOver }) {
        let bytes = tiled(round, count)
        let begun = ContinuousClock.now
        try client.write(offset, bytes)
        try note(begun)
        let read = ContinuousClock.now
        guard try client.read(offset, count) == bytes else {
          throw FixtureError("round \(round): what is read is not what was written")
        }
        try note(read)
        round += 1
      }
    } catch {
      state.withLock { $0.record.problem = "\(error)" }
    }
    state.withLock { $0.hasEnded = true }
  }

  private func note(_ begun: ContinuousClock.Instant) throws {
    let seconds = (ContinuousClock.now - begun) / .seconds(1)
    state.withLock { state in
      state.record.rounds += 1
      state.record.longestSeconds = max(state.record.longestSeconds, seconds)
    }
  }

  /// What it has done so far.
  var record: Record { state.withLock { $0.record } }

  /// Waits until it has done `rounds` writes and reads, or has failed.
  func waitFor(rounds: Int, within seconds: Double) async throws {
    try await eventually("the honest client makes \(rounds) requests", within: seconds) {
      let record = record
      if let problem = record.problem { throw FixtureError("the honest client: \(problem)") }
      return record.rounds >= rounds
    }
  }

  /// Stops it after the request it is at, and gives what it has done.
  func stop() async throws -> Record {
    state.withLock { $0.isOver = true }
    try await eventually("the honest client ends", within: 120) {
      state.withLock { $0.hasEnded }
    }
    return record
  }
}

/// `count` bytes of a repeated piece of noise whose length is no power of two: cheap at any length.
func tiled(_ seed: UInt64, _ count: Int) -> [UInt8] {
  let piece = pattern(seed, min(count, 4099))
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count)
  while bytes.count + piece.count <= count { bytes += piece }
  return bytes + piece.prefix(count - bytes.count)
}
