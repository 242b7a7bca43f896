// How fast a leg answers reads: smoothed latencies that fade, and a histogram that forgets.
//
// 1. A latency counts per 128 KiB begun, so that a leg is not slow because it got the large reads.
// 2. Reads that continue where the last read of the leg ended are smoothed apart from all others:
//    on a rotating disk they cost a tenth, and only there it pays to stay with a leg.
// 3. What was not measured for a while fades by a quarter each quarter of a second: a leg that was
//    slow and is not read for that reason is tried again, one read at first, after some seconds.
// 4. 0 means "not known".

import Base

/// Smoothed read latencies of one leg, in nanoseconds.
struct LegSpeed {
  static let fadeNanoseconds = 250 * Nanoseconds.millisecond
  /// What a leg of which nothing is known is taken for once a read is in flight on it.
  static let unknownNanoseconds = 100 * Nanoseconds.microsecond
  /// Below this a faded value is noise.
  static let floorNanoseconds = Nanoseconds.microsecond

  /// Reads that begin elsewhere; never below `continuing` where that is known.
  private(set) var other: UInt64 = 0
  /// Reads that continue the last one.
  private(set) var continuing: UInt64 = 0
  /// The recent reads, for a quantile.
  var recent = RecentLatency()
  /// Measured since the last fading.
  private var hasOther = false
  private var hasContinuing = false
  /// Faded since it was measured: the next measurement counts more.
  private var isOtherFaded = false
  private var isContinuingFaded = false

  /// Staying with the leg is clearly cheaper than coming to it: it has to move something.
  var isSticky: Bool { continuing > 0 && continuing * 2 < other }

  /// What the next read is expected to take on the idle leg.
  func nextNanoseconds(isContinuing: Bool) -> UInt64 {
    isContinuing && isSticky ? continuing : other
  }

  mutating func record(nanoseconds: UInt64, bytes: UInt64, isContinuing: Bool) {
    recent.record(nanoseconds: nanoseconds)
    let units = 1 + bytes >> 17
    let sample = max(units == 1 ? nanoseconds : nanoseconds / units, 1)
    if isContinuing {
      continuing = LegSpeed.smooth(continuing, sample, isFaded: isContinuingFaded)
      hasContinuing = true
      isContinuingFaded = false
    } else {
      other = LegSpeed.smooth(other, sample, isFaded: isOtherFaded)
      hasOther = true
      isOtherFaded = false
    }
    other = max(other, continuing)
  }

  private static func smooth(_ old: UInt64, _ sample: UInt64, isFaded: Bool) -> UInt64 {
    guard old > 0 else { return sample }
    return isFaded ? (old + sample) / 2 : max(1, old - old / 8 + sample / 8)
  }

  /// A quarter of a second has passed.
  mutating func fade() {
    if !hasContinuing, continuing > 0 {
      continuing -= continuing / 4
      if continuing < LegSpeed.floorNanoseconds { continuing = 0 }
      isContinuingFaded = true
    }
    if !hasOther, other > LegSpeed.floorNanoseconds {
      other = max(other - other / 4, continuing, LegSpeed.floorNanoseconds)
      isOtherFaded = true
    }
    hasOther = false
    hasContinuing = false
  }
}

/// The latencies of about the last thousand reads, in buckets a quarter of a power of two wide.
struct RecentLatency {
  static let bucketCount = 120
  /// At so many all counts are halved.
  static let countMax: UInt32 = 2048
  /// The quantile is looked up again after so many.
  static let lookUpEvery: UInt32 = 64
  /// Fewer say nothing.
  static let countMin: UInt32 = 64

  private var counts = [UInt32](repeating: 0, count: bucketCount)
  private var total: UInt32 = 0
  private var untilLookUp = RecentLatency.lookUpEvery
  /// 99 of 100 reads are at most so long; nil: too few are known.
  private(set) var p99Nanoseconds: UInt64?

  mutating func record(nanoseconds: UInt64) {
    counts[LatencyHistogram.bucket(nanoseconds: nanoseconds, of: RecentLatency.bucketCount)] += 1
    total += 1
    untilLookUp -= 1
    guard untilLookUp == 0 else { return }
    untilLookUp = RecentLatency.lookUpEvery
    lookUp()
    if total >= RecentLatency.countMax { halve() }
  }

  private mutating func lookUp() {
    guard total >= RecentLatency.countMin else { return }
    var above = total / 100
    for bucket in counts.indices.reversed() where counts[bucket] > 0 {
      if counts[bucket] > above {
        let low = UInt64(1) << UInt64(bucket / 4)
        p99Nanoseconds = (low + low * UInt64(bucket % 4 + 1) / 4) * Nanoseconds.microsecond
        return
      }
      above -= counts[bucket]
    }
  }

  private mutating func halve() {
    total = 0
    for bucket in counts.indices {
      counts[bucket] /= 2
      total += counts[bucket]
    }
  }
}

/// Where reads ended lately, and on which leg: one word each, found by the offset.
///
/// A read that begins where another one ended continues a stream. Random reads fill places too; a
/// stream survives about as many of them as there are places.
struct ReadStreams: ~Copyable {
  static let count = 256

  /// Offset of the end, with the slot in its low bits (offsets are multiples of a block); 0: none.
  private var ends = [UInt64](repeating: 0, count: count)

  private static func place(_ offset: UInt64) -> Int {
    Int((offset >> 9 &* 0x9e37_79b9_7f4a_7c15) >> 56)
  }

  /// The leg whose last read of a stream ended at `offset`.
  func leg(at offset: UInt64) -> LegSlot? {
    let word = ends[ReadStreams.place(offset)]
    guard word != 0, word & ~7 == offset else { return nil }
    return LegSlot(Int(word & 7))
  }

  /// A read that ends at `end` went to `leg`.
  mutating func note(end: UInt64, on leg: LegSlot) {
    ends[ReadStreams.place(end)] = end | UInt64(leg.raw)
  }
}
