// A mirror made of labels only: legs take part in commits, miss them, or go on alone.
import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

/// Labels of up to 8 legs, as an engine would have written them.
struct TestMirror {
  var labels: [Label]
  var isOtherCopyValid = Array(repeating: true, count: 8)
  private var nextId: UInt64 = 1000

  /// `count` legs, all online, at generation 1.
  init(legs count: Int, logKind: LogKind = .disk, sizeBytes: UInt64 = 3000 << 20) throws {
    let members = (0..<8).map { index in
      index < count
        ? Member(legId: TestMirror.legId(index), state: .online) : Member.vacant
    }
    let layout = try Layout.plan(sizeBytes: sizeBytes, regionBytes: nil, blockBytes: 512)
    labels = (0..<count).map { index in
      Label(
        sequence: 2, setId: Identifier(high: 0x5e7, low: 1), name: "m",
        legId: TestMirror.legId(index), slot: LegSlot(index),
        lineage: Lineage(
          current: Generation(counter: 1, id: Identifier(high: 0x6e, low: 1)), parents: []),
        members: members, layout: layout, logKind: logKind)
    }
  }

  static func legId(_ index: Int) -> Identifier { Identifier(high: 0x1e6, low: UInt64(index) + 1) }
  static func path(_ index: Int) -> String { "/pv\(index)" }

  /// A commit: a new generation as `leg` sees it, after `change`, written to the legs `to`.
  mutating func commit(
    seenBy leg: Int, to legs: [Int], isClean: Bool = false, _ change: (inout [Member]) -> Void
  ) {
    nextId += 1
    var label = labels[leg]
    label.lineage = label.lineage.successor(id: Identifier(high: 0x6e, low: nextId))
    label.isClean = isClean
    label.sequence += 1
    change(&label.members)
    for index in legs {
      label.legId = labels[index].legId
      label.slot = labels[index].slot
      labels[index] = label
    }
  }

  /// `leg` takes the legs `others` offline.
  mutating func lose(
    _ others: [Int], state: MemberState = .missing, seenBy leg: Int, to legs: [Int]
  ) {
    let counter = labels[leg].lineage.current.counter + 1
    commit(seenBy: leg, to: legs) { members in
      for other in others {
        members[other].state = state
        if members[other].offlineSince == 0 { members[other].offlineSince = counter }
      }
    }
  }

  /// The candidates for these legs, in this order.
  func candidates(_ legs: [Int]) -> [AssemblyCandidate] {
    legs.map { index in
      AssemblyCandidate(
        path: TestMirror.path(index),
        content: .label(
          ElectedLabel(
            label: labels[index], copy: 0, isOtherCopyValid: isOtherCopyValid[index])),
        legBytes: labels[index].layout.pvBytes, logicalBlockBytes: 512)
    }
  }

  /// The plan for these legs; checked to be the same for every order of them.
  func plan(
    _ legs: [Int], degraded: Bool = false, choose: String? = nil
  ) -> Result<AssemblyPlan, AssemblyRefusal> {
    let options = AssemblyOptions(isDegradedAllowed: degraded, chooseLeg: choose)
    let result = Assembly.plan(candidates(legs), options: options)
    for order in [Array(legs.reversed()), Array(legs.dropFirst() + legs.prefix(1))] {
      let other = Assembly.plan(candidates(order), options: options)
      #expect(TestMirror.unordered(result) == TestMirror.unordered(other), "order \(order)")
    }
    return result
  }

  /// The result without candidate indexes, which are the only thing that may depend on the order.
  static func unordered(
    _ result: Result<AssemblyPlan, AssemblyRefusal>
  ) -> Result<AssemblyPlan, AssemblyRefusal> {
    result.map { plan in
      var plan = plan
      for index in plan.legs.indices { plan.legs[index]?.candidate = 0 }
      return plan
    }
  }

  /// A region map with the same words everywhere, both copies valid.
  func map(
    word: UInt16 = 0, sequence: UInt64 = 4, invalidNewest: [Int] = [], lost: [Int] = [],
    change: (inout [UInt16]) -> Void = { _ in }
  ) -> LegMap {
    let layout = labels[0].layout
    let setId = labels[0].setId
    var words = Array(repeating: word, count: layout.regionCount)
    change(&words)
    var map = LegMap(layout: layout)
    for page in 0..<layout.pageCount where !lost.contains(page) {
      for copy in 0..<2 where copy == 1 || !invalidNewest.contains(page) {
        var bytes = [UInt8](repeating: 0, count: Layout.pageBytes)
        bytes.withMutableRawSpan {
          RegionMapPage.encode(
            page: page, sequence: sequence - UInt64(copy), setId: setId, words: words,
            firstWord: page * Layout.wordsPerPage, into: &$0)
        }
        bytes.withRawSpan { map.read(page: page, copy: copy, bytes: $0, setId: setId) }
      }
    }
    return map
  }
}

extension Result where Success == AssemblyPlan, Failure == AssemblyRefusal {
  /// The refusal, if it is one.
  var refusal: AssemblyRefusal? {
    if case .failure(let refusal) = self { return refusal }
    return nil
  }
}

extension AssemblyPlan {
  /// Roles of the legs that are present, by slot.
  var roles: [Int: AssemblyRole] {
    var roles: [Int: AssemblyRole] = [:]
    for leg in legs {
      if let leg { roles[leg.slot.index] = leg.role }
    }
    return roles
  }
}
