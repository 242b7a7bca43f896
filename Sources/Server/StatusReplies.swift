// Block status: what the engine's map says, and where the legs' files have holes.
//
//   answerStatus -> (HoleDesk) -> takeHoles, or expireStatus after `statusNanoseconds` -> finishStatus
//
// The map is read under the engine's lock. The files are asked after it by the HoleDesk, through
// descriptors of this request's own, duplicated under the lock: a leg that is online then is attached,
// and may be detached and closed by anybody meanwhile.
//
// A range is a hole only if it is one on every leg that can be read there: whichever answers a read
// gives zeros. Where the legs may differ, where a file does not know holes (a block device), and where
// it does not say in time, it is data, which is always true.

import Base
import Glibc
import Legs
import MirrorEngine
import NBDProtocol

/// A block status that waits for the files.
struct StatusWait {
  var request: Request
  var job: HoleJob
  /// After that it is answered without them.
  var deadline: UInt64
}

extension Reactor {
  /// How long a client waits for what files say of their holes.
  private static let statusNanoseconds = Nanoseconds.second
  /// Runs of the map that one answer describes; a map that changes more often is asked again.
  private static let runsMax = 256
  /// What one answer describes at most: 65,536 regions of the smallest size are looked at under the
  /// lock.
  private static let statusBytesMax: UInt64 = 4 << 30

  /// Answers a block status request, now or later.
  mutating func answerStatus(_ slot: Int, _ request: Request) {
    let wait = StatusWait(
      request: request, job: look(slot, request),
      deadline: now.nanoseconds + Reactor.statusNanoseconds)
    if request.contexts.contains(.allocation), wait.job.needsFiles {
      statusWaits.append(wait)
      if holes.post(wait.job) { return }
      _ = statusWaits.popLast()
    }
    wait.job.close()
    finishStatus(wait, wait.job.known())
  }

  /// Takes what the files said.
  mutating func takeHoles() {
    var answers: [HoleAnswer] = []
    port.holes.withLock { swap(&answers, &$0) }
    for answer in answers {
      let waiting = statusWaits.firstIndex {
        $0.job.slot == answer.slot && $0.job.generation == answer.generation
      }
      // Else it came too late.
      if let waiting { finishStatus(statusWaits.remove(at: waiting), answer.extents) }
    }
  }

  /// Answers who has waited long enough.
  mutating func expireStatus() {
    while let late = statusWaits.first, now.nanoseconds >= late.deadline {
      statusWaits.removeFirst()
      finishStatus(late, late.job.known())
    }
  }

  private func look(_ slot: Int, _ request: Request) -> HoleJob {
    let legs = legs
    let needsLegs = request.contexts.contains(.allocation)
    var job = HoleJob(
      reactor: index, slot: slot, generation: requests[slot].generation, runs: [], dataOffset: 0,
      descriptors: [Int32](repeating: -1, count: LegSlot.count))
    share.state.withLock { state in
      job.dataOffset = state.engine.dataOffset
      var rest = ByteRange(
        offset: request.offset, count: min(request.count, Reactor.statusBytesMax))
      var asked = LegSet.none
      while rest.count > 0, job.runs.count < Reactor.runsMax {
        let run = state.engine.statusRun(at: rest)
        job.runs.append(run)
        asked = asked.union(run.good)
        rest = ByteRange(offset: run.range.end, count: rest.end - run.range.end)
      }
      while needsLegs, let leg = asked.popFirst() {
        let file = legs.leg(leg)
        // Out of descriptors: the range is data.
        guard file.isAttached else { continue }
        // No program that is started meanwhile shall hold a PV's lock.
        job.descriptors[leg.index] = fcntl(file.descriptor, F_DUPFD_CLOEXEC, 0)
      }
    }
    return job
  }

  private mutating func finishStatus(_ wait: StatusWait, _ extents: [AllocationExtent]) {
    let (slot, contexts) = (wait.job.slot, wait.request.contexts)
    let place = Int(requests[slot].connection)
    countReply(slot, isError: false)
    guard connections[place].phase != .closing else { return replied(slot) }
    guard let buffer = requests[slot].buffer else {
      preconditionFailure("a block status without a buffer")
    }
    precondition(buffer.bytes >= BlockStatusReply.bytesMax, "room for every chunk")
    // The buffer belongs to this request until its reply is sent.
    var bytes = unsafe MutableRawSpan(_unsafeStart: buffer.base, byteCount: buffer.bytes)
    var reply = BlockStatusReply(
      wait.request, isExtended: connections[place].terms.isExtended)
    if contexts.contains(.allocation) {
      reply.begin(.allocation, into: &bytes)
      for extent in extents {
        let flags = extent.isEmpty ? AllocationStatus([.hole, .zero]) : []
        reply.append(count: extent.count, flags: flags.rawValue, into: &bytes)
      }
      reply.end(isLast: contexts == .allocation, into: &bytes)
    }
    if contexts.contains(.state) {
      reply.begin(.state, into: &bytes)
      for run in wait.job.runs {
        reply.append(count: run.range.count, flags: run.status.rawValue, into: &bytes)
      }
      reply.end(isLast: true, into: &bytes)
    }
    requests[slot].headerBytes = 0
    requests[slot].dataBytes = reply.byteCount
    enqueueReply(slot)
  }
}
