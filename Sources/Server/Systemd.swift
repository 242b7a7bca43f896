// What systemd says to a service, and hears from it.
//
// Source: sd_listen_fds(3), sd_notify(3).

import Glibc
import Ring

/// The service manager, if there is one.
public enum Systemd {
  /// Listening sockets that were handed over (`LISTEN_FDS`), and no longer announced to children.
  public static func inheritedListeners() -> [Int32] {
    guard let owner = environment("LISTEN_PID"), Int32(owner) == getpid(),
      let text = environment("LISTEN_FDS"), let count = Int32(text), count > 0, count < 1024
    else { return [] }
    // No other thread reads or changes the environment while the server starts.
    unsafe unsetenv("LISTEN_PID")
    unsafe unsetenv("LISTEN_FDS")
    unsafe unsetenv("LISTEN_FDNAMES")
    let first: Int32 = 3
    for descriptor in first..<first + count {
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
    return Array(first..<first + count)
  }

  /// Tells the service manager a state (`READY=1`); does nothing without one.
  public static func notify(_ state: String) {
    guard let address = environment("NOTIFY_SOCKET") else { return }
    // Best effort, as sd_notify(3) says: a manager that does not listen is not our failure.
    _ = ProcessCalls.sendDatagram(to: address, state)
  }

  private static func environment(_ name: String) -> String? {
    // The environment is not changed by other threads while it is copied.
    guard let value = unsafe getenv(name) else { return nil }
    return unsafe String(cString: value)
  }
}
