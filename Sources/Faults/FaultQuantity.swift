// Numbers in the words of faults: bytes, times, shares, errnos. Integers only.

import Base

/// Texts to numbers and back.
enum FaultQuantity {
  private static let day: UInt64 = 86_400 * Nanoseconds.second
  /// 2^10, 2^20...
  private static let units: [[Character]] = [
    ["k", "K"], ["m", "M"], ["g", "G"], ["t", "T"], ["p", "P"],
  ]

  /// `4096`, `64K`, `1G`.
  static func bytes(_ text: String) -> UInt64? {
    var digits = text[...]
    var shift: UInt64 = 0
    if let last = text.last, let unit = units.firstIndex(where: { $0.contains(last) }) {
      shift = 10 * UInt64(unit + 1)
      digits = digits.dropLast()
    }
    guard let number = whole(digits) else { return nil }
    let product = number.multipliedReportingOverflow(by: 1 << shift)
    return product.overflow ? nil : product.partialValue
  }

  /// `FIRST-END`.
  static func range(_ text: String) -> ByteRange? {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let first = bytes(String(parts[0])),
      let end = bytes(String(parts[1])), first < end
    else { return nil }
    return ByteRange(offset: first, count: end - first)
  }

  /// `0.5`, `0.5s`, `20ms`, `100us`, `2m`; without a unit: seconds. At most a day.
  static func nanoseconds(_ text: String) -> UInt64? {
    let units: [(String, UInt64)] = [
      ("ns", 1), ("us", Nanoseconds.microsecond), ("ms", Nanoseconds.millisecond),
      ("s", Nanoseconds.second), ("m", 60 * Nanoseconds.second),
    ]
    var digits = text[...]
    var unit = Nanoseconds.second
    if let found = units.first(where: { text.hasSuffix($0.0) }) {
      digits = digits.dropLast(found.0.count)
      unit = found.1
    }
    guard let value = decimal(digits, scale: unit), value <= day else { return nil }
    return value
  }

  /// A time, a range of times, or `exp:` and the mean; not 0.
  static func delay(_ text: String) -> FaultDelay? {
    if text.hasPrefix("exp:") {
      guard let mean = nanoseconds(String(text.dropFirst(4))), mean > 0 else { return nil }
      return .exponential(mean: mean)
    }
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard let least = nanoseconds(String(parts[0])) else { return nil }
    if parts.count == 1 { return least > 0 ? .fixed(least) : nil }
    guard parts.count == 2, let most = nanoseconds(String(parts[1])), least < most
    else { return nil }
    return .uniform(least: least, most: most)
  }

  /// A decimal fraction in millionths, rounded down.
  static func millionths(_ text: String) -> UInt64? { decimal(text[...], scale: 1_000_000) }

  /// `digits[.digits]` times `scale`, rounded down.
  private static func decimal(_ text: Substring, scale: UInt64) -> UInt64? {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count <= 2, let units = whole(parts[0]) else { return nil }
    let product = units.multipliedReportingOverflow(by: scale)
    guard !product.overflow else { return nil }
    guard parts.count == 2 else { return product.partialValue }
    guard whole(parts[1]) != nil || parts[1].utf8.count > 18 else { return nil }
    var fraction: UInt64 = 0
    var place = scale
    for byte in parts[1].utf8 {
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
      fraction += place * UInt64(byte - UInt8(ascii: "0")) / 10
      place /= 10
    }
    let sum = product.partialValue.addingReportingOverflow(fraction)
    return sum.overflow ? nil : sum.partialValue
  }

  private static func whole(_ text: Substring) -> UInt64? {
    guard !text.isEmpty,
      text.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") })
    else { return nil }
    return UInt64(text)
  }

  /// Bytes as `bytes` reads them: the largest unit that divides them.
  static func text(_ bytes: UInt64) -> String {
    var value = bytes
    var unit = 0
    while value > 0, value.isMultiple(of: 1024), unit < 5 {
      value /= 1024
      unit += 1
    }
    return "\(value)" + ["", "K", "M", "G", "T", "P"][unit]
  }

  /// A time as `nanoseconds` reads it.
  static func text(nanoseconds: UInt64) -> String {
    for (name, unit) in [
      ("s", Nanoseconds.second), ("ms", Nanoseconds.millisecond),
      ("us", Nanoseconds.microsecond),
    ] where nanoseconds.isMultiple(of: unit) {
      return "\(nanoseconds / unit)\(name)"
    }
    return "\(nanoseconds)ns"
  }

  /// A share as `millionths` reads it.
  static func text(millionths: UInt32) -> String {
    guard millionths < 1_000_000 else { return "1" }
    var digits = "\(1_000_000 + millionths)".dropFirst()
    while digits.last == "0", digits.count > 1 { digits = digits.dropLast() }
    return "0.\(digits)"
  }
}

/// Errors of disks by name, numbers of Linux.
public enum ErrnoNames {
  private static let table: [(name: String, number: Int32)] = [
    ("EPERM", 1), ("EIO", 5), ("ENXIO", 6), ("EBADF", 9), ("ENOMEM", 12), ("EACCES", 13),
    ("EBUSY", 16), ("ENODEV", 19), ("EINVAL", 22), ("EFBIG", 27), ("ENOSPC", 28), ("EROFS", 30),
    ("EPIPE", 32), ("ENODATA", 61), ("ENOLINK", 67), ("ECOMM", 70), ("EPROTO", 71),
    ("EBADMSG", 74), ("EILSEQ", 84), ("EOPNOTSUPP", 95), ("ENETDOWN", 100),
    ("ECONNABORTED", 103), ("ECONNRESET", 104), ("ENOTCONN", 107), ("ESHUTDOWN", 108),
    ("ETIMEDOUT", 110), ("EHOSTDOWN", 112), ("ESTALE", 116), ("EUCLEAN", 117),
    ("EREMOTEIO", 121), ("EDQUOT", 122), ("ENOMEDIUM", 123),
  ]

  /// The number of a name, or of its digits; nil if it is no error that a disk can give.
  public static func number(_ text: String) -> Int32? {
    let upper = text.uppercased()
    if let known = table.first(where: { $0.name == upper }) { return known.number }
    // 4 is EINTR and 11 EAGAIN: whoever performs the I/O repeats it.
    guard let number = Int32(text), number > 0, number < 4096, number != 4, number != 11
    else { return nil }
    return number
  }

  /// The name of a number, or its digits.
  public static func text(_ number: Int32) -> String {
    table.first { $0.number == number }?.name ?? "\(number)"
  }
}
