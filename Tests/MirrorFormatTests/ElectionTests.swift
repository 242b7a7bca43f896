// Goal: the right copy wins, whatever happened to the other. Method: tables; a leg's map filled
// from pages in every order.
import Base
import Testing

@testable import MirrorFormat

@Suite("Election")
struct ElectionTests {
  private func label(_ sequence: UInt64, set: UInt64 = 1, leg: UInt64 = 1) throws -> Label {
    var random = PRNG(seed: 41)
    var label = try Samples.label(&random)
    label.sequence = sequence
    label.lineage.current.counter = 7
    label.setId = Identifier(high: set, low: 0)
    label.legId = Identifier(high: leg, low: 0)
    return label
  }

  @Test("takes the label with the higher sequence; the other copy is written next")
  func higherWins() throws {
    let first = try Election.label(.success(label(4)), .success(label(5))).get()
    #expect(first.copy == 1 && first.nextCopy == 0 && first.nextSequence == 6)
    #expect(first.isOtherCopyValid)
    let second = try Election.label(.success(label(6)), .success(label(5))).get()
    #expect(second.copy == 0 && second.nextCopy == 1 && second.nextSequence == 7)
  }

  @Test("takes the valid label when the other is torn, rotten, unreadable or not there")
  func oneLeft() throws {
    for error in [FormatError.checksum, .noLabel, .unreadable(errno: 5), .invalidField("x")] {
      let second = try Election.label(.failure(error), .success(label(5))).get()
      #expect(second.copy == 1 && !second.isOtherCopyValid && second.label.sequence == 5)
      let first = try Election.label(.success(label(5)), .failure(error)).get()
      #expect(first.copy == 0 && !first.isOtherCopyValid)
    }
  }

  @Test("never bypasses a copy of a later version")
  func laterVersion() throws {
    let later = FormatError.unknownFeatures(1)
    #expect(try Election.label(.success(label(5)), .failure(later)) == .failure(later))
    #expect(try Election.label(.failure(later), .success(label(5))) == .failure(later))
    #expect(Election.label(.failure(.noLabel), .failure(later)) == .failure(later))
    #expect(Election.label(.failure(later), .failure(.noLabel)) == .failure(later))
  }

  @Test("refuses a label that leaves too few to count on, whatever the other copy is")
  func fewLeft() throws {
    let limit: UInt64 = 1 << 62
    #expect(try Election.label(.success(label(limit - 1)), .success(label(5))).isSuccess)
    for other in [.failure(.checksum), .success(try label(5))] as [Result<Label, FormatError>] {
      let sequence = Election.label(.success(try label(limit)), other)
      #expect(!sequence.isSuccess)
      var late = try label(6)
      late.lineage.current.counter = limit
      guard case .failure(let error) = Election.label(other, .success(late)) else {
        Issue.record("a generation of 2^62 is taken")
        continue
      }
      #expect(error.description.contains("generation"))
    }
  }

