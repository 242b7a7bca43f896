// What the engine's refusals and events mean, in sentences.

import Base
import ControlModel
import MirrorEngine

/// Sentences for refused commands.
enum CommandText {
  /// The refusal as the control plane tells it; `what` begins the sentence.
  static func error(_ what: String, _ refusal: CommandError) -> ControlError {
    switch refusal {
    case .noSuchLeg: ControlError(.noSuchLeg, "\(what): the mirror has no such leg")
    case .onlyGoodCopy:
      ControlError(.conflict, "\(what): it holds the only good copy of some data")
    case .notOnline: ControlError(.conflict, "\(what): it is not online")
    case .notOffline: ControlError(.conflict, "\(what): it is online")
    case .ioInFlight:
      ControlError(
        .conflict, "\(what): its disk has not yet answered I/O of before; try again when it has")
    case .otherLeg: ControlError(.conflict, "\(what): the PV at its path is another leg")
    case .diverged:
      ControlError(
        .conflict,
        "\(what): its history is not part of this mirror's; --force copies everything to it")
    case .alreadyReplaced:
      ControlError(.conflict, "\(what): it is being replaced, or is itself to replace another leg")
    case .isSpare: ControlError(.conflict, "\(what): it is a spare and holds no data")
    case .noFreeSlot: ControlError(.conflict, "\(what): all eight slots are taken")
    case .notWritable:
      ControlError(.stopping, "\(what): the mirror is served read-only, or it is stopping")
    case .badLimits:
      ControlError(.invalid, "\(what): the minimum rate would be above the maximum")
    case .scrubRunning:
      ControlError(.conflict, "\(what): one runs already; 'nbdmirror scrub stop' ends it")
    case .noScrub: ControlError(.conflict, "\(what): none runs")
    case .badRange:
      ControlError(.invalid, "\(what): the range is empty or ends beyond the device")
    }
  }
}

/// Lines for the standard error output, one per event that an administrator wants to read.
enum EventText {
  /// The line; nil for events that are only counted.
  static func line(_ event: MirrorEvent, path: String?) -> String? {
    let leg = event.leg.map { "leg \($0)\(path.map { $0.isEmpty ? "" : " (\($0))" } ?? "")" } ?? ""
    switch event.kind {
    case .legFailed:
      let why =
        switch event.detail {
        case 0: "by command"
        case 110: "it did not answer in time"
        default: "\(SystemError(code: Int32(truncatingIfNeeded: event.detail)))"
        }
      return "\(leg) failed: \(why); the mirror goes on without it"
    case .legRemoved: return "\(leg) was removed"
    case .legOnline: return "\(leg) is online, \(event.detail) bytes to copy"
    case .resyncStarted: return "resync started: \(event.detail) bytes to copy"
    case .resyncDone: return "resync done: \(event.detail) bytes copied"
    case .recoveryDone: return "recovery done: \(event.detail) bytes made equal on all legs"
    case .generationRecorded: return "generation \(event.detail) is recorded on all online legs"
    case .readRedirected: return nil
    case .readFailed: return "no leg could read the block at offset \(event.detail)"
    case .flushLatched:
      return "\(leg) failed a flush and is the last good one: flushes fail from now on"
    case .spareDropped:
      return "\(leg) is no spare any more: "
        + "\(SystemError(code: Int32(truncatingIfNeeded: event.detail)))"
    case .replaceStarted: return "\(leg) is to replace leg \(event.detail), which stays until then"
    case .legReplaced: return "\(leg) was replaced by leg \(event.detail)"
    case .replaceEnded: return "\(leg) does not replace leg \(event.detail) any more, which stays"
    case .readRepaired:
      return "\(leg) could not read at offset \(event.detail): rewritten from another leg"
    case .copyFailed:
      return "no leg that has them could read the blocks at offset \(event.detail): not copied"
    case .scrubMismatch:
      return leg.isEmpty
        ? "scrub: the legs differ at offset \(event.detail)"
        : "scrub: \(leg) differs from the others at offset \(event.detail)"
    case .scrubReadFailed: return "scrub: \(leg) could not be read near offset \(event.detail)"
    case .scrubDone: return "scrub done: \(event.detail) bytes differed"
    }
  }
}
