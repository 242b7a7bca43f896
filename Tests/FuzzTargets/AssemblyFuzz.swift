// Several PVs with any labels and any region maps: they are assembled or refused, the same in any
// order; what is assembled keeps the promises of Assembly.swift and AssemblyMap.swift; and the engine
// that is started with it comes to rest, and stops.
//
//   input: options, number of PVs, then the labels and maps of each, field by field
//
// Ids are drawn from few, so that PVs know each other. A label that could not be read from a PV is
// none: every label goes through its bytes.

import Base
import MirrorEngine
import MirrorFormat

enum AssemblyFuzz {
  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    var input = FuzzInput(input)
    let options = AssemblyOptions(
      isDegradedAllowed: input.flag(), chooseLeg: ["0", "/pv1", "7", nil][input.below(4)])
    var pvs: [FuzzPV] = []
    for index in 0..<(1 + input.below(4)) {
      // Most PVs of a mirror are alike: a label begins as the one before.
      pvs.append(FuzzPV(&input, index: index, like: pvs.last?.label))
    }
    let result = Assembly.plan(pvs.map(\.candidate), options: options)
    let reversed = Assembly.plan(pvs.reversed().map(\.candidate), options: options)
    try require(
      unordered(result) == unordered(reversed), "the plan depends on the order of the PVs")
    switch result {
    case .failure(let refusal): try require(!refusal.description.isEmpty, "a refusal says why")
    case .success(let plan):
      try check(plan, pvs, options)
      let map = try elect(plan, pvs)
      try EngineFuzz.run(plan, map)
    }
  }

  /// Indexes of candidates are all that may depend on the order.
  private static func unordered(
    _ result: Result<AssemblyPlan, AssemblyRefusal>
  ) -> Result<AssemblyPlan, AssemblyRefusal> {
    result.map { plan in
      var plan = plan
      for index in plan.legs.indices { plan.legs[index]?.candidate = 0 }
      return plan
    }
  }

  private static func check(
    _ plan: AssemblyPlan, _ pvs: [FuzzPV], _ options: AssemblyOptions
  ) throws(FuzzProblem) {
    try require(plan.legs.count == LegSlot.count, "8 slots")
    try require(!plan.online.isEmpty, "nobody is online")
    var ids: [Identifier] = []
    for (index, leg) in plan.legs.enumerated() {
      let slot = LegSlot(index)
      let isListed = plan.members[index].state == .online
      try require(
        plan.lost.contains(slot) == (isListed && !plan.online.contains(slot)),
        "lost is what is listed online and is not")
      try require(isListed || !plan.online.contains(slot), "nobody is online who is not listed")
      guard let leg else { continue }
      let label = leg.label.label
      try require(plan.online.contains(slot) == (leg.role == .online), "the role says it")
      try require(leg.slot == slot && plan.members[index].legId == label.legId, "another slot")
      try require(label.setId == plan.setId && label.layout == plan.layout, "another mirror")
      try require(!ids.contains(label.legId), "a leg is there twice")
      ids.append(label.legId)
      try require(plan.nextLabelSequence > label.sequence, "the next label is not the newest")
      try require(pvs[leg.candidate].path == leg.path, "another candidate")
    }
    let absent = plan.lost.subtracting(
      plan.legs.reduce(into: LegSet.none) { set, leg in if let leg { set.insert(leg.slot) } })
    try require(
      absent.isEmpty || options.isDegradedAllowed, "a leg is absent and nobody allowed it")
    for line in plan.explanation { try require(!line.isEmpty, "an explanation says something") }
  }

  /// The map, and the map of a second start after what the first one has to write.
  private static func elect(
    _ plan: AssemblyPlan, _ pvs: [FuzzPV]
  ) throws(FuzzProblem) -> AssemblyMap {
    var maps: [LegMap?] = Array(repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs { maps[leg.slot.index] = pvs[leg.candidate].map(plan.layout) }
    let map = AssemblyMap.elect(plan: plan, maps: maps)
    // No server writes it, but a label can call a spare syncing: then it is not complete.
    let configured = UInt16(plan.configured.bits | plan.incomplete.bits)
    let online = UInt16(plan.online.bits)
    var counts = (intent: 0, unwritten: 0, sourceless: 0)
    for word in map.words {
      let region = RegionWord(raw: word)
      if region.isUnwritten {
        try require(word == RegionWord.unwritten, "an unwritten region has other bits")
        counts.unwritten += 1
        continue
      }
      try require(word & ~(configured | RegionWord.intent) == 0, "a leg is stale that is none")
      if region.hasIntent { counts.intent += 1 }
      if word & online == online { counts.sourceless += 1 }
    }
    try require(map.regionsWithIntent == counts.intent, "regions with intent are counted wrong")
    try require(map.unwrittenRegions == counts.unwritten, "unwritten regions are counted wrong")
    try require(map.regionsWithoutSource == counts.sourceless, "lost regions are counted wrong")
    for case let leg? in maps {
      for page in 0..<leg.pageCount {
        guard let newest = leg.newest(page: page) else { continue }
        try require(map.sequences[page] >= newest.sequence, "a page is newer than the newest")
      }
    }
    try electAgain(plan, map, maps)
    return map
  }

  private static func electAgain(
    _ plan: AssemblyPlan, _ map: AssemblyMap, _ maps: [LegMap?]
  ) throws(FuzzProblem) {
    var written = maps
    var slots = plan.online
    while let slot = slots.popFirst() {
      guard var leg = written[slot.index] else { continue }
      for page in map.pagesToRewrite {
        for copy in 0...1 {
          var bytes = [UInt8](repeating: 0, count: Layout.pageBytes)
          bytes.withMutableRawSpan {
            RegionMapPage.encode(
              page: page, sequence: map.sequences[page] + 1 + UInt64(copy), setId: plan.setId,
              words: map.words, firstWord: page * Layout.wordsPerPage, into: &$0)
          }
          bytes.withRawSpan { leg.read(page: page, copy: copy, bytes: $0, setId: plan.setId) }
        }
      }
      written[slot.index] = leg
    }
    let again = AssemblyMap.elect(plan: plan, maps: written)
    try require(again.words == map.words, "a map that was written is another one when it is read")
    try require(again.lostPages == 0 && again.uncertainPages == 0, "a page is doubted for ever")
    try require(again.pagesToRewrite.isEmpty, "a map that was written has to be written")
  }
}

