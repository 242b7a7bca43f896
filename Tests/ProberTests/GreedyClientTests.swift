// Goal: whoever holds memory of the server without need (a write whose payload does not come, replies
// that are not taken) holds up nobody else: small requests go on at once, large ones after a bounded
// time. Method: several such clients on all reactors, honest ones beside them, and their longest wait.

import Fixtures
import Foundation
import Testing

extension Prober {
  @Suite("Greedy clients", .timeLimit(.minutes(10)))
  struct GreedyClients {
    /// The longest that a request of 4 KiB may take beside them, on a busy machine.
    static let smallSecondsMax = 1.5
    /// A payload that stands still while others wait is given up after 5 s. Two hold what there is for
    /// large ones, one after the other.
    static let largeSecondsMax = 14.0

    private func serve(_ body: (Target) async throws -> Void) async throws {
      try await withMirror(size: "192M") { mirror in
        try await mirror.serve(Target.options + ["--threads", "2"])
        let target = try Target(mirror)
        try await body(target)
        #expect(try await mirror.stopAndCompare() == nil)
      }
    }

    /// Honest clients of `counts` bytes work beside what is there; gives their records.
    private func work(
      _ kind: WireKind, _ target: Target, counts: [Int], rounds: Int, seconds: Double
    ) async throws -> [HonestClient.Record] {
      var clients: [HonestClient] = []
      for (index, count) in counts.enumerated() {
        clients.append(
          HonestClient(kind, target, offset: UInt64(index) * (40 << 20), count: count))
      }
      for client in clients { try await client.waitFor(rounds: rounds, within: seconds) }
      var records: [HonestClient.Record] = []
      for client in clients { records.append(try await client.stop()) }
      for (record, count) in zip(records, counts) {
        print("honest client of \(count) bytes: \(record)")
        #expect(record.problem == nil)
        let limit = count <= 4096 ? Self.smallSecondsMax : Self.largeSecondsMax
        #expect(record.longestSeconds < limit, "\(count) bytes took \(record.longestSeconds) s")
      }
      return records
    }

    /// 4 KiB on each reactor, 32 MiB on each reactor.
    private static let mixed = [4096, 4096, 32 << 20, 32 << 20]

    @Test(
      "that announce 64 MiB and send none of it hold up neither small nor large writes",
      arguments: WireKind.allCases)
    func announced(kind: WireKind) async throws {
      try await serve { target in
        let greedy = try (0..<6).map { _ in
          let client = try ProbeClient.transmitting(kind, target)
          try client.send(client.header(Cmd.write, count: 64 << 20))
          return client
        }
        _ = try await work(kind, target, counts: Self.mixed, rounds: 6, seconds: 60)
        // They are in nobody's way: none was given up, and their writes still work.
        try greedy[0].send(tiled(1, 64 << 20))
        #expect(try greedy[0].reply().error == 0)
        try withExtendedLifetime(greedy) { try target.expectAlive(kind) }
      }
    }

    @Test(
      "that stop in the middle of a payload are given up once they are in the way",
      arguments: WireKind.pair)
    func halfSent(kind: WireKind) async throws {
      try await serve { target in
        // Two of 64 MiB; and of 16 MiB as many as the memory of both reactors can hold.
        let greedy = try (0..<10).map { index in
          let client = try ProbeClient.transmitting(kind, target)
          let count = index < 2 ? 64 << 20 : 16 << 20
          try client.send(client.header(Cmd.write, count: UInt64(count)) + tiled(1, 128 << 10))
          return client
        }
        _ = try await work(kind, target, counts: Self.mixed, rounds: 6, seconds: 60)
        try withExtendedLifetime(greedy) { try target.expectAlive(kind) }
      }
    }

    @Test(
      "that send a payload byte by byte hold up nobody's small writes", arguments: WireKind.pair
    )
    func trickle(kind: WireKind) async throws {
      try await serve { target in
        let greedy = try (0..<10).map { index in
          let client = try ProbeClient.transmitting(kind, target)
          let count = index < 2 ? 64 << 20 : 16 << 20
          try client.send(client.header(Cmd.write, count: UInt64(count)) + tiled(1, 64 << 10))
          return client
        }
        let honest = (0..<2).map {
          HonestClient(kind, target, offset: UInt64($0) << 20, count: 4096)
        }
        let large = HonestClient(kind, target, offset: 32 << 20, count: 32 << 20)
        let end = ContinuousClock.now + .seconds(6)
        while ContinuousClock.now < end, large.record.rounds < 4 {
          for client in greedy { try client.sendIfTaken([1]) }
          try await Task.sleep(for: .milliseconds(20))
        }
        for client in honest + [large] {
          let record = try await client.stop()
          print("beside a trickle: \(record)")
          #expect(record.problem == nil)
          #expect(record.rounds > 1)
        }
        for client in honest { #expect(client.record.longestSeconds < Self.smallSecondsMax) }
        #expect(large.record.longestSeconds < Self.largeSecondsMax)
        try target.expectAlive(kind)
      }
    }

    @Test(
      "that never read their replies hold up nobody's small requests",
      arguments: WireKind.pair, [1 << 20, 4096])
    func neverRead(kind: WireKind, count: Int) async throws {
      try await serve { target in
        // As much data, or as many requests, as the server takes of each.
        let greedy = try (0..<48).map { _ in
          let client = try ProbeClient.transmitting(kind, target)
          let bytes = (0..<512 as Range<UInt64>).flatMap {
            client.header(Cmd.read, count: UInt64(count), cookie: $0)
          }
          try client.wire.sendWhatFits(bytes)
          return client
        }
        _ = try await work(kind, target, counts: [4096, 4096], rounds: 200, seconds: 60)
        let peak = try target.memoryKibibytes("VmHWM") / 1024
        print("never read: \(peak) MiB at the peak")
        #expect(isSanitized || peak < 300)
        try withExtendedLifetime(greedy) { try target.expectAlive(kind) }
      }
    }
  }
}
