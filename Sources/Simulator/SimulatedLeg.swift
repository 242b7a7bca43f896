// A leg in memory: what its reads see, what a power loss leaves of it.
//
// 1. `image` is what reads see; `stable` is what survives a power loss; `cache` are the writes
//    that are in the first and may be missing in the second, oldest first.
// 2. A flush persists the writes that were in the cache when it was issued. A durable write
//    persists itself only; older cached writes of the same bytes are superseded by it.
// 3. A power loss keeps a random subset of the cached sectors (512 bytes).
// 4. A failed flush loses what it was to persist, as Linux does: reads still see it until the
//    next crash or reopening, the disk never does.
//
// Only labels, region map and data have memory; the gaps between them do not exist.

import Base
import MirrorFormat

struct CachedWrite {
  var sequence: UInt64
  /// Place in the images.
  var place: Int
  var bytes: [UInt8]
}

final class SimulatedLeg {
  static let sectorBytes = 512
  private static let labelBytes = Layout.pageBytes

  let legId: Identifier
  let layout: Layout
  private(set) var image: [UInt8]
  private(set) var stable: [UInt8]
  private(set) var cache: [CachedWrite] = []
  /// Places whose visible bytes will never be on the disk.
  private(set) var lost: [Range<Int>] = []
  private(set) var sequence: UInt64 = 0
  private let mapBytes: Int
  private let dataPlace: Int
  /// Region words by what is stable; nil: to be decoded again.
  private var stableWords: [UInt16]?

  init(legId: Identifier, layout: Layout, fill: UInt8 = 0) {
    self.legId = legId
    self.layout = layout
    mapBytes = Int(layout.mapEnd - layout.mapOffset)
    dataPlace = 2 * SimulatedLeg.labelBytes + mapBytes
    image = Array(repeating: fill, count: dataPlace + Int(layout.sizeBytes))
    image.replaceSubrange(0..<dataPlace, with: [UInt8](repeating: 0, count: dataPlace))
    stable = image
  }

  /// Place in the images of a range of the PV; nil where there is no memory.
  func place(offset: UInt64, count: UInt64) -> Int? {
    let label0 = Layout.labelOffset(copy: 0)
    let label1 = Layout.labelOffset(copy: 1)
    let page = UInt64(SimulatedLeg.labelBytes)
    if offset >= layout.dataOffset {
      guard offset + count <= layout.pvBytes else { return nil }
      return dataPlace + Int(offset - layout.dataOffset)
    }
    if offset >= layout.mapOffset, offset + count <= layout.mapEnd {
      return 2 * SimulatedLeg.labelBytes + Int(offset - layout.mapOffset)
    }
    if offset >= label1, offset + count <= label1 + page { return Int(page + offset - label1) }
    if offset >= label0, offset + count <= label0 + page { return Int(offset - label0) }
    return nil
  }

  func bytes(at place: Int, count: Int) -> [UInt8] { Array(image[place..<place + count]) }

  /// The data area as reads see it.
  var data: ArraySlice<UInt8> { image[dataPlace...] }

  /// Checksum of the data area as reads see it.
  var dataChecksum: UInt32 {
    image.withRawSpan { $0.extracting(dataPlace..<$0.byteCount).crc32c() }
  }

  // MARK: Writing

  /// A write lands in the cache; a durable one on the disk too.
  func write(_ bytes: [UInt8], at place: Int, isDurable: Bool) {
    let range = place..<place + bytes.count
    image.replaceSubrange(range, with: bytes)
    guard isDurable else {
      sequence += 1
      cache.append(CachedWrite(sequence: sequence, place: place, bytes: bytes))
      return
    }
    for index in cache.indices { SimulatedLeg.patch(&cache[index], with: bytes, at: place) }
    persist(bytes, at: place)
    lost = lost.flatMap { SimulatedLeg.subtract($0, range) }
  }

  /// A durable write that the server did not live to see: it may be in the cache only.
  func writeCached(_ bytes: [UInt8], at place: Int) { write(bytes, at: place, isDurable: false) }

  private func persist(_ bytes: [UInt8], at place: Int) {
    stable.replaceSubrange(place..<place + bytes.count, with: bytes)
    if place < dataPlace { stableWords = nil }
  }

