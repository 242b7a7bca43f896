// Drives an engine step by step: the test decides which I/O completes when, and how.

import Base
import MirrorFormat
import Testing

@testable import MirrorEngine

/// An I/O that the engine asked for and that has not completed.
struct OpenIO {
  var io: LegIO
  /// What a write carried, if it came from scratch memory.
  var bytes: [UInt8]
}

/// The engine, what it asked for, and a clock.
final class EngineDriver {
  static let legId = (0..<8).map { Identifier(high: 0x1e9, low: UInt64($0) + 1) }
  static let setId = Identifier(high: 0x5e7, low: 1)

  var engine: Engine
  let layout: Layout
  var now = Instant(nanoseconds: 1)
  var open: [OpenIO] = []
  var replies: [UInt64: Int32] = [:]
  var released: Set<UInt64> = []
  var replaced: Set<UInt64> = []
  var merges = 0
  var delivered: [(owner: UInt64, requestOffset: UInt64, scratchOffset: Int, count: Int)] = []
  /// Deliveries are handed back by the test.
  var deliversLater = false
  var undelivered: [IOToken] = []
  /// By request: what was zeroed of its buffer.
  var filled: [UInt64: [ByteRange]] = [:]
  var idle: [LegSlot] = []
  var events: [MirrorEvent] = []
  /// What a read into scratch memory finds.
  var contents: (LegIO) -> [UInt8] = { Array(repeating: 0xa5, count: Int($0.count)) }
  private var nextToken: UInt64 = 1

  init(
    legs: Int = 2, regions: Int = 8, regionBytes: UInt64 = 1 << 20, logKind: LogKind = .disk,
    words: [UInt16]? = nil, absent: [Int: MemberState] = [:], isReadOnly: Bool = false,
    unwrittenPages: [Bool] = [],
    change: (inout EngineStart) -> Void = { _ in }
  ) throws {
    layout = try Layout.plan(
      sizeBytes: UInt64(regions) * regionBytes, regionBytes: regionBytes, blockBytes: 512)
    let lineage = Lineage(
      current: Generation(counter: 1, id: Identifier(high: 7, low: 7)), parents: [])
    let members = (0..<8).map { index in
      index < legs
        ? Member(
          legId: EngineDriver.legId[index], state: absent[index] ?? .online, isWriteMostly: false,
          offlineSince: 2) : Member.vacant
    }
    var start = EngineStart(
      setId: EngineDriver.setId, name: "t", layout: layout, logKind: logKind, lineage: lineage,
      members: members,
      legs: (0..<legs).filter { absent[$0] == nil }.map {
        LegStart(slot: LegSlot($0), labelCopy: 0)
      },
      nextLabelSequence: 2, words: words ?? Array(repeating: 0, count: layout.regionCount),
      pageSequences: Array(repeating: 1, count: layout.pageCount),
      pageCopies: Array(repeating: 0, count: layout.pageCount),
      pagesToRewrite: Array(repeating: false, count: layout.pageCount),
      lost: absent.keys.reduce(into: LegSet.none) { $0.insert(LegSlot($1)) }, createdSeconds: 0,
      resyncMinBytesPerSecond: 0, resyncMaxBytesPerSecond: 0, seed: 42)
    start.isReadOnly = isReadOnly
    start.unwrittenPages = unwrittenPages
    start.readPolicy = .roundRobin
    start.isHedging = false
    change(&start)
    engine = Engine(start, now: now)
    drain()
  }

  /// A driver of what assembly made of labels; the regions are as the map says.
  init(plan: AssemblyPlan, words: [UInt16]) {
    layout = plan.layout
    var map = LegMap(layout: plan.layout)
    for copy in 0...1 {
      var bytes = [UInt8](repeating: 0, count: Layout.pageBytes)
      bytes.withMutableRawSpan {
        RegionMapPage.encode(
          page: 0, sequence: UInt64(copy + 1), setId: plan.setId, words: words, firstWord: 0,
          into: &$0)
      }
      bytes.withRawSpan { map.read(page: 0, copy: copy, bytes: $0, setId: plan.setId) }
    }
    let elected = AssemblyMap.elect(
      plan: plan, maps: plan.legs.map { $0?.role == .online ? map : nil })
    engine = Engine(EngineStart(plan: plan, map: elected, seed: 43), now: now)
    drain()
  }

  /// A driver whose opening label is already durable.
  static func opened(
    legs: Int = 2, regions: Int = 8, regionBytes: UInt64 = 1 << 20, logKind: LogKind = .disk,
    change: (inout EngineStart) -> Void = { _ in }
  ) throws -> EngineDriver {
    let driver = try EngineDriver(
      legs: legs, regions: regions, regionBytes: regionBytes, logKind: logKind, change: change)
    driver.runToRest()
    return driver
  }

