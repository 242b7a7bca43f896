// The region map: one 16-bit word per region, which legs are stale there and whether a write may
// be in flight; and what of it is durable.
//
// 1. `words` is what is true; `durable` is what is known to be in the log of every leg that is online,
//    or that a label may still list.
// 2. A page whose image is in flight may be on disk as it was or as it is in the image (`staged`):
//    a bit counts as durable only if it is set in both.
// 3. `pendingWrites` of a region is not 0 while anything may be written there; its `intent` is then
//    neither cleared nor on its way to be.
// 4. `unresolved` (memory only): the legs may differ although no write is in flight; reads are
//    served by one leg and written to the others before the reply. Unresolved implies `intent`.
// 5. `possible` has every bit that is or may be on the disk of some online leg: a stale bit that is
//    cleared in memory only would be back after a crash.
// 6. `staleCounts` are the numbers of set stale bits, kept with every change.
// 7. The word of an unwritten region is `unwritten` and nothing else: nobody reads what the legs
//    hold there, so no leg lacks anything and none can differ. `setBits` leaves it alone.
// 8. `possible` says of `unwritten` too where it may still stand: bit 14 in the newest copy of the
//    page on some online leg, bit 13 (memory only) in the other copy. See UnwrittenPath.

import Base
import MirrorFormat

/// A bit per region.
struct RegionBits: ~Copyable {
  private var bits: [UInt64]
  private(set) var count = 0

  init(regions: Int) { bits = Array(repeating: 0, count: (regions + 63) / 64) }

  func contains(_ region: Int) -> Bool { bits[region >> 6] & (1 << UInt64(region & 63)) != 0 }

  mutating func insert(_ region: Int) {
    let mask: UInt64 = 1 << UInt64(region & 63)
    if bits[region >> 6] & mask == 0 {
      bits[region >> 6] |= mask
      count += 1
    }
  }

  mutating func remove(_ region: Int) {
    let mask: UInt64 = 1 << UInt64(region & 63)
    if bits[region >> 6] & mask != 0 {
      bits[region >> 6] &= ~mask
      count -= 1
    }
  }

  mutating func removeAll() {
    guard count > 0 else { return }
    for index in bits.indices { bits[index] = 0 }
    count = 0
  }

  /// The first region of the set that is not below `region`.
  func first(from region: Int) -> Int? {
    guard count > 0, region >> 6 < bits.count else { return nil }
    var index = region >> 6
    var word = bits[index] & (UInt64.max << UInt64(region & 63))
    while word == 0 {
      index += 1
      if index == bits.count { return nil }
      word = bits[index]
    }
    return index << 6 + word.trailingZeroBitCount
  }
}

struct RegionMap: ~Copyable {
  let layout: Layout
  let regionShift: UInt64
  private(set) var words: [UInt16]
  private(set) var durable: [UInt16]
  private(set) var staged: [UInt16]
  /// Every bit that some online leg's log may still hold.
  private(set) var possible: [UInt16]
  private(set) var pendingWrites: [UInt16]
  private(set) var staleCounts = [Int](repeating: 0, count: LegSlot.count)
  private(set) var intentCount = 0
  private(set) var unwrittenCount = 0
  /// Some copy of some page held `unwritten` at the start: else nobody need look for it.
  private(set) var knowsUnwritten = false
  /// Pages that a write waits for, because a copy may still call a region of them unwritten.
  private(set) var clearingPages: RegionBits
  var touched: RegionBits
  private(set) var unresolved: RegionBits
  /// Pages whose words differ from what was last made durable.
  private(set) var dirtyPages: RegionBits
  private(set) var pageInFlight: [Bool]
  /// Tests only: `Barrier.bitsInBothImages` is taken away.
  var trustsDurable = false

