// Goal: what a client writes is what every client reads, whatever the sizes, alignments and
// commands; and all legs hold it. Method: a seeded walk beside a model in memory, on legs in
// memory (done at once) and on legs on a disk (through the ring), with one and two reactors.

import Base
import NBDProtocol
import Server
import Testing

@Suite("A served mirror", .serialized)
struct DataTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var isInMemory: Bool
    var threads: Int
    var isStructured: Bool
    var testDescription: String {
      "\(isInMemory ? "memory" : "disk"), \(threads) reactors, \(isStructured ? "chunks" : "simple")"
    }
  }

  static let cases = [
    Case(isInMemory: true, threads: 1, isStructured: false),
    Case(isInMemory: true, threads: 2, isStructured: true),
    Case(isInMemory: false, threads: 1, isStructured: true),
    Case(isInMemory: false, threads: 2, isStructured: false),
  ]

  @Test("reads give what was written, zeroed or trimmed last", arguments: cases)
  func model(_ what: Case) throws {
    let mirror = try ServedMirror(sizeBytes: 16 << 20, isInMemory: what.isInMemory) {
      $0.threads = what.threads
    }
    // Two connections: with two reactors each has one.
    let wishes = ClientWishes(structuredReplies: what.isStructured)
    let clients = [
      try RawClient(mirror.socketPath, wishes: wishes),
      try RawClient(mirror.socketPath, wishes: wishes),
    ]
    var random = PRNG(seed: 7)
    var model = [UInt8](repeating: 0, count: 16 << 20)
    for step in 0..<400 {
      let client = clients[Int(random.below(2))]
      let count = Self.size(&random)
      let offset = Int(random.below(UInt64(model.count - count)))
      switch random.below(10) {
      case 0..<4:
        let reply = try client.read(UInt64(offset), count)
        #expect(reply.error == 0)
        let isEqual = reply.data == Array(model[offset..<offset + count])
        #expect(isEqual, "step \(step): \(count) bytes at \(offset)")
      case 4..<8:
        let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: step), count: count)
        #expect(try client.write(UInt64(offset), bytes, flags: step % 5 == 0 ? .fua : []) == 0)
        model.replaceSubrange(offset..<offset + count, with: bytes)
      case 8:
        let error = try client.command(
          .writeZeroes, UInt64(offset), count, flags: step % 2 == 0 ? .noHole : [])
        #expect(error == 0)
        model.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
      default:
        // Whole blocks of a trim read as zeros; what is left at its ends stays.
        #expect(try client.command(.trim, UInt64(offset), count) == 0)
        let first = (offset + 511) / 512 * 512
        let last = (offset + count) / 512 * 512
        if last > first {
          model.replaceSubrange(first..<last, with: repeatElement(0, count: last - first))
        }
        #expect(try client.command(.flush) == 0)
      }
    }
    let reply = try clients[0].read(0, model.count)
    #expect(reply.error == 0)
    let isEqual = reply.data == model
    #expect(isEqual)
    try mirror.stop()
  }

  static func size(_ random: inout PRNG) -> Int {
    switch random.below(8) {
    case 0: return 1 + Int(random.below(5))
    case 1..<4: return 512 * (1 + Int(random.below(16)))
    case 4: return 4096
    case 5: return 1 + Int(random.below(60_000))
    case 6: return 32_767 + Int(random.below(3))
    default: return 1 + Int(random.below(1 << 20))
    }
  }

  @Test("64 MiB at an odd offset is written and read; a byte more is refused, and nothing breaks")
  func largest() throws {
    let mirror = try ServedMirror(sizeBytes: 80 << 20)
    let client = try RawClient(mirror.socketPath)
    var bytes = [UInt8](repeating: 0, count: 64 << 20)
    for index in stride(from: 0, to: bytes.count, by: 4093) {
      bytes[index] = UInt8(truncatingIfNeeded: index >> 12)
    }
    #expect(try client.write(7, bytes) == 0)
    let reply = try client.read(7, bytes.count)
    let isEqual = reply.data == bytes
    #expect(isEqual)
    bytes.append(1)
    #expect(try client.write(7, bytes) == NBDError.invalid.rawValue)
    #expect(try client.read(0, bytes.count).error == NBDError.invalid.rawValue)
    let start = try client.read(0, 8)
    #expect(start.data == [0, 0, 0, 0, 0, 0, 0, 0])
    try mirror.stop()
  }

  @Test(
    "overlapping writes of many connections leave the same bytes on all legs", arguments: [1, 2])
  func overlapping(threads: Int) throws {
    let mirror = try ServedMirror(legs: 3, sizeBytes: 8 << 20) { $0.threads = threads }
    let clients = try (0..<4).map { _ in try RawClient(mirror.socketPath) }
    var random = PRNG(seed: 3)
    for round in 0..<30 {
      for (number, client) in clients.enumerated() {
        var bytes: [UInt8] = []
        for request in 0..<16 {
          let payload = [UInt8](repeating: UInt8(16 * number + request), count: 8192)
          let offset = random.below(16) * 4096 + (round % 2 == 0 ? 0 : 100)
          bytes += client.frame(.write, offset: offset, count: 8192, payload: payload)
        }
        try client.send(bytes)
      }
      for client in clients {
        for _ in 0..<16 { #expect(try client.reply().error == 0) }
      }
    }
    try mirror.stop()
  }
}
