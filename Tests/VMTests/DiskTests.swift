// Goal: a virtual machine can live on the mirror. Its kernel sees an ordinary disk: a leg that hangs,
// a killed server and the guest's own death cost it time and not one file that it was told is durable.
//
// Method: the disk of a QEMU guest is the export, through QEMU's own client. The guest writes files
// and notes each with its checksum once fsync has returned. Meanwhile one leg hangs until the mirror
// fails it, it comes back and is copied to, and the server is killed and, the next time, stopped, and
// started again, which QEMU bridges by `reconnect-delay`. Then the guest dies in the middle of a write. A second guest replays
// the journal and has to find every noted file. A second disk, without `reconnect-delay`, shows that
// an error would have been seen.
import Fixtures
import Foundation
import Testing

extension VirtualMachines {
  @Suite(
    .enabled(
      if: GuestSupport.isComplete(),
      "needs qemu-system-x86, busybox-static and a kernel, which Tests/run.sh fetches"))
  struct Disks {
    @Test(
      "a guest's files outlive a hung leg, a killed and an updated server and the guest's own death"
    )
    func filesSurvive() async throws {
      try await withMirror(size: "256M") { mirror in
        try await mirror.serve(["--leg-timeout", "2"])
        var acked: [String: String] = [:]
        let disks = [
          "-blockdev", Self.blockDevice(mirror, "patient", "reconnect-delay=60,discard=unmap"),
          "-device", "virtio-blk-pci,drive=patient",
          "-blockdev", Self.blockDevice(mirror, "impatient", "read-only=on,cache.direct=on"),
          "-device", "virtio-blk-pci,drive=impatient",
        ]
        try await withGuest(disks: disks, directory: mirror.directory) { guest in
          try await Self.discardAndZero(guest, mirror)
          try await guest.must("/sbin/mke2fs -q -t ext4 /dev/vda && mount -t ext4 /dev/vda /disk")
          try await guest.must("write_files /disk &")
          try await Self.expectProgress(guest)
          try await Self.loseAndRegainLeg(guest, mirror)
          try await Self.restartServer(guest, mirror)
          for line in try await guest.must("cat /tmp/acked") {
            let words = line.split(separator: " ")
            try #require(words.count == 2, "\(line)")
            acked[String(words[1])] = String(words[0])
          }
          // The writer is still at work.
          guest.cutPower()
        }
        try await withGuest(
          disks: ["-drive", "file=\(mirror.uri),format=raw,if=virtio,cache=none,discard=unmap"],
          directory: mirror.directory
        ) { guest in
          try await Self.expectFiles(acked, guest)
          try await guest.powerOff()
        }
        try await mirror.mustAdmin(["resync", "wait"])
        #expect(try await mirror.status().state == "healthy")
        let difference = try await mirror.stopAndCompare()
        #expect(difference == nil)
      }
    }

    /// QEMU's options for a disk that is the mirror's export.
    private static func blockDevice(
      _ mirror: MirrorUnderTest, _ name: String, _ options: String
    ) -> String {
      "driver=nbd,node-name=\(name),server.type=unix,server.path=\(mirror.socket)"
        + ",export=\(mirror.name),\(options)"
    }

    /// The guest's discards and zeroes arrive as such, and both read as zeros afterwards.
    private static func discardAndZero(_ guest: Guest, _ mirror: MirrorUnderTest) async throws {
      try await guest.must(
        "dd if=/dev/urandom of=/dev/vda bs=1M count=8 oflag=direct conv=fsync status=none")
      try await guest.must("/sbin/blkdiscard -o 1M -l 2M /dev/vda")
      try await guest.must("/sbin/blkdiscard -z -o 5M -l 2M /dev/vda")
      for (megabyte, isZero) in [
        (0, false), (1, true), (2, true), (3, false), (5, true), (7, false),
      ] {
        let compare =
          "dd if=/dev/vda bs=1M skip=\(megabyte) count=1 iflag=direct status=none"
          + " | cmp -s -n 1048576 - /dev/zero"
        let status = try await guest.run(compare).status
        try #require((status == 0) == isZero, "MiB \(megabyte)")
      }
      let metrics = try await mirror.admin(["metrics"]).output.split(separator: "\n")
      for operation in ["trim", "zero", "flush"] {
        let sample = metrics.first {
          $0.hasPrefix("nbdmirror_requests_total{") && $0.contains("operation=\"\(operation)\"")
        }
        let count = try #require(sample?.split(separator: " ").last.flatMap { Double($0) })
        #expect(count > 0, "QEMU sent no \(operation)")
      }
    }

