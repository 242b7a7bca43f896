// Scenarios in which legs fail I/O, return, come and go.

import Base
import MirrorFormat

extension ExhaustiveCatalog {
  static func fault(
    _ leg: Int, _ target: ExhaustiveFault.Target, nth: Int = 1, count: Int = 1, errno: Int32 = 5,
    remains: ExhaustiveFault.Remains = .nothing, hangs: Bool = false
  ) -> ExhaustiveStep {
    .fault(
      ExhaustiveFault(
        leg: leg, target: target, nth: nth, count: count, errno: errno, remains: remains,
        hangs: hangs))
  }

  // MARK: I/O that fails

  static var failing: [ExhaustiveScenario] {
    [
      Scenario(
        name: "leg 1 fails a write",
        steps: [fault(1, .dataWrite), .run(.write(0, 1024)), .run(.read(0, 1024))]),
      Scenario(
        name: "leg 1 fails a write that landed",
        steps: [fault(1, .dataWrite, remains: .all), .run(.write(0, 1024)), .run(.flush)]),
      Scenario(
        name: "leg 0 fails a write that is torn",
        steps: [
          fault(0, .dataWrite, remains: .firstSector), .run(.write(0, 1024)), .run(.write(0, 512)),
        ]),
      Scenario(
        name: "both legs fail a write",
        setup: [.run(.write(0, 1024)), .run(.flush)],
        steps: [
          fault(0, .dataWrite, remains: .firstSector), fault(1, .dataWrite), .run(.write(0, 1024)),
          .run(.read(0, 1024)),
        ]),
      Scenario(
        name: "a leg is full",
        steps: [fault(1, .dataWrite, errno: 28), .run(.write(0, 512)), .run(.flush)]),
      Scenario(
        name: "all legs are full",
        setup: [.run(.write(0, 1024))],
        steps: [
          fault(0, .dataWrite, errno: 28, remains: .firstSector), fault(1, .dataWrite, errno: 28),
          .run(.write(0, 1024)), .run(.read(0, 1024)), .run(.flush),
        ]),
      Scenario(
        name: "leg 1 fails a flush", setup: [.run(.write(0, 512))],
        steps: [fault(1, .flush), .run(.flush), .run(.write(0, 512))]),
      Scenario(
        name: "leg 0 fails a flush", setup: [.run(.write(0, 512))],
        steps: [fault(0, .flush), .run(.write(512, 512)), .run(.flush)]),
      Scenario(
        name: "the last leg fails a flush", setup: [.fail(1), .run(.write(0, 512))],
        steps: [fault(0, .flush), .run(.flush), .clearLatch, .run(.write(0, 512)), .run(.flush)]),
      Scenario(
        name: "a leg fails a map page",
        steps: [fault(1, .page, remains: .firstSector), .run(.write(0, 512))]),
      Scenario(
        name: "the first leg fails a map page after a write", setup: [.run(.write(0, 512))],
        steps: [fault(0, .page), .run(.write(r1, 512)), .run(.flush)]),
      Scenario(
        name: "a leg fails the label that excludes another", legCount: 3,
        steps: [fault(1, .label), .fail(2), .run(.write(0, 512))]),
      Scenario(
        name: "the last leg fails a label",
        steps: [fault(0, .label), .fail(1), .run(.write(0, 512)), .run(.write(0, 512))]),
      Scenario(
        name: "a read fails and is served elsewhere", setup: [.run(.write(0, 512))],
        steps: [fault(0, .dataRead, count: 2), .run(.read(0, 512)), .run(.read(0, 512))]),
      Scenario(
        name: "a leg hangs in a write",
        steps: [fault(1, .dataWrite, hangs: true), .begin(.write(0, 1024)), .idle, .heal]),
      Scenario(
        name: "a leg hangs in a flush", setup: [.run(.write(0, 512))],
        steps: [fault(0, .flush, hangs: true), .begin(.flush), .idle, .run(.write(0, 512)), .heal]),
      Scenario(
        name: "three legs, two fail the same write", legCount: 3,
        steps: [
          fault(0, .dataWrite, remains: .all), fault(2, .dataWrite, remains: .firstSector),
          .run(.write(0, 1024)),
        ]),
    ]
  }

  // MARK: Legs that return

