// Pages of the region map: a page that is accepted is written again as the same bytes; of two
// copies the newer one counts; a page of another set, another number or another length is none.
//
//   input: settings, sequence of the other copy, then the page (what is missing is zero)
//
// Setting bit 0: set, number and checksum are made right. Bit 1: the other copy has other words.

import Base
import MirrorFormat

enum RegionMapFuzz {
  private static let setId = Identifier(high: 0x5e7, low: 1)
  private static let page = 1
  /// Two pages; the second one is not full.
  private static let layout = Layout(
    sizeBytes: 3000 << 20, regionBytes: 1 << 20, blockBytes: 512, mapOffset: 1 << 20,
    dataOffset: 2 << 20)

  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    var input = FuzzInput(input)
    let settings = input.byte()
    let otherSequence = input.number(8)
    var bytes = input.block(Layout.pageBytes)
    if settings & 1 != 0 {
      bytes.withMutableRawSpan {
        $0.store(littleEndian: UInt32(page), at: 4)
        $0.store(bigEndian: setId.high, at: 16)
        $0.store(bigEndian: setId.low, at: 24)
      }
      let sum = Array(bytes[4...]).withRawSpan { $0.crc32c() }
      bytes.withMutableRawSpan { $0.store(littleEndian: sum, at: 0) }
    }
    let sequence = header(bytes)
    if let sequence { try check(bytes, sequence) }
    try refuse(bytes)
    try elect(bytes, sequence, otherSequence, isOther: settings & 2 != 0)
  }

  private static func header(_ bytes: [UInt8]) -> UInt64? {
    bytes.withRawSpan { RegionMapPage.decodeHeader($0, page: page, setId: setId) }
  }

  private static func words(_ bytes: [UInt8]) -> [UInt16] {
    var words = [UInt16](repeating: 0, count: Layout.wordsPerPage)
    bytes.withRawSpan { RegionMapPage.readWords($0, into: &words, firstWord: 0) }
    return words
  }

  private static func encode(_ words: [UInt16], _ sequence: UInt64) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xee, count: Layout.pageBytes)
    bytes.withMutableRawSpan {
      RegionMapPage.encode(
        page: page, sequence: sequence, setId: setId, words: words, firstWord: 0, into: &$0)
    }
    return bytes
  }

  private static func check(_ bytes: [UInt8], _ sequence: UInt64) throws(FuzzProblem) {
    let words = words(bytes)
    try require(encode(words, sequence) == bytes, "a page is another one when it is written again")
    try require(sequence < .max, "there is no next sequence")
    let isUnwritten = words.contains { RegionWord(raw: $0).isUnwritten }
    try require(
      bytes.withRawSpan { RegionMapPage.hasUnwritten($0) } == isUnwritten,
      "unwritten regions are not found")
  }

  private static func refuse(_ bytes: [UInt8]) throws(FuzzProblem) {
    let other = Identifier(high: 0x5e7, low: 2)
    let answers = bytes.withRawSpan { span in
      [
        RegionMapPage.decodeHeader(span, page: page + 1, setId: setId),
        RegionMapPage.decodeHeader(span, page: page, setId: other),
        RegionMapPage.decodeHeader(span.extracting(0..<4095), page: page, setId: setId),
      ]
    }
    // A page of another number or set can be right by itself; it cannot be right twice.
    if header(bytes) != nil {
      try require(answers.allSatisfy { $0 == nil }, "a page is taken for another one")
    }
    try require(answers[2] == nil, "a part of a page is a page")
  }

  private static func elect(
    _ bytes: [UInt8], _ sequence: UInt64?, _ otherSequence: UInt64, isOther: Bool
  ) throws(FuzzProblem) {
    var otherWords = words(bytes)
    if isOther { otherWords[0] ^= RegionWord.intent }
    let other = encode(otherWords, otherSequence)
    let isOtherValid = header(other) != nil
    for first in 0...1 {
      var map = LegMap(layout: layout)
      let pages = first == 0 ? [bytes, other] : [other, bytes]
      for copy in 0...1 {
        pages[copy].withRawSpan { map.read(page: page, copy: copy, bytes: $0, setId: setId) }
      }
      try require(
        map.hasBothCopies(page: page) == (sequence != nil && isOtherValid), "copies are lost")
      let newest = map.newest(page: page)
      let best = max(sequence ?? 0, isOtherValid ? otherSequence : 0)
      guard let newest else {
        try require(sequence == nil && !isOtherValid, "a valid copy is not seen")
        continue
      }
      try require(newest.sequence == best, "the older copy wins")
      let winner = words(pages[newest.copy])
      let count = layout.regionCount - Layout.wordsPerPage
      try require(
        Array(map.words[Layout.wordsPerPage...]) == Array(winner[..<count]),
        "the words are not those of the newer copy")
      try require(map.words[..<Layout.wordsPerPage].allSatisfy { $0 == 0 }, "of another page")
    }
  }
}
