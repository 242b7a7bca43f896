// Goal: promise P6 on real devices: a leg that died and returns copies the regions that were written
// meanwhile and no others, `status` reports these bytes, and with three legs two may be away.
//
// Method: writes to known regions of 1 MiB, when no region counts as written to before. A loop device
// dies when its file is cut to nothing and the device told so (reads end early, writes meet ENOSPC);
// a sparse file dies when its tmpfs is full. Needs root; without it these tests fail.
import Fixtures
import Foundation
import Testing

/// What is written to the export: 64 KiB of noise into each of some regions of 1 MiB.
private func write(_ mirror: MirrorUnderTest, regions: [Int]) async throws {
  try await mustRun(
    [
      "/usr/bin/python3", "-c",
      """
      import nbd, random, sys
      handle = nbd.NBD()
      handle.connect_uri(sys.argv[1])
      for region in map(int, sys.argv[2:]):
          handle.pwrite(random.randbytes(65536), (region << 20) + random.randrange(15) * 65536)
      handle.flush()
      handle.shutdown()
      """, mirror.uri,
    ] + regions.map { "\($0)" })
}

/// A loop device over a file that can be cut and restored.
private struct CuttableDevice {
  let backing: String
  let device: LoopDevice

  func cut() async throws {
    // The device must not come back empty: a disk that is plugged in again has its data.
    try await mustRun(["cp", backing, backing + ".kept"])
    try await mustRun(["truncate", "-s", "0", backing])
    try await device.resize()
  }

  func restore() async throws {
    try await mustRun(["cp", backing + ".kept", backing])
    try await device.resize()
  }
}

/// Waits until a leg is noticed to be dead; what it lacks then.
private func death(_ mirror: MirrorUnderTest, of slot: Int) async throws -> UInt64 {
  try await eventually("the death of leg \(slot) is noticed", within: 20) {
    try await mirror.status().leg(slot).state == "failed"
  }
  return try await mirror.status().leg(slot).staleBytes
}

/// Brings a leg back and checks that just `bytes` were copied to it.
private func bringBack(
  _ mirror: MirrorUnderTest, _ command: [String], copying bytes: UInt64
) async throws {
  try await mirror.mustAdmin(command)
  try await mirror.mustAdmin(["resync", "wait"])
  let resync = try await mirror.status().resync
  #expect(resync.bytesDone == bytes, "\(command)")
  #expect(resync.bytesTotal == bytes, "\(command)")
}

extension Crash {
  struct LegReturn {
    @Test(
      "two of three legs die one after the other, and each copies only what it missed",
      .timeLimit(.minutes(3)))
    func twoOfThree() async throws {
      try await withTmpfs(megabytes: 90) { directory, tmpfs in
        let backing = "\(directory)/backing"
        try await mustRun(["truncate", "-s", "80M", backing])
        try await LoopDevice.with(over: backing) { device in
          let disk = CuttableDevice(backing: backing, device: device)
          try await withMirror(
            on: ["\(directory)/leg0.pv", device.path, "\(tmpfs.path)/leg2.pv"], size: "64M",
            directory: directory
          ) { mirror in
            try await mirror.serve()
            #expect(try await mirror.status().regionSize == 1 << 20)
            try await write(mirror, regions: Array(0..<24))
            try await mirror.waitUntilSettled()

            try await disk.cut()
            let first = [3, 4, 9, 20, 30, 31, 32]
            try await write(mirror, regions: first)
            #expect(try await death(mirror, of: 1) == UInt64(first.count) << 20)
            #expect(try await mirror.status().leg(2).state == "in-sync")
            try await mirror.waitUntilSettled()

            // Into regions that leg 2 has no storage for yet.
            try await tmpfs.fill()
            let second = [32, 48, 50, 52, 63]
            try await write(mirror, regions: second)
            #expect(try await death(mirror, of: 2) == UInt64(second.count) << 20)
            #expect(try await mirror.status().state == "degraded")
            #expect(try await mirror.status().leg(0).state == "in-sync")

            let union = UInt64(Set(first + second).count) << 20
            try await disk.restore()
            try await bringBack(mirror, ["leg", "readd", "1"], copying: union)
            try await tmpfs.drain()
            try await bringBack(
              mirror, ["leg", "readd", "2"], copying: UInt64(second.count) << 20)
            #expect(try await mirror.status().state == "healthy")
            let difference = try await mirror.stopAndCompare()
            #expect(difference == nil)
          }
        }
      }
    }

    @Test(
      "a device that dies and comes back by another name is known again",
      .timeLimit(.minutes(3)))
    func anotherName() async throws {
      let directory = try TemporaryDirectory()
      defer { directory.remove() }
      let backing = "\(directory.path)/backing"
      try await mustRun(["truncate", "-s", "80M", backing])
      try await LoopDevice.with(over: backing) { old in
        try await withMirror(
          on: ["\(directory.path)/leg0.pv", old.path], size: "64M", directory: directory.path
        ) { mirror in
          try await mirror.serve()
          try await write(mirror, regions: Array(0..<24))
          try await mirror.waitUntilSettled()
          try await CuttableDevice(backing: backing, device: old).cut()
          let missed = [2, 3, 40]
          try await write(mirror, regions: missed)
          #expect(try await death(mirror, of: 1) == UInt64(missed.count) << 20)
          try await mustRun(["cp", backing + ".kept", backing])
          try await LoopDevice.with(over: backing) { new in
            try await old.detach()
            try await eventually("the server lets the dead device go", within: 20) {
              try await !old.isAttached()
            }
            try await bringBack(
              mirror, ["leg", "add", new.path], copying: UInt64(missed.count) << 20)
            #expect(try await mirror.status().leg(1).path == new.path)
            #expect(try await mirror.status().state == "healthy")
            try await mirror.stop()
            let difference = try await mirror.firstDifference(among: [mirror.paths[0], new.path])
            #expect(difference == nil)
          }
        }
      }
    }
  }
}
