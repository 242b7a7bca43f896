// The region map that a mirror starts with, elected page by page from its legs.
//
// Rules:
//  1. Only legs that the plan calls online vote. Per page the highest valid sequence wins: every
//     page image is valid from the moment it is staged.
//  2. A page commit is durable on every online leg before anything relies on it. So an online leg
//     with both copies of a page valid has at least the last page that something relied on: the
//     page is certain. A leg with an invalid copy may have lost its newest one, to a torn write
//     (then nothing relied on it) or to rot (then everything did): it proves nothing.
//  3. An uncertain page counts as what is left of it, plus: every region has intent and is stale
//     on every leg that the label does not call complete (offline or syncing). A page that is
//     lost on all legs, or uncertain with `--log core`: the same without the rest.
//  4. On an offline leg intent counts as stale, but where no leg is good that the label lists online.
//     Such a leg that is absent (a degraded start) is itself stale where an online leg is good, but
//     only under the generation that this start makes: the engine says so.
//  5. With `--log core` the map on the disk is that of the last clean stop. After any other stop
//     every region has intent, and who is not complete by the label (offline, syncing) is stale
//     everywhere; what the old map says counts for nothing.
//  6. On a leg whose own history was given up every region is stale.
//  7. If the plan insists on one leg, what it has is current everywhere, and nothing else is.
//  8. `unwritten` in a valid image is true, also in an older one: data is written only when no copy
//     on any online leg has the bit (UnwrittenPath). So it survives rules 3 and 5, and since
//     nobody reads what the legs hold there, the word is nothing but the bit: no leg is stale, none
//     differs. An image without the bit is true as well; of two that are equally new it wins. On
//     a lost page the bit is lost: its regions are compared like all others of rule 3.
//  9. If the label lists one leg online, and as complete, that leg is stale nowhere: the last good
//     copy stays, and everybody else is offline. An uncertain page that says otherwise is from
//     before the leg got its last data (it replaced another one, say, and the newest copy rotted).

import Base
import MirrorFormat

/// The elected region map, and what has to be written to make all online legs hold it.
public struct AssemblyMap: Equatable, Sendable {
  /// `newestCopy` of a page without a valid copy.
  public static let noCopy: UInt8 = 0xff

  /// One word per region.
  public private(set) var words: [UInt16]
  /// Per page: above this every sequence is new, on every leg that is present, online or not.
  public private(set) var sequences: [UInt64]
  /// Per slot, per page: the copy that holds the leg's newest valid page, or `noCopy`. Empty for
  /// slots without a leg. The next write goes to the other one.
  public private(set) var newestCopy: [[UInt8]]
  /// Pages that some online leg does not hold in this form, or of which it has an invalid copy.
  /// Write them before anything relies on them, to the copy that is not the newest: that makes an
  /// invalid one valid. As long as a copy is invalid on every leg the page is uncertain.
  public private(set) var pagesToRewrite: [Int]
  /// Pages without a valid copy on any online leg.
  public private(set) var lostPages = 0
  /// Pages of which no online leg has two valid copies, lost ones not counted.
  public private(set) var uncertainPages = 0
  /// Pages that legs hold with equal sequences and different words: stale and intent bits of all
  /// are kept.
  public private(set) var conflictingPages = 0
  /// Pages of which some copy on an online leg calls regions unwritten.
  public private(set) var unwrittenPages: [Bool]
  /// Regions that were never written.
  public private(set) var unwrittenRegions = 0
  /// Regions that are stale on every online leg: they cannot be read.
  public private(set) var regionsWithoutSource = 0
  /// Regions whose legs may differ.
  public private(set) var regionsWithIntent = 0
  /// The reasoning, one line per finding.
  public private(set) var explanation: [String] = []

