// Goal: the units of Examples/systemd do under systemd what they promise, sandbox and all.
//
// Method: a guest kernel whose first process is systemd, with the units as they are but for the
// place of the binary. A client's connection starts the server; it is killed and stopped in its
// tracks under a mounted file system; systemd and the watcher bring everything back.
import Fixtures
import Foundation
import Testing

extension Kernel {
  struct Service {
    @Test("systemd starts the server for a client, restarts it, and the file system is whole")
    func units() async throws {
      let units =
        URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path + "/Examples/systemd"
      let guest = try await Guest.run("systemd", ["UNITS": units])
      for step in [
        "a client starts the server", "a killed server comes back", "the device is reconnected",
        "the watchdog ends a server that hangs", "the device is reconnected again",
        "every file is right", "e2fsck -fn", "the device is detached", "the server stops",
        "the legs are equal",
      ] {
        #expect(guest.did(step), "\(step)\n\(guest.console)")
      }
    }
  }
}
