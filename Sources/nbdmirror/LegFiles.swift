// The open PVs of a served mirror: which file is in which slot, from opening to closing.
//
// 1. A file is attached before the engine issues I/O on it, and detached and closed only after the
//    engine said, once per time that a leg goes offline, that none is in flight (`legIsIdle`).
// 2. So a slot is free for a new file when that has been heard; `waitUntilFree` waits for it.

import Base
import Glibc
import Legs
import MirrorFormat
import Server
import Synchronization

/// The files of the legs; safe from any thread.
final class LegFiles: Sendable {
  /// What the reactors look at.
  let table = LegTable()

  private struct State {
    var files = [PVFile?](repeating: nil, count: LegSlot.count)
    var paths = [String](repeating: "", count: LegSlot.count)
  }

  private let state = Mutex(State())

  /// Gives the leg in `slot` its open file, and with it its path.
  func attach(_ file: PVFile, to slot: LegSlot) {
    state.withLock {
      precondition($0.files[slot.index] == nil, "slot \(slot) has a file")
      $0.files[slot.index] = file
      $0.paths[slot.index] = LegFiles.absolute(file.path)
    }
    table.attach(slot, descriptor: file.fileDescriptor)
  }

  /// Closes the file of a leg without I/O in flight; its path stays known.
  func close(_ slot: LegSlot) {
    table.detach(slot)
    // Dropped outside the lock: closing a file can take its time.
    let file = state.withLock { state -> PVFile? in
      let file = state.files[slot.index]
      state.files[slot.index] = nil
      return file
    }
    _ = consume file
  }

  /// The open file of the leg; nil if it is not open.
  func file(of slot: LegSlot) -> PVFile? { state.withLock { $0.files[slot.index] } }

  /// Notes where the PV of a leg is that is not opened.
  func note(path: String, of slot: LegSlot) {
    state.withLock { $0.paths[slot.index] = LegFiles.absolute(path) }
  }

  /// The absolute path of the leg's PV; empty if it was never seen.
  func path(of slot: LegSlot) -> String { state.withLock { $0.paths[slot.index] } }

  /// Whether the leg's file goes past the page cache; nil if it is not open.
  func isDirect(_ slot: LegSlot) -> Bool? { state.withLock { $0.files[slot.index]?.isDirect } }

  /// Bytes at the end of the leg's PV that the mirror does not use; nil if it is not open.
  func unusedBytes(of slot: LegSlot, layout: Layout) -> UInt64? {
    // A PV that shrank under us is another trouble, and is told as such.
    file(of: slot).map { $0.legBytes - min($0.legBytes, layout.pvBytes) }
  }

  /// Waits until the slot has no file any more; false if it still has one after two seconds.
  func waitUntilFree(_ slot: LegSlot) -> Bool {
    waitFor(milliseconds: 2000) { state.withLock { $0.files[slot.index] == nil } }
  }

  /// `path` with the working folder in front if it is relative.
  static func absolute(_ path: String) -> String {
    guard !path.hasPrefix("/") else { return path }
    // The system allocates the buffer, which is copied and given back.
    guard let folder = unsafe getcwd(nil, 0) else { return path }
    defer { unsafe free(folder) }
    return unsafe String(cString: folder) + "/" + path
  }
}

/// Looks at a condition every two milliseconds; true as soon as it holds, false after the time.
/// For commands that wait for the engine; never on a reactor.
func waitFor(milliseconds: Int, _ condition: () -> Bool) -> Bool {
  for _ in 0..<max(1, milliseconds / 2) {
    if condition() { return true }
    usleep(2000)
  }
  return condition()
}
