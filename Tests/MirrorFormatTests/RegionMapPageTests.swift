// Goal: a page is believed only if it is whole, of this set and at its place. Method: as for
// labels.
import Base
import Testing

@testable import MirrorFormat

@Suite("Region map page")
struct RegionMapPageTests {
  private let setId = Identifier(high: 0x1234, low: 0x5678)

  private func words(_ count: Int, seed: UInt64) -> [UInt16] {
    var random = PRNG(seed: seed)
    return (0..<count).map { _ in UInt16(truncatingIfNeeded: random.next()) }
  }

  private func sequence(_ bytes: [UInt8], page: Int, set: Identifier? = nil) -> UInt64? {
    bytes.withRawSpan { RegionMapPage.decodeHeader($0, page: page, setId: set ?? setId) }
  }

  @Test("gives back its words; what lies beyond the last region is 0")
  func roundTrip() {
    for count in [1, 2031, 2032, 2033, 4064, 5000] {
      let words = words(count, seed: UInt64(count))
      var read = [UInt16](repeating: 0xaaaa, count: count)
      let pages = (count + 2031) / 2032
      for page in 0..<pages {
        let bytes = Samples.page(
          page, sequence: 9, setId: setId, words: words, firstWord: page * 2032)
        #expect(sequence(bytes, page: page) == 9)
        bytes.withRawSpan {
          RegionMapPage.readWords($0, into: &read, firstWord: page * 2032)
        }
        let used = 32 + 2 * min(count - page * 2032, 2032)
        #expect(bytes[used...].allSatisfy { $0 == 0 })
      }
      #expect(read == words)
    }
  }

  @Test("stands at the offsets that the documentation names")
  func golden() {
    let bytes = Samples.page(
      3, sequence: 0x0102, setId: Identifier(high: 0xa1a2 << 48, low: 0xff), words: [0x8001],
      firstWord: 0)
    #expect(Array(bytes[4..<16]) == [3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0])
    #expect(bytes[16] == 0xa1 && bytes[17] == 0xa2 && bytes[31] == 0xff)
    #expect(bytes[32] == 0x01 && bytes[33] == 0x80 && bytes[34] == 0)
    let sum = Array(bytes[4...]).withRawSpan { $0.crc32c() }
    #expect(bytes.withRawSpan { $0.littleEndianUInt32(at: 0) } == sum)
  }

  @Test("is refused after any error in a single byte, when cut off, and when all zeros")
  func errors() {
    var random = PRNG(seed: 31)
    let bytes = Samples.page(
      1, sequence: 5, setId: setId, words: words(4064, seed: 3), firstWord: 2032)
    for index in bytes.indices {
      var wrong = bytes
      wrong[index] ^= 1 << UInt8(random.below(8))
      #expect(sequence(wrong, page: 1) == nil, "byte \(index)")
    }
    for count in [0, 1, 31, 32, 512, 4095] {
      #expect(sequence(Array(bytes[..<count]), page: 1) == nil)
    }
    #expect(sequence(bytes + [0], page: 1) == nil)
    #expect(sequence([UInt8](repeating: 0, count: 4096), page: 0, set: .zero) == nil)
  }

  @Test("is refused with a sequence that leaves no next one")
  func lastSequence() {
    for (value, isValid) in [(UInt64(1) << 63 - 1, true), (1 << 63, false), (UInt64.max, false)] {
      let bytes = Samples.page(1, sequence: value, setId: setId, words: [1], firstWord: 0)
      #expect(sequence(bytes, page: 1) == (isValid ? value : nil), "\(value)")
    }
  }

  @Test("is refused at another place and in another set")
  func misplaced() {
    let bytes = Samples.page(1, sequence: 5, setId: setId, words: [1], firstWord: 0)
    #expect(sequence(bytes, page: 1) == 5)
    #expect(sequence(bytes, page: 0) == nil)
    #expect(sequence(bytes, page: 2) == nil)
    #expect(sequence(bytes, page: 1, set: Identifier(high: 0x1234, low: 0x5679)) == nil)
  }

  @Test("is old, new or refused after any subset of its sectors was written")
  func tornSectors() {
    let old = Samples.page(0, sequence: 7, setId: setId, words: words(2032, seed: 1), firstWord: 0)
    let new = Samples.page(0, sequence: 9, setId: setId, words: words(2032, seed: 2), firstWord: 0)
    for subset in 0..<256 {
      let bytes = Samples.torn(old: old, new: new, subset: subset)
      let expected: UInt64? = subset == 0 ? 7 : subset == 255 ? 9 : nil
      #expect(sequence(bytes, page: 0) == expected, "sectors \(subset)")
    }
  }

  @Test("never traps on random bytes")
  func noise() {
    var random = PRNG(seed: 33)
    for _ in 0..<500 {
      let bytes = (0..<random.int(in: 0...5000)).map { _ in
        UInt8(truncatingIfNeeded: random.next())
      }
      #expect(sequence(bytes, page: random.int(in: 0...100)) == nil)
    }
  }
}
