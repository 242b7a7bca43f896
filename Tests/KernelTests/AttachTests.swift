// Goal: a device that `nbdmirror attach` made outlives its server, and never gets the sockets of
// another mirror; it can be named in every way that docs/kernel.md says.
//
// Method: a guest kernel with the server and the watcher in it. The server is killed with SIGKILL
// and started again under fio with verification on a mounted file system: not one I/O error, in the
// load or in the kernel's log. Then other mirrors at the same socket, a mounted device without a
// watcher, a server that never comes back.
import Fixtures
import Testing

extension Kernel {
  struct Attach {
    @Test("five kills of the server cost a mounted file system no I/O error", arguments: [1, 4])
    func kills(connections: Int) async throws {
      let guest = try await Guest.run("kill", ["CONNECTIONS": "\(connections)"])
      for life in 1...5 { #expect(guest.did("life \(life)"), "\(guest.console)") }
      for step in ["e2fsck -fn", "attach ends with 0", "the legs are equal"] {
        #expect(guest.did(step), "\(step)\n\(guest.console)")
      }
    }

    @Test("another mirror gets no device, a mounted device is not taken away, waiting has an end")
    func life() async throws {
      let guest = try await Guest.run("life")
      for step in [
        "detach refuses a mounted device", "another mirror gets nothing (c.pv d.pv)",
        "another mirror gets nothing (e.pv f.pv)", "attach ends with 1",
      ] {
        #expect(guest.did(step), "\(step)\n\(guest.console)")
      }
    }

    @Test("over TCP, by name and by itself; a watcher that leaves leaves the device")
    func places() async throws {
      let guest = try await Guest.run("places")
      for step in [
        "write files over TCP after a kill", "the device works after its watcher left",
        "the legs are equal", "a mirror is found by its name", "the other one stops",
      ] {
        #expect(guest.did(step), "\(step)\n\(guest.console)")
      }
    }

    @Test(
      "a wrong call is a wrong call",
      arguments: [
        ["attach"], ["attach", "/dev/sda"], ["attach", "/dev/nbd0p1"], ["attach", "/dev/nbd01"],
        ["attach", "/dev/nbd0", "--uri", "http://x/"],
        ["attach", "/dev/nbd0", "--uri", "nbds://localhost/"],
        ["attach", "/dev/nbd0", "--uri", "nbd://h/", "--name", "n"],
        ["attach", "/dev/nbd0", "--connections", "0"],
        ["attach", "/dev/nbd0", "--block-size", "100"],
        ["attach", "/dev/nbd0", "--timeout", "0"], ["attach", "/dev/nbd0", "--dead-timeout", "0"],
        ["detach"], ["detach", "/dev/null"],
      ])
    func wrongCalls(call: [String]) async throws {
      let result = try await run([try serverBinary()] + call)
      #expect(result.status == 2, "\(result)")
    }
  }
}