  private static func patch(_ write: inout CachedWrite, with bytes: [UInt8], at place: Int) {
    let low = max(write.place, place)
    let high = min(write.place + write.bytes.count, place + bytes.count)
    guard low < high else { return }
    write.bytes.replaceSubrange(
      low - write.place..<high - write.place, with: bytes[low - place..<high - place])
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
    for write in cache where write.sequence <= mark {
      persist(write.bytes, at: write.place)
      let range = write.place..<write.place + write.bytes.count
      lost = lost.flatMap { SimulatedLeg.subtract($0, range) }
    }
    cache.removeAll { $0.sequence <= mark }
  }

  /// A flush fails: some of what it was to persist never will be.
  func flushFailed(mark: UInt64, _ random: inout PRNG) {
    var kept: [CachedWrite] = []
    for write in cache {
      if write.sequence <= mark, random.chance(1, in: 2) {
        lost.append(write.place..<write.place + write.bytes.count)
      } else {
        kept.append(write)
      }
    }
    cache = kept
  }

  // MARK: Crashes

  /// Takes a random part of a write that was in flight when the server died.
  func writeTorn(_ bytes: [UInt8], at place: Int, _ random: inout PRNG) {
    let kind = random.below(4)
    if kind == 0 { return }
    if kind == 1 {
      writeCached(bytes, at: place)
      return
    }
    for sector in stride(from: 0, to: bytes.count, by: SimulatedLeg.sectorBytes)
    where random.chance(1, in: 2) {
      let end = min(sector + SimulatedLeg.sectorBytes, bytes.count)
      writeCached(Array(bytes[sector..<end]), at: place + sector)
    }
  }

  /// The cache is gone but for a random part of its sectors.
  func losePower(_ random: inout PRNG) {
    let keep = random.below(5)
    for write in cache {
      let count = write.bytes.count
      for sector in stride(from: 0, to: count, by: SimulatedLeg.sectorBytes) {
        // Sectors of the disk, not of the write.
        guard random.chance(keep, in: 4) else { continue }
        let end = min(sector + SimulatedLeg.sectorBytes, count)
        persist(Array(write.bytes[sector..<end]), at: write.place + sector)
      }
    }
    for write in cache { revert(write.place..<write.place + write.bytes.count) }
    cache.removeAll()
    forgetLost()
  }

  /// What a failed flush did not persist is tried again by the next one.
  func keepLost() {
    for range in lost {
      sequence += 1
      cache.append(
        CachedWrite(sequence: sequence, place: range.lowerBound, bytes: Array(image[range])))
    }
    lost.removeAll()
  }

  /// The file is opened anew: what a failed flush lost is gone from the page cache too.
  func forgetLost() {
    for range in lost { revert(range) }
    lost.removeAll()
    for write in cache {
      image.replaceSubrange(write.place..<write.place + write.bytes.count, with: write.bytes)
    }
  }

  private func revert(_ range: Range<Int>) {
    image.replaceSubrange(range, with: stable[range])
  }

  // MARK: Metadata

  /// The elected label, by what reads see.
  func label() -> Result<ElectedLabel, FormatError> {
    let page = SimulatedLeg.labelBytes
    return Election.label(
      SimulatedLeg.decodeLabel(bytes(at: 0, count: page)),
      SimulatedLeg.decodeLabel(bytes(at: page, count: page)))
  }

  private static func decodeLabel(_ bytes: [UInt8]) -> Result<Label, FormatError> {
    bytes.withRawSpan { span in
      do throws(FormatError) { return .success(try Label.decode(span)) } catch {
        return .failure(error)
      }
    }
  }

  /// The region map, by what reads see.
  func map(setId: Identifier) -> LegMap { SimulatedLeg.decodeMap(image, layout, setId) }

  private static func decodeMap(_ bytes: [UInt8], _ layout: Layout, _ setId: Identifier) -> LegMap {
    var map = LegMap(layout: layout)
    for page in 0..<layout.pageCount {
      for copy in 0...1 {
        let place =
          2 * labelBytes + Int(layout.pageOffset(page: page, copy: copy) - layout.mapOffset)
        Array(bytes[place..<place + Layout.pageBytes]).withRawSpan { span in
          map.read(page: page, copy: copy, bytes: span, setId: setId)
        }
      }
    }
    return map
  }

  /// The region words that would survive a power loss now.
  func wordsOnDisk(setId: Identifier) -> [UInt16] {
    if let words = stableWords { return words }
    let words = SimulatedLeg.decodeMap(stable, layout, setId).words
    stableWords = words
    return words
  }

  /// Overwrites labels and map, as bringing a PV in as a new leg does.
  func eraseMetadata() {
    write(Array(repeating: 0, count: dataPlace), at: 0, isDurable: true)
  }
}