  func drain() {
    engine.settle(now: now)
    while let effect = engine.popEffect() { take(effect) }
  }

  private func take(_ effect: Effect) {
    switch effect {
    case .io(let io):
      var bytes: [UInt8] = []
      if io.kind == .write, case .scratch(let offset) = io.buffer {
        engine.scratch.withBytes(at: offset, count: Int(io.count)) { span in
          bytes = (0..<span.byteCount).map {
            unsafe span.unsafeLoad(fromByteOffset: $0, as: UInt8.self)
          }
        }
      }
      open.append(OpenIO(io: io, bytes: bytes))
    case .merge, .mergeZeros: merges += 1
    case .deliver(let token, let owner, let requestOffset, let scratchOffset, let count):
      #expect(replies[owner.raw] == nil, "the data comes before the reply")
      delivered.append((owner.raw, requestOffset, scratchOffset, count))
      if deliversLater {
        undelivered.append(token)
      } else {
        engine.completed(token, error: 0, now: now)
      }
    case .fillZeros(let owner, let offset, let count):
      filled[owner.raw, default: []].append(ByteRange(offset: offset, count: count))
    case .replaceBuffer(let token): replaced.insert(token.raw)
    case .reply(let token, let error):
      #expect(replies[token.raw] == nil, "a request is answered once")
      replies[token.raw] = error
    case .release(let token):
      #expect(replies[token.raw] != nil, "the release comes after the reply")
      #expect(released.insert(token.raw).inserted, "a buffer is released once")
    case .event(let event): events.append(event)
    case .legIdle(let slot): idle.append(slot)
    }
  }

  // MARK: Input

  func submit(
    _ kind: MirrorRequest.Kind, _ offset: UInt64 = 0, _ count: UInt64 = 0, fua: Bool = false
  ) -> UInt64 {
    let token = nextToken
    nextToken += 1
    engine.submit(
      MirrorRequest(
        kind: kind, range: ByteRange(offset: offset, count: count), isFUA: fua,
        token: RequestToken(raw: token)), now: now)
    drain()
    return token
  }

  /// Completes the first open I/O that `matches`; false if there is none.
  @discardableResult
  func complete(error: Int32 = 0, where matches: (LegIO) -> Bool) -> Bool {
    guard let index = open.firstIndex(where: { matches($0.io) }) else { return false }
    let io = open.remove(at: index).io
    if io.kind == .read, error == 0, case .scratch(let offset) = io.buffer {
      let bytes = contents(io)
      engine.scratch.withBytes(at: offset, count: bytes.count) { $0.store(bytes, at: 0) }
    }
    engine.completed(io.token, error: error, now: now)
    drain()
    return true
  }

  /// Completes everything that `matches`, also what follows from it.
  func completeAll(error: Int32 = 0, where matches: (LegIO) -> Bool = { _ in true }) {
    while complete(error: error, where: matches) {}
  }

  func runToRest() { completeAll() }

  func pass(seconds: Double) {
    now = now.advanced(byNanoseconds: UInt64(seconds * 1e9))
    engine.tick(now: now)
    drain()
  }

  // MARK: Looking

  var isStopped: Bool { engine.isStopped }

  var isLabelSettled: Bool { engine.isLabelSettled }

  var nextWake: Instant? { engine.nextWake }

  func isData(_ io: LegIO) -> Bool { io.offset >= layout.dataOffset && io.kind != .flush }

  func isLog(_ io: LegIO) -> Bool {
    io.kind == .write && io.offset >= layout.mapOffset && io.offset < layout.dataOffset
  }

  func isLabel(_ io: LegIO) -> Bool {
    io.kind == .write
      && (io.offset == Layout.labelOffset(copy: 0) || io.offset == Layout.labelOffset(copy: 1))
  }

  func count(_ matches: (LegIO) -> Bool) -> Int { open.count { matches($0.io) } }

  /// The label that an open label write carries.
  func openLabel(on slot: Int) throws -> Label? {
    guard let found = open.first(where: { isLabel($0.io) && $0.io.leg.index == slot }) else {
      return nil
    }
    return try found.bytes.withRawSpan { bytes throws(FormatError) in try Label.decode(bytes) }
  }

  /// The words that an open log write carries.
  func openWords(on slot: Int) -> [UInt16]? {
    guard let found = open.first(where: { isLog($0.io) && $0.io.leg.index == slot }) else {
      return nil
    }
    var words = [UInt16](repeating: 0, count: layout.regionCount)
    found.bytes.withRawSpan { RegionMapPage.readWords($0, into: &words, firstWord: 0) }
    return words
  }

  func leg(_ slot: Int) -> LegSnapshot? {
    engine.snapshot().legs.first { $0.slot.index == slot }
  }
}