/// A PV: a label, drawn field by field, and a region map.
struct FuzzPV {
  var path: String
  var label: Label?
  private var content: Result<ElectedLabel, FormatError>
  private var setId: Identifier
  private var legBytes: UInt64
  private var pages: [(page: Int, copy: Int, sequence: UInt64, words: [UInt16])] = []

  private static func id(_ kind: UInt64, _ input: inout FuzzInput) -> Identifier {
    Identifier(high: kind, low: UInt64(input.below(12)) + 1)
  }

  init(_ input: inout FuzzInput, index: Int, like model: Label?) {
    path = "/pv\(index)"
    var label = model ?? FuzzPV.first
    label.slot = LegSlot(index)
    label.legId = Identifier(high: 0x1e6, low: UInt64(index) + 1)
    FuzzPV.change(&label, &input)
    setId = label.setId
    legBytes = label.layout.pvBytes
    if input.below(16) == 15 { legBytes -= 1 }
    var bytes = LabelBytes.encode(label)
    if input.below(16) == 15 { bytes[input.below(256)] ^= 0x80 }
    let decoded = LabelFuzz.decode(bytes)
    content = Election.label(decoded, input.flag() ? decoded : .failure(.checksum))
    if case .success(let elected) = content { self.label = elected.label }
    takePages(&input)
  }

  var candidate: AssemblyCandidate {
    AssemblyCandidate(path: path, label: content, legBytes: legBytes, logicalBlockBytes: 512)
  }

  /// Two pages of 2032 and 68 regions.
  private static let layout = Layout(
    sizeBytes: 2100 << 16, regionBytes: 1 << 16, blockBytes: 512, mapOffset: 1 << 20,
    dataOffset: 2 << 20)

