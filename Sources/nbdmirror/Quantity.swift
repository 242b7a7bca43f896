// Numbers for people: sizes, rates, shares, durations. Pure.

/// Texts of quantities.
enum Quantity {
  /// Bytes with three significant digits and a binary unit: `0 B`, `640 KiB`, `1.50 GiB`.
  static func bytes(_ count: UInt64) -> String {
    if count < 1024 { return "\(count) B" }
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var unit = 0
    // In hundredths of the unit, so that all is integer; the shift keeps 2^64 in range.
    var whole = count
    while whole >> 10 >= 1024 {
      whole >>= 10
      unit += 1
    }
    var hundredths = (whole * 100 + 512) >> 10
    if hundredths >= 1023_50 && unit + 1 < units.count {
      hundredths = (hundredths + 512) >> 10
      unit += 1
    }
    return "\(significant(hundredths)) \(units[unit])"
  }

  /// A rate: `85.0 MiB/s`.
  static func rate(bytesPerSecond: UInt64) -> String { bytes(bytesPerSecond) + "/s" }

  /// Percent with `digits` digits, rounded down, so that 100 means all.
  static func percent(_ value: Double, digits: Int) -> String {
    var scale: UInt64 = 1
    for _ in 0..<digits { scale *= 10 }
    let bounded = value.isFinite ? min(max(value, 0), 100) : 0
    let scaled = UInt64((bounded * Double(scale)).rounded(.down))
    if digits == 0 { return "\(scaled)" }
    let fraction = String(scaled % scale)
    return "\(scaled / scale).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
  }

  /// A duration as on a clock: `0:21`, `1:02:03`, `2d 03:00:00`.
  static func clock(seconds: UInt64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60)
    let tail = "\(two(minutes)):\(two(seconds % 60))"
    if days > 0 { return "\(days)d \(two(hours)):\(tail)" }
    if hours > 0 { return "\(hours):\(tail)" }
    return "\(minutes):\(two(seconds % 60))"
  }

  /// A duration in its two largest units: `12s`, `3m 20s`, `2h 3m`, `5d 1h`.
  static func span(seconds: UInt64) -> String {
    if seconds < 60 { return "\(seconds)s" }
    if seconds < 3600 { return "\(seconds / 60)m \(seconds % 60)s" }
    if seconds < 86400 { return "\(seconds / 3600)h \(seconds / 60 % 60)m" }
    return "\(seconds / 86400)d \(seconds / 3600 % 24)h"
  }

  /// Microseconds with at most three significant digits; `-` if unknown.
  static func microseconds(_ value: Double?) -> String {
    guard let value, value.isFinite, value >= 0, value < 1e15 else { return "-" }
    return value < 10 ? significant(UInt64((value * 100).rounded())) : "\(UInt64(value.rounded()))"
  }

  /// `hundredths / 100` with three significant digits.
  private static func significant(_ hundredths: UInt64) -> String {
    if hundredths >= 99_95 { return "\((hundredths + 50) / 100)" }
    if hundredths >= 10_00 {
      let tenths = (hundredths + 5) / 10
      return "\(tenths / 10).\(tenths % 10)"
    }
    return "\(hundredths / 100).\(two(hundredths % 100))"
  }

  private static func two(_ value: UInt64) -> String { value < 10 ? "0\(value)" : "\(value)" }
}
