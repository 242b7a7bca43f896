// Block status: what the engine's map says, and where the legs' files have holes.
//
// The map is read under the engine's lock. The files are asked after it, through descriptors of
// this request's own, duplicated under the lock: a leg that is online then is attached, and may be
// detached and closed by anybody meanwhile.
//
// A range is a hole only if it is one on every leg that can be read there: whichever answers a read
// gives zeros. Where the legs may differ, and where a file does not know holes (a block device),
// it is data, which is always true.

import Base
import Glibc
import Legs
import MirrorEngine
import NBDProtocol

/// What was read of the map for one request.
private struct StatusRuns {
  /// Runs that one answer describes; a map that changes more often is asked again.
  static let countMax = 256
  /// What one answer describes at most: 65,536 regions of the smallest size are looked at under the
  /// lock.
  static let bytesMax: UInt64 = 4 << 30
  var runs: [StatusRun] = []
  /// Where the device begins on a leg.
  let dataOffset: UInt64
  /// Own descriptors by slot; -1: none.
  var descriptors = [Int32](repeating: -1, count: LegSlot.count)
}

extension Reactor {
  /// Answers a block status request.
  mutating func answerStatus(_ slot: Int, _ request: Request) {
    let contexts = request.contexts
    let found = readRuns(request, needsLegs: contexts.contains(.allocation))
    defer {
      for descriptor in found.descriptors where descriptor >= 0 { close(descriptor) }
    }
    guard let buffer = requests[slot].buffer else {
      preconditionFailure("a block status without a buffer")
    }
    precondition(buffer.bytes >= BlockStatusReply.bytesMax, "room for every chunk")
    // The buffer belongs to this request until its reply is sent.
    var bytes = unsafe MutableRawSpan(_unsafeStart: buffer.base, byteCount: buffer.bytes)
    var reply = BlockStatusReply(
      request, isExtended: connections[Int(requests[slot].connection)].terms.isExtended)
    if contexts.contains(.allocation) {
      reply.begin(.allocation, into: &bytes)
      allocation(found, &reply, &bytes)
      reply.end(isLast: contexts == .allocation, into: &bytes)
    }
    if contexts.contains(.state) {
      reply.begin(.state, into: &bytes)
      for run in found.runs {
        reply.append(count: run.range.count, flags: run.status.rawValue, into: &bytes)
      }
      reply.end(isLast: true, into: &bytes)
    }
    requests[slot].headerBytes = 0
    requests[slot].dataBytes = reply.byteCount
    countReply(slot, isError: false)
    enqueueReply(slot)
  }

  private func readRuns(_ request: Request, needsLegs: Bool) -> StatusRuns {
    let legs = legs
    return share.state.withLock { state in
      var found = StatusRuns(dataOffset: state.engine.dataOffset)
      var rest = ByteRange(
        offset: request.offset, count: min(request.count, StatusRuns.bytesMax))
      var asked = LegSet.none
      while rest.count > 0, found.runs.count < StatusRuns.countMax {
        let run = state.engine.statusRun(at: rest)
        found.runs.append(run)
        asked = asked.union(run.good)
        rest = ByteRange(offset: run.range.end, count: rest.end - run.range.end)
      }
      while needsLegs, let leg = asked.popFirst() {
        let file = legs.leg(leg)
        // Out of descriptors: the range is data.
        guard file.isAttached else { continue }
        // No program that is started meanwhile shall hold a PV's lock.
        found.descriptors[leg.index] = fcntl(file.descriptor, F_DUPFD_CLOEXEC, 0)
      }
      return found
    }
  }

  private func allocation(
    _ found: StatusRuns, _ reply: inout BlockStatusReply, _ bytes: inout MutableRawSpan
  ) {
    let empty = AllocationStatus([.hole, .zero]).rawValue
    // A file of many small pieces costs a system call for each.
    var budget = 2 * BlockStatusReply.extentsMax
    for run in found.runs {
      guard run.status.isDisjoint(with: [.unwritten, .unresolved]), !run.good.isEmpty else {
        let flags = run.status.contains(.unwritten) ? empty : 0
        reply.append(count: run.range.count, flags: flags, into: &bytes)
        continue
      }
      var offset = run.range.offset
      while offset < run.range.end, reply.takesMore {
        guard budget > 0 else { return }
        let extent = extent(at: offset, to: run.range.end, run.good, found, &budget)
        reply.append(count: extent.end - offset, flags: extent.isHole ? empty : 0, into: &bytes)
        offset = extent.end
      }
    }
  }

  /// What stands at `offset` on all of `good`, and how far it is so at least.
  private func extent(
    at offset: UInt64, to end: UInt64, _ good: LegSet, _ found: StatusRuns, _ budget: inout Int
  ) -> (isHole: Bool, end: UInt64) {
    let (data, descriptors) = (found.dataOffset, found.descriptors)
    var hole = end
    var rest = good
    while let leg = rest.popFirst() {
      budget -= 1
      let next = FileHoles.data(from: data + offset, descriptors[leg.index])
      guard next > data + offset else {
        budget -= 1
        return (false, min(end, FileHoles.hole(from: data + offset, descriptors[leg.index]) - data))
      }
      if next != .max { hole = min(hole, next - data) }
    }
    return (true, hole)
  }
}
