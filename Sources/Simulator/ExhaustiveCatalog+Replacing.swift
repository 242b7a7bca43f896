// Scenarios in which a leg takes the place of another: by command, or a spare by itself.

import Base
import MirrorFormat

extension ExhaustiveCatalog {
  /// Copies go on; so many I/Os later comes the next step.
  static func copying(_ count: Int) -> [ExhaustiveStep] {
    [.unsettled(.pauseCopies(false)), .completions(count)]
  }

  // MARK: Hot replace

  static var replacing: [ExhaustiveScenario] {
    let written: [ExhaustiveStep] = [.run(.write(0, 1024))]
    let begun = written + [.pauseCopies(true), .replace(0)]
    return [
      Scenario(name: "replace a leg", setup: written, steps: [.replace(1), .converge]),
      Scenario(
        name: "replace the first leg", setup: written + [.run(.flush), .idle],
        steps: [.replace(0), .converge]),
      Scenario(
        name: "replace the only leg", legCount: 1, setup: written,
        steps: [.replace(0), .converge]),
      Scenario(
        name: "replace a leg that is offline", setup: [.fail(1)] + written,
        steps: [.replace(1), .converge]),
      Scenario(
        name: "replace, write before it is copied",
        setup: written + [.pauseCopies(true)],
        steps: [.replace(0), .run(.write(512, 512)), .pauseCopies(false), .converge]),
      Scenario(
        name: "replace, write and read while it is copied", setup: begun,
        steps: copying(1) + [.run([.write(512, 512), .read(0, 1024)]), .converge]),
      Scenario(
        name: "replace, the old leg is failed in the middle", setup: begun,
        steps: copying(2) + [.fail(0), .converge]),
      Scenario(
        name: "replace, the old leg fails a read of the copy", setup: begun,
        steps: [fault(0, .dataRead), .pauseCopies(false), .converge]),
      Scenario(
        name: "replace, the old leg fails a write in the middle", setup: begun,
        steps: [fault(0, .dataWrite, remains: .firstSector)] + copying(1)
          + [.run(.write(512, 512)), .converge]),
      Scenario(
        name: "replace, the old leg is removed in the middle", setup: begun,
        steps: copying(1) + [.remove(0), .run(.write(0, 512)), .converge]),
      Scenario(
        name: "replace, the new leg is failed in the middle", setup: begun,
        steps: copying(1) + [.fail(2), .run(.write(0, 512))]),
      Scenario(
        name: "replace, the new leg fails its copy", setup: begun,
        steps: [
          fault(2, .dataWrite, nth: 2, remains: .firstSector), .pauseCopies(false),
          .run(.write(0, 512)),
        ]),
      Scenario(
        name: "replace, the new leg fails its flush", setup: begun,
        steps: [fault(2, .flush), .pauseCopies(false), .run(.write(0, 512))]),
      Scenario(
        name: "replace, the new leg fails a map page", setup: written,
        steps: [fault(2, .page, nth: 2, remains: .firstSector), .replace(0), .run(.write(0, 512))]),
      Scenario(
        name: "replace, the new leg fails its label", setup: written,
        steps: [fault(2, .label, remains: .all), .replace(0), .run(.write(0, 512))]),
      Scenario(
        name: "replace, restart in the middle", setup: begun,
        steps: [
          .restart(ExhaustiveRestart()), .run(.write(0, 512)), .pauseCopies(false), .converge,
        ]),
      Scenario(
        name: "core: replace a leg", logKind: .core, setup: written,
        steps: [.replace(0), .run(.write(0, 512)), .converge]),
    ]
  }

  // MARK: Spares

  static var spares: [ExhaustiveScenario] {
    let ready: [ExhaustiveStep] = [.run(.write(0, 1024)), .addSpare]
    let taking = ready + [.pauseCopies(true), .fail(0), .second]
    return [
      Scenario(name: "add a spare", steps: [.addSpare, .run(.write(0, 512))]),
      Scenario(name: "a spare takes over", setup: ready, steps: [.fail(0), .second, .converge]),
      Scenario(
        name: "a spare takes over after a failed write", setup: ready,
        steps: [
          fault(1, .dataWrite, remains: .firstSector), .run(.write(512, 512)), .second, .converge,
        ]),
      Scenario(
        name: "a spare takes over, write before it is copied",
        setup: ready + [.pauseCopies(true), .fail(0)],
        steps: [.second, .run(.write(512, 512)), .pauseCopies(false), .converge]),
      Scenario(
        name: "a spare takes over, write while it is copied", setup: taking,
        steps: copying(1) + [.run([.write(512, 512), .read(0, 1024)]), .converge]),
      Scenario(
        name: "a spare takes over and fails its copy", setup: taking,
        steps: [
          fault(2, .dataWrite, nth: 2, remains: .firstSector), .pauseCopies(false),
          .run(.write(0, 512)),
        ]),
      Scenario(
        name: "a spare takes over and fails a map page", setup: ready,
        steps: [
          fault(2, .page, nth: 2, remains: .firstSector), .fail(0), .second, .run(.write(0, 512)),
        ]),
      Scenario(
        name: "a spare takes over and fails its label", setup: ready + [.fail(0)],
        steps: [fault(2, .label, remains: .all), .second, .run(.write(0, 512))]),
      Scenario(
        name: "a spare fails a label", setup: ready,
        steps: [fault(2, .label, remains: .firstSector), .fail(1), .run(.write(0, 512))]),
      Scenario(
        name: "a spare takes over, the failed leg is back", setup: taking,
        steps: [.readd(0), .run(.write(0, 512)), .pauseCopies(false), .converge]),
      Scenario(
        name: "a spare takes over, restart in the middle", setup: taking,
        steps: [
          .restart(ExhaustiveRestart()), .run(.write(0, 512)), .pauseCopies(false), .converge,
        ]),
      Scenario(
        name: "core: a spare takes over", logKind: .core, setup: ready,
        steps: [.fail(0), .second, .run(.write(0, 512)), .converge]),
    ]
  }
}
