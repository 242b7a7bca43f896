// What a server needs whose export is attached on its own host: under memory pressure the kernel
// writes to the device, and nothing on the way there may wait for memory that only such a write
// would free.
//
// Source: prctl(2) PR_SET_IO_FLUSHER, mlockall(2), proc(5) oom_score_adj; Linux
// Documentation/admin-guide/blockdev/nbd.rst.

import ControlModel
import Glibc

/// Memory that stays.
enum LocalUse {
  /// Keeps what is in memory there, and out of the OOM killer's way. Says what it may not do.
  static func lockMemory(isFlusher: Bool) {
    if !isFlusher {
      Journal.write(
        "warning: without CAP_SYS_RESOURCE its memory may wait for writes to the export")
    }
    // Pages are locked as they are used: reserves that nobody needed yet stay virtual.
    if mlockall(MCL_CURRENT | MCL_FUTURE | 4 /* MCL_ONFAULT, linux/mman.h */) != 0 {
      Journal.write("warning: memory cannot be locked: \(SystemError(code: errno))")
    }
    if let error = spareFromOOM() {
      Journal.write("warning: the OOM killer may end this server: \(error)")
    }
  }

  private static func spareFromOOM() -> SystemError? {
    let file = unsafe open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)
    guard file >= 0 else { return SystemError(code: errno) }
    defer { close(file) }
    let text = Array("-1000".utf8)
    // The array lives through the call.
    let written = unsafe text.withUnsafeBytes { unsafe write(file, $0.baseAddress, $0.count) }
    return written == text.count ? nil : SystemError(code: errno)
  }
}
