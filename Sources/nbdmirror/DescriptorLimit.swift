// Open files: each connection takes one, and so do PVs, rings, and the control socket's clients. The
// server takes as many as it may have, and admits no more connections than leave enough for the rest:
// without descriptors no administrator could come in, and no leg come back.
//
// Source: getrlimit(2) RLIMIT_NOFILE.

import ControlModel
import Glibc

/// The process's limit of open files.
enum DescriptorLimit {
  /// What is kept for all but connections: PVs and their successors, rings and events of up to 32
  /// threads, 32 clients of the control socket, programs that are run.
  static let kept = 160
  /// Fewer connections than this are not worth a server.
  static let connectionsMin = 8

  /// Raises the limit as far as this process may, and says how many of `wanted` connections fit.
  static func connections(wanted: Int) -> Int {
    var limit = rlimit()
    // The structure lives through the calls.
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
      return wanted
    }
    let needed = rlim_t(wanted + kept)
    if limit.rlim_cur < needed {
      var raised = limit
      raised.rlim_cur = min(needed, limit.rlim_max)
      if unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &raised) == 0 {
        limit = raised
      }
    }
    guard limit.rlim_cur < needed else { return wanted }
    let fitting = max(connectionsMin, Int(limit.rlim_cur) - kept)
    Journal.write(
      "warning: the limit of \(limit.rlim_cur) open files leaves room for \(fitting) connections "
        + "instead of \(wanted): raise it (ulimit -n, LimitNOFILE=)")
    return fitting
  }
}