  /// Legs 0 to 3 online.
  private static let first = Label(
    sequence: 2, setId: Identifier(high: 0x5e7, low: 1), name: "m",
    legId: Identifier(high: 0x1e6, low: 1), slot: LegSlot(0),
    lineage: Lineage(
      current: Generation(counter: 1, id: Identifier(high: 0x6e, low: 1)), parents: []),
    members: (0..<LegSlot.count).map { index in
      index < 2
        ? Member(legId: Identifier(high: 0x1e6, low: UInt64(index) + 1), state: .online) : .vacant
    }, layout: layout)

  /// Changes, as many as the input says.
  private static func change(_ label: inout Label, _ input: inout FuzzInput) {
    for _ in 0..<input.below(24) {
      switch input.below(18) {
      case 0: label.sequence = number(&input)
      case 1: label.setId = id(0x5e7, &input)
      case 2: label.legId = id(0x1e6, &input)
      case 3: label.slot = LegSlot(input.below(8))
      case 4: label.lineage.current.counter = number(&input)
      case 5: label.lineage.current.id = id(0x6e, &input)
      case 6: label.lineage = label.lineage.successor(id: id(0x6e, &input))
      case 7: if label.lineage.parents.count < 16 { label.lineage.parents.append(id(0x6e, &input)) }
      case 8: label.isClean.toggle()
      case 9: label.logKind = label.logKind == .disk ? .core : .disk
      case 10: label.features.readOnlyCompatible = UInt32(input.byte())
      case 11: label.resyncMinBytesPerSecond = number(&input)
      case 12: label.resyncMaxBytesPerSecond = number(&input)
      case 13: label.isResyncPaused.toggle()
      case 14: label.layout.sizeBytes = UInt64(1 + input.below(255)) << 16
      case 15: label.createdSeconds = number(&input)
      default: change(&label.members[input.below(8)], &input)
      }
    }
  }

  private static func change(_ member: inout Member, _ input: inout FuzzInput) {
    let state = MemberState.allCases[input.below(7)]
    guard state != .vacant else {
      member = .vacant
      return
    }
    member.state = state
    if member.legId.isZero || input.flag() { member.legId = id(0x1e6, &input) }
    let flags = input.byte()
    member.isWriteMostly = flags & 1 != 0
    member.isSyncing = flags & 2 != 0
    member.isGivenUp = flags & 4 != 0
    member.replaces = flags & 8 == 0 ? nil : LegSlot(input.below(8))
    if flags & 16 != 0 { member.offlineSince = number(&input) }
    if flags & 32 != 0 { member.offeredId = id(0x6e, &input) }
  }

  /// A small number, or any.
  private static func number(_ input: inout FuzzInput) -> UInt64 {
    let first = input.byte()
    return first < 0xc0 ? UInt64(first & 15) : input.number(8)
  }

  /// Both copies of both pages: words that repeat, a few that differ.
  private mutating func takePages(_ input: inout FuzzInput) {
    for page in 0...1 {
      for copy in 0...1 {
        let settings = input.byte()
        // None; else the same on all legs, as a rule.
        guard settings & 7 != 7 else { continue }
        var words = [UInt16](repeating: UInt16(input.number(2)), count: 2100)
        for _ in 0..<(settings >> 3 & 3) {
          words[Int(input.number(2)) % 2100] = UInt16(input.number(2))
        }
        let sequence = settings & 32 == 0 ? UInt64(2 - copy) : FuzzPV.number(&input)
        pages.append((page, copy, sequence, words))
      }
    }
  }

  /// The map as it is read with this layout.
  func map(_ layout: Layout) -> LegMap {
    var map = LegMap(layout: layout)
    for page in pages where page.page < layout.pageCount {
      var bytes = [UInt8](repeating: 0, count: Layout.pageBytes)
      bytes.withMutableRawSpan {
        RegionMapPage.encode(
          page: page.page, sequence: page.sequence, setId: setId, words: page.words,
          firstWord: page.page * Layout.wordsPerPage, into: &$0)
      }
      bytes.withRawSpan { map.read(page: page.page, copy: page.copy, bytes: $0, setId: setId) }
    }
    return map
  }
}
