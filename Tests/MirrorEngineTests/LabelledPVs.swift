// What the legs of a driven engine hold on their labels, for assembling them after a crash.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

/// The newest label on each PV.
struct LabelledPVs {
  var labels: [Int: Label] = [:]

  /// Completes the first open label write on `slot`; it reaches the PV unless it failed and
  /// `lands` is false.
  mutating func complete(
    _ driver: EngineDriver, on slot: Int, error: Int32 = 0, lands: Bool = true
  ) throws {
    let label = try #require(try driver.openLabel(on: slot), "a label write on leg \(slot)")
    if error == 0 || lands { labels[slot] = label }
    driver.complete(error: error) { driver.isLabel($0) && $0.leg.index == slot }
  }

  /// Completes everything that is open and what follows.
  mutating func runToRest(_ driver: EngineDriver) throws {
    while let io = driver.open.first?.io {
      if driver.isLabel(io) {
        try complete(driver, on: io.leg.index)
      } else {
        driver.complete { $0.token == io.token }
      }
    }
  }

  /// A driver whose legs hold their opening labels.
  static func opened(
    legs: Int, regionBytes: UInt64 = 1 << 20, logKind: LogKind = .disk
  ) throws -> (EngineDriver, LabelledPVs) {
    var pvs = LabelledPVs()
    let driver = try EngineDriver(legs: legs, regionBytes: regionBytes, logKind: logKind)
    try pvs.runToRest(driver)
    return (driver, pvs)
  }

  /// What a start with these PVs decides.
  func plan(
    _ slots: [Int], degraded: Bool = false, choose: String? = nil
  ) -> Result<AssemblyPlan, AssemblyRefusal> {
    let candidates = slots.compactMap { slot in
      labels[slot].map {
        AssemblyCandidate(
          path: "/pv\(slot)",
          content: .label(ElectedLabel(label: $0, copy: 0, isOtherCopyValid: true)),
          legBytes: $0.layout.pvBytes, logicalBlockBytes: 512)
      }
    }
    return Assembly.plan(
      candidates, options: AssemblyOptions(isDegradedAllowed: degraded, chooseLeg: choose))
  }

  /// The leg is started alone, somewhere else, without the others.
  mutating func goOnAlone(_ slot: Int) throws {
    var label = try #require(labels[slot])
    label.lineage = label.lineage.successor(
      id: Identifier(high: 0xa10e, low: label.lineage.current.counter << 8 | UInt64(slot)))
    for index in label.members.indices
    where index != slot && label.members[index].state == .online {
      label.members[index].state = .missing
    }
    label.sequence += 1
    labels[slot] = label
  }
}

extension EngineDriver {
  /// A PV as `readd` takes it, by what its label says.
  func returning(_ label: Label) -> ReturningLeg {
    ReturningLeg(
      legId: label.legId, lineage: label.lineage, labelSequence: label.sequence, labelCopy: 0,
      isTreatedAsNew: false)
  }
}

extension Result where Success == AssemblyPlan, Failure == AssemblyRefusal {
  /// The refusal, if it is one.
  var refusal: AssemblyRefusal? {
    if case .failure(let refusal) = self { return refusal }
    return nil
  }
}
