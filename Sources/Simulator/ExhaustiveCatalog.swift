// The scenarios: what happens, by what state the mirror is in.
//
// Offsets: region 0 starts at 0, region 1 at 64 KiB (`r1`). A sector has 512 bytes, a cell 128.

import Base
import MirrorFormat

enum ExhaustiveCatalog {
  typealias Scenario = ExhaustiveScenario

  static let r1: UInt64 = 65536

  static var all: [ExhaustiveScenario] {
    healthy + blocks + zeroes + stops + degraded + failing + returning + membership + meetings
      + unresolved + starts + dyingStarts
      + unlisted + core + replacing + spares + scrubs + unwritten + repairs
  }

  // MARK: Healthy

  static var healthy: [ExhaustiveScenario] {
    [
      Scenario(name: "write a sector", steps: [.run(.write(0, 512))]),
      Scenario(
        name: "write a sector, read it", steps: [.run(.write(0, 512)), .run(.read(0, 1024))],
        depth: .two),
      Scenario(name: "write three sectors", steps: [.run(.write(512, 1536))]),
      Scenario(
        name: "write eight sectors twice",
        steps: [.run(.write(0, 4096)), .run(.write(0, 4096))]),
      Scenario(name: "write over a region's end", steps: [.run(.write(r1 - 512, 1024))]),
      Scenario(name: "write with FUA", steps: [.run(.write(0, 1024, fua: true))], depth: .two),
      Scenario(name: "write, flush", steps: [.run(.write(0, 512)), .run(.flush)], depth: .two),
      Scenario(
        name: "write, flush, write over it",
        steps: [.run(.write(0, 512)), .run(.flush), .run(.write(0, 512))]),
      Scenario(
        name: "overwrite, nothing flushed",
        setup: [.run(.write(0, 1024))], steps: [.run(.write(512, 1024)), .run(.write(0, 512))]),
      Scenario(
        name: "overlapping writes at once",
        steps: [.run([.write(0, 1024), .write(512, 1024)])]),
      Scenario(
        name: "a write, a FUA write and a flush at once",
        steps: [.run([.write(0, 512), .write(512, 512, fua: true), .flush])]),
      Scenario(
        name: "two regions at once",
        steps: [.run([.write(0, 512), .write(r1, 512)]), .run(.flush)]),
      Scenario(
        name: "read while it is written",
        steps: [.run([.write(0, 1024), .read(0, 512), .write(0, 512)])]),
      Scenario(
        name: "write, intent is cleared",
        steps: [.run(.write(0, 512)), .idle]),
      Scenario(
        name: "intent is cleared, write again",
        setup: [.run(.write(0, 512)), .idle], steps: [.run(.write(0, 512)), .run(.flush)]),
      Scenario(
        name: "three legs write, flush", legCount: 3,
        steps: [.run(.write(0, 512)), .run(.flush)]),
      Scenario(name: "four legs write", legCount: 4, steps: [.run(.write(0, 512))]),
      Scenario(
        name: "one leg writes, flushes", legCount: 1,
        steps: [.run(.write(0, 1024)), .run(.flush), .run(.write(512, 1024))]),
    ]
  }

  // MARK: Partial blocks

  static var blocks: [ExhaustiveScenario] {
    [
      Scenario(name: "write a part of a sector", steps: [.run(.write(128, 128))]),
      Scenario(
        name: "write parts of three sectors",
        setup: [.run(.write(0, 2048)), .run(.flush)], steps: [.run(.write(384, 896))]),
      Scenario(
        name: "parts of one sector at once",
        steps: [.run([.write(0, 128), .write(256, 256)]), .run(.write(128, 256))]),
      Scenario(
        name: "4 KiB blocks", blockBytes: 4096, steps: [.run(.write(4096, 4096)), .run(.flush)]),
      Scenario(
        name: "4 KiB blocks, a sector of one", blockBytes: 4096,
        setup: [.run(.write(0, 8192)), .run(.flush)], steps: [.run(.write(4096 + 512, 512))]),
      Scenario(
        name: "4 KiB blocks, parts of two, over a region's end", blockBytes: 4096,
        steps: [.run(.write(r1 - 640, 1280))]),
    ]
  }

  // MARK: Zeroes

  static var zeroes: [ExhaustiveScenario] {
    [
      Scenario(
        name: "zero what was flushed", setup: [.run(.write(0, 1536)), .run(.flush)],
        steps: [.run(.zero(512, 512)), .run(.flush)]),
      Scenario(
        name: "zero with FUA", setup: [.run(.write(0, 1024))],
        steps: [.run(.zero(0, 1024, fua: true))]),
      Scenario(
        name: "zero a part of a sector", setup: [.run(.write(0, 512)), .run(.flush)],
        steps: [.run(.zero(128, 256))]),
      Scenario(
        name: "trim, write again", setup: [.run(.write(0, 2048)), .run(.flush)],
        steps: [.run(.trim(256, 1536)), .run(.write(512, 512))]),
    ]
  }

  // MARK: Clean stops

  static var stops: [ExhaustiveScenario] {
    [
      Scenario(name: "stop without a write", steps: [.stop], depth: .two),
      Scenario(name: "write, stop", setup: [.run(.write(0, 512))], steps: [.stop]),
      Scenario(
        name: "stop, start, write", setup: [.run(.write(0, 512)), .stop],
        steps: [.restart(ExhaustiveRestart()), .run(.write(0, 512))]),
      Scenario(
        name: "stop with a leg offline", setup: [.fail(1), .run(.write(0, 512))], steps: [.stop]),
      Scenario(
        name: "stop while a leg syncs",
        setup: [
          .fail(1), .run(.write(0, 512)), .run(.write(r1, 512)), .pauseCopies(true), .readd(1),
        ],
        steps: [.pauseCopies(false), .stop]),
      Scenario(
        name: "stop while a request is inside",
        steps: [.begin(.write(0, 1024)), .stop]),
    ]
  }

  // MARK: Degraded

  static var degraded: [ExhaustiveScenario] {
    [
      Scenario(name: "a leg is failed", steps: [.fail(1)], depth: .two),
      Scenario(
        name: "the first leg is failed after a write", setup: [.run(.write(0, 512))],
        steps: [.fail(0)]),
      Scenario(
        name: "degraded: write, flush", setup: [.fail(1)],
        steps: [.run(.write(0, 512)), .run(.flush)]),
      Scenario(
        name: "degraded: overwrite what both legs have",
        setup: [.run(.write(0, 512)), .run(.flush), .fail(0)],
        steps: [.run(.write(0, 512, fua: true))]),
      Scenario(
        name: "degraded: intent is cleared", setup: [.fail(1), .run(.write(0, 512))],
        steps: [.idle]),
      Scenario(
        name: "a leg is failed while it writes",
        steps: [.begin(.write(0, 1024)), .untilWriting, .fail(1), .run(.read(0, 512))]),
      Scenario(
        name: "the first leg is failed while it writes with FUA",
        steps: [.begin(.write(0, 1024, fua: true)), .untilWriting, .fail(0), .run(.flush)]),
      Scenario(
        name: "a leg is failed while it flushes",
        setup: [.run(.write(0, 512))], steps: [.begin(.flush), .fail(1), .run(.write(0, 512))]),
      Scenario(
        name: "three legs, two are failed", legCount: 3,
        setup: [.run(.write(0, 512))], steps: [.fail(2), .run(.write(0, 512)), .fail(0)]),
      Scenario(
        name: "three legs, one is failed while it writes", legCount: 3,
        steps: [.begin(.write(0, 512)), .untilWriting, .fail(1)]),
    ]
  }
}
