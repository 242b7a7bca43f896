// A leg in memory: what its reads see, what a power loss leaves of it.
//
// 1. `image` is what reads see; `stable` is what survives a power loss; `cache` are the writes
//    that are in the first and may be missing in the second, oldest first.
// 2. A flush persists the writes that were in the cache when it was issued. A durable write
//    persists itself only; older cached writes of the same bytes are superseded by it. A cache that
//    is full persists its oldest writes by itself, as disks do.
// 3. A power loss keeps a random subset of the cached sectors (512 bytes).
// 4. A failed flush loses what it was to persist, as Linux does: reads still see it until the
//    next crash or reopening, the disk never does.
//
// Only labels, region map and data have memory; the gaps between them do not exist.

import Base
import MirrorEngine
import MirrorFormat

struct CachedWrite {
  var sequence: UInt64
  /// Place in the images.
  var place: Int
  var count: Int
  /// Place in the arena; -1: zeros.
  var bytesAt: Int

  var range: Range<Int> { place..<place + count }
}

final class SimulatedLeg {
  static let sectorBytes = 512
  private static let labelBytes = Layout.pageBytes
  private static let arenaBytes = 1 << 20

  let legId: Identifier
  let layout: Layout
  /// `Barrier.newestLabelWins` is taken away.
  let electsOldest: Bool
  /// `Barrier.newestPageWins` is taken away.
  let electsOldPages: Bool
  private let image: Memory
  private let stable: Memory
  private(set) var cache: [CachedWrite] = []
  /// Bytes of the cached writes, oldest first.
  private let arena = Memory(unfilled: SimulatedLeg.arenaBytes)
  private var arenaUsed = 0
  /// Places whose visible bytes will never be on the disk.
  private(set) var lost: [Range<Int>] = []
  private(set) var sequence: UInt64 = 0
  private let dataPlace: Int
  /// Region words by what is stable; valid unless the map has changed since.
  private var stableWords: [UInt16] = []
  private var areWordsKnown = false
  /// The legs that the stable label lists; valid unless a label has changed since.
  private var stableListed = LegSet.none
  private var isListKnown = false

  init(legId: Identifier, layout: Layout, fill: UInt8 = 0, removed: Barrier?) {
    self.legId = legId
    electsOldest = removed == .newestLabelWins
    electsOldPages = removed == .newestPageWins
    self.layout = layout
    dataPlace = 2 * SimulatedLeg.labelBytes + Int(layout.mapEnd - layout.mapOffset)
    image = Memory(count: dataPlace + Int(layout.sizeBytes))
    stable = Memory(count: dataPlace + Int(layout.sizeBytes))
    if fill != 0 {
      image.fill(fill, at: dataPlace, count: Int(layout.sizeBytes))
      stable.fill(fill, at: dataPlace, count: Int(layout.sizeBytes))
    }
  }

  /// Bytes of labels and map: where the data begin in the images.
  var metadataBytes: Int { dataPlace }

  /// Where the map begins in the images.
  private var mapStart: Int { 2 * SimulatedLeg.labelBytes }

  /// Place in the images of a range of the PV; -1 where there is no memory.
  func place(offset: UInt64, count: UInt64) -> Int {
    if offset >= layout.dataOffset {
      guard offset + count <= layout.pvBytes else { return -1 }
      return dataPlace + Int(offset - layout.dataOffset)
    }
    if offset >= layout.mapOffset, offset + count <= layout.mapEnd {
      return mapStart + Int(offset - layout.mapOffset)
    }
    let page = UInt64(SimulatedLeg.labelBytes)
    let label0 = Layout.labelOffset(copy: 0)
    let label1 = Layout.labelOffset(copy: 1)
    if offset >= label1, offset + count <= label1 + page { return Int(page + offset - label1) }
    if offset >= label0, offset + count <= label0 + page { return Int(offset - label0) }
    return -1
  }

  // MARK: Reading

  /// `isOld`: what was there before everything that is not flushed.
  func read(at place: Int, into memory: Memory, at offset: Int, count: Int, isOld: Bool) {
    memory.copy(from: isOld ? stable : image, at: place, to: offset, count: count)
  }

