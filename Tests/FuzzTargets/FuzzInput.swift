// An input as a stream of decisions. Behind its end all is zero.

import Base

/// Reads decisions from the front of an input; the rest is for what is decoded.
struct FuzzInput {
  private var bytes: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

  /// Whether nothing is left.
  var isEmpty: Bool { bytes.isEmpty }

  /// What is left.
  var rest: [UInt8] { Array(bytes) }

  mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }

  /// A number of 0 to `limit` - 1.
  mutating func below(_ limit: Int) -> Int { Int(byte()) % limit }

  mutating func flag() -> Bool { byte() & 1 == 1 }

  /// A big-endian number of `count` bytes.
  mutating func number(_ count: Int) -> UInt64 {
    var value: UInt64 = 0
    for _ in 0..<count { value = value << 8 | UInt64(byte()) }
    return value
  }

  /// The next `count` bytes; fewer at the end.
  mutating func take(_ count: Int) -> [UInt8] {
    let taken = Array(bytes.prefix(count))
    bytes = bytes.dropFirst(count)
    return taken
  }

  /// The next `count` bytes, filled up with zeros.
  mutating func block(_ count: Int) -> [UInt8] {
    let taken = take(count)
    return taken + [UInt8](repeating: 0, count: count - taken.count)
  }
}

/// Ways to cut a stream into pieces.
enum Cuts {
  /// `stream` as it is given to a parser: whole; in single bytes (a long one: in sevens, which is
  /// no part of any frame); in drawn pieces.
  static func ways(_ stream: [UInt8], seed: UInt8) -> [[[UInt8]]] {
    var random = PRNG(seed: UInt64(seed))
    let longest = 1 << random.int(in: 1...12)
    let small = stream.count <= 300 ? 1 : 7
    return [
      [stream], cut(stream) { small }, cut(stream) { random.int(in: 1...longest) },
    ]
  }

  private static func cut(_ stream: [UInt8], _ next: () -> Int) -> [[UInt8]] {
    var pieces: [[UInt8]] = []
    var start = 0
    while start < stream.count {
      let end = min(start + next(), stream.count)
      pieces.append(Array(stream[start..<end]))
      start = end
    }
    return pieces
  }
}
