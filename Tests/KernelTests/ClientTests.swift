// Goal: the kernel's NBD driver, attached by Debian's nbd-client, and the kernel's file systems find
// in a mirror a disk like any other, also while a leg fails and comes back.
//
// Method: a guest kernel with the server, the client and a file system in it. Files are written
// healthy, degraded and while the leg is copied to, and read back past the page cache; the file
// system's own checker, the kernel's log, and the legs' data areas past the server judge.
import Fixtures
import Testing

extension Kernel {
  struct Client {
    @Test("a file system through nbd-client that encrypts is whole, too")
    func encrypted() async throws {
      let keys = try Keys.make()
      defer { keys.remove() }
      let guest = try await Guest.run(
        "client",
        [
          "FILE_SYSTEM": "ext4", "CONNECTIONS": "1", "BLOCK_SIZE": "512", "KEYS": keys["mutual"],
        ])
      for step in ["the connections are encrypted", "e2fsck -fn", "the legs are equal"] {
        #expect(guest.did(step), "\(step)\n\(guest.console)")
      }
    }

    @Test(
      "a file system through nbd-client is whole after a leg failed and came back",
      arguments: [
        ("ext4", 1, 512), ("ext4", 4, 512), ("ext4", 4, 4096), ("xfs", 1, 4096), ("xfs", 4, 4096),
      ])
    func fileSystem(kind: String, connections: Int, blockBytes: Int) async throws {
      let guest = try await Guest.run(
        "client",
        [
          "FILE_SYSTEM": kind, "CONNECTIONS": "\(connections)", "BLOCK_SIZE": "\(blockBytes)",
        ])
      for step in [
        kind == "xfs" ? "xfs_repair -n" : "e2fsck -fn", "every file is right after fstrim",
        "the legs are equal",
      ] {
        #expect(guest.did(step), "\(step)\n\(guest.console)")
      }
    }
  }
}
