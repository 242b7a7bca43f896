// Names that nobody hands out twice: sets, legs, generations.

/// A 128-bit identifier; random where it is made, compared for equality only.
///
/// On disk and as text it is a UUID in the order of RFC 9562: `high` first, most significant byte
/// first, so that a hex dump shows what `examine` prints.
public struct Identifier: Hashable, BitwiseCopyable, Sendable, CustomStringConvertible {
  /// Bytes 0...7 of the UUID, the first byte most significant.
  public var high: UInt64
  /// Bytes 8...15 of the UUID.
  public var low: UInt64

  /// Size on disk.
  @inlinable public static var byteCount: Int { 16 }

  /// Composes the two halves.
  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// No one's name.
  @inlinable public static var zero: Identifier { Identifier(high: 0, low: 0) }

  /// Whether this is no one's name.
  @inlinable public var isZero: Bool { high == 0 && low == 0 }

  /// Reads UUID text (8-4-4-4-12 hexadecimal digits, either case), nothing else.
  public init?(parsing text: String) {
    let bytes = Array(text.utf8)
    guard bytes.count == 36 else { return nil }
    var halves: (UInt64, UInt64) = (0, 0)
    var digits = 0
    for (index, byte) in bytes.enumerated() {
      if index == 8 || index == 13 || index == 18 || index == 23 {
        guard byte == UInt8(ascii: "-") else { return nil }
        continue
      }
      guard let digit = Identifier.hexDigit(byte) else { return nil }
      if digits < 16 {
        halves.0 = halves.0 << 4 | digit
      } else {
        halves.1 = halves.1 << 4 | digit
      }
      digits += 1
    }
    self.init(high: halves.0, low: halves.1)
  }

  private static func hexDigit(_ byte: UInt8) -> UInt64? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(byte - UInt8(ascii: "a") + 10)
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt64(byte - UInt8(ascii: "A") + 10)
    default: nil
    }
  }

  /// Lower-case UUID text.
  public var description: String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    text.reserveCapacity(36)
    for index in 0..<32 {
      if index == 8 || index == 12 || index == 16 || index == 20 { text.append(UInt8(ascii: "-")) }
      let half = index < 16 ? high : low
      text.append(digits[Int(half >> UInt64(60 - 4 * (index & 15)) & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// The first 8 digits: enough for a person to tell legs apart.
  public var short: String { String(description.prefix(8)) }
}
