// Scenarios of damage that nobody noticed, of bad blocks, and of regions that were never written.

import Base
import MirrorFormat

extension ExhaustiveCatalog {
  /// Data that all legs have, no intent.
  private static let settled: [ExhaustiveStep] = [.run(.write(0, 1024)), .run(.flush), .idle]

  // MARK: Scrub repair

  static var scrubs: [ExhaustiveScenario] {
    let damaged = settled + [.damage(1, sector: 1)]
    let whole: [ExhaustiveStep] = [.scrub(preferred: 0), .scrubbed, .expectSound]
    var list = [
      Scenario(name: "scrub: leg 0 is right", setup: damaged, steps: whole),
      Scenario(
        name: "scrub: leg 1 is right", setup: settled + [.damage(0, sector: 1)],
        steps: [.scrub(preferred: 1), .scrubbed, .expectSound, .run(.read(0, 1024))]),
      Scenario(
        name: "scrub: two of three are right", legCount: 3, setup: damaged,
        steps: [.scrub(preferred: nil), .scrubbed, .expectSound]),
      Scenario(
        name: "scrub: three legs, two are wrong, but not in the same block", legCount: 3,
        setup: settled + [.damage(0, sector: 1), .damage(2, sector: 9)],
        steps: [.scrub(preferred: nil), .scrubbed, .expectSound]),
      Scenario(
        name: "scrub: who is wrong fails the copy", setup: damaged,
        steps: [
          fault(1, .dataWrite, remains: .firstSector), .scrub(preferred: 0), .readd(1), .converge,
          .expectSound,
        ]),
      Scenario(
        name: "scrub: who is wrong is failed meanwhile", setup: damaged,
        steps: [
          .unsettled(.scrub(preferred: 0)), .completions(5), .fail(1), .run(.write(0, 512)),
          .readd(1), .converge,
        ]),
      Scenario(
        name: "scrub: restart in the middle", setup: damaged,
        steps: [
          .unsettled(.scrub(preferred: 0)), .completions(6), .restart(ExhaustiveRestart()),
          .converge,
        ]),
      Scenario(name: "core: scrub", logKind: .core, setup: damaged, steps: whole),
    ]
    for after in [0, 2, 4, 6, 8] {
      list.append(
        Scenario(
          name: "scrub: a write and a read after \(after) I/Os", setup: damaged,
          steps: [
            .unsettled(.scrub(preferred: 0)), .completions(after),
            .run([.write(512, 512), .read(0, 1024)]), .scrubbed, .expectSound,
          ]))
    }
    return list
  }

  // MARK: Regions that were never written

  static var unwritten: [ExhaustiveScenario] {
    func first(
      _ name: String, legCount: Int = 2, blockBytes: UInt32 = 512, regions: UInt64 = 2,
      logKind: LogKind = .disk, setup: [ExhaustiveStep] = [], _ steps: [ExhaustiveStep]
    ) -> ExhaustiveScenario {
      Scenario(
        name: "unwritten: " + name, legCount: legCount, blockBytes: blockBytes,
        sizeBytes: regions * r1, logKind: logKind, startsUnwritten: true, setup: setup, steps: steps
      )
    }
    return [
      first("write", [.run(.write(0, 512))]),
      first("write, flush, read", [.run(.write(0, 512)), .run(.flush), .run(.read(0, 1024))]),
      first("write with FUA", [.run(.write(0, 1024, fua: true))]),
      first("write a part of a sector", [.run(.write(640, 128))]),
      first("4 KiB blocks, a sector of one", blockBytes: 4096, [.run(.write(4608, 512))]),
      first("write over a region's end", [.run(.write(r1 - 512, 1024))]),
      first("writes at once", [.run([.write(0, 512), .write(1024, 512)])]),
      first("read", [.run(.read(0, 2048))]),
      first("read while it is written", [.run([.write(0, 512), .read(0, 1024), .read(512, 512)])]),
      first("trim, write", [.run(.trim(0, 2048)), .run(.write(512, 512))]),
      first("zero, write", [.run(.zero(0, 1024, fua: true)), .run(.write(512, 512))]),
      first("write, trim", [.run(.write(0, 1024)), .run(.trim(0, 512))]),
      first("degraded", setup: [.fail(1)], [.run(.write(0, 512)), .run(.flush)]),
      first(
        "a leg is failed while it is zeroed",
        [.begin(.write(0, 512)), .untilWriting, .fail(1), .run(.read(0, 1024))]),
      first(
        "a leg fails the zeroes",
        [fault(1, .dataWrite, remains: .firstSector), .run(.write(0, 1024))]),
      first(
        "a leg fails the first data",
        [fault(0, .dataWrite, nth: 2, remains: .firstSector), .run(.write(0, 1024))]),
      first(
        "a leg fails the flush of the zeroes", [fault(1, .flush), .run(.write(0, 1024))]),
      first(
        "a leg comes back", setup: [.fail(1), .run(.write(0, 512))],
        [.readd(1), .run(.write(r1, 512)), .converge]),
      first("add a leg, write", [.add, .run(.write(0, 512)), .converge]),
      first(
        "restart, write", setup: [.begin(.write(0, 512)), .untilWriting],
        [.restart(ExhaustiveRestart(landed: leg1)), .run(.write(512, 512))]),
      first("three legs", legCount: 3, regions: 1, [.run(.write(0, 512))]),
      first("core", logKind: .core, [.run(.write(0, 512)), .run(.flush)]),
      first("stop", setup: [.run(.write(0, 512))], [.stop]),
    ]
  }

