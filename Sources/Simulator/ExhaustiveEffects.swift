// Performing the engine's effects in an exhaustive run: I/O on units, merges, answers.

import Base
import MirrorEngine
import MirrorFormat

extension ExhaustiveRun {
  func perform(_ effect: Effect) {
    switch effect {
    case .io(let io): issue(io)
    case .merge(let owner, let requestOffset, let scratchOffset, let count):
      guard context.mutation != .dropMerges, let index = index(of: owner) else { return }
      let request = requests[index]
      let from = Int(request.operation.range.offset + requestOffset - request.origin)
      merge(count: count, at: scratchOffset) { position in
        let byte = from + position
        let word = request.buffer[byte / ExhaustiveLeg.sectorBytes]
        return UInt16(truncatingIfNeeded: word >> ExhaustiveRun.lane(byte))
      }
    case .mergeZeros(_, let scratchOffset, let count):
      guard context.mutation != .dropMerges else { return }
      merge(count: count, at: scratchOffset) { _ in 0 }
    case .deliver(let token, let owner, let requestOffset, let scratchOffset, let count):
      if let index = index(of: owner) {
        let words = fromScratch(at: scratchOffset, count: count)
        let first = requests[index].word(at: requestOffset)
        requests[index].buffer.replaceSubrange(first..<first + words.count, with: words)
      }
      engine.completed(token, error: 0, now: state.now)
    case .fillZeros(let owner, let requestOffset, let count):
      guard let index = index(of: owner) else { return }
      let first = requests[index].word(at: requestOffset)
      for word in first..<first + Int(count) / ExhaustiveLeg.sectorBytes {
        requests[index].buffer[word] = 0
      }
    case .replaceBuffer(let token):
      guard let index = index(of: token) else { return }
      requests[index].bufferNumber += 1
      requests[index].buffer = Array(
        repeating: ExhaustiveLeg.garbage, count: requests[index].buffer.count)
    case .reply(let token, let error): replied(token, error: error)
    case .release(let token): released(token)
    case .event(let event):
      note("event  \(event.kind) \(event.leg.map { "leg \($0) " } ?? "")\(event.detail)")
    case .legIdle(let leg): note("idle   leg \(leg)")
    }
  }

  /// Where in its sector's word the cell of a byte stands.
  static func lane(_ byte: Int) -> UInt64 {
    UInt64(byte % ExhaustiveLeg.sectorBytes / ExhaustiveLeg.cellBytes * 16)
  }

  func name(_ item: ExhaustiveIO) -> String {
    let io = item.io
    let place =
      switch item.unit {
      case 0, 1: "label \(item.unit)"
      case 2, 3: "map \(item.unit - 2)"
      default: "sector \(item.unit - ExhaustiveLeg.metaUnits)+\(io.count / 512)"
      }
    switch io.kind {
    case .flush: return "flush"
    case .write:
      return "\(io.isDurable ? "durable " : "")write \(place) \(preview(item))"
    case .read, .zero, .discard: return "\(io.kind) \(place)"
    }
  }

  private func preview(_ item: ExhaustiveIO) -> String {
    guard item.unit >= ExhaustiveLeg.metaUnits else { return describePage(item) }
    return "= " + item.values.prefix(4).map { String($0, radix: 16) }.joined(separator: " ")
  }

  /// What a label or a page of the map says.
  private func describePage(_ item: ExhaustiveIO) -> String {
    guard let page = item.values.first else { return "" }
    if item.unit < 2 {
      guard case .success(let label) = state.pages.label(page) else { return "(invalid)" }
      let members = label.members.filter { $0.state != .vacant }
        .map { "\($0.state)\($0.isSyncing ? "*" : "")" }
      return "#\(label.sequence) generation \(label.lineage.current.counter) "
        + members.joined(separator: ",") + (label.isClean ? " clean" : "")
    }
    var map = LegMap(layout: context.layout)
    state.pages.bytes(page).withRawSpan { span in
      map.read(page: 0, copy: 0, bytes: span, setId: context.setId)
    }
    let sequence = map.newest(page: 0).map { "#\($0.sequence)" } ?? "(invalid)"
    return sequence + " " + map.words.map { String($0, radix: 16) }.joined(separator: " ")
  }

  // MARK: Scratch memory

  private func toScratch(_ words: [UInt64], at offset: Int) {
    let end = offset + words.count * ExhaustiveLeg.sectorBytes
    scratch.removeAll { $0.offset < end && $0.end > offset }
    scratch.append(ExhaustiveScratch(offset: offset, words: words))
    render(words, at: offset)
  }

  /// Puts bytes where the engine looks for zeros and for differences: equal exactly where the
  /// sectors are.
  private func render(_ words: [UInt64], at offset: Int) {
    let sector = ExhaustiveLeg.sectorBytes
    engine.scratch.withBytes(at: offset, count: words.count * sector) { span in
      for (index, word) in words.enumerated() {
        for byte in stride(from: index * sector + 8, to: (index + 1) * sector, by: 8) {
          span.store(littleEndian: UInt64(0), at: byte)
        }
        span.store(littleEndian: word, at: index * sector)
      }
    }
  }

  private func fromScratch(at offset: Int, count: Int) -> [UInt64] {
    let words = count / ExhaustiveLeg.sectorBytes
    for part in scratch where part.offset <= offset && part.end >= offset + count {
      let first = (offset - part.offset) / ExhaustiveLeg.sectorBytes
      return Array(part.words[first..<first + words])
    }
    return Array(repeating: ExhaustiveLeg.garbage, count: words)
  }

