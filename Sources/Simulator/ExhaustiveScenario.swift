// What an exhaustive run is made of: a small mirror, what happened before, and a few steps at each
// of whose events the server is killed and the power is cut.

import Base
import MirrorEngine
import MirrorFormat

/// What a client asks for.
struct ExhaustiveOperation: Sendable {
  var kind: MirrorRequest.Kind
  var range: ByteRange
  var isFUA = false
  var mayPunchHoles = false

  static let flush = ExhaustiveOperation(kind: .flush, range: ByteRange(offset: 0, count: 0))

  static func write(_ offset: UInt64, _ count: UInt64, fua: Bool = false) -> ExhaustiveOperation {
    ExhaustiveOperation(
      kind: .write, range: ByteRange(offset: offset, count: count), isFUA: fua)
  }

  static func read(_ offset: UInt64, _ count: UInt64) -> ExhaustiveOperation {
    ExhaustiveOperation(kind: .read, range: ByteRange(offset: offset, count: count))
  }

  static func zero(_ offset: UInt64, _ count: UInt64, fua: Bool = false) -> ExhaustiveOperation {
    ExhaustiveOperation(
      kind: .zero, range: ByteRange(offset: offset, count: count), isFUA: fua)
  }

  static func trim(_ offset: UInt64, _ count: UInt64) -> ExhaustiveOperation {
    ExhaustiveOperation(
      kind: .trim, range: ByteRange(offset: offset, count: count), mayPunchHoles: true)
  }

  /// The bytes it changes: a trim leaves partial blocks alone.
  func changed(blockBytes: UInt64) -> ByteRange? {
    switch kind {
    case .read, .flush: return nil
    case .write, .zero: return range
    case .trim:
      let first = Bytes.alignUp(range.offset, to: blockBytes)
      let end = Bytes.alignDown(range.end, to: blockBytes)
      return first < end ? ByteRange(offset: first, count: end - first) : nil
    }
  }
}

/// A leg that fails I/O.
struct ExhaustiveFault: Sendable {
  /// Which I/O fails.
  enum Target: Sendable {
    case dataRead, dataWrite, flush, label, page
  }

  /// What a failed write leaves on the leg.
  enum Remains: Sendable {
    case nothing, all, firstSector
  }

  var leg: Int
  var target: Target
  /// The first that fails: 1 is the next one.
  var nth = 1
  /// How many fail from then on.
  var count = 1
  var errno: Int32 = 5
  var remains = Remains.nothing
  /// It never answers instead.
  var hangs = false
}

/// The end of a server and the next start, as a step of a scenario.
struct ExhaustiveRestart: Sendable {
  /// Legs on which the I/O in flight has landed.
  var landed: LegSet = .none
  /// Legs that lose their caches.
  var cut: LegSet = .none
  /// Legs that are left out.
  var absent: LegSet = .none
  var isReadOnly = false
}

/// One step; where it says nothing else, it ends when no I/O is in flight any more.
enum ExhaustiveStep: Sendable {
  /// Requests that are there at once.
  case run([ExhaustiveOperation])
  /// The same; the next step comes at once.
  case begin([ExhaustiveOperation])
  /// A command, and at once the next step.
  indirect case unsettled(ExhaustiveStep)
  /// So many I/Os complete, if there are so many.
  case completions(Int)
  /// I/O completes until data is being written.
  case untilWriting
  /// Time passes until intent is cleared.
  case idle
  /// Time passes until every online leg has everything.
  case converge
  case fail(Int)
  case remove(Int)
  case readd(Int)
  case add
  /// A fresh PV is brought in in the place of this leg, which is removed then.
  case replace(Int)
  case addSpare
  /// A second passes: spares take over, legs that were replaced leave.
  case second
  /// Starts a repair; two legs that differ are as this leg says.
  case scrub(preferred: Int?)
  /// Time passes until the scrub is through; it has repaired what was damaged.
  case scrubbed
  /// A sector of a leg changes behind everybody's back.
  case damage(Int, sector: Int)
  /// A sector of a leg cannot be read until it is written.
  case badSector(Int, sector: Int)
  /// Every leg can be read, and holds what it should.
  case expectSound
  case pauseCopies(Bool)
  case clearLatch
  case fault(ExhaustiveFault)
  case heal
  case restart(ExhaustiveRestart)
  /// The clean stop.
  case stop

