// Goal: every wrong request gets the error that the specification asks for, its payload is thrown
// away, and the connection goes on. Numbers are those of the catalogue in docs/protocol.md.

import Fixtures
import Foundation
import Testing

/// A request that is refused, after which the connection goes on.
struct BadRequest: Sendable, CustomTestStringConvertible {
  let number: Int
  let what: String
  let command: UInt16
  let offset: UInt64
  let count: UInt64
  let flags: UInt16
  /// Any of these.
  let errors: [UInt32]

  init(
    _ number: Int, _ what: String, _ command: UInt16, offset: UInt64 = 0, count: UInt64 = 0,
    flags: UInt16 = 0, _ errors: UInt32...
  ) {
    (self.number, self.what, self.command, self.offset) = (number, what, command, offset)
    (self.count, self.flags, self.errors) = (count, flags, errors)
  }

  var testDescription: String { "\(number). \(what)" }

  private static let size = Target.exportBytes
  private static let wrap = UInt64.max - 511
  private static let maximum = UInt64(UInt32.max)

  static let all: [BadRequest] = [
    BadRequest(45, "command 8", 8, Err.invalid),
    BadRequest(45, "command 0xffff", .max, offset: .max, count: maximum, Err.invalid),
    BadRequest(46, "READ with an unknown flag", Cmd.read, count: 512, flags: 1 << 15, Err.invalid),
    BadRequest(
      47, "WRITE with an unknown flag", Cmd.write, count: 70000, flags: 1 << 15, Err.invalid),
    BadRequest(47, "TRIM with an unknown flag", Cmd.trim, count: 512, flags: 1 << 9, Err.invalid),
    BadRequest(
      48, "READ one byte past the end", Cmd.read, offset: size - 511, count: 512, Err.invalid),
    BadRequest(48, "READ beyond the end", Cmd.read, offset: size + 1, count: 1, Err.invalid),
    BadRequest(
      49, "WRITE one byte past the end", Cmd.write, offset: size - 511, count: 512, Err.noSpace),
    BadRequest(
      49, "large WRITE past the end", Cmd.write, offset: size - 4096, count: 1 << 20, Err.noSpace),
    BadRequest(50, "READ that wraps", Cmd.read, offset: wrap, count: 1024, Err.invalid),
    BadRequest(50, "WRITE that wraps", Cmd.write, offset: wrap, count: 1024, Err.noSpace),
    BadRequest(50, "TRIM that wraps", Cmd.trim, offset: wrap, count: 1024, Err.invalid),
    BadRequest(50, "ZEROES that wrap", Cmd.zeroes, offset: wrap, count: 1024, Err.noSpace),
    BadRequest(50, "CACHE that wraps", Cmd.cache, offset: wrap, count: 1024, Err.invalid),
    BadRequest(50, "READ at 2^63", Cmd.read, offset: 1 << 63, count: 512, Err.invalid),
    BadRequest(50, "WRITE at 2^63", Cmd.write, offset: 1 << 63, count: 512, Err.noSpace),
    BadRequest(
      55, "READ of 64 MiB and a byte", Cmd.read, count: (64 << 20) + 1, Err.invalid, Err.overflow),
    BadRequest(55, "READ of 4 GiB - 1", Cmd.read, count: maximum, Err.invalid, Err.overflow),
    BadRequest(
      56, "TRIM of 4 GiB - 1 past the end", Cmd.trim, offset: 512, count: maximum, Err.invalid,
      Err.noSpace),
    BadRequest(
      56, "ZEROES of 4 GiB - 1 past the end", Cmd.zeroes, offset: 512, count: maximum, Err.invalid,
      Err.noSpace),
    BadRequest(
      56, "CACHE of 4 GiB - 1 past the end", Cmd.cache, offset: 512, count: maximum, Err.invalid),
    BadRequest(58, "NO_HOLE on WRITE", Cmd.write, count: 512, flags: Flag.noHole, Err.invalid),
    BadRequest(58, "REQ_ONE on READ", Cmd.read, count: 512, flags: Flag.reqOne, Err.invalid),
    BadRequest(58, "FAST_ZERO on WRITE", Cmd.write, count: 512, flags: Flag.fastZero, Err.invalid),
    BadRequest(58, "FAST_ZERO on TRIM", Cmd.trim, count: 512, flags: Flag.fastZero, Err.invalid),
    BadRequest(60, "FLUSH with an offset", Cmd.flush, offset: 512, Err.invalid),
    BadRequest(60, "FLUSH with a length", Cmd.flush, count: 512, Err.invalid),
    BadRequest(
      64, "PAYLOAD_LEN on READ", Cmd.read, count: 512, flags: Flag.payloadLength, Err.invalid),
    BadRequest(
      64, "PAYLOAD_LEN on WRITE", Cmd.write, count: 512, flags: Flag.payloadLength, Err.invalid),
    BadRequest(
      64, "PAYLOAD_LEN on TRIM", Cmd.trim, count: 512, flags: Flag.payloadLength, Err.invalid),
  ]
}

