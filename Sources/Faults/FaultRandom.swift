// Draws of faults: the same on every machine, so integers only.

import Base

extension FaultDelay {
  /// A delay in nanoseconds.
  func draw(_ random: inout PRNG) -> UInt64 {
    switch self {
    case .fixed(let nanoseconds): return nanoseconds
    case .uniform(let least, let most):
      guard most > least else { return least }
      guard most - least < UInt64.max else { return random.next() }
      return least + random.below(most - least + 1)
    case .exponential(let mean): return FaultDelay.exponential(mean: mean, random.next())
    }
  }

  /// `-mean * ln(u)`, where u = (bits + 1) / 2^64 is uniform in (0, 1].
  ///
  /// The logarithm is taken bit by bit (square the mantissa; above 2 is a one), 32 bits of it:
  /// far finer than any clock that a delay is measured with.
  static func exponential(mean: UInt64, _ bits: UInt64) -> UInt64 {
    guard bits < UInt64.max else { return 0 }
    let value = bits + 1
    let leading = UInt64(value.leadingZeroBitCount)
    var mantissa = value << leading
    var fraction: UInt64 = 0
    for bit in 1...32 {
      // mantissa / 2^63 is in [1, 2); so is its square after halving where it is 2 or more.
      let square = mantissa.multipliedFullWidth(by: mantissa)
      if square.high >> 63 == 1 {
        fraction |= 1 << UInt64(32 - bit)
        mantissa = square.high
      } else {
        mantissa = square.high << 1 | square.low >> 63
      }
    }
    // -log2(u) with 32 bits after the point, times ln 2.
    let logarithm = (leading + 1) << 32 - fraction
    let natural = logarithm.multipliedFullWidth(by: 0xb172_17f7_d1cf_79ac).high
    let product = mean.multipliedFullWidth(by: natural)
    guard product.high >> 32 == 0 else { return UInt64.max }
    return product.high << 32 | product.low >> 32
  }
}

/// Seeds.
enum FaultSeed {
  /// The seed of a fault that has none of its own: from the set's and the name (FNV-1a).
  static func derive(_ seed: UInt64, name: String) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
    return hash ^ seed
  }
}