  init(layout: Layout, words: [UInt16]) {
    let regions = layout.regionCount
    precondition(words.count == regions, "a map has one word per region")
    self.layout = layout
    regionShift = UInt64(layout.regionBytes.trailingZeroBitCount)
    self.words = words.map { $0 & RegionWord.unwritten != 0 ? RegionWord.unwritten : $0 }
    durable = Array(repeating: 0, count: regions)
    staged = Array(repeating: 0, count: regions)
    possible = Array(
      repeating: ~(RegionWord.unwritten | RegionMap.unwrittenInOtherCopy), count: regions)
    pendingWrites = Array(repeating: 0, count: regions)
    touched = RegionBits(regions: regions)
    unresolved = RegionBits(regions: regions)
    dirtyPages = RegionBits(regions: layout.pageCount)
    clearingPages = RegionBits(regions: layout.pageCount)
    pageInFlight = Array(repeating: false, count: layout.pageCount)
    for region in self.words.indices {
      let word = self.words[region]
      if word & RegionWord.unwritten != 0 {
        unwrittenCount += 1
        knowsUnwritten = true
        possible[region] |= RegionWord.unwritten | RegionMap.unwrittenInOtherCopy
      }
      if word & RegionWord.intent != 0 { intentCount += 1 }
      var stale = LegSet(bits: UInt8(truncatingIfNeeded: word))
      while let slot = stale.popFirst() { staleCounts[slot.index] += 1 }
    }
  }

  // MARK: Geometry

  func regions(of range: ByteRange) -> ClosedRange<Int> {
    Int(range.offset >> regionShift)...Int((range.end - 1) >> regionShift)
  }

  func range(of region: Int) -> ByteRange {
    let offset = UInt64(region) << regionShift
    return ByteRange(offset: offset, count: min(layout.regionBytes, layout.sizeBytes - offset))
  }

  func page(of region: Int) -> Int { region / Layout.wordsPerPage }

  func regions(ofPage page: Int) -> Range<Int> {
    let first = page * Layout.wordsPerPage
    return first..<min(first + Layout.wordsPerPage, words.count)
  }

  // MARK: What is true

  func stale(_ region: Int) -> LegSet { LegSet(bits: UInt8(truncatingIfNeeded: words[region])) }

  func hasIntent(_ region: Int) -> Bool { words[region] & RegionWord.intent != 0 }

  /// Legs of `candidates` that are stale in no region of `range`.
  func good(_ candidates: LegSet, in range: ByteRange) -> LegSet {
    var stale: UInt8 = 0
    for region in regions(of: range) { stale |= UInt8(truncatingIfNeeded: words[region]) }
    return LegSet(bits: candidates.bits & ~stale)
  }

  /// Whether each region of `range` has a leg of `legs` that is good there.
  func isCovered(_ range: ByteRange, by legs: LegSet) -> Bool {
    for region in regions(of: range) where legs.subtracting(stale(region)).isEmpty {
      return false
    }
    return true
  }

  func isUnresolved(_ range: ByteRange) -> Bool {
    guard unresolved.count > 0 else { return false }
    let span = regions(of: range)
    guard let region = unresolved.first(from: span.lowerBound) else { return false }
    return region <= span.upperBound
  }

  /// Bytes of all regions in which `slot` is stale, and their number of the last, shorter region
  /// taken into account.
  func staleBytes(_ slot: LegSlot) -> UInt64 {
    let full = UInt64(staleCounts[slot.index]) << regionShift
    guard let last = words.indices.last, stale(last).contains(slot) else { return full }
    return full - (layout.regionBytes - range(of: last).count)
  }

  mutating func setBits(_ bits: UInt16, in region: Int) {
    let old = words[region]
    let new = old | bits
    guard new != old, old & RegionWord.unwritten == 0 else { return }
    words[region] = new
    dirtyPages.insert(page(of: region))
    if (old ^ new) & RegionWord.intent != 0 { intentCount += 1 }
    var added = LegSet(bits: UInt8(truncatingIfNeeded: old ^ new))
    while let slot = added.popFirst() { staleCounts[slot.index] += 1 }
  }

  mutating func clearStale(_ legs: LegSet, in region: Int) {
    let old = words[region]
    let new = old & ~UInt16(legs.bits)
    guard new != old else { return }
    words[region] = new
    dirtyPages.insert(page(of: region))
    var removed = LegSet(bits: UInt8(truncatingIfNeeded: old ^ new))
    while let slot = removed.popFirst() { staleCounts[slot.index] -= 1 }
  }

