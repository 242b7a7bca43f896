// SIZE on the command line.

import ArgumentParser

/// A number of bytes: decimal digits and, if wished, K, M, G, T or P (powers of 1024; `KiB` and
/// the like are the same), in either case.
struct ByteSize: Equatable, ExpressibleByArgument {
  /// The number.
  var bytes: UInt64

  /// Wraps a number.
  init(bytes: UInt64) { self.bytes = bytes }

  /// Nil if the text is nothing of the kind or beyond 2^64.
  init?(argument: String) {
    var digits = argument[...]
    var shift: UInt64 = 0
    let lower = argument.lowercased()
    for (index, letter) in "kmgtp".enumerated() {
      for suffix in ["\(letter)", "\(letter)ib"] where lower.hasSuffix(suffix) {
        digits = argument.dropLast(suffix.count)
        shift = UInt64(10 * (index + 1))
      }
    }
    guard
      !digits.isEmpty,
      digits.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
      ),
      let number = UInt64(digits)
    else { return nil }
    let product = number.multipliedReportingOverflow(by: 1 << shift)
    guard !product.overflow else { return nil }
    bytes = product.partialValue
  }

  /// The number as text that `init(argument:)` reads: the largest unit that divides it.
  var text: String {
    var value = bytes
    var unit = 0
    while value > 0, value.isMultiple(of: 1024), unit < 5 {
      value /= 1024
      unit += 1
    }
    return "\(value)" + ["", "K", "M", "G", "T", "P"][unit]
  }
}