  // MARK: Read repair

  static var repairs: [ExhaustiveScenario] {
    let bad = settled + [.badSector(0, sector: 1)]
    /// Reads in turn: each leg is asked.
    let both: [ExhaustiveStep] = [.run(.read(0, 1024)), .run(.read(0, 1024))]
    return [
      Scenario(name: "bad block: read", setup: bad, steps: both + [.expectSound]),
      Scenario(
        name: "bad block: three legs", legCount: 3, setup: bad,
        steps: both + [.run(.read(512, 512)), .expectSound]),
      Scenario(
        name: "bad block: reads and a write at once", setup: bad,
        steps: [.run([.read(0, 1024), .read(512, 512), .write(512, 512)]), .expectSound]),
      Scenario(
        name: "bad block: a write while it is repaired", setup: bad,
        steps: [
          .begin([.read(0, 1024), .read(0, 1024)]), .untilWriting, .run(.write(0, 1024)),
          .expectSound,
        ]),
      Scenario(
        name: "bad block: written before it is read", setup: bad,
        steps: [.run(.write(512, 512)), .run(.flush), .expectSound]),
      Scenario(
        name: "bad block: a part of it is written", setup: bad,
        steps: [.run(.write(640, 128))] + both + [.expectSound]),
      Scenario(
        name: "bad block: one on each leg, in one piece",
        setup: bad + [.badSector(1, sector: 2)],
        steps: [
          .run(.read(0, 2048)), .run(.read(512, 512)), .run(.read(512, 512)),
          .run(.read(1024, 512)), .run(.read(1024, 512)), .expectSound,
        ]),
      Scenario(
        name: "bad block: the leg fails the repair", setup: bad,
        steps: [fault(0, .dataWrite, remains: .firstSector)] + both),
      Scenario(
        name: "bad block: the leg is failed while it is repaired", setup: bad,
        steps: [
          .begin([.read(0, 1024), .read(0, 1024)]), .untilWriting, .fail(0), .run(.write(0, 512)),
          .readd(0), .converge, .expectSound,
        ]),
      Scenario(
        name: "bad block: restart while it is repaired", setup: bad,
        steps: [
          .begin([.read(0, 1024), .read(0, 1024)]), .untilWriting,
          .restart(ExhaustiveRestart(landed: leg1)),
        ] + both + [.converge, .expectSound]),
      Scenario(
        name: "bad block: a leg syncs", legCount: 3,
        setup: [.fail(2)] + bad, steps: [.readd(2), .converge] + both + [.run(.read(0, 1024))]),
      Scenario(
        name: "bad block: in an unresolved region",
        setup: interrupted(landed: leg1) + [.badSector(0, sector: 2)],
        steps: both + [.converge]),
      Scenario(
        name: "core: bad block", logKind: .core, setup: bad, steps: both + [.expectSound]),
    ]
  }
}
