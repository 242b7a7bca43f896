// Scenarios after a crash, of degraded starts, and with the log in memory.

import Base
import MirrorFormat

extension ExhaustiveCatalog {
  private static func restart(
    landed: LegSet = .none, cut: LegSet = .none, absent: LegSet = .none, isReadOnly: Bool = false
  ) -> ExhaustiveStep {
    .restart(
      ExhaustiveRestart(landed: landed, cut: cut, absent: absent, isReadOnly: isReadOnly))
  }

  /// A crash in the midst of a write that has landed on some legs.
  static func interrupted(
    landed: LegSet, absent: LegSet = .none, isReadOnly: Bool = false
  ) -> [ExhaustiveStep] {
    [
      .run(.write(0, 1024)), .begin(.write(512, 1024)), .untilWriting,
      restart(landed: landed, absent: absent, isReadOnly: isReadOnly),
    ]
  }

  private static let leg0 = LegSet(LegSlot(0))
  static let leg1 = LegSet(LegSlot(1))
  private static let leg2 = LegSet(LegSlot(2))

  /// Leg 0, which is read first, got region 0 from leg 1 because it failed the copy's read; the
  /// copy of region 1 hangs, so nothing was flushed since.
  private static var copiedToSource: [ExhaustiveStep] {
    let writes: [ExhaustiveStep] = [
      .run(.write(0, 1024)), .run(.write(r1, 512)), .run(.flush), .begin(.write(512, 1024)),
      .untilWriting,
    ]
    return [.pauseCopies(true)] + writes + [
      restart(landed: leg0),
      .fault(ExhaustiveFault(leg: 0, target: .dataRead)),
      .fault(ExhaustiveFault(leg: 1, target: .dataWrite, hangs: true)), .pauseCopies(false),
    ]
  }

  // MARK: Unresolved regions

  static var unresolved: [ExhaustiveScenario] {
    [
      Scenario(
        name: "unresolved: read", setup: interrupted(landed: leg1), steps: [.run(.read(0, 2048))],
        depth: .two),
      Scenario(
        name: "unresolved: read, flush", setup: interrupted(landed: leg0),
        steps: [.run(.read(512, 512)), .run(.flush)]),
      Scenario(
        name: "unresolved: write", setup: interrupted(landed: leg1),
        steps: [.run(.write(512, 512)), .run(.read(0, 2048))]),
      Scenario(
        name: "unresolved: write a part of a sector", setup: interrupted(landed: leg1),
        steps: [.run(.write(640, 128)), .run(.flush)]),
      Scenario(
        name: "unresolved: reads at once", setup: interrupted(landed: leg1),
        steps: [.run([.read(512, 512), .read(0, 2048), .read(1024, 512)])]),
      Scenario(
        name: "unresolved: recovery", setup: interrupted(landed: leg1), steps: [.converge]),
      Scenario(
        name: "unresolved: a leg is failed", setup: interrupted(landed: leg1),
        steps: [.fail(0), .run(.read(512, 512))]),
      Scenario(
        name: "unresolved: a leg fails the write-back", setup: interrupted(landed: leg0),
        steps: [
          .fault(ExhaustiveFault(leg: 1, target: .dataWrite, remains: .firstSector)),
          .run(.read(512, 1024)), .run(.read(0, 2048)),
        ]),
      Scenario(
        name: "unresolved: the source fails the read", setup: interrupted(landed: leg1),
        steps: [
          .fault(ExhaustiveFault(leg: 0, target: .dataRead)), .run(.read(512, 1024)),
          .run(.read(0, 2048)),
        ]),
      Scenario(
        name: "unresolved: read what was copied to the source", setup: copiedToSource,
        steps: [.run(.read(512, 1024)), .run(.read(0, 2048))]),
      Scenario(
        name: "unresolved: read what was copied to the last leg", setup: copiedToSource,
        steps: [.fail(1), .run(.read(512, 1024)), .run(.read(0, 2048))]),
    ] + unresolvedBesides
  }