extension Prober {
  @Suite("Requests", .serialized, .server, .timeLimit(.minutes(10)))
  struct Requests {
    @Test(
      "a wrong request gets its error, changes nothing, and the next one is understood",
      arguments: WireKind.allCases, BadRequest.all)
    func refused(kind: WireKind, bad: BadRequest) throws {
      for structured in [false, true] {
        try probe(kind, memoryGrowthMebibytes: 8) { target in
          let client = try ProbeClient.transmitting(kind, target, structured: structured)
          let before = try client.read(0, 4096)
          let last = try client.read(Target.exportBytes - 4096, 4096)
          let payload = bad.command == Cmd.write ? tiled(9, Int(bad.count)) : []
          let reply = try client.request(
            bad.command, offset: bad.offset, count: bad.count, flags: bad.flags, payload: payload)
          #expect(bad.errors.contains(reply.error), "\(reply.error), structured \(structured)")
          // `reply` takes a simple one for a structured READ as an error.
          #expect(try client.read(0, 4096) == before)
          #expect(try client.read(Target.exportBytes - 4096, 4096) == last)
          try client.expectWorks(at: 8 << 20)
        }
      }
    }

    @Test(
      "44. a request with a wrong magic: hangup", arguments: WireKind.allCases,
      [0, Frames.simpleReplyMagic, Frames.extendedRequestMagic, Frames.requestMagic ^ 1])
    func badMagic(kind: WireKind, magic: UInt32) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target)
        try client.send(Frames.request(Cmd.read, count: 512, magic: magic))
        try client.expectEnd()
      }
    }

    @Test(
      "51. no bytes, on each command: no hangup, and nothing changes",
      arguments: WireKind.allCases, [false, true])
    func noBytes(kind: WireKind, structured: Bool) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target, structured: structured)
        for offset in [0, 7, Target.exportBytes] {
          for command in [Cmd.read, Cmd.write, Cmd.trim, Cmd.zeroes, Cmd.cache] {
            let reply = try client.request(command, offset: offset)
            #expect(reply.error == 0 && reply.data.isEmpty)
          }
        }
        #expect(try client.error(Cmd.read, offset: Target.exportBytes + 1) == Err.invalid)
        #expect(try client.error(Cmd.write, offset: Target.exportBytes + 1) == Err.noSpace)
        #expect(try client.error(Cmd.blockStatus) == Err.invalid)
        try client.expectWorks()
      }
    }

    @Test(
      "52. WRITE and READ of 32, 48 and 64 MiB work, also unaligned",
      arguments: WireKind.allCases)
    func large(kind: WireKind) throws {
      try probe(kind, memoryGrowthMebibytes: 200) { target in
        let client = try ProbeClient.transmitting(kind, target)
        for (mebibytes, offset) in [(32, 0), (48, 7), (64, 4095)] as [(Int, UInt64)] {
          let bytes = tiled(UInt64(mebibytes), mebibytes << 20)
          try client.write(offset, bytes)
          #expect(try client.read(offset, bytes.count) == bytes, "\(mebibytes) MiB")
        }
      }
    }

    @Test(
      "53. WRITE of 64 MiB and 512 bytes, and of 128 MiB: thrown away, INVALID, nothing written",
      arguments: WireKind.allCases, [(64 << 20) + 512, 128 << 20])
    func tooLarge(kind: WireKind, count: Int) throws {
      try probe(kind, memoryGrowthMebibytes: 8) { target in
        let client = try ProbeClient.transmitting(kind, target)
        try client.write(0, tiled(1, 4096))
        try client.send(client.header(Cmd.write, count: UInt64(count), cookie: 5))
        let piece = tiled(2, 4 << 20)
        var left = count
        while left > 0 {
          try client.send(Array(piece.prefix(left)))
          left -= min(left, piece.count)
        }
        let reply = try client.reply()
        #expect(reply.error == Err.invalid && reply.cookie == 5)
        #expect(try client.read(0, 4096) == tiled(1, 4096))
        try client.expectWorks()
      }
    }

    @Test(
      "54. WRITE of more than 128 MiB: hangup, memory flat", arguments: WireKind.allCases,
      [(128 << 20) + 1, UInt64(UInt32.max)] as [UInt64])
    func farTooLarge(kind: WireKind, count: UInt64) throws {
      try probe(kind, memoryGrowthMebibytes: 4) { target in
        let client = try ProbeClient.transmitting(kind, target)
        try client.send(client.header(Cmd.write, count: count))
        try client.sendIfTaken(tiled(2, 1 << 20))
        try client.expectEnd()
      }
    }

    @Test(
      "57. ZEROES and TRIM of the whole export work, and others are not starved",
      arguments: WireKind.allCases)
    func zeroAll(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target)
        try client.write(0, tiled(3, 24 << 20))
        for (command, flags) in [(Cmd.zeroes, 0), (Cmd.zeroes, Flag.noHole), (Cmd.trim, 0)] {
          try client.write(12345, tiled(4, 100_000))
          try client.send(client.header(command, count: Target.exportBytes, flags: flags))
          let other = try ProbeClient.transmitting(kind, target)
          for _ in 0..<20 { _ = try other.read(4096, 4096) }
          #expect(try client.reply(within: 60).error == 0)
          let isZero = try client.read(0, 24 << 20).allSatisfy { $0 == 0 }
          #expect(isZero)
        }
      }
    }

    @Test(
      "58. DF without structured replies: INVALID; with them: one chunk",
      arguments: WireKind.allCases)
    func dontFragment(kind: WireKind) throws {
      try probe(kind) { target in
        let plain = try ProbeClient.transmitting(kind, target)
        #expect(try plain.error(Cmd.read, count: 4096, flags: Flag.df) == Err.invalid)
        try plain.expectWorks()
        let client = try ProbeClient.transmitting(kind, target, structured: true)
        #expect(client.terms.flags & 1 << 7 != 0 && plain.terms.flags & 1 << 7 == 0)
        for count in [1, 65536, 1 << 20] as [UInt64] {
          let reply = try client.request(Cmd.read, count: count, flags: Flag.df)
          #expect(reply.error == 0 && reply.data.count == Int(count))
          #expect(reply.chunkTypes.filter { $0 != 0 }.count == 1)
        }
      }
    }

    @Test(
      "58. FAST_ZERO: INVALID where it is not offered; else done, or refused and undone",
      arguments: WireKind.allCases)
    func fastZero(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target)
        let bytes = tiled(5, 1 << 20)
        try client.write(0, bytes)
        let error = try client.error(Cmd.zeroes, count: 1 << 20, flags: Flag.fastZero)
        let isOffered = client.terms.flags & ExportFlag.fastZero != 0
        let allowed = isOffered ? [0, Err.notSupported] : [Err.invalid]
        #expect(allowed.contains(error))
        let expected = error == 0 ? [UInt8](repeating: 0, count: 1 << 20) : bytes
        #expect(try client.read(0, 1 << 20) == expected)
        // Slow or not, without the flag zeroes are written.
        #expect(try client.error(Cmd.zeroes, count: 1 << 20) == 0)
        #expect(try client.read(0, 1 << 20) == [UInt8](repeating: 0, count: 1 << 20))
      }
    }

    @Test("59. FUA on READ, FLUSH and every change works", arguments: WireKind.allCases)
    func forcedAccess(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target)
        let bytes = tiled(6, 8192)
        #expect(
          try client.error(Cmd.write, count: 8192, flags: Flag.fua, payload: bytes) == 0)
        let read = try client.request(Cmd.read, count: 8192, flags: Flag.fua)
        #expect(read.error == 0 && read.data == bytes)
        #expect(try client.error(Cmd.flush, flags: Flag.fua) == 0)
        for command in [Cmd.trim, Cmd.zeroes, Cmd.cache] {
          #expect(try client.error(command, count: 8192, flags: Flag.fua) == 0)
        }
      }
    }

    @Test("63. unaligned bytes: exactly those change", arguments: WireKind.allCases)
    func unaligned(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target)
        var model = tiled(7, 16384)
        try client.write(0, model)
        for (offset, count) in [(7, 3), (511, 2), (4095, 2), (4096, 1), (1, 8191), (5000, 4097)] {
          let bytes = pattern(UInt64(offset), count)
          try client.write(UInt64(offset), bytes)
          model.replaceSubrange(offset..<(offset + count), with: bytes)
          #expect(try client.read(UInt64(offset), count) == bytes)
        }
        #expect(try client.error(Cmd.zeroes, offset: 9001, count: 1234) == 0)
        model.replaceSubrange(9001..<10235, with: repeatElement(0, count: 1234))
        #expect(try client.read(0, 16384) == model)
        #expect(try client.read(3, 9999) == Array(model[3..<10002]))
      }
    }

    @Test(
      "block sizes that were asked for bind the client, and those that were not do not",
      arguments: WireKind.allCases)
    func blockSizes(kind: WireKind) throws {
      try probe(kind) { target in
        let client = try ProbeClient.transmitting(kind, target, infos: [Info.blockSize])
        let minimum = try #require(client.terms.blockSizes.first)
        let odd: UInt64 = minimum > 1 ? UInt64(minimum) / 2 : 1
        let error = try client.error(Cmd.read, offset: odd, count: odd)
        #expect(error == (minimum > 1 ? Err.invalid : 0))
        try client.expectWorks()
      }
    }
  }

  @Suite("Read-only", .timeLimit(.minutes(10)))
  struct ReadOnly {
    @Test(
      "62. changes of a read-only export: PERMISSION, and the payload is thrown away",
      arguments: WireKind.allCases)
    func readOnly(kind: WireKind) async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve(Target.options + ["--read-only"])
        let target = try Target(mirror)
        for structured in [false, true] {
          let client = try ProbeClient.transmitting(kind, target, structured: structured)
          #expect(client.terms.flags & ExportFlag.readOnly != 0)
          let payload = tiled(1, 100_000)
          #expect(try client.error(Cmd.write, count: 100_000, payload: payload) == Err.permission)
          #expect(
            try client.error(Cmd.write, offset: 1 << 40, count: 1, payload: [1]) == Err.permission)
          #expect(try client.error(Cmd.trim, count: 4096) == Err.permission)
          #expect(try client.error(Cmd.zeroes, count: 4096) == Err.permission)
          #expect(try client.error(Cmd.flush) == 0)
          #expect(try client.read(0, 100_000) == [UInt8](repeating: 0, count: 100_000))
        }
        #expect(target.isRunning)
        try await mirror.stop()
      }
    }
  }
}