  /// Elects the map for a plan. `maps` holds, by slot, what was read of each present leg; nil
  /// where nothing was. `removed` is for tests.
  /// - Precondition: 8 maps, all of the plan's layout.
  public static func elect(
    plan: AssemblyPlan, maps: [LegMap?], removed: Barrier? = nil
  ) -> AssemblyMap {
    precondition(maps.count == LegSlot.count, "a map for each slot")
    var map = AssemblyMap(plan: plan, maps: maps)
    map.removed = removed
    for page in 0..<plan.layout.pageCount {
      map.electPage(page, plan, maps)
      map.applyRules(page, plan)
      if map.needsRewrite(page, plan, maps) { map.pagesToRewrite.append(page) }
    }
    map.explain(plan)
    return map
  }

  /// Tests only.
  private var removed: Barrier?

  private init(plan: AssemblyPlan, maps: [LegMap?]) {
    let pageCount = plan.layout.pageCount
    words = Array(repeating: 0, count: plan.layout.regionCount)
    sequences = Array(repeating: 0, count: pageCount)
    newestCopy = Array(repeating: [], count: LegSlot.count)
    pagesToRewrite = []
    unwrittenPages = Array(repeating: false, count: pageCount)
    for slot in 0..<LegSlot.count where plan.legs[slot] != nil {
      newestCopy[slot] = Array(repeating: AssemblyMap.noCopy, count: pageCount)
      guard let map = maps[slot] else { continue }
      precondition(map.pageCount == pageCount, "a region map of another layout")
      for page in 0..<pageCount {
        guard let newest = map.newest(page: page) else { continue }
        newestCopy[slot][page] = UInt8(newest.copy)
        sequences[page] = max(sequences[page], newest.sequence)
      }
    }
  }

  private func wordRange(_ page: Int) -> Range<Int> {
    let first = page * Layout.wordsPerPage
    return first..<min(first + Layout.wordsPerPage, words.count)
  }

  private mutating func electPage(_ page: Int, _ plan: AssemblyPlan, _ maps: [LegMap?]) {
    let range = wordRange(page)
    var best: UInt64?
    var isCertain = false
    var isConflicting = false
    var voters = plan.online
    while let slot = voters.popFirst() {
      guard let map = maps[slot.index], let newest = map.newest(page: page) else { continue }
      if map.hasBothCopies(page: page) { isCertain = true }
      if map.unwrittenPages[page] { unwrittenPages[page] = true }
      // It may be readable next time; only with a log on the disk it is written over before data.
      if plan.logKind == .core, !map.hasBothCopies(page: page) { unwrittenPages[page] = true }
      if let sequence = best, newest.sequence < sequence { continue }
      if newest.sequence == best {
        for region in range where words[region] != map.words[region] {
          words[region] = AssemblyMap.merge(words[region], map.words[region])
          isConflicting = true
        }
      } else {
        for region in range { words[region] = map.words[region] }
        isConflicting = false
      }
      best = newest.sequence
    }
    if isConflicting { conflictingPages += 1 }
    if isCertain {
      // A leg that is absent may hold an image that was in flight, which nothing relied on. It may
      // not pass for this one if it is back before the new generation is recorded.
      if !plan.lost.isEmpty { sequences[page] += 1 }
      return
    }
    if removed == .doubtUncertainPages, best != nil { return }
    if best == nil { lostPages += 1 } else { uncertainPages += 1 }
    // A leg that is absent and complete by the label is left to rule 4.
    let doubt = RegionWord.intent | UInt16(plan.incomplete.subtracting(plan.lost).bits)
    for region in range {
      // With a log in memory the other copy is that of the stop before, however long ago.
      if plan.logKind == .core { words[region] &= RegionWord.unwritten }
      words[region] |= doubt
    }
    if plan.logKind == .disk { trustLoneLeg(range, plan) }
  }

  /// Rule 9, for the regions `range` of an uncertain page.
  private mutating func trustLoneLeg(_ range: Range<Int>, _ plan: AssemblyPlan) {
    let listed = plan.members.indices.filter { plan.members[$0].state == .online }
    guard listed.count == 1, plan.online.contains(LegSlot(listed[0])),
      !plan.members[listed[0]].isSyncing
    else { return }
    for region in range { words[region] &= ~(1 << UInt16(listed[0])) }
  }

  /// Two words of one region, of which one is right: what is safe in both cases.
  private static func merge(_ first: UInt16, _ second: UInt16) -> UInt16 {
    (first | second) & ~RegionWord.unwritten | (first & second & RegionWord.unwritten)
      | RegionWord.intent
  }

