// Goal: PVs are opened as they should be, locked, and read whatever state they are in. Method:
// files in a folder of the test's own; a loop device where this machine gives one.
import Base
import Foundation
import Testing

@testable import Legs
@testable import MirrorFormat

@Suite("PV file")
struct PVFileTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  @Test("knows its size, and is direct only where direct I/O works")
  func opening() throws {
    let path = try folder.file("pv", bytes: 3 << 20)
    let pv = try PVFile.open(path: path, access: .readWrite)
    #expect(pv.legBytes == 3 << 20 && !pv.isBlockDevice && pv.path == path)
    #expect(pv.logicalBlockBytes == 512 || pv.logicalBlockBytes == 4096)
    var buffer = PVBuffer(count: 4096)
    let block = Int(pv.logicalBlockBytes)
    #expect(pv.read(into: &buffer, count: block, offset: UInt64(block)) == block)
    try pv.write(buffer, count: block, offset: UInt64(block))
    let buffered = try PVFile.open(path: path, access: .readOnly, cache: .buffered)
    #expect(!buffered.isDirect && buffered.isSame(as: pv))
  }

  @Test("open for writing is exclusive; looking stays possible; closing gives it free")
  func locking() throws {
    let path = try folder.file("pv", bytes: 1 << 20)
    do {
      let pv = try PVFile.open(path: path, access: .readWrite)
      #expect(
        failure { () throws(PVError) in _ = try PVFile.open(path: path, access: .readWrite) }
          == .inUse(path: path))
      #expect(try PVFile.open(path: path, access: .readOnly).isSame(as: pv))
    }
    #expect(try PVFile.open(path: path, access: .readWrite).legBytes == 1 << 20)
  }

  @Test("what is no file or device, or not there, is named in one sentence")
  func notAPV() throws {
    let fifo = folder.at("fifo")
    let made = unsafe mkfifo(fifo, 0o600)  // keeps nothing of the path
    #expect(made == 0)
    let cases: [(String, String)] = [
      (fifo, "PV \(fifo) is neither a regular file nor a block device"),
      ("/dev/null", "PV /dev/null is neither a regular file nor a block device"),
      (folder.at("no"), "PV \(folder.at("no")) cannot be opened: No such file or directory"),
      (folder.path, "PV \(folder.path) cannot be opened: Is a directory"),
    ]
    for (path, sentence) in cases {
      let error = failure { () throws(PVError) in
        _ = try PVFile.open(path: path, access: .readWrite)
      }
      #expect(error?.description == sentence)
    }
  }

  @Test("an empty file, a short file and a file of zeros have no label and do not trap")
  func noLabel() throws {
    for bytes: UInt64 in [0, 1, 4095, 4096, 4097, 8191, 8192, 524_288, 528_383, 1 << 20] {
      let path = try folder.file("pv\(bytes)", bytes: bytes)
      for cache in [PVFile.Cache.direct, .buffered] {
        let pv = try PVFile.open(path: path, access: .readOnly, cache: cache)
        guard case .failure = pv.readLabel() else {
          Issue.record("a label in \(bytes) zeros")
          continue
        }
        #expect(try pv.findForeign().isEmpty)
      }
    }
  }

  @Test("one damaged or torn sector of metadata never takes the label or the map")
  func damagedSectors() throws {
    let path = folder.at("pv")
    var creation = PVCreation(name: "m", paths: [path])
    creation.sizeBytes = 8 << 20
    let label = try #require(try creation.run(createdSeconds: 1).labels.first)
    let whole = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    var sectors = [UInt64(0)]
    for copy in 0..<2 {
      sectors.append(Layout.labelOffset(copy: copy))
      sectors.append(label.layout.pageOffset(page: 0, copy: copy))
    }
    for page in sectors {
      for sector in stride(from: page, to: page + 4096, by: 512) {
        try whole.seek(toOffset: sector)
        let before = try #require(try whole.read(upToCount: 512))
        try whole.seek(toOffset: sector)
        try whole.write(contentsOf: [UInt8](repeating: 0xa5, count: 512))
        let pv = try PVFile.open(path: path, access: .readOnly)
        let elected = try pv.readLabel().get()
        #expect(elected.label.legId == label.legId && elected.label.setId == label.setId)
        let isLabel = page == Layout.labelOffset(copy: 0) || page == Layout.labelOffset(copy: 1)
        #expect(elected.isOtherCopyValid == !isLabel)
        let map = pv.readMap(layout: label.layout, setId: label.setId)
        #expect(map.newest(page: 0) != nil && map.words.allSatisfy { $0 == 0 })
        try whole.seek(toOffset: sector)
        try whole.write(contentsOf: before)
      }
    }
    try whole.close()
  }

  @Test("maps of many pages are read as they were written")
  func bigMap() throws {
    let path = folder.at("pv")
    var creation = PVCreation(name: "m", paths: [path])
    creation.sizeBytes = 64 << 30
    creation.regionBytes = 65536
    let label = try #require(try creation.run(createdSeconds: 1).labels.first)
    #expect(label.layout.pageCount == 517)
    let pv = try PVFile.open(path: path, access: .readWrite)
    try pv.writeMap(layout: label.layout, setId: label.setId, word: 0x8003)
    let map = pv.readMap(layout: label.layout, setId: label.setId)
    #expect(map.words.count == 1 << 20 && map.words.allSatisfy { $0 == 0x8003 })
    for page in 0..<map.pageCount {
      #expect(map.copies(page: page) == (.valid(sequence: 2), .valid(sequence: 1)))
    }
    let foreign = pv.readMap(layout: label.layout, setId: label.legId)
    #expect((0..<517).allSatisfy { foreign.newest(page: $0) == nil })
  }

  private func words(_ path: String) throws -> Set<UInt16> {
    let pv = try PVFile.open(path: path, access: .readOnly)
    let label = try pv.readLabel().get().label
    return Set(pv.readMap(layout: label.layout, setId: label.setId).words)
  }

  @Test("one PV with sectors of 4096 bytes: blocks of 4096", .enabled(if: LoopDevice.isPossible))
  func mixedSectors() throws {
    let small = try LoopDevice(file: folder.file("small", bytes: 16 << 20))
    defer { small.detach() }
    let large = try LoopDevice(file: folder.file("large", bytes: 24 << 20), sectorBytes: 4096)
    defer { large.detach() }
    let pv = try PVFile.open(path: large.path, access: .readOnly)
    #expect(pv.logicalBlockBytes == 4096 && pv.isDirect)
    var creation = PVCreation(name: "m", paths: [small.path, large.path])
    let outcome = try creation.run(createdSeconds: 1)
    #expect(outcome.labels.map(\.layout.blockBytes) == [4096, 4096])
    #expect(outcome.labels[0].layout.sizeBytes == 14 << 20)
    #expect(outcome.unusedBytes == [0, 8 << 20])
    creation.isForced = true
    creation.sizeBytes = (1 << 20) + 512
    #expect(
      failure { () throws(PVCreation.Failure) in _ = try creation.run(createdSeconds: 1) }
        == .wish("1049088 bytes are not a multiple of the block of 4096 bytes"))
  }

  @Test("a block device: size, sectors, exclusive use", .enabled(if: LoopDevice.isPossible))
  func blockDevice() throws {
    let file = try folder.file("disk", bytes: 16 << 20)
    let device = try LoopDevice(file: file)
    defer { device.detach() }
    let pv = try PVFile.open(path: device.path, access: .readWrite)
    #expect(pv.isBlockDevice && pv.legBytes == 16 << 20 && pv.logicalBlockBytes == 512)
    #expect(
      failure { () throws(PVError) in
        _ = try PVFile.open(path: device.path, access: .readWrite)
      } == .inUse(path: device.path))
    #expect(try !pv.clear(ByteRange(offset: 0, count: 4096)))
  }

  @Test(
    "block devices are zeroed by the server, by create, or copied",
    .enabled(if: LoopDevice.isPossible))
  func blockDevices() throws {
    let file = try folder.file(
      "disk", bytes: 16 << 20, content: [UInt8](repeating: 7, count: 4096), offset: 8 << 20)
    let device = try LoopDevice(file: file)
    defer { device.detach() }
    var creation = PVCreation(name: "m", paths: [folder.at("new"), device.path])
    let auto = try creation.run(createdSeconds: 1)
    #expect(auto.stale == .none && auto.isUnwritten)
    for path in creation.paths { #expect(try words(path) == [RegionWord.unwritten]) }
    creation.isForced = true
    creation.content = .sync
    let synced = try creation.run(createdSeconds: 1)
    #expect(synced.stale == LegSet(bits: 2) && !synced.isUnwritten)
    for path in creation.paths { #expect(try words(path) == [2]) }
    creation.content = .zero
    creation.paths = [device.path]
    #expect(try creation.run(createdSeconds: 1).stale == .none)
    let pv = try PVFile.open(path: device.path, access: .readWrite)
    var buffer = PVBuffer(count: 4096)
    #expect(pv.read(into: &buffer, count: 4096, offset: 8 << 20) == 4096)
    #expect(buffer.withBytes(0..<4096) { $0.copied(0..<4096) }.allSatisfy { $0 == 0 })
  }
}

/// A loop device over a file, where the machine gives one.
struct LoopDevice {
  let path: String

  static let isPossible: Bool = {
    guard geteuid() == 0, let losetup = Run.find("losetup") else { return false }
    do { return try Run.tool(losetup, ["-f"]).status == 0 } catch { return false }
  }()

  init(file: String, sectorBytes: Int = 512) throws {
    let losetup = try #require(Run.find("losetup"))
    let run = try Run.tool(losetup, ["-f", "--show", "--sector-size", "\(sectorBytes)", file])
    try #require(run.status == 0, "losetup: \(run.errors)")
    path = run.output.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  func detach() {
    do {
      let losetup = try #require(Run.find("losetup"))
      #expect(try Run.tool(losetup, ["-d", path]).status == 0)
    } catch { Issue.record("\(path) stays attached: \(error)") }
  }
}
