// Goal: a leg that really dies under load (its device answers EIO and ENOSPC, or its file system is
// full) is the mirror's problem, never the client's; healed, it gets only what it missed.
//
// Method: the leg is a loop device over a file on a small tmpfs of its own. Truncating the file
// makes reads fail with EIO; filling the tmpfs as well makes writes fail with ENOSPC. A full tmpfs
// under a sparse leg file fails writes with ENOSPC and leaves reads alone. Needs root; without it
// these tests fail, they don't pass by doing nothing.
import Fixtures
import Foundation
import Testing

/// A tmpfs of `megabytes` MiB, mounted for one test.
struct SmallTmpfs {
  let path: String

  init(_ parent: String, megabytes: Int) async throws {
    path = "\(parent)/tmpfs"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    try await mustRun(["mount", "-t", "tmpfs", "-o", "size=\(megabytes)m", "nbdmirror-test", path])
  }

  /// Takes all space that is left.
  func fill() async throws {
    // fallocate takes nothing when not all of it fits; dd takes what there is and then fails.
    _ = try await run(["dd", "if=/dev/zero", "of=\(path)/filler", "bs=64k", "status=none"])
    _ = try await run([
      "dd", "if=/dev/zero", "of=\(path)/filler2", "bs=512", "oflag=append", "conv=notrunc",
      "status=none",
    ])
  }

  /// Gives the space back.
  func drain() async throws {
    try await mustRun(["rm", "-f", "\(path)/filler", "\(path)/filler2"])
  }

  func unmount() async throws { try await mustRun(["umount", "-l", path]) }
}

/// Runs `body` with a directory and a tmpfs in it, and cleans both up.
func withTmpfs(
  megabytes: Int, _ body: (String, SmallTmpfs) async throws -> Void
) async throws {
  let directory = try TemporaryDirectory()
  defer { directory.remove() }
  let tmpfs = try await SmallTmpfs(directory.path, megabytes: megabytes)
  do {
    try await body(directory.path, tmpfs)
  } catch {
    try await tmpfs.unmount()
    throw error
  }
  try await tmpfs.unmount()
}

/// A verifying load that has to end without an error, by fio.
private func beginLoad(_ mirror: MirrorUnderTest, seconds: Int) throws -> BackgroundProcess {
  try BackgroundProcess(
    [
      "fio", "--name=load", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=randrw", "--bs=4k",
      "--iodepth=16", "--size=24m", "--time_based", "--runtime=\(seconds)", "--verify=crc32c",
      "--verify_fatal=1", "--verify_state_save=0", "--fsync=64", "--rate_iops=1200,1200",
    ], directory: mirror.directory)
}

/// What both tests do once the leg in slot 1 can die and heal.
private func dieAndHeal(
  _ mirror: MirrorUnderTest, die: () async throws -> Void, heal: () async throws -> Void
) async throws {
  try await mirror.serve()
  // Something that no resync needs to copy again.
  try await mustRun([
    "fio", "--name=before", "--ioengine=nbd", "--uri=\(mirror.uri)", "--rw=write", "--bs=256k",
    "--iodepth=8", "--offset=64m", "--size=32m",
  ])
  try await mirror.waitUntilSettled()
  let load = try beginLoad(mirror, seconds: 6)
  defer { load.end() }
  try await eventually("the load writes", within: 20) {
    try await mirror.status().dirtyRegions > 0
  }
  try await die()
  try await eventually("the dead leg is noticed", within: 20) {
    try await mirror.status().leg(1).state == "failed"
  }
  let degraded = try await mirror.status()
  #expect(degraded.state == "degraded")
  #expect(try degraded.leg(0).state == "in-sync")
  let result = try await load.wait(seconds: 60)
  #expect(result.status == 0, "the client saw the leg die: \(result)")
  #expect(try await mirror.status().leg(1).staleBytes > 0)
  try await heal()
  try await mirror.mustAdmin(["leg", "readd", "1"])
  try await mirror.mustAdmin(["resync", "wait"])
  let healed = try await mirror.status()
  #expect(healed.state == "healthy")
  #expect(healed.resync.bytesDone >= 1 << 20)
  #expect(healed.resync.bytesDone <= 28 << 20, "the resync copied what was not missed")
  let difference = try await mirror.stopAndCompare()
  #expect(difference == nil)
}

extension Crash {
  struct LegDeath {
    @Test("a leg whose device fails every read and write", .timeLimit(.minutes(3)))
    func deadDevice() async throws {
      try await withTmpfs(megabytes: 160) { directory, tmpfs in
        let backing = "\(tmpfs.path)/backing"
        // Written in full, so that the leg doesn't run out of space before it is made to.
        try await mustRun([
          "dd", "if=/dev/zero", "of=\(backing)", "bs=1M", "count=136", "status=none",
        ])
        try await LoopDevice.with(over: backing) { device in
          try await withMirror(
            on: ["\(directory)/leg0.pv", device.path], size: "128M", directory: directory
          ) { mirror in
            try await dieAndHeal(
              mirror,
              die: {
                // Without the label and the data of before the leg would come back empty: keep a
                // copy of what the device holds, as a cable that is plugged in again would.
                try await mustRun(["cp", "--sparse=never", backing, "\(directory)/kept"])
                try await mustRun(["truncate", "-s", "0", backing])
                try await tmpfs.fill()
              },
              heal: {
                try await tmpfs.drain()
                try await mustRun([
                  "dd", "if=\(directory)/kept", "of=\(backing)", "bs=1M", "conv=notrunc",
                  "status=none",
                ])
              })
          }
        }
      }
    }

    @Test("a leg whose file system is full", .timeLimit(.minutes(3)))
    func fullFileSystem() async throws {
      try await withTmpfs(megabytes: 160) { directory, tmpfs in
        try await withMirror(
          on: ["\(directory)/leg0.pv", "\(tmpfs.path)/leg1.pv"], size: "128M", directory: directory
        ) { mirror in
          try await dieAndHeal(
            mirror, die: { try await tmpfs.fill() }, heal: { try await tmpfs.drain() })
        }
      }
    }
  }
}