  func read(at place: Int, into scratch: Scratch, at offset: Int, count: Int, isOld: Bool) {
    (isOld ? stable : image).copy(at: place, to: scratch, at: offset, count: count)
  }

  /// The write that a cell of the data holds; nil if it is no whole one.
  func id(cell: Int, grain: Int) -> UInt32? {
    Pattern.id(image, at: dataPlace + cell * grain, cell: cell, grain: grain)
  }

  /// Whether both legs' data read the same in a region.
  func isEqual(_ other: SimulatedLeg, region: Int) -> Bool {
    let begin = UInt64(region) * layout.regionBytes
    let count = min(layout.regionBytes, layout.sizeBytes - begin)
    return image.isEqual(other.image, at: dataPlace + Int(begin), count: Int(count))
  }

  /// Whether both legs' data read the same, all but `isIgnored` regions; the first difference.
  func firstDifference(_ other: SimulatedLeg, isIgnored: (Int) -> Bool) -> Int? {
    let region = Int(layout.regionBytes)
    let size = Int(layout.sizeBytes)
    var offset = 0
    while offset < size {
      let count = min(region, size - offset)
      if !isIgnored(offset / region),
        !image.isEqual(other.image, at: dataPlace + offset, count: count)
      {
        for byte in offset..<offset + count
        where image.byte(at: dataPlace + byte) != other.image.byte(at: dataPlace + byte) {
          return byte
        }
      }
      offset += count
    }
    return nil
  }

  // MARK: Writing

  /// A write lands in the cache; a durable one on the disk too.
  func write(_ bytes: ByteSource, at place: Int, count: Int, isDurable: Bool) {
    bytes.copy(to: image, at: place, count: count)
    guard isDurable else {
      remember(bytes, at: place, count: count)
      return
    }
    var index = 0
    while index < cache.count {
      // Zeros may be cut in two: the second part comes next.
      if cache[index].range.overlaps(place..<place + count) {
        supersede(index, place..<place + count)
      }
      index += 1
    }
    persist(image, at: place, to: place, count: count)
    if !lost.isEmpty { lost = lost.flatMap { SimulatedLeg.subtract($0, place..<place + count) } }
  }

  private func remember(_ bytes: ByteSource, at place: Int, count: Int) {
    sequence += 1
    var entry = CachedWrite(sequence: sequence, place: place, count: count, bytesAt: -1)
    if case .zeros = bytes {
      cache.append(entry)
      return
    }
    if arenaUsed + count > arena.count || cache.count >= 512 { destage() }
    if count > arena.count {
      persist(image, at: place, to: place, count: count)
      return
    }
    bytes.copy(to: arena, at: arenaUsed, count: count)
    entry.bytesAt = arenaUsed
    arenaUsed += count
    cache.append(entry)
  }

  /// The cache is full: everything goes to the disk.
  private func destage() { flushed(mark: UInt64.max) }

  private func persist(_ memory: Memory, at source: Int, to place: Int, count: Int) {
    stable.copy(from: memory, at: source, to: place, count: count)
    if place < dataPlace { forgetStable(place..<place + count) }
  }

  private func forgetStable(_ places: Range<Int>) {
    if places.lowerBound < mapStart { isListKnown = false }
    if places.upperBound > mapStart { areWordsKnown = false }
  }

  private func persist(_ write: CachedWrite, from first: Int = 0, count: Int) {
    if write.bytesAt >= 0 {
      persist(arena, at: write.bytesAt + first, to: write.place + first, count: count)
    } else {
      stable.fill(0, at: write.place + first, count: count)
      if write.place < dataPlace { forgetStable(write.range) }
    }
  }

  /// A durable write of `range` was done: what the cache holds of it is the new content.
  private func supersede(_ index: Int, _ range: Range<Int>) {
    let write = cache[index]
    let both = write.range.clamped(to: range)
    if write.bytesAt < 0 {
      // Zeros have no memory of their own: the parts beside the durable write stay zeros.
      cache[index].count = both.lowerBound - write.place
      let end = write.place + write.count
      if both.upperBound < end {
        cache.insert(
          CachedWrite(
            sequence: write.sequence, place: both.upperBound, count: end - both.upperBound,
            bytesAt: -1), at: index + 1)
      }
      return
    }
    arena.copy(
      from: image, at: both.lowerBound, to: write.bytesAt + both.lowerBound - write.place,
      count: both.count)
  }

