// A thousand clients on one thread, each with a way of being wrong. None of them waits: what a socket
// does not take is dropped, what comes is looked at only by those who read.

import Fixtures
import Foundation
import Synchronization
import Testing

/// How a member of the crowd behaves.
enum Manner: CaseIterable {
  /// Negotiates, then says nothing.
  case idle
  /// Connects and says nothing at all, until the timer.
  case mute
  /// Sends a handshake and requests byte by byte, and reads the replies.
  case slow
  /// Dies in the middle of a write's payload.
  case dying
  /// Asks for data and never reads it.
  case deaf
  /// Announces 64 MiB and sends nothing.
  case announcing
  /// Sends a part of a large payload, then nothing.
  case stopping
  /// Resets the connection with requests in flight.
  case vanishing
  /// Sends noise as a handshake or as requests.
  case senseless

  /// Of a thousand.
  var count: Int {
    switch self {
    case .idle: 220
    case .mute: 640
    case .slow: 50
    case .dying: 30
    case .deaf: 12
    case .announcing: 12
    case .stopping: 6
    case .vanishing: 20
    case .senseless: 10
    }
  }
}

/// The crowd.
///
/// Everybody has connected once after 1000 rounds.
final class Crowd: Sendable {
  /// What it has done.
  struct Record: Sendable, CustomStringConvertible {
    var connections = 0
    var refusals = 0
    var hangups = 0
    var replies = 0
    /// How often each had its turn: time as the crowd knows it, however slow the machine is.
    var rounds = 0
    var problem: String?

    var description: String {
      "\(rounds) rounds, \(connections) connections, \(refusals) of them refused at once, \(hangups) hangups, "
        + "\(replies) replies to the slow" + (problem.map { "; \($0)" } ?? "")
    }
  }

  private let target: Target
  private let seed: UInt64
  private let state = Mutex((record: Record(), isOver: false, hasEnded: false))

  init(_ target: Target, seed: UInt64) { (self.target, self.seed) = (target, seed) }

  /// What it has done so far.
  var record: Record { state.withLock { $0.record } }

  /// Starts.
  func begin() { Thread { [self] in run() }.start() }

  /// Stops; all its connections are closed.
  func end() async throws -> Record {
    state.withLock { $0.isOver = true }
    try await eventually("the crowd ends", within: 120) { state.withLock { $0.hasEnded } }
    return record
  }

  private func run() {
    var draws = SplitMix(seed: seed)
    var record = Record()
    do {
      var members: [Member] = []
      for manner in Manner.allCases {
        for _ in 0..<manner.count { members.append(Member(manner, &draws)) }
      }
      while !state.withLock({ $0.isOver }) {
        for member in members { try member.turn(target, &draws, &record) }
        record.rounds += 1
        state.withLock { $0.record = record }
        usleep(1000)
      }
    } catch {
      record.problem = "\(error)"
    }
    state.withLock {
      $0.record = record
      $0.hasEnded = true
    }
  }
}

/// One of them; lives through many connections.
private final class Member {
  private let manner: Manner
  private var wire: SocketWire?
  /// What it has still to send.
  private var script: [UInt8] = []
  private var sent = 0
  /// Turns until it does the next thing.
  private var pause: Int
  /// Turns that this connection lives at most.
  private var turnsLeft = 0

  init(_ manner: Manner, _ draws: inout SplitMix) {
    self.manner = manner
    // They don't come all in the same moment.
    pause = Int(draws.next(in: 0...1000))
  }

  /// Does a little.
  func turn(_ target: Target, _ draws: inout SplitMix, _ record: inout Crowd.Record) throws {
    if pause > 0 {
      pause -= 1
      return
    }
    guard let wire else { return try connect(target, &draws, &record) }
    do {
      if try hasHungUp(wire, &record) { return leave(&draws, isReset: false) }
      try speak(wire, &draws)
    } catch is WireClosed {
      record.hangups += 1
      return leave(&draws, isReset: false)
    }
    turnsLeft -= 1
    if turnsLeft <= 0 { leave(&draws, isReset: manner == .vanishing || draws.chance(50)) }
  }