  @Test("refuses two labels of different sets or legs, and says most where both are bad")
  func disagreement() throws {
    #expect(
      try Election.label(.success(label(5)), .success(label(6, set: 2)))
        == .failure(.copiesDisagree))
    #expect(
      try Election.label(.success(label(5)), .success(label(6, leg: 2)))
        == .failure(.copiesDisagree))
    #expect(Election.label(.failure(.noLabel), .failure(.checksum)) == .failure(.checksum))
    #expect(Election.label(.failure(.checksum), .failure(.noLabel)) == .failure(.checksum))
    #expect(Election.label(.failure(.noLabel), .failure(.noLabel)) == .failure(.noLabel))
  }

  @Test("a torn label write leaves the label before it in force, whatever subset was written")
  func tornCommit() throws {
    let old = try Election.label(.success(label(4)), .success(label(5))).get()
    let next = try label(old.nextSequence)
    let before = Samples.bytes(try label(4))
    for subset in 0..<256 {
      let written = Samples.decode(
        Samples.torn(old: before, new: Samples.bytes(next), subset: subset))
      let elected = try Election.label(written, .success(label(5))).get()
      #expect(elected.label == (written == .success(next) ? next : old.label))
      #expect(subset != 255 || elected.label == next)
    }
  }

  @Test("a leg's map holds the newest valid copy of each page, in whatever order they are read")
  func legMap() throws {
    let setId = Identifier(high: 9, low: 9)
    let layout = try Layout.plan(
      sizeBytes: 3000 * 65536, regionBytes: 65536, blockBytes: 512)
    let old = Array(repeating: UInt16(1), count: layout.regionCount)
    let new = Array(repeating: UInt16(2), count: layout.regionCount)
    for order in [[0, 1], [1, 0]] {
      var map = LegMap(layout: layout)
      #expect(map.pageCount == 2 && map.newest(page: 0) == nil)
      for copy in order {
        // Page 0: copy 1 is newer. Page 1: copy 1 has rotted.
        let newer = copy == 1
        let first = Samples.page(
          0, sequence: newer ? 8 : 7, setId: setId, words: newer ? new : old, firstWord: 0)
        first.withRawSpan { map.read(page: 0, copy: copy, bytes: $0, setId: setId) }
        var second = Samples.page(
          1, sequence: newer ? 8 : 7, setId: setId, words: newer ? new : old, firstWord: 2032)
        if newer { second[100] ^= 1 }
        second.withRawSpan { map.read(page: 1, copy: copy, bytes: $0, setId: setId) }
      }
      #expect(map.newest(page: 0)?.copy == 1 && map.newest(page: 0)?.sequence == 8)
      #expect(map.newest(page: 1)?.copy == 0 && map.newest(page: 1)?.sequence == 7)
      #expect(map.copies(page: 1).1 == .invalid)
      #expect(map.words[..<2032].allSatisfy { $0 == 2 })
      #expect(map.words[2032...].allSatisfy { $0 == 1 })
    }
  }

  @Test("a lineage remembers its last 16 ancestors")
  func lineage() {
    var line = Lineage(
      current: Generation(counter: 1, id: Identifier(high: 1, low: 0)), parents: [])
    for number in 2...40 {
      line = line.successor(id: Identifier(high: UInt64(number), low: 0))
      #expect(line.current.counter == UInt64(number))
      #expect(line.parents.first == Identifier(high: UInt64(number) - 1, low: 0))
      #expect(line.parents.count == min(number - 1, 16))
      #expect(!line.isDescendant(of: line.current.id))
    }
    #expect(line.isDescendant(of: Identifier(high: 24, low: 0)))
    #expect(!line.isDescendant(of: Identifier(high: 23, low: 0)))
  }

  @Test("an identifier's text is a lower-case UUID and nothing else is read as one")
  func identifierText() {
    let text = "0d66f32f-a09b-4b45-8e8f-56d5e8f5ecd3"
    #expect(Identifier(parsing: text)?.description == text)
    #expect(Identifier(parsing: text.uppercased())?.description == text)
    #expect(Identifier(parsing: text)?.high == 0x0d66_f32f_a09b_4b45)
    #expect(Identifier(parsing: text)?.low == 0x8e8f_56d5_e8f5_ecd3)
    #expect(Identifier.zero.description == "00000000-0000-0000-0000-000000000000")
    #expect(
      Identifier(high: .max, low: .max).description == "ffffffff-ffff-ffff-ffff-ffffffffffff")
    for bad in [
      "", "0", String(text.dropLast()), text + "0", "{\(text)}",
      text.replacing("-", with: ""), text.replacing("f", with: "g"),
      "0d66f32fa-09b-4b45-8e8f-56d5e8f5ecd3",
    ] { #expect(Identifier(parsing: bad) == nil, "\(bad)") }
  }

  @Test("a region word names its bits")
  func regionWord() {
    var word = RegionWord(raw: 0xc005)
    #expect(word.hasIntent && word.isUnwritten && word.stale == LegSet(bits: 5))
    word.stale = LegSet(bits: 2)
    #expect(word.raw == 0xc002)
    #expect(RegionWord.intent == 0x8000 && RegionWord.unwritten == 0x4000)
    #expect(RegionWord.staleMask == 0xff)
  }
}
