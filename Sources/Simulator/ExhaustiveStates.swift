// Which disks a crash may leave.
//
// Each unit (sector or metadata page) that is in flight or, at a power loss, not flushed is a
// *choice*: what is there for sure, then every later version, oldest first; between two versions
// of a page the torn ones. Units whose versions are all equal are no choice. The choices of a leg
// are independent, and so are the legs:
//
// - Few combinations: all of them.
// - Many: nothing, everything, each single one, all but one, every prefix in the order of the
//   writes (of a leg); each leg's list against nothing and everything of the others, and pairs of
//   single ones (between legs).

import Base
import MirrorEngine
import MirrorFormat

/// How much is enumerated.
public struct ExhaustiveBounds: Sendable {
  /// Combinations of one leg that are enumerated in full.
  public var perLeg: Int
  /// Combinations of all legs that are enumerated in full.
  public var perPoint: Int
  /// Units of a leg that are tried as single ones where not everything is.
  public var singles: Int
  /// Combinations of those above that are tried at a crash point.
  public var statesPerPoint: Int
  /// Every so many'th event is a crash point.
  public var pointStep: Int
  /// A second crash is enumerated where a scenario asks for it.
  public var hasSecondCrash: Bool

  /// The whole set.
  public static let fine = ExhaustiveBounds(
    perLeg: 16, perPoint: 64, singles: 4, statesPerPoint: 4096, pointStep: 1,
    hasSecondCrash: true)
  /// Of a second crash.
  static let second = ExhaustiveBounds(
    perLeg: 4, perPoint: 9, singles: 2, statesPerPoint: 64, pointStep: 1, hasSecondCrash: false)
  /// A sample of every scenario: for tests in debug mode.
  public static let coarse = ExhaustiveBounds(
    perLeg: 4, perPoint: 16, singles: 2, statesPerPoint: 1, pointStep: 8, hasSecondCrash: false)
}

/// What a crash may have left on one leg.
struct ExhaustiveVariant {
  var changes: [(unit: Int, value: UInt64)]
  var hash: UInt64
}

private struct ExhaustiveChoice {
  var unit: Int
  /// The first is there for sure, if none of the others is.
  var values: [UInt64]
}

/// The choices of one leg.
private struct ExhaustiveChoices {
  private(set) var list: [ExhaustiveChoice] = []
  private var place: [Int: Int] = [:]
  private let base: [UInt64]

  init(base: [UInt64]) { self.base = base }

  mutating func add(_ value: UInt64, unit: Int, _ pages: inout ExhaustivePages) {
    let index: Int
    if let known = place[unit] {
      index = known
    } else {
      index = list.count
      place[unit] = index
      list.append(ExhaustiveChoice(unit: unit, values: [base[unit]]))
    }
    if unit < ExhaustiveLeg.metaUnits, let old = list[index].values.last {
      for torn in pages.torn(old: old, new: value) { append(torn, index) }
    }
    append(value, index)
  }

  private mutating func append(_ value: UInt64, _ index: Int) {
    if !list[index].values.contains(value) { list[index].values.append(value) }
  }

  mutating func dropCertain() { list.removeAll { $0.values.count == 1 } }
}

extension ExhaustiveRun {
  /// What may be on a leg after a crash now.
  func variants(
    of slot: Int, losingPower: Bool, _ bounds: ExhaustiveBounds
  ) -> [ExhaustiveVariant] {
    guard let leg = state.legs[slot] else { return [ExhaustiveVariant(changes: [], hash: 0)] }
    var choices = ExhaustiveChoices(base: losingPower ? leg.stable : leg.image)
    if losingPower {
      for write in leg.cache { choices.add(write.value, unit: write.unit, &state.pages) }
      for unit in leg.lost { choices.add(leg.image[unit], unit: unit, &state.pages) }
    } else {
      for unit in leg.lost { choices.add(leg.stable[unit], unit: unit, &state.pages) }
    }
    for item in pending where item.io.leg.index == slot && item.changesLeg {
      for position in item.values.indices {
        choices.add(item.values[position], unit: item.unit + position, &state.pages)
      }
    }
    choices.dropCertain()
    let hash = leg.hash(state.pages, losingPower: losingPower)
    return ExhaustiveRun.picks(choices.list.map(\.values.count), bounds).map { pick in
      var variant = ExhaustiveVariant(changes: [], hash: hash)
      for index in pick.indices where pick[index] > 0 {
        let choice = choices.list[index]
        let value = choice.values[pick[index]]
        variant.changes.append((choice.unit, value))
        variant.hash ^=
          ExhaustiveLeg.unitHash(choice.values[0], unit: choice.unit, state.pages)
          ^ ExhaustiveLeg.unitHash(value, unit: choice.unit, state.pages)
      }
      return variant
    }
  }