  private static var unresolvedBesides: [ExhaustiveScenario] {
    [
      Scenario(
        name: "unresolved: a leg fails the copy, reads",
        setup: [.pauseCopies(true)] + interrupted(landed: leg1),
        steps: [
          .fault(ExhaustiveFault(leg: 1, target: .dataWrite)), .unsettled(.pauseCopies(false)),
          .untilWriting, .run(.read(512, 512)), .run(.read(0, 2048)),
        ]),
      Scenario(name: "unresolved: stop", setup: interrupted(landed: leg1), steps: [.stop]),
      Scenario(
        name: "unresolved: three legs", legCount: 3, setup: interrupted(landed: leg1),
        steps: [.run(.read(512, 512)), .run(.write(1024, 512))]),
      Scenario(
        name: "unresolved: three legs, one is failed", legCount: 3,
        setup: interrupted(landed: leg2), steps: [.fail(0), .run(.read(512, 512))]),
      Scenario(
        name: "unresolved: crash once more", setup: interrupted(landed: leg1),
        steps: [
          .begin(.read(512, 512)), .untilWriting, restart(landed: leg0), .run(.read(512, 512)),
        ]),
      Scenario(
        name: "unresolved: read-only", setup: interrupted(landed: leg1),
        steps: [restart(isReadOnly: true), .run(.read(0, 2048)), restart(), .run(.read(0, 2048))]),
    ]
  }

  // MARK: Degraded starts

  static var starts: [ExhaustiveScenario] {
    [
      Scenario(
        name: "degraded start, read", setup: [.run(.write(0, 512))],
        steps: [restart(absent: leg1), .run(.read(0, 512))]),
      Scenario(
        name: "degraded start, write, flush", setup: [.run(.write(0, 512)), restart(absent: leg0)],
        steps: [.run(.write(0, 512)), .run(.flush)]),
      Scenario(
        name: "degraded start with regions unresolved",
        setup: interrupted(landed: leg1, absent: leg0),
        steps: [.run(.read(512, 512)), .run(.write(512, 512))]),
      Scenario(
        name: "the missing leg is there again",
        setup: interrupted(landed: leg1, absent: leg0) + [.run(.write(0, 512))],
        steps: [restart(), .run(.read(0, 2048)), .converge]),
      Scenario(
        name: "the missing leg is there again, nothing was written",
        setup: interrupted(landed: leg0, absent: leg1),
        steps: [restart(), .run(.write(512, 512)), .converge]),
      Scenario(
        name: "the missing leg is brought in while a write is inside",
        setup: [.run(.write(0, 512)), restart(absent: leg1), .run(.write(0, 512))],
        steps: [.begin(.write(0, 1024)), .untilWriting, .readd(1), .run(.flush)]),
      Scenario(
        name: "three legs, one after the other is missing", legCount: 3,
        setup: [
          .run(.write(0, 512)), restart(absent: leg2), .run(.write(512, 512)), .run(.flush),
        ],
        steps: [restart(absent: leg1), .run(.write(0, 512)), restart(), .converge]),
      Scenario(
        name: "read-only start without a leg", setup: [.run(.write(0, 512))],
        steps: [restart(absent: leg1, isReadOnly: true), .run(.read(0, 512))]),
      Scenario(
        name: "the power fails after a write, start", setup: [.run(.write(0, 1024))],
        steps: [restart(cut: leg1), .run(.read(0, 1024)), .run(.write(512, 512))]),
      Scenario(name: "first synchronization", startsStale: true, steps: [.converge]),
      Scenario(
        name: "first synchronization, write", startsStale: true,
        steps: [.run([.write(0, 512), .write(r1 + 640, 128), .read(0, 512)]), .converge]),
    ]
  }

  /// Leg 0 is back, but without region 0; while that is written leg 2 fails, and leg 1, which alone
  /// has it now, is absent at the next start.
  private static var goodIsAbsent: [ExhaustiveStep] {
    [
      .run(.write(0, 1024)), .fail(0), .run(.write(0, 1024)), .pauseCopies(true), .readd(0),
      .fault(ExhaustiveFault(leg: 2, target: .dataWrite)), .run(.write(0, 1024)), .run(.flush),
      restart(absent: leg1),
    ]
  }