  static var returning: [ExhaustiveScenario] {
    let missed: [ExhaustiveStep] = [
      .run(.write(0, 1024)), .fail(1), .run(.write(512, 1024)), .run(.flush),
    ]
    return [
      Scenario(name: "readd", setup: missed, steps: [.readd(1), .converge]),
      Scenario(
        name: "readd of a leg that missed nothing", setup: [.fail(1)],
        steps: [.readd(1), .converge], depth: .two),
      Scenario(
        name: "fail, write, readd", steps: [.fail(0), .run(.write(0, 512)), .readd(0), .converge]),
      Scenario(
        name: "readd, write into what is stale",
        setup: missed + [.pauseCopies(true)],
        steps: [.readd(1), .run(.write(512, 512)), .pauseCopies(false), .converge]),
      Scenario(
        name: "readd, write a part of a stale sector",
        setup: missed + [.pauseCopies(true), .readd(1)],
        steps: [.run(.write(640, 128)), .run(.flush), .pauseCopies(false), .converge]),
      Scenario(
        name: "readd while a write is inside", setup: missed,
        steps: [.begin(.write(0, 512)), .untilWriting, .readd(1), .run(.flush)]),
      Scenario(
        name: "write while it is copied", setup: missed + [.pauseCopies(true), .readd(1)],
        steps: [.pauseCopies(false), .run([.write(512, 512), .read(512, 512)]), .converge]),
      Scenario(
        name: "the returning leg fails its copy", setup: missed,
        steps: [fault(1, .dataWrite, remains: .firstSector), .readd(1), .run(.write(0, 512))]),
      Scenario(
        name: "the returning leg fails its flush", setup: missed,
        steps: [fault(1, .flush), .readd(1), .run(.write(0, 512))]),
      Scenario(
        name: "the returning leg fails a map page", setup: missed,
        steps: [fault(1, .page, nth: 2, remains: .firstSector), .readd(1), .run(.write(0, 512))]),
      Scenario(
        name: "the returning leg fails its label", setup: missed,
        steps: [fault(1, .label, remains: .all), .readd(1), .run(.write(0, 512))]),
      Scenario(
        name: "the source fails a read of the copy", setup: missed,
        steps: [fault(0, .dataRead), .readd(1), .run(.write(0, 512)), .converge]),
      Scenario(
        name: "fail the leg that syncs", setup: missed + [.pauseCopies(true), .readd(1)],
        steps: [.fail(1), .run(.write(0, 512)), .pauseCopies(false), .readd(1), .converge]),
      Scenario(
        name: "three legs, one syncs, another is failed", legCount: 3,
        setup: missed + [.pauseCopies(true), .readd(1)],
        steps: [.fail(0), .run(.write(0, 512)), .pauseCopies(false), .converge]),
      Scenario(
        name: "restart while a leg syncs", setup: missed + [.pauseCopies(true), .readd(1)],
        steps: [
          .restart(ExhaustiveRestart()), .run(.write(0, 512)), .pauseCopies(false), .converge,
        ]),
    ]
  }

  // MARK: Legs that come and go

  static var membership: [ExhaustiveScenario] {
    [
      Scenario(name: "remove a leg, write", steps: [.remove(1), .run(.write(0, 512))]),
      Scenario(
        name: "remove the first leg while it writes",
        steps: [.begin(.write(0, 512)), .untilWriting, .remove(0)]),
      Scenario(
        name: "remove, write, readd", setup: [.remove(1), .run(.write(0, 512))],
        steps: [.readd(1), .converge]),
      Scenario(
        name: "add to a single leg", legCount: 1, setup: [.run(.write(0, 1024)), .run(.flush)],
        steps: [.add, .converge]),
      Scenario(
        name: "add a third leg, write", setup: [.run(.write(0, 512)), .pauseCopies(true)],
        steps: [.add, .run(.write(0, 512)), .pauseCopies(false), .converge]),
      Scenario(
        name: "add while a write is inside",
        steps: [.begin(.write(0, 512)), .untilWriting, .add, .run(.flush)]),
      Scenario(
        name: "the new leg fails its label", setup: [.run(.write(0, 512))],
        steps: [fault(2, .label, remains: .all), .add, .run(.write(0, 512))]),
      Scenario(
        name: "the new leg fails its copy", setup: [.run(.write(0, 512))],
        steps: [fault(2, .dataWrite, remains: .firstSector), .add, .run(.write(0, 512))]),
      Scenario(
        name: "remove a leg that is offline",
        setup: [.fail(1), .run(.write(0, 512))], steps: [.remove(1), .run(.write(0, 512))]),
    ]
  }

  // MARK: Writes in the midst of a change

  /// A write, a flush that arrives after so many I/Os of a change of the members.
  static var meetings: [ExhaustiveScenario] {
    var list: [ExhaustiveScenario] = []
    for kind in [LogKind.disk, .core] {
      let prefix = kind == .core ? "core: " : ""
      for after in 0...7 {
        list.append(
          Scenario(
            name: prefix + "a write after \(after) I/Os of a join", logKind: kind,
            setup: [.run(.write(0, 512)), .idle, .fail(0)],
            steps: [
              .unsettled(.readd(0)), .completions(after), .run(.write(0, 512, fua: true)),
              .converge,
            ]))
      }
      for after in [0, 1, 2, 3] {
        list.append(
          Scenario(
            name: prefix + "a write after \(after) I/Os of a failure", logKind: kind,
            setup: [.run(.write(0, 512))],
            steps: [.unsettled(.fail(0)), .completions(after), .run(.write(0, 512, fua: true))]))
      }
    }
    return list
  }
}
