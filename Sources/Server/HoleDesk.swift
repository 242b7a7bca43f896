// Where the legs' files have holes, asked on a thread of its own: a file system that hangs keeps no
// client waiting that wants to read or write.
//
// At most `jobsMax` jobs wait. Who asked does not wait for ever: what comes too late is thrown away,
// and the range counts as data, which is always true.

import Base
import Glibc
import Legs
import MirrorEngine
import NBDProtocol
import Ring
import Synchronization

/// What a range is, for `base:allocation`.
struct AllocationExtent: Sendable {
  var count: UInt64
  /// It reads as zeros, and no leg has storage for it.
  var isEmpty: Bool
}

/// What a request wants to know. Owns its descriptors: `close` them once.
struct HoleJob: Sendable {
  var reactor: Int
  var slot: Int
  var generation: UInt32
  var runs: [StatusRun]
  /// Where the device begins on a leg.
  var dataOffset: UInt64
  /// By slot; -1: none. Nobody else closes them.
  var descriptors: [Int32]

  func close() {
    for descriptor in descriptors where descriptor >= 0 { Glibc.close(descriptor) }
  }

  /// Whether a file has to be asked.
  var needsFiles: Bool { runs.contains { HoleJob.isForFiles($0) } }

  private static func isForFiles(_ run: StatusRun) -> Bool {
    run.status.isDisjoint(with: [.unwritten, .unresolved]) && !run.good.isEmpty
  }

  /// What is known without asking: everything that was written is data.
  func known() -> [AllocationExtent] {
    runs.map {
      AllocationExtent(count: $0.range.count, isEmpty: $0.status.contains(.unwritten))
    }
  }

  /// Asks the files; may wait for them.
  func ask() -> [AllocationExtent] {
    var extents: [AllocationExtent] = []
    // A file of many small pieces costs a system call for each.
    var budget = 2 * BlockStatusReply.extentsMax
    for (run, known) in zip(runs, known()) {
      guard HoleJob.isForFiles(run) else {
        extents.append(known)
        continue
      }
      var offset = run.range.offset
      while offset < run.range.end {
        guard budget > 0 else { return extents }
        let extent = self.extent(at: offset, to: run.range.end, run.good, &budget)
        extents.append(AllocationExtent(count: extent.end - offset, isEmpty: extent.isHole))
        offset = extent.end
      }
    }
    return extents
  }

  /// What stands at `offset` on all of `good`, and how far it is so at least.
  private func extent(
    at offset: UInt64, to end: UInt64, _ good: LegSet, _ budget: inout Int
  ) -> (isHole: Bool, end: UInt64) {
    var hole = end
    var rest = good
    while let leg = rest.popFirst() {
      budget -= 1
      let next = FileHoles.data(from: dataOffset + offset, descriptors[leg.index])
      guard next > dataOffset + offset else {
        budget -= 1
        let after = FileHoles.hole(from: dataOffset + offset, descriptors[leg.index])
        return (false, min(end, after - dataOffset))
      }
      if next != .max { hole = min(hole, next - dataOffset) }
    }
    return (true, hole)
  }
}

/// An answer on its way to the reactor.
struct HoleAnswer: Sendable {
  var slot: Int
  var generation: UInt32
  var extents: [AllocationExtent]
}

/// The thread that asks.
final class HoleDesk: Sendable {
  private static let jobsMax = 64

  private struct State {
    var jobs: [HoleJob] = []
    var isOver = false
  }

  private let share: EngineShare
  private let event: Event
  private let state = Mutex(State())

  /// Starts the desk. Its thread ends some time after `close`: nobody waits for it, for it may hang.
  init(_ share: EngineShare) throws(ServerError) {
    self.share = share
    event = try ServerError.wrap { () throws(RingError) in try Event() }
    try ServerThread.detach { [self] in run() }
  }

  /// Takes a job over; false if too many wait.
  func post(_ job: HoleJob) -> Bool {
    let isTaken = state.withLock { state in
      guard state.jobs.count < HoleDesk.jobsMax, !state.isOver else { return false }
      state.jobs.append(job)
      return true
    }
    if isTaken { event.signal() }
    return isTaken
  }

  /// Ends the desk.
  func close() {
    state.withLock { $0.isOver = true }
    event.signal()
  }

  private func run() {
    while true {
      event.wait()
      event.clear()
      while let job = state.withLock({ $0.jobs.isEmpty ? nil : $0.jobs.removeFirst() }) {
        let answer = HoleAnswer(slot: job.slot, generation: job.generation, extents: job.ask())
        job.close()
        share.ports[job.reactor].holes.withLock { $0.append(answer) }
        share.ports[job.reactor].wake()
      }
      if state.withLock({ $0.isOver && $0.jobs.isEmpty }) { return }
    }
  }
}