  /// That start dies, too; then the failed leg is brought back before the one that is good.
  static var dyingStarts: [ExhaustiveScenario] {
    (0..<6).map { count in
      Scenario(
        name: "degraded start without the good leg, dies after \(count) of its writes", legCount: 3,
        setup: goodIsAbsent + [.completions(count)],
        steps: [
          restart(absent: leg1), .readd(2), .run(.read(0, 1024)), restart(), .run(.read(0, 1024)),
          .pauseCopies(false), .converge,
        ])
    }
  }

  /// A leg is offline, no label says so yet, and elsewhere than before is written.
  static var unlisted: [ExhaustiveScenario] {
    [
      Scenario(
        name: "a leg is failed, a write at once",
        steps: [.unsettled(.fail(1)), .run(.write(0, 1024)), .run(.flush)]),
      Scenario(
        name: "a leg is failed, writes at once", setup: [.run(.write(0, 512))],
        steps: [.unsettled(.fail(0)), .run([.write(0, 1024), .write(r1, 512)])]),
      Scenario(
        name: "a leg is failed while the log is written", legCount: 3,
        steps: [.begin(.write(0, 1024)), .fail(2), .run(.flush)]),
      Scenario(
        name: "a leg fails the opening label, a write", setup: [.run(.write(0, 512)), .stop],
        steps: [
          .fault(ExhaustiveFault(leg: 1, target: .label)), restart(), .run(.write(r1, 512)),
        ]),
      Scenario(
        name: "a leg that is brought in fails its label, a write", legCount: 3,
        setup: [.run(.write(0, 512)), .fail(2), .run(.write(0, 512))],
        steps: [
          .fault(ExhaustiveFault(leg: 2, target: .label, remains: .all)), .unsettled(.readd(2)),
          .run(.write(r1, 512)), .run(.flush),
        ]),
    ]
  }

  // MARK: Log in memory

  static var core: [ExhaustiveScenario] {
    [
      Scenario(
        name: "core: write, flush", logKind: .core, steps: [.run(.write(0, 512)), .run(.flush)]),
      Scenario(
        name: "core: two writes at once", logKind: .core,
        steps: [.run([.write(0, 1024), .write(512, 1024)])], depth: .two),
      Scenario(
        name: "core: fail, write", logKind: .core, setup: [.run(.write(0, 512))],
        steps: [.fail(1), .run(.write(0, 512)), .run(.flush)]),
      Scenario(
        name: "core: fail, write, readd", logKind: .core,
        setup: [.fail(0), .run(.write(0, 512))],
        steps: [.readd(0), .run(.write(0, 512)), .converge]),
      Scenario(
        name: "core: a leg fails a write", logKind: .core,
        steps: [
          .fault(ExhaustiveFault(leg: 0, target: .dataWrite, remains: .firstSector)),
          .run(.write(0, 1024)), .run(.flush),
        ]),
      Scenario(
        name: "core: after a crash, read, write", logKind: .core, setup: interrupted(landed: leg1),
        steps: [.run(.read(512, 512)), .run(.write(512, 512))]),
      Scenario(
        name: "core: recovery", logKind: .core, setup: interrupted(landed: leg1),
        steps: [.converge]),
      Scenario(
        name: "core: stop, start, write", logKind: .core, setup: [.run(.write(0, 512))],
        steps: [.stop, restart(), .run(.write(0, 512))]),
      Scenario(
        name: "core: stop while a leg is stale", logKind: .core,
        setup: [.fail(1), .run(.write(0, 512))], steps: [.stop, restart(), .readd(1), .converge]),
      Scenario(
        name: "core: degraded start, write, return", logKind: .core, setup: [.run(.write(0, 512))],
        steps: [restart(absent: leg1), .run(.write(0, 512)), restart(), .converge]),
      Scenario(
        name: "core: add a leg", logKind: .core, setup: [.run(.write(0, 512))],
        steps: [.add, .run(.write(0, 512)), .converge]),
      Scenario(
        name: "core: first synchronization", logKind: .core, startsStale: true,
        steps: [.run(.write(0, 512)), .converge]),
      Scenario(
        name: "core: three legs, one is failed while it writes", legCount: 3, logKind: .core,
        steps: [.begin(.write(0, 512)), .untilWriting, .fail(1)]),
    ]
  }
}
