// Goal: whatever the order, the pace and the end of what a client sends, no reply that is owed is lost,
// nothing is written by halves, and nobody else notices.

import Fixtures
import Foundation
import Testing

extension Prober {
  @Suite("Streams", .serialized, .server, .timeLimit(.minutes(10)))
  struct Streams {
    @Test("70. DISC with fields that mean nothing is DISC", arguments: WireKind.allCases)
    func oddDisconnect(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target)
        try client.expectWorks()
        try client.send(
          client.header(
            Cmd.disconnect, offset: .max, count: UInt64(UInt32.max), flags: .max, cookie: 9))
        try client.expectEnd()
      }
    }

    @Test(
      "71, 72, 73. requests before DISC or a closed side are answered, bytes after it ignored",
      arguments: WireKind.allCases, [0, 1, 2])
    func goodbye(kind: WireKind, way: Int) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target, structured: way == 1)
        let bytes = tiled(8, 64 * 65536)
        try client.write(0, bytes)
        var frames: [UInt8] = []
        for index in 0..<64 as Range<UInt64> {
          frames += client.header(Cmd.read, offset: index << 16, count: 65536, cookie: index)
        }
        frames += client.writeFrame(32 << 20, [UInt8](repeating: 9, count: 5000), cookie: 64)
        if way > 0 { frames += client.header(Cmd.disconnect) }
        if way == 2 { frames += Frames.request(Cmd.read, count: 512) + [1, 2, 3, 4] }
        try client.send(frames)
        if way == 0 { client.wire.halfClose() }
        var seen: Set<UInt64> = []
        for _ in 0..<65 {
          let reply = try client.reply()
          #expect(reply.error == 0)
          seen.insert(reply.cookie)
          if reply.cookie < 64 {
            let start = Int(reply.cookie) << 16
            let isEqual = reply.data.elementsEqual(bytes[start..<(start + 65536)])
            #expect(isEqual)
          }
        }
        #expect(seen.count == 65)
        try client.expectEnd()
        let after = try ProbeClient.transmitting(kind, target)
        #expect(try after.read(32 << 20, 5000) == [UInt8](repeating: 9, count: 5000))
      }
    }

    @Test(
      "72. a side closed in the middle of a header or payload: what was whole is answered",
      arguments: WireKind.allCases, [10, 28, 3000, 70_000])
    func halfFrame(kind: WireKind, kept: Int) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target)
        try client.write(0, [UInt8](repeating: 1, count: 100_000))
        let frame = client.writeFrame(0, [UInt8](repeating: 2, count: 100_000), cookie: 2)
        try client.send(client.header(Cmd.flush, cookie: 3) + frame.prefix(kept))
        client.wire.halfClose()
        #expect(try client.reply().cookie == 3)
        try client.expectEnd()
        let after = try ProbeClient.transmitting(kind, target)
        #expect(try after.read(0, 100_000) == [UInt8](repeating: 1, count: 100_000))
      }
    }

    @Test("74. equal cookies: a reply for each", arguments: WireKind.allCases, [false, true])
    func equalCookies(kind: WireKind, structured: Bool) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target, structured: structured)
        let bytes = tiled(9, 200 * 512)
        try client.write(0, bytes)
        let frames = (0..<200 as Range<UInt64>).flatMap {
          Frames.request(Cmd.read, offset: $0 * 512, count: 512, cookie: 42)
        }
        try client.send(frames)
        var seen: Set<[UInt8]> = []
        let head = structured ? 28 : 16
        for _ in 0..<200 {
          let reply = try client.receive(head + 512)
          #expect(reply.big(at: 8, bytes: 8) == 42)
          seen.insert(Array(reply.suffix(512)))
        }
        let expected = (0..<200).map { Array(bytes[($0 * 512)..<($0 * 512 + 512)]) }
        #expect(seen == Set(expected))
      }
    }

    @Test(
      "75. headers and payloads byte by byte work; a pause in transmission is legal",
      arguments: WireKind.allCases)
    func bytewise(kind: WireKind) throws {
      try probe(kind) { target in
        let idle = try ProbeClient.transmitting(kind, target)
        let client = try ProbeClient.transmitting(kind, target)
        let bytes = pattern(10, 700)
        try client.sendSlowly(client.writeFrame(3, bytes))
        #expect(try client.reply().error == 0)
        try client.sendSlowly(client.header(Cmd.read, offset: 3, count: 700, cookie: 2))
        #expect(try client.reply().data == bytes)
        // A large payload: its begin and its end byte by byte.
        let large = tiled(11, 300_000)
        let frame = client.writeFrame(0, large, cookie: 3)
        try client.sendSlowly(Array(frame.prefix(500)))
        try client.send(Array(frame[500..<(frame.count - 500)]))
        try client.expectSilence(for: 0.1)
        try client.sendSlowly(Array(frame.suffix(500)))
        #expect(try client.reply().error == 0)
        #expect(try client.read(0, 300_000) == large)
        try idle.expectWorks()
      }
    }

    @Test(
      "76. a write that is cut off writes nothing and locks nothing",
      arguments: WireKind.allCases, [1000, 40_000, 100_000, 1 << 20, 33 << 20])
    func cutOff(kind: WireKind, count: Int) throws {
      try probe(kind, memoryGrowthMebibytes: 80) { target in
        let honest = try ProbeClient.transmitting(kind, target)
        let before = tiled(12, count)
        try honest.write(512, before)
        let rounds = count > 1 << 20 ? 2 : 10
        for round in 0..<rounds {
          let client = try ProbeClient.transmitting(kind, target)
          let frame = client.writeFrame(512, [UInt8](repeating: 0xee, count: count))
          try client.send(Array(frame.dropLast(round % 2 == 0 ? 1 : count / 2)))
          if round % 3 == 0 { client.wire.reset() } else { client.wire.close() }
        }
        #expect(try honest.read(512, count) == before)
        // The range is free: it can be written at once.
        try honest.write(512, tiled(13, count))
        #expect(try honest.read(512, count) == tiled(13, count))
      }
    }

    @Test(
      "77. a reset with 1000 requests in flight harms nobody, a hundred times",
      arguments: WireKind.allCases)
    func resetInFlight(kind: WireKind) throws {
      try probe(kind, memoryGrowthMebibytes: 64) { target in
        let descriptors = try target.descriptorCount()
        let witness = try ProbeClient.transmitting(kind, target)
        let bytes = tiled(14, 4096)
        try witness.write(96 << 20, bytes)
        for round in 0..<100 {
          let client = try ProbeClient.transmitting(kind, target, structured: round % 2 == 0)
          var frames: [UInt8] = []
          for index in 0..<500 as Range<UInt64> {
            frames += client.header(
              Cmd.read, offset: index << 12, count: 4096, cookie: index)
            frames += client.writeFrame(
              index << 12, [UInt8](repeating: UInt8(round), count: 512), cookie: 1000 + index)
          }
          // As much as the socket takes; the replies are not read.
          try client.wire.sendWhatFits(frames)
          if round % 4 == 0 { _ = try client.receive(100) }
          client.wire.reset()
          #expect(try witness.read(96 << 20, 4096) == bytes)
        }
        try waitUntil("the sockets are closed", within: 20) {
          try target.descriptorCount() <= descriptors + 1
        }
      }
    }

    @Test(
      "78. replies that are not read: the server stops reading, and memory is bounded",
      arguments: WireKind.allCases)
    func neverRead(kind: WireKind) throws {
      try probe(kind, memoryGrowthMebibytes: 150) { target in
        let client = try ProbeClient.transmitting(kind, target)
        let frames = (0..<4000 as Range<UInt64>).flatMap {
          client.header(Cmd.read, offset: 0, count: 1 << 20, cookie: $0)
        }
        var sent = 0
        // 4 GB of replies are asked for over and over, until the server takes no more.
        while sent < 64 << 20, client.wire.socket.isReady(POLLOUT, within: 1) {
          sent += try client.wire.sendSome(frames, from: sent % frames.count)
        }
        #expect(sent < 64 << 20, "the server reads on and on")
        let other = try ProbeClient.transmitting(kind, target)
        for index in 0..<200 as Range<UInt64> { try other.write(index << 12, tiled(15, 4096)) }
        // Whoever begins to read is served.
        for _ in 0..<50 {
          let reply = try client.reply()
          #expect(reply.error == 0 && reply.data.count == 1 << 20)
        }
      }
    }

    @Test("79. 5000 requests at once: 5000 replies", arguments: WireKind.allCases, [false, true])
    func pipelined(kind: WireKind, structured: Bool) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target, structured: structured)
        let bytes = tiled(16, 1 << 20)
        try client.write(0, bytes)
        var frames: [UInt8] = []
        for index in 0..<5000 as Range<UInt64> {
          frames +=
            index % 5 == 4
            ? client.writeFrame((2 << 20) + index * 512, pattern(index, 512), cookie: index)
            : client.header(
              Cmd.read, offset: index % 2048 * 512, count: 512, cookie: index)
        }
        let (everything, sender) = (frames, Sender(client.wire))
        Thread { sender.send(everything) }.start()
        var seen: Set<UInt64> = []
        for _ in 0..<5000 {
          let reply = try client.reply()
          #expect(reply.error == 0)
          seen.insert(reply.cookie)
          if reply.cookie % 5 < 4 {
            let start = Int(reply.cookie % 2048) * 512
            let isEqual = reply.data.elementsEqual(bytes[start..<(start + 512)])
            #expect(isEqual)
          }
        }
        #expect(seen.count == 5000 && sender.problem == nil)
        #expect(try client.read((2 << 20) + 4999 * 512, 512) == pattern(4999, 512))
      }
    }
  }
}

/// Sends on a thread of its own while the test receives; a socket takes both at once.
final class Sender: @unchecked Sendable {
  private let wire: any Wire
  private let done = NSCondition()
  private var failure: String??

  init(_ wire: any Wire) { self.wire = wire }

  /// Sends all bytes.
  func send(_ bytes: [UInt8]) {
    var text: String?
    do { try wire.send(bytes, within: 60) } catch { text = "\(error)" }
    done.withLock {
      failure = text
      done.broadcast()
    }
  }

  /// Waits for the end of sending; what went wrong.
  var problem: String? {
    done.withLock {
      while failure == nil { done.wait() }
      return failure ?? nil
    }
  }
}
