// Goal: what stands on a PV is found before it is overwritten. Method: each signature at its
// place in a file; real images by the tools that are installed.
import Base
import Foundation
import Testing

@testable import Legs
@testable import MirrorFormat

@Suite("Foreign content")
struct PVForeignTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func foreign(_ path: String) throws -> [String] {
    try PVFile.open(path: path, access: .readOnly).findForeign().map(\.what)
  }

  @Test(
    "each signature is found at its place",
    arguments: [
      ("an XFS file system", 0, "XFSB"), ("a LUKS container", 0, "LUKS\u{ba}\u{be}"),
      ("a qcow2 image", 0, "QFI\u{fb}"), ("a partition table (MBR)", 510, "\u{55}\u{aa}"),
      ("a GPT partition table", 512, "EFI PART"), ("a GPT partition table", 4096, "EFI PART"),
      ("an ext2, ext3 or ext4 file system", 1080, "\u{53}\u{ef}"),
      ("swap space", 4086, "SWAPSPACE2"), ("a btrfs file system", 65600, "_BHRfS_M"),
      ("an md RAID superblock", 4096, "\u{fc}\u{4e}\u{2b}\u{a9}"),
      ("an md RAID superblock (1.0)", 10_477_568, "\u{fc}\u{4e}\u{2b}\u{a9}"),
      ("an md RAID superblock (0.90)", 10_420_224, "\u{fc}\u{4e}\u{2b}\u{a9}"),
      ("a backup GPT partition table", 10_485_248, "EFI PART"),
      ("a backup GPT partition table", 10_481_664, "EFI PART"),
      ("an ISO 9660 file system", 32769, "CD001"),
      ("a ZFS pool member", 132_096, "\u{0c}\u{b1}\u{ba}\u{00}\u{00}\u{00}\u{00}\u{00}"),
    ])
  func signatures(what: String, offset: UInt64, text: String) throws {
    // One byte per scalar: the strings above are Latin-1.
    let bytes = text.unicodeScalars.map { UInt8($0.value) }
    let path = try folder.file("pv", bytes: 10 << 20, content: bytes, offset: offset)
    #expect(try foreign(path) == [what])
    let near = try folder.file("near", bytes: 10 << 20, content: bytes, offset: offset ^ 2)
    #expect(try foreign(near) == [])
  }

  @Test("LVM, NTFS, exFAT and FAT are told apart")
  func compound() throws {
    var lvm = [UInt8](repeating: 0, count: 512)
    lvm.replaceSubrange(0..<8, with: Array("LABELONE".utf8))
    lvm.replaceSubrange(24..<32, with: Array("LVM2 001".utf8))
    #expect(
      try foreign(folder.file("lvm", bytes: 1 << 20, content: lvm, offset: 512))
        == ["an LVM physical volume"])
    for (name, offset, what) in [
      ("NTFS    ", 3, "an NTFS file system"), ("EXFAT   ", 3, "an exFAT file system"),
      ("FAT16   ", 54, "a FAT file system"), ("FAT32   ", 82, "a FAT file system"),
    ] {
      var boot = [UInt8](repeating: 0, count: 512)
      boot.replaceSubrange(offset..<(offset + 8), with: Array(name.utf8))
      boot[510] = 0x55
      boot[511] = 0xaa
      #expect(try foreign(folder.file(name, bytes: 1 << 20, content: boot)) == [what])
    }
  }

  @Test(
    "real images are found",
    arguments: [
      ("mke2fs", ["-q", "-F"], "an ext2, ext3 or ext4 file system"),
      ("mkfs.xfs", ["-q", "-f"], "an XFS file system"), ("mkswap", [], "swap space"),
      ("mkfs.btrfs", ["-q"], "a btrfs file system"),
    ].filter { Run.find($0.0) != nil })
  func images(tool: String, arguments: [String], what: String) throws {
    let path = try folder.file("pv", bytes: 512 << 20)
    let made = try Run.tool(try #require(Run.find(tool)), arguments + [path])
    try #require(made.status == 0, "\(made.errors)")
    #expect(try foreign(path) == [what])
    let refused = try Run.nbdmirror("create", "m", path)
    #expect(refused.status == 1)
    #expect(refused.errors == "nbdmirror: PV \(path) holds \(what); --force overwrites it\n")
    #expect(try foreign(path) == [what], "a refusal changes nothing")
    #expect(try Run.nbdmirror("create", "m", path, "--force").status == 0)
    let after = try foreign(path)
    #expect(after.count == 2 && after.allSatisfy { $0.hasPrefix("leg 0 of the mirror m") })
  }

  @Test("a leg of a mirror is not taken for another one without --force")
  func ownLabel() throws {
    var creation = PVCreation(name: "first", paths: [folder.at("a")])
    creation.sizeBytes = 1 << 20
    let first = try #require(try creation.run(createdSeconds: 1).labels.first)
    creation.name = "second"
    let error = failure { () throws(PVCreation.Failure) in
      _ = try creation.run(createdSeconds: 1)
    }
    #expect(
      error?.description
        == "PV \(folder.at("a")) holds leg 0 of the mirror first (set \(first.setId)); --force "
        + "overwrites it")
    creation.isForced = true
    let second = try #require(try creation.run(createdSeconds: 1).labels.first)
    #expect(second.setId != first.setId && second.legId != first.legId)
  }

  @Test("a damaged label is not taken for nothing")
  func damagedLabel() throws {
    let path = try folder.file(
      "pv", bytes: 4 << 20, content: Array("nbdmirror label\n".utf8), offset: 524_288)
    #expect(try foreign(path) == ["a damaged nbdmirror label"])
  }
}
