// Labels: whatever the bytes are they are refused or read; what is read is in order by itself, has
// room to count on, and is written again as the same bytes, but for those that say nothing.
//
//   input: settings, then the label (what is missing of its 4096 bytes is zero)
//
// Setting bit 0: the checksum is made right, and the salt of the first sector is put into the others,
// so that changes of the payload are looked at. Bits 1...3: what the other copy is.

import Base
import MirrorFormat

enum LabelFuzz {
  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    var input = FuzzInput(input)
    let settings = input.byte()
    var bytes = input.block(Label.byteCount)
    if settings & 1 != 0 { LabelBytes.seal(&bytes) }
    let result = decode(bytes)
    switch result {
    case .failure(let error): try require(!error.description.isEmpty, "a refusal says why")
    case .success(let label):
      try check(label)
      try rewrite(label, bytes)
    }
    // Wherever it is cut off, it is no label.
    let part = Array(bytes.prefix(Int(settings) * 16))
    if case .success = decode(part) { throw FuzzProblem("a part of a label is a label") }
    try elect(result, bytes, settings >> 1 & 7)
  }

  static func decode(_ bytes: [UInt8]) -> Result<Label, FormatError> {
    bytes.withRawSpan { span in
      do throws(FormatError) { return .success(try Label.decode(span)) } catch {
        return .failure(error)
      }
    }
  }

  /// What everybody relies on who has a label.
  private static func check(_ label: Label) throws(FuzzProblem) {
    try require(label.layout.problem == nil, "a layout with a problem")
    try require(Label.nameProblem(label.name) == nil, "a name with a problem")
    try require(label.members.count == LegSlot.count, "not 8 members")
    try require(!label.legId.isZero && !label.lineage.current.id.isZero, "an id of zero")
    let layout = label.layout
    try require(
      layout.regionCount > 0 && layout.regionCount <= Layout.regionCountMax, "too many regions")
    let lastPage = layout.pageOffset(page: layout.pageCount - 1, copy: 1)
    try require(lastPage + UInt64(Layout.pageBytes) == layout.mapEnd, "the map has another end")
    try require(
      layout.pvBytes > layout.dataOffset && layout.pvBytes < 1 << 63, "a PV beyond 2^63 bytes")
    _ = (label.isOfAddedPV, label.isOfSpare, label.features.allowsWriting)
    // All of these count on from here, for ever.
    let elected = ElectedLabel(label: label, copy: 0, isOtherCopyValid: false)
    try require(elected.nextSequence > label.sequence, "there is no next sequence")
    let next = label.lineage.successor(id: Identifier(high: 1, low: 1))
    try require(
      next.current.counter > label.lineage.current.counter, "there is no next generation")
    try require(next.isDescendant(of: label.lineage.current.id), "the next one is a stranger")
  }

  private static func rewrite(_ label: Label, _ bytes: [UInt8]) throws(FuzzProblem) {
    let again = LabelBytes.encode(label)
    guard case .success(var copy) = decode(again) else {
      throw FuzzProblem("a label that was accepted is refused when it is written again")
    }
    copy.features.compatible = label.features.compatible
    try require(copy == label, "a label is another one when it is written again")
    for offset in LabelBytes.meaningful(label) where again[offset] != bytes[offset] {
      throw FuzzProblem("byte \(offset) was \(bytes[offset]) and is written as \(again[offset])")
    }
    guard case .success(let third) = decode(again) else { return }
    try require(LabelBytes.encode(third) == again, "written twice it has two forms")
  }

  /// The election between this copy and another one, both ways.
  private static func elect(
    _ first: Result<Label, FormatError>, _ bytes: [UInt8], _ kind: UInt8
  ) throws(FuzzProblem) {
    var other = bytes
    switch kind {
    case 1: other[47] ^= 1  // the sequence
    case 2: other[40] ^= 1
    case 3: other[48] ^= 1  // the set
    case 4: other[16] ^= 2  // a later version
    case 5: other[64] ^= 1  // the leg
    case 6: other[0] = 0
    default: break
    }
    LabelBytes.seal(&other)
    if kind == 7 { other[4095] ^= 1 }
    let second = decode(other)
    let result = Election.label(first, second)
    let swapped = Election.label(second, first)
    switch (result, swapped) {
    case (.success(let one), .success(let two)):
      try require(one.isOtherCopyValid == two.isOtherCopyValid, "it depends on the order")
      try require(one.label.sequence == two.label.sequence, "another label wins in another order")
      try require(one.nextCopy == 1 - one.copy, "the newest copy would be written over")
      if case .success(let label) = first {
        try require(one.label.sequence >= label.sequence, "the older copy wins")
      }
      if case .success(let label) = second {
        try require(one.label.sequence >= label.sequence, "the older copy wins")
      }
    case (.failure, .failure): break
    default: throw FuzzProblem("whether there is a label depends on the order of the copies")
    }
    for copy in [first, second] {
      guard case .failure(let error) = copy, error.isFromLaterVersion else { continue }
      if case .success = result { throw FuzzProblem("a later version's label is bypassed") }
    }
  }
}

/// A label's bytes; the offsets are those of the table in Label.swift.
enum LabelBytes {
  private static let saltOffsets = [1016, 1528, 2040, 2552, 3064, 3576, 4080]

  static func encode(_ label: Label) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xee, count: Label.byteCount)
    bytes.withMutableRawSpan { label.encode(into: &$0) }
    return bytes
  }

  /// Makes salt and checksum right.
  static func seal(_ bytes: inout [UInt8]) {
    let salt = Array(bytes[1016..<1024])
    for offset in saltOffsets { bytes.replaceSubrange(offset..<(offset + 8), with: salt) }
    let sum = Array(bytes[..<4092]).withRawSpan { $0.crc32c() }
    bytes.withMutableRawSpan { $0.store(littleEndian: sum, at: 4092) }
  }

  /// The bytes that a reader of this version goes by: those of the table that are neither reserved
  /// nor made of single flags.
  static func meaningful(_ label: Label) -> [Int] {
    var offsets = Array(0..<18) + Array(20..<24) + Array(28..<36) + Array(40..<82)
    offsets += Array(84..<120) + Array(128..<185)
    offsets += Array(192..<(192 + 16 * label.lineage.parents.count))
    for member in 0..<LegSlot.count {
      let base = 448 + 32 * member
      offsets += Array(base..<(base + 17)) + [base + 18] + Array((base + 24)..<(base + 32))
    }
    offsets += Array(704..<(706 + label.name.utf8.count)) + Array(1016..<1024)
    return offsets + Array(1024..<1152)
  }
}
