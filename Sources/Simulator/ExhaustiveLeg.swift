// A leg of the exhaustive runs: a value, so that a state can be kept, copied and told apart.
//
// A leg is a list of *units*, the things that a crash leaves whole: 4 metadata pages (label A and
// B, region map page 0 A and B) and the 512-byte sectors of the data. A unit's value is 64 bits: of
// a page its number in `ExhaustivePages`, of a sector the ids of its 4 cells of 128 bytes. The
// engine looks into data only for zeros and differences, so ids say as much as bytes would.
//
// 1. `image` is what reads see, `stable` what a power loss leaves for sure, `cache` what is in the
//    first and may be missing in the second, oldest first.
// 2. A flush persists what was in the cache when it was issued. A durable write persists itself
//    and supersedes what the cache holds of its units.
// 3. What a failed flush was to persist (`lost`) never reaches the disk: reads see it until the
//    crash, and after it perhaps not.
// 4. A bad block is a value as well: what tears or loses the write that makes it good leaves it bad.
// 5. A page that is torn is torn at 512 bytes; what is neither the old nor the new page then is
//    one of at most two torn ones, which differ in which half is new.

import Base
import MirrorFormat

/// The contents of metadata pages, each kept once per run.
struct ExhaustivePages {
  private var contents: [[UInt8]] = [[UInt8](repeating: 0, count: Layout.pageBytes)]
  private(set) var hashes: [UInt64] = [0]
  private var labels: [Result<ElectedLabel, FormatError>?] = [nil]

  func bytes(_ number: UInt64) -> [UInt8] { contents[Int(number)] }

  /// Two checksums of different parts: equal for equal pages in every run.
  private static func hash(_ bytes: [UInt8]) -> UInt64 {
    bytes.withRawSpan { span in
      UInt64(span.crc32c()) << 32 | UInt64(span.extracting(0..<1024).crc32c())
    }
  }

  /// The number of a page of this content.
  mutating func number(of bytes: [UInt8]) -> UInt64 {
    let hash = bytes.contains { $0 != 0 } ? ExhaustivePages.hash(bytes) : 0
    for number in hashes.indices.reversed() where hashes[number] == hash {
      if hash == 0 || contents[number] == bytes { return UInt64(number) }
    }
    contents.append(bytes)
    hashes.append(hash)
    labels.append(nil)
    return UInt64(contents.count - 1)
  }

  /// The label on a page.
  mutating func label(_ number: UInt64) -> Result<Label, FormatError> {
    if case .success(let known)? = labels[Int(number)] { return .success(known.label) }
    if case .failure(let error)? = labels[Int(number)] { return .failure(error) }
    let found: Result<Label, FormatError> = contents[Int(number)].withRawSpan { span in
      do throws(FormatError) { return .success(try Label.decode(span)) } catch {
        return .failure(error)
      }
    }
    labels[Int(number)] = found.map { ElectedLabel(label: $0, copy: 0, isOtherCopyValid: true) }
    return found
  }

  /// What a page may be when a write of `new` over `old` is torn.
  mutating func torn(old: UInt64, new: UInt64) -> [UInt64] {
    guard old != new else { return [] }
    let sector = ExhaustiveLeg.sectorBytes
    var result: [UInt64] = []
    // The first sector alone, and all but the first: what tells pages apart is at both ends.
    for isFirstNew in [true, false] {
      let head = contents[Int(isFirstNew ? new : old)]
      let tail = contents[Int(isFirstNew ? old : new)]
      let mixed = number(of: Array(head[..<sector] + tail[sector...]))
      guard mixed != old, mixed != new else { continue }
      // Of two that are no page at all one will do.
      if !isPage(mixed), result.contains(where: { !isPage($0) }) { continue }
      result.append(mixed)
    }
    return result
  }
}

extension ExhaustivePages {
  /// Whether its checksum is right: that of a label, or of a page of the region map.
  private func isPage(_ number: UInt64) -> Bool {
    let end = Layout.pageBytes
    return contents[Int(number)].withRawSpan { span in
      span.littleEndianUInt32(at: end - 4) == span.extracting(0..<end - 4).crc32c()
        || span.littleEndianUInt32(at: 0) == span.extracting(4..<end).crc32c()
    }
  }
}

/// A write that may be missing after a power loss.
struct ExhaustiveCached {
  var unit: Int
  var value: UInt64
  var mark: UInt32
}

/// A leg as a value.
struct ExhaustiveLeg {
  static let sectorBytes = 512
  static let cellBytes = 128
  /// Units before the data.
  static let metaUnits = 4
  /// What a new leg holds where nobody wrote.
  static let garbage: UInt64 = 0xeeee_eeee_eeee_eeee

  /// A sector whose content changed behind everybody's back: only a comparison of legs finds it.
  static let damage: UInt64 = 0xdada_dada_dada_dada
  /// A sector that cannot be read until it is written.
  static let unreadable: UInt64 = 0xbadb_badb_badb_badb