  private static func subtract(_ range: Range<Int>, _ taken: Range<Int>) -> [Range<Int>] {
    guard range.overlaps(taken) else { return [range] }
    var rest: [Range<Int>] = []
    if range.lowerBound < taken.lowerBound { rest.append(range.lowerBound..<taken.lowerBound) }
    if taken.upperBound < range.upperBound { rest.append(taken.upperBound..<range.upperBound) }
    return rest
  }

  /// A flush that was issued when `sequence` was `mark` succeeds.
  func flushed(mark: UInt64) {
    var done = 0
    for write in cache {
      guard write.sequence <= mark else { break }
      persist(write, count: write.count)
      if !lost.isEmpty { lost = lost.flatMap { SimulatedLeg.subtract($0, write.range) } }
      done += 1
    }
    cache.removeFirst(done)
    if cache.isEmpty { arenaUsed = 0 }
  }

  /// A flush fails: some of what it was to persist never will be.
  func flushFailed(mark: UInt64, _ random: inout PRNG) {
    var kept: [CachedWrite] = []
    for write in cache {
      if write.sequence <= mark, random.chance(1, in: 2) {
        lost.append(write.range)
      } else {
        kept.append(write)
      }
    }
    cache = kept
  }

  /// Whether something of these places is in the cache and may yet be lost.
  func hasCached(_ places: Range<Int>) -> Bool {
    for write in cache where write.range.overlaps(places) { return true }
    return false
  }

  // MARK: Crashes

  /// Takes a random part of a write that was in flight when the server died.
  func writeTorn(_ bytes: ByteSource, at place: Int, count: Int, _ random: inout PRNG) {
    switch random.below(4) {
    case 0: return
    case 1: write(bytes, at: place, count: count, isDurable: false)
    default:
      for sector in stride(from: 0, to: count, by: SimulatedLeg.sectorBytes)
      where random.chance(1, in: 2) {
        let end = min(sector + SimulatedLeg.sectorBytes, count)
        write(
          bytes.advanced(by: sector), at: place + sector, count: end - sector, isDurable: false)
      }
    }
  }

  /// The cache is gone but for a random part of its sectors.
  func losePower(_ random: inout PRNG) {
    let keep = random.below(5)
    for write in cache {
      var sector = 0
      while sector < write.count {
        // Sectors of the disk, not of the write.
        let count = min(SimulatedLeg.sectorBytes, write.count - sector)
        if random.chance(keep, in: 4) { persist(write, from: sector, count: count) }
        sector += count
      }
    }
    for write in cache { revert(write.range) }
    cache.removeAll(keepingCapacity: true)
    arenaUsed = 0
    forgetLost()
  }

  /// What a failed flush did not persist is tried again by the next one.
  func keepLost() {
    for range in lost {
      remember(.memory(image, at: range.lowerBound), at: range.lowerBound, count: range.count)
    }
    lost.removeAll()
  }

  /// The file is opened anew: what a failed flush lost is gone from the page cache too.
  func forgetLost() {
    guard !lost.isEmpty else { return }
    for range in lost { revert(range) }
    lost.removeAll()
    for write in cache {
      if write.bytesAt >= 0 {
        image.copy(from: arena, at: write.bytesAt, to: write.place, count: write.count)
      } else {
        image.fill(0, at: write.place, count: write.count)
      }
    }
  }

  private func revert(_ range: Range<Int>) {
    image.copy(from: stable, at: range.lowerBound, to: range.lowerBound, count: range.count)
  }

  /// A bit of what was just written is wrong, on the disk too.
  func flip(_ mask: UInt8, at place: Int) {
    image.flip(mask, at: place)
    flushed(mark: UInt64.max)
    stable.copy(from: image, at: place, to: place, count: 1)
  }

