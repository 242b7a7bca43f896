// `serve --auto-readd`: legs that failed come back by themselves once their PV can be read again.
//
// A probe opens and locks the PV and reads its label and the region map; nothing is written, so a
// PV that became somebody else's is left alone. The first probe comes 10 s after the failure was
// seen, and after each that failed twice as much later, up to 5 min. A leg that failed by command,
// that is being replaced, or that has gone on by itself is not probed: those are decisions.

import Base
import ControlModel
import Legs
import MirrorEngine
import MirrorFormat
import Ring
import Server
import Synchronization

/// When the next probe of each leg is due. Pure: time is an argument.
struct ProbeSchedule {
  /// The first probe comes so many seconds after the failure.
  static let secondsMin: UInt64 = 10
  /// Probes are at most so many seconds apart.
  static let secondsMax: UInt64 = 300

  private var due = [UInt64?](repeating: nil, count: LegSlot.count)
  private var interval = [UInt64](repeating: secondsMin, count: LegSlot.count)

  /// The legs to probe now, of those that are `failed` at `seconds` (of any clock).
  mutating func dueLegs(_ failed: LegSet, seconds: UInt64) -> LegSet {
    var legs = LegSet.none
    for index in 0..<LegSlot.count {
      guard failed.contains(LegSlot(index)) else {
        due[index] = nil
        interval[index] = ProbeSchedule.secondsMin
        continue
      }
      let time = due[index] ?? seconds + interval[index]
      due[index] = time
      guard seconds >= time else { continue }
      legs.insert(LegSlot(index))
      interval[index] = min(interval[index] * 2, ProbeSchedule.secondsMax)
      due[index] = seconds + interval[index]
    }
    return legs
  }
}

/// The thread that probes.
final class AutoReadd: Sendable {
  private let adapter: MirrorAdapter
  private let isOver = Atomic<Bool>(false)
  private let thread = Mutex<ServerThread?>(nil)

  init(_ adapter: MirrorAdapter) { self.adapter = adapter }

  /// Starts it; once.
  func start() throws(ServerError) {
    let made = try ServerThread { [self] in run() }
    thread.withLock { $0 = made }
  }

  /// Ends it and waits for that.
  func stop() {
    isOver.store(true, ordering: .releasing)
    thread.withLock { $0 }?.join()
  }

  private func run() {
    var schedule = ProbeSchedule()
    while !waitFor(milliseconds: 1000, { isOver.load(ordering: .acquiring) }) {
      let seconds = monotonicNanoseconds() / Nanoseconds.second
      var legs = schedule.dueLegs(adapter.failedLegs, seconds: seconds)
      while let slot = legs.popFirst() { adapter.probe(slot) }
    }
  }
}

extension MirrorAdapter {
  /// Legs that failed by themselves and that nobody replaces.
  var failedLegs: LegSet {
    let snapshot = server.withEngine { $0.snapshot() }
    var legs = LegSet.none
    for leg in snapshot.legs where leg.state == .failed && !leg.isJoining { legs.insert(leg.slot) }
    for leg in snapshot.legs {
      if let old = leg.replaces { legs.remove(old) }
    }
    return legs.subtracting(failedByCommand.withLock { $0 })
  }

  /// Brings a failed leg back if its PV can be read.
  func probe(_ slot: LegSlot) {
    guard isReadable(slot) else { return }
    do throws(ControlError) {
      try readdLeg(slot.index, force: false)
      Journal.write("leg \(slot) (\(files.path(of: slot))) can be read again: it comes back")
    } catch {
      Journal.write(error.message)
    }
  }

  private func isReadable(_ slot: LegSlot) -> Bool {
    let path = files.path(of: slot)
    guard !path.isEmpty, files.file(of: slot) == nil else { return false }
    do throws(PVError) {
      let file = try PVFile.open(path: path, access: .readOnly, cache: facts.cache)
      guard case .success(let elected) = file.readLabel(), elected.label.setId == facts.setId
      else { return false }
      let map = file.readMap(layout: facts.layout, setId: facts.setId)
      return (0..<map.pageCount).allSatisfy { map.newest(page: $0) != nil }
    } catch {
      return false
    }
  }
}