  private mutating func applyRules(_ page: Int, _ plan: AssemblyPlan) {
    let isMapLost = plan.logKind == .core && !plan.wasClean
    let offline = UInt16(plan.offline.subtracting(plan.lost).bits)
    // What a leg that is not complete had got stood in memory only. Rule 4 adds the legs that are
    // absent, where there is a good one.
    var staleEverywhere: UInt16 = 0
    if isMapLost { staleEverywhere = UInt16(plan.incomplete.subtracting(plan.lost).bits) }
    for leg in plan.legs {
      guard let leg, leg.role == .diverged else { continue }
      staleEverywhere |= 1 << UInt16(leg.slot.raw)
    }
    let kept = RegionWord.intent | UInt16(plan.configured.bits)
    let online = UInt16(plan.online.bits)
    let lost = UInt16(plan.lost.bits)
    for region in wordRange(page) {
      if words[region] & RegionWord.unwritten != 0 {
        words[region] = RegionWord.unwritten
        unwrittenRegions += 1
        continue
      }
      var word = words[region] & kept
      if isMapLost { word = RegionWord.intent }
      word |= staleEverywhere
      if let leg = plan.insistedOn {
        word = (word | UInt16(plan.configured.bits)) & ~UInt16(LegSet(leg).bits)
      }
      if word & RegionWord.intent != 0 {
        // Where no listed leg is good, nothing is written or cleared: an offline leg may hold the
        // only copy and is good when it is back.
        let listed = online | lost
        if word & listed != listed, removed != .absentLegsAreStaleAtStart { word |= offline }
        regionsWithIntent += 1
      }
      if word & online == online { regionsWithoutSource += 1 }
      words[region] = word
    }
  }

  private func needsRewrite(_ page: Int, _ plan: AssemblyPlan, _ maps: [LegMap?]) -> Bool {
    var online = plan.online
    while let slot = online.popFirst() {
      guard let map = maps[slot.index], map.hasBothCopies(page: page) else { return true }
      for region in wordRange(page) where map.words[region] != words[region] { return true }
    }
    return false
  }

  /// Rule 4: whether a region of this word is stale on absent legs under the next generation.
  private func isStaleWhenRecorded(_ word: UInt16, _ plan: AssemblyPlan) -> Bool {
    let online = UInt16(plan.online.bits)
    return word & RegionWord.intent != 0 && word & online != online
  }

  private mutating func explain(_ plan: AssemblyPlan) {
    explanation.append(
      "region map: \(plan.layout.regionCount) regions of \(plan.layout.regionBytes) bytes in "
        + "\(plan.layout.pageCount) pages, \(regionsWithIntent) regions to be compared")
    if unwrittenRegions > 0 {
      explanation.append(
        "\(unwrittenRegions) regions were never written: they read as zeros, whatever the legs hold "
          + "there")
    }
    if lostPages > 0 {
      explanation.append(
        "\(lostPages) pages of the region map are lost on all legs: their regions are compared, "
          + "and copied to every leg that is not known to be complete")
    }
    if uncertainPages > 0 {
      explanation.append(
        "\(uncertainPages) pages of the region map have a copy that is not valid on every leg: "
          + "their regions are compared")
    }
    if conflictingPages > 0 {
      explanation.append("\(conflictingPages) pages of the region map differ between legs")
    }
    if regionsWithoutSource > 0 {
      explanation.append(
        "\(regionsWithoutSource) regions are current on no online leg and cannot be read until "
          + "a leg that has them is back")
    }
    for (index, member) in plan.members.enumerated()
    where member.state != .vacant && member.state != .spare {
      let bit: UInt16 = 1 << UInt16(index)
      let isLost = plan.lost.contains(LegSlot(index))
      let count = words.reduce(0) {
        $0 + ($1 & bit != 0 || isLost && isStaleWhenRecorded($1, plan) ? 1 : 0)
      }
      if count > 0 { explanation.append("leg \(index): \(count) regions are stale") }
    }
  }
}