  let legId: Identifier
  private(set) var image: [UInt64]
  private(set) var stable: [UInt64]
  private(set) var cache: [ExhaustiveCached] = []
  private(set) var lost: [Int] = []
  private(set) var mark: UInt32 = 0

  init(legId: Identifier, layout: Layout) {
    self.legId = legId
    let sectors = Int(layout.sizeBytes) / ExhaustiveLeg.sectorBytes
    image = Array(repeating: 0, count: ExhaustiveLeg.metaUnits + sectors)
    stable = image
  }

  /// First unit of an aligned range of the PV; nil where there is no memory.
  static func unit(offset: UInt64, count: UInt64, layout: Layout) -> Int? {
    if offset >= layout.dataOffset {
      guard offset + count <= layout.pvBytes else { return nil }
      return metaUnits + Int(offset - layout.dataOffset) / sectorBytes
    }
    guard count == UInt64(Layout.pageBytes) else { return nil }
    for copy in 0...1 {
      if offset == Layout.labelOffset(copy: copy) { return copy }
      if offset == layout.pageOffset(page: 0, copy: copy) { return 2 + copy }
    }
    return nil
  }

  // MARK: Writing

  mutating func write(_ values: [UInt64], at unit: Int, isDurable: Bool) {
    for index in values.indices { write(values[index], unit: unit + index, isDurable: isDurable) }
  }

  private mutating func write(_ value: UInt64, unit: Int, isDurable: Bool) {
    image[unit] = value
    if !lost.isEmpty { lost.removeAll { $0 == unit } }
    if isDurable {
      if !cache.isEmpty { cache.removeAll { $0.unit == unit } }
      stable[unit] = value
    } else {
      mark += 1
      cache.append(ExhaustiveCached(unit: unit, value: value, mark: mark))
    }
  }

  mutating func flushed(mark: UInt32) {
    var kept: [ExhaustiveCached] = []
    for write in cache {
      if write.mark <= mark { stable[write.unit] = write.value } else { kept.append(write) }
    }
    cache = kept
  }

  /// The flush failed: what it was to persist never will be.
  mutating func flushFailed(mark: UInt32) {
    for write in cache where write.mark <= mark && !lost.contains(write.unit) {
      lost.append(write.unit)
    }
    cache.removeAll { $0.mark <= mark }
  }

  /// What a failed flush did not persist is tried again by the next one.
  mutating func keepLost() {
    for unit in lost {
      mark += 1
      cache.append(ExhaustiveCached(unit: unit, value: image[unit], mark: mark))
    }
    lost.removeAll()
  }

  /// The disk as a crash left it: `changes` on top of what reads saw, or of what was stable.
  func crashed(losingPower: Bool, _ changes: [(unit: Int, value: UInt64)]) -> ExhaustiveLeg {
    var leg = self
    if losingPower { leg.image = leg.stable }
    for change in changes { leg.image[change.unit] = change.value }
    leg.stable = leg.image
    leg.cache.removeAll()
    leg.lost.removeAll()
    return leg
  }

  /// Puts down what was there before the first start.
  mutating func preset(_ value: UInt64, unit: Int) {
    image[unit] = value
    stable[unit] = value
  }

  /// A metadata page rots.
  mutating func rot(unit: Int, page: UInt64) { preset(page, unit: unit) }

  /// Overwrites labels and map, as bringing a PV in as a new leg does.
  mutating func eraseMetadata() {
    for unit in 0..<ExhaustiveLeg.metaUnits { preset(0, unit: unit) }
    cache.removeAll { $0.unit < ExhaustiveLeg.metaUnits }
  }

  /// The server opened it: what can be read is durable from now on.
  mutating func opened() {
    cache.removeAll()
    lost.removeAll()
    stable = image
  }

  // MARK: Reading

  /// The elected label, by what reads see.
  func label(_ pages: inout ExhaustivePages) -> Result<ElectedLabel, FormatError> {
    Election.label(pages.label(image[0]), pages.label(image[1]))
  }

  /// The region map, by what reads see.
  func map(_ pages: ExhaustivePages, setId: Identifier, layout: Layout) -> LegMap {
    var map = LegMap(layout: layout)
    for copy in 0...1 {
      pages.bytes(image[2 + copy]).withRawSpan { span in
        map.read(page: 0, copy: copy, bytes: span, setId: setId)
      }
    }
    return map
  }

  /// What tells this disk from others; `unitHash` says what a changed unit adds or takes away.
  func hash(_ pages: ExhaustivePages, losingPower: Bool) -> UInt64 {
    var hash = legId.low
    let units = losingPower ? stable : image
    for unit in units.indices where units[unit] != 0 {
      hash ^= ExhaustiveLeg.unitHash(units[unit], unit: unit, pages)
    }
    return hash
  }

  static func unitHash(_ value: UInt64, unit: Int, _ pages: ExhaustivePages) -> UInt64 {
    let content = unit < metaUnits ? pages.hashes[Int(value)] : value
    return content == 0 ? 0 : mix(content &+ UInt64(unit) &* 0x9e37_79b9_7f4a_7c15)
  }

  static func mix(_ value: UInt64) -> UInt64 {
    var value = value
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