  /// Clears `intent` and, in the same update, marks the offline legs stale: on an offline leg
  /// `intent` counted as stale until now.
  mutating func clearIntent(in region: Int, offline: LegSet) {
    precondition(pendingWrites[region] == 0, "intent is cleared only where nothing is written")
    precondition(!unresolved.contains(region), "an unresolved region keeps its intent")
    guard hasIntent(region) else { return }
    setBits(UInt16(offline.bits), in: region)
    words[region] &= ~RegionWord.intent
    intentCount -= 1
    dirtyPages.insert(page(of: region))
  }

  mutating func markUnresolved(_ region: Int) {
    precondition(hasIntent(region), "an unresolved region has intent")
    unresolved.insert(region)
  }

  /// One leg is left, also by the labels: what it holds is the truth.
  mutating func resolveAll() { unresolved.removeAll() }

  mutating func resolve(_ region: Int) { unresolved.remove(region) }

  mutating func retain(_ range: ByteRange) {
    for region in regions(of: range) {
      pendingWrites[region] += 1
      touched.insert(region)
    }
  }

  mutating func release(_ range: ByteRange) {
    for region in regions(of: range) {
      precondition(pendingWrites[region] > 0, "a region is released once per write")
      pendingWrites[region] -= 1
    }
  }

  // MARK: What is durable

  /// Whether all of `bits` are durable in every region of `range`. They are set in `words` in any
  /// case: a bit that is durable may be cleared in `words` already, and the next image, which
  /// nobody waits for, would take it from under the write.
  mutating func require(_ bits: UInt16, in range: ByteRange) -> Bool {
    var isDurable = true
    for region in regions(of: range) {
      precondition(!isUnwritten(region), "nothing protects an unwritten region, or needs to")
      setBits(bits, in: region)
      guard !isDurableBits(bits, in: region) else { continue }
      dirtyPages.insert(page(of: region))
      isDurable = false
    }
    return isDurable
  }

  func isDurableBits(_ bits: UInt16, in region: Int) -> Bool {
    guard durable[region] & bits == bits else { return false }
    return !pageInFlight[page(of: region)] || staged[region] & bits == bits || trustsDurable
  }

  /// Legs that are stale in `region`, or that the map would call stale there after a crash now.
  func possiblyStale(_ region: Int) -> LegSet {
    LegSet(bits: UInt8(truncatingIfNeeded: words[region] | possible[region]))
  }

  /// Legs that are stale in `region`, or that the map may call stale there after a crash, and
  /// whether `slot` is so now and after any crash. With `isImageDurable` the image in flight counts
  /// as written.
  func staleAfterCrash(
    _ region: Int, _ slot: LegSlot, isImageDurable: Bool
  ) -> (possible: LegSet, isCertain: Bool) {
    let bit = UInt16(LegSet(slot).bits)
    guard isImageDurable, pageInFlight[page(of: region)] else {
      let isStale = words[region] & bit != 0
      return (possiblyStale(region), isStale && isDurableBits(bit, in: region))
    }
    let image = LegSet(bits: UInt8(truncatingIfNeeded: words[region] | staged[region]))
    return (image, words[region] & staged[region] & bit != 0)
  }

  /// Legs whose stale bit is durable in every region of `range`.
  func durablyStale(in range: ByteRange) -> LegSet {
    var bits = LegSet(bits: 0xff)
    for region in regions(of: range) {
      bits.bits &= UInt8(truncatingIfNeeded: durable[region])
      if pageInFlight[page(of: region)] {
        bits.bits &= UInt8(truncatingIfNeeded: staged[region])
      }
    }
    return bits
  }

  mutating func markDirty(page: Int) { dirtyPages.insert(page) }

  /// The map of `page` is on every online leg exactly as in `words`.
  mutating func assumeDurable(page: Int) {
    for region in regions(ofPage: page) {
      durable[region] = words[region]
      possible[region] = words[region]
      if isUnwritten(region) { possible[region] |= RegionMap.unwrittenInOtherCopy }
    }
  }

  /// Takes the image of `page` that is about to be written.
  mutating func stage(page: Int) {
    stage(page: page, words)
    dirtyPages.remove(page)
  }

  /// Takes another image than what is true, which is still to be written.
  mutating func stage(page: Int, _ image: [UInt16]) {
    precondition(!pageInFlight[page], "a page is written by one commit at a time")
    for region in regions(ofPage: page) {
      staged[region] = image[region]
      possible[region] |= image[region]
    }
    pageInFlight[page] = true
  }