    /// Waits until ten more files are durable than there were, and none failed.
    private static func expectProgress(_ guest: Guest) async throws {
      let count = "cat /tmp/acked 2>/dev/null | wc -l"
      let before = try #require(Int(try await guest.must(count)[0]))
      try await eventually("the guest has made ten more files durable", within: 60, every: 0.1) {
        let failed = try await guest.run("cat /tmp/failed")
        guard failed.status != 0 else {
          throw FixtureError("the guest's writer failed: \(failed.lines)")
        }
        return try #require(Int(try await guest.must(count)[0])) >= before + 10
      }
    }

    /// A leg hangs in the middle of the guest's writes, is failed, and comes back.
    private static func loseAndRegainLeg(_ guest: Guest, _ mirror: MirrorUnderTest) async throws {
      try await mirror.mustAdmin(
        ["fault", "add", "1", "hang", "--op", "write", "--area", "data", "--name", "stuck"])
      try await eventually("the hung leg is failed", within: 60, every: 0.05) {
        try await mirror.status().leg(1).state == "failed"
      }
      try await expectProgress(guest)
      #expect(try await mirror.status().leg(1).staleBytes > 0)
      try await mirror.mustAdmin(["fault", "release", "stuck"])
      try await eventually("the leg comes back", within: 60, every: 0.1) {
        try await mirror.admin(["leg", "readd", "1"]).status == 0
      }
      try await mirror.mustAdmin(["resync", "wait"])
      #expect(try await mirror.status().state == "healthy")
      try await expectProgress(guest)
    }

    /// The server is killed under the guest's writes, and later stopped, and started again while they
    /// wait.
    private static func restartServer(_ guest: Guest, _ mirror: MirrorUnderTest) async throws {
      let readSecondDisk = "dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct"
      try await guest.must(readSecondDisk)
      mirror.crash()
      // Only a disk without `reconnect-delay` tells the guest about it.
      #expect(try await guest.run(readSecondDisk).status != 0)
      #expect(try await guest.must("dmesg").contains { $0.contains("I/O error, dev vdb") })
      try await mirror.serve()
      try await expectProgress(guest)
      // An update: the server ends by itself, under the guest's writes.
      try await mirror.stop()
      try await mirror.serve()
      try await expectProgress(guest)
      let errors = try await guest.must("dmesg").filter {
        $0.contains("dev vda") || $0.contains("EXT4-fs error") || $0.contains("JBD2: Error")
      }
      #expect(errors.isEmpty, "\(errors)")
    }

    /// After the journal was replayed every file that was durable is there, and the file system is sound.
    private static func expectFiles(_ acked: [String: String], _ guest: Guest) async throws {
      try #require(acked.count >= 40)
      try await guest.must("mount -t ext4 /dev/vda /disk")
      let lines = try await guest.must("cd /disk && sha256sum f*")
      var found: [String: String] = [:]
      for line in lines {
        let words = line.split(separator: " ")
        try #require(words.count == 2, "\(line)")
        found[String(words[1])] = String(words[0])
      }
      for (name, sum) in acked.sorted(by: { $0.key < $1.key }) {
        #expect(found[name] == sum, "\(name) was durable")
      }
      try await guest.must("umount /disk && /sbin/e2fsck -fn /dev/vda")
    }
  }
}