  private func merge(count: Int, at scratchOffset: Int, _ cell: (Int) -> UInt16) {
    guard
      let part = scratch.firstIndex(where: {
        $0.offset <= scratchOffset && $0.end >= scratchOffset + count
      })
    else {
      fail("a merge into scratch memory that holds no block")
      return
    }
    for position in stride(from: 0, to: count, by: ExhaustiveLeg.cellBytes) {
      let byte = scratchOffset - scratch[part].offset + position
      let lane = ExhaustiveRun.lane(byte)
      let word = byte / ExhaustiveLeg.sectorBytes
      scratch[part].words[word] &= ~(0xffff << lane)
      scratch[part].words[word] |= UInt64(cell(position)) << lane
    }
  }

  private func pageBytes(at offset: Int) -> [UInt8] {
    var copy: [UInt8] = []
    engine.scratch.withBytes(at: offset, count: Layout.pageBytes) { span in
      copy = span.bytes.copied(0..<Layout.pageBytes)
    }
    return copy
  }

  // MARK: Issuing

  private func issue(_ io: LegIO) {
    ioCount += 1
    guard let leg = state.legs[io.leg.index] else {
      fail("I/O on leg \(io.leg), which is not there")
      return
    }
    let block = UInt64(context.layout.blockBytes)
    var item = ExhaustiveIO(io: io, unit: 0, mark: leg.mark)
    if io.kind != .flush {
      guard
        let unit = ExhaustiveLeg.unit(
          offset: io.offset, count: io.count, layout: context.layout),
        (io.offset | io.count) & (block - 1) == 0
      else {
        fail("I/O on leg \(io.leg) outside labels, map and data, or not aligned: \(io)")
        return
      }
      item.unit = unit
      if io.kind != .read { item.values = source(io, unit: unit) }
    }
    if case .request(let token, _) = io.buffer, let index = index(of: token) {
      item.bufferNumber = requests[index].bufferNumber
    }
    applyFault(&item)
    mutate(&item)
    note("issue  leg \(io.leg) \(name(item))\(item.isHeld ? " (hangs)" : "")")
    pending.append(item)
    point()
  }

  private func source(_ io: LegIO, unit: Int) -> [UInt64] {
    switch io.buffer {
    case .scratch(let offset):
      if unit < ExhaustiveLeg.metaUnits {
        return [state.pages.number(of: pageBytes(at: offset))]
      }
      return fromScratch(at: offset, count: Int(io.count))
    case .request(let token, let offset):
      let words = Int(io.count) / ExhaustiveLeg.sectorBytes
      guard let index = index(of: token) else {
        fail("a write from a buffer that was released")
        return Array(repeating: ExhaustiveLeg.garbage, count: words)
      }
      let first = requests[index].word(at: offset)
      return Array(requests[index].buffer[first..<first + words])
    case .none: return Array(repeating: 0, count: Int(io.count) / ExhaustiveLeg.sectorBytes)
    }
  }

  private func applyFault(_ item: inout ExhaustiveIO) {
    for index in faults.indices where faults[index].leg == item.io.leg.index {
      let isData = item.unit >= ExhaustiveLeg.metaUnits
      let isMeant =
        switch faults[index].target {
        case .dataRead: item.io.kind == .read && isData
        case .dataWrite: item.io.kind != .read && item.io.kind != .flush && isData
        case .flush: item.io.kind == .flush
        case .label: item.io.kind == .write && item.unit < 2
        case .page: item.io.kind == .write && (item.unit == 2 || item.unit == 3)
        }
      guard isMeant, faults[index].count > 0 else { continue }
      faults[index].nth -= 1
      guard faults[index].nth <= 0 else { continue }
      faults[index].count -= 1
      item.error = faults[index].errno
      item.remains = faults[index].remains
      item.isHeld = faults[index].hangs
      return
    }
  }

  // MARK: Completing

  func apply(_ item: ExhaustiveIO) {
    let io = item.io
    let leg = io.leg.index
    switch io.kind {
    case .read: if item.error == 0 { store(item) }
    case .write, .zero, .discard:
      guard !item.isDropped else { return }
      let isDurable = io.isDurable && context.mutation != .ignoreDurable
      if item.error == 0 {
        state.legs[leg]?.write(item.values, at: item.unit, isDurable: isDurable)
        return
      }
      switch item.remains {
      case .nothing: break
      case .all: state.legs[leg]?.write(item.values, at: item.unit, isDurable: false)
      case .firstSector:
        var first = Array(item.values.prefix(1))
        if item.unit < ExhaustiveLeg.metaUnits, let old = state.legs[leg]?.image[item.unit] {
          first = state.pages.torn(old: old, new: first[0])
        }
        state.legs[leg]?.write(Array(first.prefix(1)), at: item.unit, isDurable: false)
      }
    case .flush:
      if item.isDropped { return }
      if item.error == 0 {
        state.legs[leg]?.flushed(mark: item.mark)
      } else {
        state.legs[leg]?.flushFailed(mark: item.mark)
      }
    }
  }

  private func store(_ item: ExhaustiveIO) {
    var leg = item.io.leg.index
    if context.mutation == .readAnyLeg, leg == 0,
      let other = state.legs.lastIndex(where: { $0 != nil })
    {
      leg = other
    }
    guard let image = state.legs[leg]?.image else { return }
    let words = Array(
      image[item.unit..<item.unit + Int(item.io.count) / ExhaustiveLeg.sectorBytes])
    switch item.io.buffer {
    case .scratch(let offset): toScratch(words, at: offset)
    case .request(let token, let offset):
      guard let index = index(of: token) else {
        fail("a read into a buffer that was released")
        return
      }
      guard requests[index].bufferNumber == item.bufferNumber else { return }
      let first = requests[index].word(at: offset)
      requests[index].buffer.replaceSubrange(first..<first + words.count, with: words)
    case .none: fail("a read without memory")
    }
  }
}