  /// The image is durable on every online leg.
  mutating func commit(page: Int) {
    precondition(pageInFlight[page], "only an image in flight can be committed")
    for region in regions(ofPage: page) {
      durable[region] = staged[region]
      // What may have been the newest copy until now may be the other one from now on.
      possible[region] = staged[region] | (possible[region] & RegionWord.unwritten) >> 1
    }
    pageInFlight[page] = false
    if clearingPages.contains(page), !hasClearing(page) { clearingPages.remove(page) }
  }

  /// Nobody knows whether the image reached the disk: what counts is what is in both.
  mutating func fail(page: Int) {
    precondition(pageInFlight[page], "only an image in flight can fail")
    for region in regions(ofPage: page) { durable[region] &= staged[region] }
    pageInFlight[page] = false
    dirtyPages.insert(page)
  }
}

// MARK: - Unwritten regions

extension RegionMap {
  /// In `possible` only: the older copy of the page may call the region unwritten.
  static var unwrittenInOtherCopy: UInt16 { RegionWord.unwritten >> 1 }

  private static var unwrittenAnywhere: UInt16 { RegionWord.unwritten | unwrittenInOtherCopy }

  /// Whether the region was never written: it reads as zeros, and no leg lacks anything of it.
  func isUnwritten(_ region: Int) -> Bool { words[region] & RegionWord.unwritten != 0 }

  /// The longest prefix of `range` whose regions are all unwritten, or all not.
  func uniformPrefix(_ range: ByteRange) -> ByteRange {
    guard unwrittenCount > 0 else { return range }
    let span = regions(of: range)
    let isFirst = isUnwritten(span.lowerBound)
    for region in span where isUnwritten(region) != isFirst {
      return ByteRange(
        offset: range.offset, count: self.range(of: region).offset - range.offset)
    }
    return range
  }

  /// The first run of unwritten regions that `range` touches.
  func unwrittenRun(in range: ByteRange) -> ByteRange? {
    guard unwrittenCount > 0 else { return nil }
    let span = regions(of: range)
    guard let first = span.first(where: { isUnwritten($0) }) else { return nil }
    var last = first
    while last < span.upperBound, isUnwritten(last + 1) { last += 1 }
    let begin = self.range(of: first).offset
    return ByteRange(offset: begin, count: self.range(of: last).end - begin)
  }

  /// Bytes of all unwritten regions.
  var unwrittenBytes: UInt64 {
    let full = UInt64(unwrittenCount) << regionShift
    guard let last = words.indices.last, isUnwritten(last) else { return full }
    return full - (layout.regionBytes - range(of: last).count)
  }

  /// The region is zeros now on every leg that is not in `lacking`: those are stale from the same
  /// word on.
  mutating func clearUnwritten(_ region: Int, lacking: LegSet) {
    precondition(isUnwritten(region), "only an unwritten region can cease to be one")
    words[region] = 0
    unwrittenCount -= 1
    dirtyPages.insert(page(of: region))
    setBits(UInt16(lacking.bits), in: region)
  }

  /// Some copy of this page on an online leg calls regions unwritten; which, nobody knows.
  mutating func suspectUnwritten(page: Int) {
    knowsUnwritten = true
    for region in regions(ofPage: page) { possible[region] |= RegionMap.unwrittenAnywhere }
  }

  /// Whether no copy of any online leg's log can call a region of `range` unwritten any more; if
  /// not, the pages are to be written.
  mutating func requireWritten(_ range: ByteRange) -> Bool {
    guard knowsUnwritten else { return true }
    var isWritten = true
    for region in regions(of: range) where possible[region] & RegionMap.unwrittenAnywhere != 0 {
      dirtyPages.insert(page(of: region))
      clearingPages.insert(page(of: region))
      isWritten = false
    }
    return isWritten
  }

  private func hasClearing(_ page: Int) -> Bool {
    for region in regions(ofPage: page)
    where !isUnwritten(region) && possible[region] & RegionMap.unwrittenAnywhere != 0 {
      return true
    }
    return false
  }
}
