// Goal: what a server's end, a failing leg, or two clients on one block do to requests in flight is
// what was promised: acked writes are there, legs are equal, newer data is never overwritten by older.
// Numbers are those of the catalogue in docs/protocol.md.

import Fixtures
import Foundation
import Testing

extension Prober {
  @Suite("Lives", .timeLimit(.minutes(10)))
  struct Lives {
    private func serve(
      _ options: [String] = [], _ body: (MirrorUnderTest, Target) async throws -> Void
    ) async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve(Target.options + options)
        try await body(mirror, try Target(mirror))
      }
    }

    /// Sends writes of block after block, each with the pattern of its number, on a thread.
    private func stream(_ client: ProbeClient, blocks: Int) -> Sender {
      let frames = (0..<blocks as Range<Int>).flatMap { index in
        client.writeFrame(UInt64(index) << 14, block(index), cookie: UInt64(index))
      }
      let sender = Sender(client.wire)
      Thread { sender.send(frames) }.start()
      return sender
    }

    private func block(_ index: Int) -> [UInt8] { tiled(UInt64(index), 16384) }

    /// Takes replies until the server closes; the numbers that were acked.
    private func acked(
      _ client: ProbeClient, allowed: Set<UInt32>, after count: Int, then act: () throws -> Void
    ) throws -> [Int] {
      var numbers: [Int] = []
      for _ in 0..<count { numbers.append(Int(try client.reply().cookie)) }
      try act()
      while true {
        let reply: Reply
        do { reply = try client.reply() } catch { break }
        #expect(allowed.contains(reply.error), "error \(reply.error)")
        if reply.error == 0 { numbers.append(Int(reply.cookie)) }
      }
      return numbers
    }

    private func expectBlocks(_ numbers: [Int], _ kind: WireKind, _ target: Target) throws {
      let client = try ProbeClient.transmitting(kind, target)
      for number in numbers {
        let isEqual = try client.read(UInt64(number) << 14, 16384) == block(number)
        #expect(isEqual, "block \(number) was acked and is lost")
      }
    }

    @Test(
      "80. SIGTERM with writes in flight: what was taken is answered, and the stop is clean",
      arguments: WireKind.allCases)
    func terminated(kind: WireKind) async throws {
      try await serve { mirror, target in
        let client = try ProbeClient.transmitting(kind, target)
        let sender = stream(client, blocks: 3000)
        let numbers = try acked(client, allowed: [0, Err.shutdown], after: 200) {
          _ = kill(target.pid, SIGTERM)
        }
        // It ends when the server's end of the connection is gone.
        _ = sender.problem
        client.wire.close()
        let result = try await #require(mirror.server).wait(seconds: 60)
        #expect(result.status == 0, "\(result)")
        #expect(numbers.count >= 200 && Set(numbers).count == numbers.count)
        #expect(try await mirror.firstDifference() == nil)
        try await mirror.serve(Target.options)
        try expectBlocks(numbers, kind, try Target(mirror))
        try await mirror.stop()
      }
    }

    @Test(
      "81. kill -9 with writes in flight: acked writes are there, and the legs are made equal",
      arguments: WireKind.allCases)
    func killed(kind: WireKind) async throws {
      try await serve { mirror, target in
        let client = try ProbeClient.transmitting(kind, target)
        let sender = stream(client, blocks: 3000)
        let numbers = try acked(client, allowed: [0], after: 200) { mirror.crash() }
        // It ends when the server's end of the connection is gone.
        _ = sender.problem
        client.wire.close()
        #expect(numbers.count >= 200)
        try await mirror.serve(Target.options)
        try expectBlocks(numbers, kind, try Target(mirror))
        try await mirror.waitForRecovery()
        #expect(try await mirror.stopAndCompare() == nil)
      }
    }

    @Test(
      "82. overlapping writes on two connections: one of them whole, the same on both legs",
      arguments: WireKind.allCases)
    func overlapping(kind: WireKind) async throws {
      try await serve(["--threads", "2"]) { mirror, target in
        let clients = try (0..<2).map { _ in try ProbeClient.transmitting(kind, target) }
        for round in 0..<100 {
          let offset = UInt64(round % 8) << 20
          let count = round % 2 == 0 ? 5000 : 300_000
          for (number, client) in clients.enumerated() {
            try client.send(
              client.writeFrame(offset + 100, [UInt8](repeating: UInt8(number + 1), count: count)))
          }
          for client in clients { #expect(try client.reply().error == 0) }
          let seen = Set(try clients[0].read(offset + 100, count))
          #expect(seen.count == 1, "round \(round): a mixture of two writes")
        }
        #expect(try await mirror.stopAndCompare() == nil)
      }
    }

    @Test(
      "83. a write that is sent again while the first is stuck, then a newer one: the newer survives",
      arguments: WireKind.allCases, ["delay --delay 1500ms", "hang"])
    func sentAgain(kind: WireKind, fault: String) async throws {
      try await serve(["--leg-timeout", fault == "hang" ? "1" : "8"]) { mirror, target in
        let other = try ProbeClient.transmitting(kind, target)
        try other.write(0, tiled(1, 65536))
        try await mirror.mustAdmin(
          ["fault", "add", "0"] + fault.split(separator: " ").map(String.init)
            + ["--op", "write", "--range", "0-64K", "--count", "1"]
            + ["--name", "stuck"])
        let first = try ProbeClient.transmitting(kind, target)
        let old = tiled(2, 65536)
        try first.send(first.writeFrame(0, old))
        try await eventually("the first write is stuck", within: 10) {
          try await mirror.admin(["fault", "list"]).output.contains("spent")
        }
        first.wire.reset()
        try other.send(other.writeFrame(0, old, cookie: 1))
        let new = tiled(3, 65536)
        try other.send(other.writeFrame(0, new, cookie: 2))
        #expect(Set([try other.reply(), try other.reply()].map(\.cookie)) == [1, 2])
        #expect(try other.read(0, 65536) == new)
        _ = try await mirror.admin(["fault", "release", "stuck"])
        if fault == "hang" {
          try await eventually("the leg comes back", within: 30, every: 0.1) {
            _ = try await mirror.admin(["leg", "readd", "0"])
            return try await mirror.status().state == "healthy"
          }
        }
        #expect(try other.read(0, 65536) == new)
        try target.expectAlive(kind, at: 32 << 20)
        #expect(try await mirror.stopAndCompare() == nil)
      }
    }

    @Test(
      "84. a leg that fails in the middle of a read: the other one serves, the client sees nothing",
      arguments: WireKind.allCases, [false, true])
    func legError(kind: WireKind, structured: Bool) async throws {
      try await serve(["--read-policy", "prefer=0"]) { mirror, target in
        let client = try ProbeClient.transmitting(kind, target, structured: structured)
        let bytes = tiled(4, 16 << 20)
        try client.write(0, bytes)
        // The first half can be read.
        try await mirror.mustAdmin(
          ["fault", "add", "0", "error", "--op", "read", "--range", "8M-64M", "--name", "bad"])
        #expect(try client.read(0, 16 << 20) == bytes)
        #expect(
          try client.read((8 << 20) - 10, 20) == Array(bytes[((8 << 20) - 10)..<((8 << 20) + 10)]))
        #expect(try await mirror.status().leg(0).readErrors > 0)
        try await mirror.mustAdmin(["fault", "clear"])
        #expect(try await mirror.stopAndCompare() == nil)
      }
    }
  }
}
