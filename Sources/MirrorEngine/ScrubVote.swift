// What a scrub makes of legs that differ: who is right in a block, and what follows for a region.
//
// In a block the legs are grouped by equal contents. With three or more legs the group of more than
// half of them is right; without such a group, or with two legs, the group of the leg that the
// administrator prefers; without that nobody is.
//
// A leg that loses one block loses its region: it turns stale there and is copied to. That is done
// only if a good leg is left that lost nothing, and if all that lost nothing were compared in all of
// the region: any of them may be the source. So the last good copy never turns stale, and neither
// does the only one that can be read.

import Base
import MirrorFormat

extension Engine {
  /// Compares the window on the legs `readable`, block by block where it differs at all.
  mutating func compare(_ index: Int, _ readable: LegSet) {
    let chunk = operations[index].chunk
    guard !isSame(index, readable, at: 0, count: Int(chunk.count)) else { return }
    var position = 0
    let block = Int(blockBytes)
    while position < Int(chunk.count) {
      if !isSame(index, readable, at: position, count: block) {
        judge(index, readable, at: position)
      }
      position += block
    }
  }

  private func isSame(_ index: Int, _ legs: LegSet, at position: Int, count: Int) -> Bool {
    var rest = legs
    guard let first = rest.popFirst() else { return true }
    let reference = scrubOffset(index, first) + position
    while let leg = rest.popFirst() {
      let other = scrubOffset(index, leg) + position
      if !scratch.isEqual(reference, other, count: count) { return false }
    }
    return true
  }

  /// The legs of `legs` that have the same block at `position` as `leg`.
  private func group(_ index: Int, of leg: LegSlot, _ legs: LegSet, at position: Int) -> LegSet {
    var same = LegSet(leg)
    var rest = legs.subtracting(same)
    let reference = scrubOffset(index, leg) + position
    while let other = rest.popFirst() {
      let offset = scrubOffset(index, other) + position
      if scratch.isEqual(reference, offset, count: Int(blockBytes)) { same.insert(other) }
    }
    return same
  }

  /// The legs differ in this block: notes it, and who lost.
  private mutating func judge(_ index: Int, _ legs: LegSet, at position: Int) {
    var majority = LegSet.none
    var rest = legs
    while legs.count > 2, let leg = rest.popFirst() {
      let group = group(index, of: leg, legs, at: position)
      if group.count * 2 > legs.count {
        majority = group
        break
      }
      rest = rest.subtracting(group)
    }
    var winners = majority
    if winners.isEmpty, let preferred = scrub.order.preferred, legs.contains(preferred) {
      winners = group(index, of: preferred, legs, at: position)
    }
    let block = ByteRange(
      offset: operations[index].chunk.offset + UInt64(position), count: blockBytes)
    noteMismatch(block, majority.isEmpty ? legs : legs.subtracting(majority))
    if winners.isEmpty {
      scrub.isUndecided = true
    } else {
      scrub.losers = scrub.losers.union(legs.subtracting(winners))
    }
  }

  private mutating func noteMismatch(_ block: ByteRange, _ differing: LegSet) {
    scrub.mismatchBytes += block.count
    scrub.regionMismatch += block.count
    guard scrub.mismatches.add(block, legs: differing) else { return }
    note(
      MirrorEvent(
        .scrubMismatch, leg: differing.count == 1 ? differing.first : nil, detail: block.offset))
  }

  /// All of `region` that is in the range was compared.
  mutating func endScrubbedRegion(_ region: Int) {
    defer { scrub.beginRegion() }
    guard scrub.regionMismatch > 0 else { return }
    guard scrub.order.mode == .repair, !scrub.isUndecided, markOutvoted(region) else {
      scrub.unrepairedBytes += scrub.regionMismatch
      return
    }
    scrub.marked.insert(region)
  }

  /// Marks who lost in `region` stale there; false if that would leave no leg to copy from.
  private mutating func markOutvoted(_ region: Int) -> Bool {
    let good = online.subtracting(map.stale(region))
    let outvoted = good.intersection(scrub.losers)
    let losers = keeps(.outvotedIsNoSource) ? outvoted : good.subtracting(outvoted)
    let sources = good.subtracting(losers)
    guard !sources.isEmpty, scrub.compared.isSuperset(of: sources), !map.unresolved.contains(region)
    else { return false }
    // Who lost has left since, or is stale for another reason: it is copied to when it is back.
    guard !losers.isEmpty else { return true }
    guard start.logKind == .disk || hasCompleteLeg(online.subtracting(losers)) else { return false }
    map.setBits(UInt16(losers.bits), in: region)
    copier.invalidate(region, missedBy: losers, mayDiffer: false)
    copier.given.remove(region)
    log.wantsCommit = true
    membership.needsCommit = true
    return true
  }
}