  /// A sector has rotted: it reads as something else from now on, whatever was written before.
  func rot(at place: Int) {
    let sector = place / SimulatedLeg.sectorBytes * SimulatedLeg.sectorBytes
    for memory in [image, stable] {
      memory.fill(word: Pattern.poison, at: sector, count: SimulatedLeg.sectorBytes)
    }
    if sector < dataPlace { forgetStable(sector..<sector + SimulatedLeg.sectorBytes) }
  }

  // MARK: Metadata

  /// The elected label, by what reads see.
  func label() -> Result<ElectedLabel, FormatError> { elect(image) }

  private func elect(_ memory: Memory) -> Result<ElectedLabel, FormatError> {
    let first = label(copy: 0, memory)
    let second = label(copy: 1, memory)
    if electsOldest, case .success(let one) = first, case .success(let other) = second {
      let isFirst = one.sequence < other.sequence
      return .success(
        ElectedLabel(
          label: isFirst ? one : other, copy: isFirst ? 0 : 1, isOtherCopyValid: true))
    }
    return Election.label(first, second)
  }

  /// One copy of the label, by what reads see.
  func label(copy: Int) -> Result<Label, FormatError> { label(copy: copy, image) }

  private func label(copy: Int, _ memory: Memory) -> Result<Label, FormatError> {
    memory.withBytes(at: copy * SimulatedLeg.labelBytes, count: SimulatedLeg.labelBytes) { span in
      do throws(FormatError) { return .success(try Label.decode(span)) } catch {
        return .failure(error)
      }
    }
  }

  /// The region map, by what reads see.
  func map(setId: Identifier) -> LegMap {
    var map = LegMap(layout: layout, electsOldest: electsOldPages)
    for page in 0..<layout.pageCount {
      for copy in 0...1 {
        image.withBytes(at: mapPlace(page: page, copy: copy), count: Layout.pageBytes) { span in
          map.read(page: page, copy: copy, bytes: span, setId: setId)
        }
      }
    }
    return map
  }

  private func mapPlace(page: Int, copy: Int) -> Int {
    mapStart + Int(layout.pageOffset(page: page, copy: copy) - layout.mapOffset)
  }

  /// Sequence of a copy of a page, by what is on the disk; nil if it is not valid.
  private func sequenceOnDisk(page: Int, copy: Int, setId: Identifier) -> UInt64? {
    stable.withBytes(at: mapPlace(page: page, copy: copy), count: Layout.pageBytes) { span in
      RegionMapPage.decodeHeader(span, page: page, setId: setId)
    }
  }

  /// The word of a region that would survive a power loss now.
  func wordOnDisk(_ region: Int, setId: Identifier) -> UInt16 {
    if !areWordsKnown { decodeWords(setId) }
    return stableWords[region]
  }

  /// The legs that the newest label on the disk lists online; none without a label.
  func listedOnDisk() -> LegSet {
    if isListKnown { return stableListed }
    stableListed = .none
    if case .success(let elected) = elect(stable) {
      for (index, member) in elected.label.members.enumerated() where member.state == .online {
        stableListed.insert(LegSlot(index))
      }
    }
    isListKnown = true
    return stableListed
  }

  private func decodeWords(_ setId: Identifier) {
    if stableWords.isEmpty { stableWords = Array(repeating: 0, count: layout.regionCount) }
    for page in 0..<layout.pageCount {
      let first = sequenceOnDisk(page: page, copy: 0, setId: setId)
      let second = sequenceOnDisk(page: page, copy: 1, setId: setId)
      var copy = first ?? 0 > second ?? 0 ? 0 : 1
      if electsOldPages, first != nil, second != nil { copy = 1 - copy }
      if first == nil, second == nil {
        for region in stableWords.indices { stableWords[region] = 0 }
        continue
      }
      let place = mapPlace(page: page, copy: copy)
      stable.withBytes(at: place, count: Layout.pageBytes) { span in
        RegionMapPage.readWords(
          span, into: &stableWords, firstWord: page * Layout.wordsPerPage)
      }
    }
    areWordsKnown = true
  }

  /// Overwrites labels and map, as bringing a PV in as a new leg does.
  func eraseMetadata() {
    write(.zeros, at: 0, count: dataPlace, isDurable: true)
  }
}