  /// Which version of each choice, for every combination that is tried; the first is "nothing".
  static func picks(_ counts: [Int], _ bounds: ExhaustiveBounds) -> [[Int]] {
    var product = 1
    for count in counts where product <= bounds.perLeg { product *= count }
    var picks: [[Int]] = [Array(repeating: 0, count: counts.count)]
    if product <= bounds.perLeg {
      for index in counts.indices {
        picks = picks.flatMap { pick in
          (0..<counts[index]).map { version in
            var next = pick
            next[index] = version
            return next
          }
        }
      }
      return picks
    }
    let none = picks[0]
    let all = counts.map { $0 - 1 }
    for index in spread(counts.count, bounds.singles) {
      for version in 1..<counts[index] {
        var single = none
        single[index] = version
        picks.append(single)
      }
      var allBut = all
      allBut[index] = 0
      picks.append(allBut)
      var prefix = all
      for later in index..<counts.count { prefix[later] = 0 }
      picks.append(prefix)
    }
    // "Everything" is the last one, as it is where all are enumerated.
    var distinct: [[Int]] = []
    picks.append(all)
    for pick in picks where !distinct.contains(pick) { distinct.append(pick) }
    return distinct
  }

  /// At most `limit` of `count` indexes: the first, the last, and some between.
  static func spread(_ count: Int, _ limit: Int) -> [Int] {
    guard count > limit else { return Array(0..<count) }
    var result: [Int] = []
    for number in 0..<limit {
      let index = limit == 1 ? 0 : number * (count - 1) / (limit - 1)
      if result.last != index { result.append(index) }
    }
    return result
  }

  /// Which variant of each leg, for every combination that is tried.
  static func combinations(
    _ variants: [[ExhaustiveVariant]], _ bounds: ExhaustiveBounds
  ) -> [[Int]] {
    var product = 1
    for list in variants where product <= bounds.perPoint { product *= list.count }
    let none = Array(repeating: 0, count: variants.count)
    var result: [[Int]] = [none]
    if product <= bounds.perPoint {
      for leg in variants.indices {
        result = result.flatMap { pick in
          variants[leg].indices.map { index in
            var next = pick
            next[leg] = index
            return next
          }
        }
      }
      return result
    }
    let all = variants.map { $0.count - 1 }
    for leg in variants.indices {
      for index in variants[leg].indices {
        for rest in [none, all] {
          var pick = rest
          pick[leg] = index
          result.append(pick)
        }
      }
    }
    for first in variants.indices {
      for second in variants.indices where second > first {
        for one in spread(variants[first].count, bounds.singles) {
          for other in spread(variants[second].count, bounds.singles) {
            var pick = none
            pick[first] = one
            pick[second] = other
            result.append(pick)
          }
        }
      }
    }
    return result
  }

  /// The state that a combination stands for; the oracle is as `oracle` says.
  func crashed(
    _ variants: [[ExhaustiveVariant]], _ pick: [Int], losingPower: Bool, oracle: ExhaustiveOracle
  ) -> ExhaustiveState {
    var after = state
    after.oracle = oracle
    for index in variants.indices {
      after.legs[index] = state.legs[index]?.crashed(
        losingPower: losingPower, variants[index][pick[index]].changes)
    }
    return after
  }
}
