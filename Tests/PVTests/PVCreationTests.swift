// Goal: `create` makes what it says, and nothing where it refuses. Method: files of a folder of
// the test's own; sizes at their boundaries.
import Base
import Foundation
import Testing

@testable import Legs
@testable import MirrorFormat

@Suite("Creation")
struct PVCreationTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func creation(_ names: String..., size: UInt64? = nil) -> PVCreation {
    var creation = PVCreation(name: "m", paths: names.map { folder.at($0) })
    creation.sizeBytes = size
    return creation
  }

  private func refused(_ creation: PVCreation) -> String? {
    failure { () throws(PVCreation.Failure) in _ = try creation.run(createdSeconds: 1) }?
      .description
  }

  private func words(_ name: String) throws -> Set<UInt16> {
    let pv = try PVFile.open(path: folder.at(name), access: .readOnly)
    let label = try pv.readLabel().get().label
    return Set(pv.readMap(layout: label.layout, setId: label.setId).words)
  }

  @Test("labels all legs alike, in the order of the paths", arguments: [1, 2, 8])
  func labels(count: Int) throws {
    var creation = PVCreation(name: "m", paths: (0..<count).map { folder.at("leg\($0)") })
    creation.sizeBytes = 5 << 20
    creation.logKind = .core
    let outcome = try creation.run(createdSeconds: 99)
    #expect(outcome.stale == .none && outcome.newFiles == creation.paths)
    for index in 0..<count {
      let pv = try PVFile.open(path: folder.at("leg\(index)"), access: .readOnly)
      #expect(pv.legBytes == outcome.labels[0].layout.pvBytes)
      let elected = try pv.readLabel().get()
      let label = elected.label
      #expect(label == outcome.labels[index] && elected.isOtherCopyValid && elected.copy == 0)
      #expect(label.slot == LegSlot(index) && label.setId == outcome.labels[0].setId)
      #expect(label.members == outcome.labels[0].members && label.isClean)
      #expect(label.members[index].legId == label.legId)
      #expect(label.members.filter { $0.state == .online }.count == count)
      #expect(label.members.filter { $0.state == .vacant }.count == 8 - count)
      #expect(label.lineage.current.counter == 1 && label.lineage.parents.isEmpty)
      #expect(label.logKind == .core && label.createdSeconds == 99 && label.name == "m")
      #expect(try words("leg\(index)") == [0])
    }
    #expect(Set(outcome.labels.map(\.legId)).count == count)
  }

  @Test("new files are sparse, or have all their storage")
  func sparse() throws {
    _ = try creation("sparse", size: 64 << 20).run(createdSeconds: 1)
    var full = creation("full", size: 64 << 20)
    full.isPreallocated = true
    _ = try full.run(createdSeconds: 1)
    #expect(!(try PVFile.open(path: folder.at("sparse"), access: .readOnly)).isFullyAllocated)
    #expect(try PVFile.open(path: folder.at("full"), access: .readOnly).isFullyAllocated)
  }

  @Test("says in the boot area what this is, for people")
  func bootText() throws {
    _ = try creation("a", size: 1 << 20).run(createdSeconds: 1)
    let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: folder.at("a")))
    let text = String(decoding: try #require(try handle.read(upToCount: 30)), as: UTF8.self)
    #expect(text == "nbdmirror: leg 0 of the mirror")
    try handle.close()
    let boot = [UInt8](repeating: 9, count: 4096)
    _ = try folder.file("b", bytes: 8 << 20, content: boot)
    _ = try creation("b").run(createdSeconds: 1)
    let other = try FileHandle(forReadingFrom: URL(fileURLWithPath: folder.at("b")))
    #expect(try other.read(upToCount: 4096) == Data(boot), "left alone if it is not zeros")
    try other.close()
  }

  @Test("without a size the smallest PV decides, to the last block")
  func smallest() throws {
    for bytes: UInt64 in [
      (2 << 20) + 4096, (2 << 20) + 8191, 10 << 20, (256 << 30) + (2 << 20),
      (256 << 30) + (3 << 20) + 4096,
    ] {
      let small = "small\(bytes)"
      _ = try folder.file(small, bytes: bytes)
      _ = try folder.file("large\(bytes)", bytes: bytes + (5 << 20))
      let outcome = try creation("large\(bytes)", small, "new\(bytes)").run(createdSeconds: 1)
      let layout = outcome.labels[0].layout
      #expect(layout.pvBytes <= bytes && layout.sizeBytes.isMultiple(of: 4096))
      // No larger device fits: 4 KiB more need more than there is.
      let more = try Layout.plan(
        sizeBytes: layout.sizeBytes + 4096, regionBytes: nil, blockBytes: 512)
      #expect(more.pvBytes > bytes, "\(bytes)")
    }
  }

  @Test("a PV that is too small is refused, with a size and without")
  func tooSmall() throws {
    _ = try folder.file("pv", bytes: (2 << 20) + 4095)
    #expect(
      refused(creation("pv"))
        == "PV \(folder.at("pv")) has 2101247 bytes, 2101248 are needed")
    _ = try folder.file("exact", bytes: (2 << 20) + (1 << 20))
    #expect(refused(creation("exact", size: (1 << 20) + 512))?.contains("are needed") == true)
    #expect(refused(creation("exact", size: 1 << 20)) == nil)
  }

  @Test("what larger PVs have beyond the mirror's size is told, to the byte")
  func unusedBytes() throws {
    _ = try folder.file("small", bytes: 4 << 20)
    _ = try folder.file("large", bytes: (9 << 20) + 17)
    let outcome = try creation("large", "small", "new").run(createdSeconds: 1)
    #expect(outcome.labels[0].layout.pvBytes == 4 << 20)
    #expect(outcome.unusedBytes == [(5 << 20) + 17, 0, 0])
  }

  @Test("storage for a lazy mirror is not taken in advance: its first writes would give it back")
  func lazyPreallocated() throws {
    var wish = creation("a", size: 1 << 20)
    wish.content = .lazy
    wish.isPreallocated = true
    #expect(refused(wish)?.contains("exclude each other") == true)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
  }

  @Test("an empty file gets its size like a new one")
  func emptyFile() throws {
    _ = try folder.file("empty", bytes: 0)
    #expect(refused(creation("empty")) == "--size is needed: none of the PVs has a size yet")
    let outcome = try creation("empty", size: 1 << 20).run(createdSeconds: 1)
    #expect(outcome.labels[0].layout.pvBytes == 3 << 20)
    #expect(try PVFile.open(path: folder.at("empty"), access: .readOnly).legBytes == 3 << 20)
  }

  @Test("a creation that fails leaves no new files and changes no old ones")
  func cleanUp() throws {
    _ = try folder.file("small", bytes: 1 << 20)
    #expect(refused(creation("new", "small", size: 8 << 20)) != nil)
    #expect(refused(creation("new", "nowhere/pv", size: 8 << 20)) != nil)
    #expect(refused(creation("new", size: 1000)) != nil)
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["small"])
    let small = try Data(contentsOf: URL(fileURLWithPath: folder.at("small")))
    #expect(small.allSatisfy { $0 == 0 })
  }

  @Test("the same PV twice is refused, also by another name")
  func samePV() throws {
    _ = try folder.file("a", bytes: 4 << 20)
    try FileManager.default.createSymbolicLink(
      atPath: folder.at("b"), withDestinationPath: folder.at("a"))
    #expect(refused(creation("a", "a")) == "PV \(folder.at("a")) is named twice")
    #expect(
      refused(creation("a", "b"))
        == "PV \(folder.at("b")) and PV \(folder.at("a")) are the same file or device")
  }

  @Test("a PV that somebody holds is refused")
  func inUse() throws {
    let path = try folder.file("a", bytes: 4 << 20)
    let holder = try PVFile.open(path: path, access: .readWrite)
    #expect(refused(creation("a"))?.contains("is in use by another program") == true)
    #expect(holder.legBytes == 4 << 20)
  }

  @Test("wishes that cannot be")
  func wishes() throws {
    var nine = PVCreation(name: "m", paths: (0..<9).map { folder.at("\($0)") })
    nine.sizeBytes = 1 << 20
    #expect(refused(nine) == "a mirror has 1 to 8 PVs, not 9")
    #expect(refused(PVCreation(name: "m", paths: [])) == "a mirror has 1 to 8 PVs, not 0")
    var region = creation("a", size: 1 << 20)
    region.regionBytes = 100_000
    #expect(refused(region)?.contains("power of two") == true)
    var name = creation("a", size: 1 << 20)
    name.name = "a/b"
    #expect(refused(name)?.contains("must not contain") == true)
    #expect(refused(creation("a", size: 1001))?.contains("not a multiple") == true)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
  }

  @Test("what is stale at first, and what becomes of old data, by --init")
  func initialContent() throws {
    let old = [UInt8](repeating: 7, count: 4096)
    for (content, stale, isKept) in [
      (PVInitialContent.auto, 0, false), (.sync, 2, true), (.zero, 0, false),
      (.assumeClean, 0, true), (.lazy, 0, true),
    ] {
      let first = "\(content)0"
      _ = try folder.file(first, bytes: 6 << 20, content: old, offset: 4 << 20)
      _ = try folder.file("\(content)1", bytes: 6 << 20)
      var creation = creation(first, "\(content)1")
      creation.content = content
      let outcome = try creation.run(createdSeconds: 1)
      #expect(outcome.stale.bits == UInt8(stale), "\(content)")
      #expect(outcome.labels[0].members.map(\.isSyncing).filter { $0 }.count == stale / 2)
      #expect(outcome.isUnwritten == (content == .lazy))
      let word = content == .lazy ? RegionWord.unwritten : UInt16(stale)
      #expect(try words(first) == [word])
      #expect(try words("\(content)1") == [word])
      let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: folder.at(first)))
      try handle.seek(toOffset: 4 << 20)
      let data = try #require(try handle.read(upToCount: 4096))
      #expect(data == Data(isKept ? old : [UInt8](repeating: 0, count: 4096)), "\(content)")
      try handle.close()
    }
  }

  @Test("a file that has all its storage keeps it when its data is made zero")
  func keepsStorage() throws {
    _ = try folder.file(
      "full", bytes: 6 << 20, content: [UInt8](repeating: 7, count: 6 << 20), offset: 0)
    var forced = creation("full")
    forced.isForced = true
    _ = try forced.run(createdSeconds: 1)
    let pv = try PVFile.open(path: folder.at("full"), access: .readOnly)
    #expect(pv.isFullyAllocated)
    var buffer = PVBuffer(count: 1 << 20)
    #expect(pv.read(into: &buffer, count: 1 << 20, offset: 3 << 20) == 1 << 20)
    #expect(buffer.withBytes(0..<(1 << 20)) { $0.copied(0..<(1 << 20)) }.allSatisfy { $0 == 0 })
  }

  @Test("random identifiers are UUIDs of version 4 and differ")
  func identifiers() {
    let ids = (0..<100).map { _ in Identifier.random() }
    #expect(Set(ids).count == 100)
    for id in ids {
      let text = Array(id.description)
      #expect(text[14] == "4" && "89ab".contains(text[19]))
    }
  }
}