  private func connect(
    _ target: Target, _ draws: inout SplitMix, _ record: inout Crowd.Record
  ) throws {
    let made =
      draws.chance(50)
      ? try SocketWire(unix: target.socket) : try SocketWire(port: target.port)
    record.connections += 1
    wire = made
    sent = 0
    script = makeScript(&draws)
    turnsLeft = Int(draws.next(in: lifetime))
  }

  private func leave(_ draws: inout SplitMix, isReset: Bool) {
    if isReset { wire?.reset() }
    wire?.close()
    wire = nil
    pause = Int(draws.next(in: 20...400))
  }

  /// Whether the server has ended the connection. Those who read take what there is.
  private func hasHungUp(_ wire: SocketWire, _ record: inout Crowd.Record) throws -> Bool {
    let reads = manner == .slow || manner == .senseless
    guard reads else {
      guard try wire.isAtEnd() else { return false }
      record.hangups += 1
      if sent == 0 { record.refusals += 1 }
      return true
    }
    while wire.isReady(POLLIN, within: 0) {
      switch try wire.receive(upTo: 65536, within: 0) {
      case .bytes(let bytes): record.replies += manner == .slow && bytes.count > 0 ? 1 : 0
      case .silence: return false
      case .end:
        record.hangups += 1
        return true
      }
    }
    return false
  }

  private func speak(_ wire: SocketWire, _ draws: inout SplitMix) throws {
    guard sent < script.count else { return }
    if manner == .slow {
      // Also over TCP a byte is a segment.
      sent += try wire.sendSome([script[sent]], from: 0)
      turnsLeft = sent == script.count ? 50 : 1000
      return
    }
    let part = manner == .stopping || manner == .dying ? 1 << 20 : script.count
    sent += try wire.sendSome(Array(script[sent..<min(script.count, sent + part)]), from: 0)
  }

  /// Turns of about a millisecond and more.
  private var lifetime: ClosedRange<UInt64> {
    switch manner {
    case .idle, .deaf: 20_000...60_000
    case .mute: 20_000...40_000
    case .slow: 1000...1000
    case .dying: 20...200
    case .announcing, .stopping: 2000...20_000
    case .vanishing: 5...50
    case .senseless: 50...500
    }
  }

  private func makeScript(_ draws: inout SplitMix) -> [UInt8] {
    let hello = [UInt8](big: UInt32(3)) + Frames.option(Opt.go, Frames.goData([]))
    // Nobody honest works here.
    let offset = (176 << 20) + draws.next(in: 0...1000) * 4096
    switch manner {
    case .mute: return []
    case .idle: return hello
    case .slow:
      return hello + Frames.request(Cmd.read, offset: offset, count: 512)
        + Frames.request(Cmd.write, offset: offset, count: 700) + pattern(offset, 700)
        + Frames.request(Cmd.flush) + Frames.request(Cmd.disconnect)
    case .dying:
      let count = Int(draws.next(in: 1...400_000))
      return hello + Frames.request(Cmd.write, offset: offset, count: UInt32(count))
        + tiled(offset, count - 1)
    case .deaf:
      let count: UInt32 = draws.chance(50) ? 1 << 20 : 4096
      return hello
        + (0..<512 as Range<UInt64>).flatMap {
          Frames.request(Cmd.read, offset: 0, count: count, cookie: $0)
        }
    case .announcing: return hello + Frames.request(Cmd.write, count: 64 << 20)
    case .stopping:
      let count: UInt32 = draws.chance(50) ? 64 << 20 : 16 << 20
      return hello + Frames.request(Cmd.write, offset: 100 << 20, count: count)
        + tiled(offset, 300_000)
    case .vanishing:
      return hello
        + (0..<200 as Range<UInt64>).flatMap {
          Frames.request(Cmd.read, offset: $0 << 12, count: 4096, cookie: $0)
            + Frames.request(Cmd.write, offset: offset + $0 << 12, count: 512, cookie: $0)
            + [UInt8](repeating: 3, count: 512)
        }
    case .senseless:
      let noise = pattern(draws.next(in: 0...UInt64.max - 1), 2000)
      return draws.chance(50) ? noise : hello + noise
    }
  }
}