  static func run(_ operation: ExhaustiveOperation) -> ExhaustiveStep { .run([operation]) }
  static func begin(_ operation: ExhaustiveOperation) -> ExhaustiveStep { .begin([operation]) }
}

/// A named scenario.
struct ExhaustiveScenario: Sendable {
  /// How deep crashes follow each other.
  enum Depth: Sendable {
    /// A crash of the start that follows the crash: at its end only.
    case one
    /// At each of its events.
    case two
  }

  var name: String
  var legCount = 2
  var blockBytes: UInt32 = 512
  /// Device size; regions have 64 KiB.
  var sizeBytes: UInt64 = 2 * 65536
  var logKind = LogKind.disk
  /// All legs but the first are stale everywhere and hold garbage.
  var startsStale = false
  /// Nothing was ever written, and all legs hold garbage.
  var startsUnwritten = false
  /// Happens before; no crash is tried.
  var setup: [ExhaustiveStep] = []
  /// A crash before and after every I/O of these.
  var steps: [ExhaustiveStep]
  var depth = Depth.one

  var layout: Layout {
    Layout(
      sizeBytes: sizeBytes, regionBytes: 64 * Bytes.kibi, blockBytes: blockBytes,
      mapOffset: 520 * Bytes.kibi, dataOffset: Bytes.mebi)
  }

  private var operations: [ExhaustiveOperation] {
    (setup + steps).flatMap { step -> [ExhaustiveOperation] in
      if case .run(let operations) = step { return operations }
      if case .begin(let operations) = step { return operations }
      return []
    }
  }

  /// Writes of whoever goes on after a degraded start: over what the scenario wrote, and elsewhere.
  var probes: [ExhaustiveOperation] {
    let block = UInt64(blockBytes)
    let written = operations.lazy.compactMap { $0.changed(blockBytes: block) }.first
    let over = Bytes.alignDown(written?.offset ?? 0, to: block)
    return [.write(over, block), .write(sizeBytes - block, block)]
  }

  /// Everything that is ever written, for the oracle.
  var atoms: ExhaustiveAtoms {
    let ranges = (operations + probes).compactMap { $0.changed(blockBytes: UInt64(blockBytes)) }
    return ExhaustiveAtoms(sizeBytes: sizeBytes, ranges: ranges)
  }

  /// Who is right where two legs differ.
  var preferred: Int? {
    for step in steps {
      if case .scrub(let preferred) = step { return preferred }
      if case .unsettled(.scrub(let preferred)) = step { return preferred }
    }
    return nil
  }

  /// I/O fails, so requests may fail.
  var hasFaults: Bool {
    (setup + steps).contains { step in if case .fault = step { true } else { false } }
  }
}

/// A barrier that is taken away outside of the engine: proof that these runs can fail. Tests only.
public enum ExhaustiveMutation: UInt8, CaseIterable, Sendable {
  /// Region map pages never reach the leg, and are said to have.
  case dropLogPages
  /// Labels never reach the leg, and are said to have.
  case dropLabels
  /// Durable writes stay in the cache.
  case ignoreDurable
  /// Flushes succeed and persist nothing.
  case skipFlush
  /// Writes are acked when they are asked for.
  case ackBeforeWrite
  /// Half of the data writes to the second leg are lost.
  case dropWrites
  /// At a start nothing is unresolved: intent is thrown away.
  case forgetIntent
  /// At a start stale bits are thrown away.
  case forgetStale
  /// The writes of read-modify-write lack the client's bytes.
  case dropMerges
  /// Every leg is asked in the name of the first one: stale or not, in turn.
  case readAnyLeg
}
