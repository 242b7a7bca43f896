// What else may stand on a PV: the signatures of partition tables, file systems, volume managers.
//
// Best effort, as wipefs and libblkid do it: a finding is sure, none proves nothing.
//
//   offset                 bytes
//   0                      XFSB; LUKS ba be; QFI fb; hsqs; vhdxfile; bluestore block device
//   3, 54, 82 and 510      NTFS, EXFAT, FAT and 55 aa; 55 aa alone is an MBR
//   512, 4096, last sector EFI PART
//   0, 512, 1024, 1536     LABELONE, +24 LVM2 001
//   1024                   f2fs 10 20 f5 f2, erofs e2 e1 f5 e0; +56 ext 53 ef
//   4086, 65526            SWAPSPACE2, SWAP-SPACE
//   0, 4096, near the end  md fc 4e 2b a9
//   4120                   bcache c6 85 73 f6 4e 1a 45 ca
//   32769                  CD001
//   65600                  btrfs _BHRfS_M
//   128 KiB + n KiB        ZFS uberblock 0c b1 ba 00

import Base
import MirrorFormat

/// Something that stands on a PV.
public struct PVForeign: Equatable, Sendable {
  /// What it is, with its article.
  public var what: String
  /// Where its signature is.
  public var offset: UInt64

  static let headBytes = 256 << 10
  private static let tailBytes: UInt64 = 132 << 10

  private struct Signature {
    var what: String
    var offset: Int
    var bytes: [UInt8]

    init(_ what: String, _ offset: Int, _ text: String) {
      self.what = what
      self.offset = offset
      self.bytes = Array(text.utf8)
    }

    init(_ what: String, _ offset: Int, bytes: [UInt8]) {
      self.what = what
      self.offset = offset
      self.bytes = bytes
    }
  }

  private static let mdMagic: [UInt8] = [0xfc, 0x4e, 0x2b, 0xa9]
  private static let bootMark: [UInt8] = [0x55, 0xaa]

  private static let signatures: [Signature] = [
    Signature("an XFS file system", 0, "XFSB"),
    Signature("a LUKS container", 0, bytes: Array("LUKS".utf8) + [0xba, 0xbe]),
    Signature("a qcow2 image", 0, bytes: Array("QFI".utf8) + [0xfb]),
    Signature("a squashfs file system", 0, "hsqs"),
    Signature("a VHDX image", 0, "vhdxfile"),
    Signature("a Ceph BlueStore device", 0, "bluestore block device"),
    Signature("a GPT partition table", 512, "EFI PART"),
    Signature("a GPT partition table", 4096, "EFI PART"),
    Signature("an f2fs file system", 1024, bytes: [0x10, 0x20, 0xf5, 0xf2]),
    Signature("an erofs file system", 1024, bytes: [0xe2, 0xe1, 0xf5, 0xe0]),
    Signature("an ext2, ext3 or ext4 file system", 1080, bytes: [0x53, 0xef]),
    Signature("swap space", 4086, "SWAPSPACE2"),
    Signature("swap space", 4086, "SWAP-SPACE"),
    Signature("swap space", 65526, "SWAPSPACE2"),
    Signature("an md RAID superblock", 0, bytes: mdMagic),
    Signature("an md RAID superblock", 4096, bytes: mdMagic),
    Signature("a bcache device", 4120, bytes: [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]),
    Signature("an ISO 9660 file system", 32769, "CD001"),
    Signature("a btrfs file system", 65600, "_BHRfS_M"),
  ]

  /// What is found in the first bytes of a PV; `head` may be shorter than the PV or than 256 KiB.
  static func find(inHead head: RawSpan) -> [PVForeign] {
    var found: [PVForeign] = []
    for signature in signatures where head.has(signature.bytes, at: signature.offset) {
      found.append(PVForeign(what: signature.what, offset: UInt64(signature.offset)))
    }
    for sector in stride(from: 0, to: 2048, by: 512)
    where head.has(Array("LABELONE".utf8), at: sector)
      && head.has(Array("LVM2 001".utf8), at: sector + 24)
    {
      found.append(PVForeign(what: "an LVM physical volume", offset: UInt64(sector)))
    }
    for uberblock in stride(from: 128 << 10, to: 256 << 10, by: 1024)
    where head.has([0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0], at: uberblock) {
      found.append(PVForeign(what: "a ZFS pool member", offset: UInt64(uberblock)))
    }
    if head.has(bootMark, at: 510) {
      found.append(PVForeign(what: bootSector(head), offset: 0))
    }
    return found
  }

  private static func bootSector(_ head: RawSpan) -> String {
    if head.has(Array("NTFS    ".utf8), at: 3) { return "an NTFS file system" }
    if head.has(Array("EXFAT   ".utf8), at: 3) { return "an exFAT file system" }
    if head.has(Array("FAT1".utf8), at: 54) || head.has(Array("FAT32".utf8), at: 82) {
      return "a FAT file system"
    }
    return "a partition table (MBR)"
  }

  /// What is found in the last bytes of a PV of `pvBytes`; `tail` starts at `tailOffset`.
  static func find(inTail tail: RawSpan, tailOffset: UInt64, pvBytes: UInt64) -> [PVForeign] {
    var found: [PVForeign] = []
    func check(_ what: String, _ offset: UInt64, _ bytes: [UInt8]) {
      guard offset >= tailOffset else { return }
      if tail.has(bytes, at: Int(offset - tailOffset)) {
        found.append(PVForeign(what: what, offset: offset))
      }
    }
    let sectors = pvBytes / 512
    if sectors >= 16 {
      check("an md RAID superblock (1.0)", ((sectors - 16) & ~7) * 512, mdMagic)
    }
    if pvBytes >= 128 << 10 {
      check(
        "an md RAID superblock (0.90)", Bytes.alignDown(pvBytes, to: 64 << 10) - (64 << 10),
        mdMagic)
    }
    for sector in [UInt64(512), 4096] where pvBytes >= sector {
      check(
        "a backup GPT partition table", Bytes.alignDown(pvBytes, to: sector) - sector,
        Array("EFI PART".utf8))
    }
    return found
  }

  /// Where the tail to be looked at starts; a multiple of 4096.
  static func tailOffset(pvBytes: UInt64) -> UInt64 {
    pvBytes > tailBytes ? Bytes.alignDown(pvBytes - tailBytes, to: 4096) : 0
  }
}

extension RawSpan {
  /// Whether `bytes` stand at `offset`; false where the span is too short.
  fileprivate func has(_ bytes: [UInt8], at offset: Int) -> Bool {
    guard offset >= 0, byteCount >= bytes.count, offset <= byteCount - bytes.count else {
      return false
    }
    for (index, byte) in bytes.enumerated() where uint8(at: offset + index) != byte {
      return false
    }
    return true
  }
}

extension PVFile {
  /// What stands on the PV, our own labels included; empty if nothing is known.
  public func findForeign() throws(PVError) -> [PVForeign] {
    var found: [PVForeign] = []
    for copy in 0..<Layout.copyCount {
      let offset = Layout.labelOffset(copy: copy)
      switch readLabel(copy: copy) {
      case .success(let label):
        found.append(
          PVForeign(
            what: "leg \(label.slot) of the mirror \(label.name) (set \(label.setId))",
            offset: offset))
      case .failure(.checksum), .failure(.invalidField), .failure(.copiesDisagree):
        found.append(PVForeign(what: "a damaged nbdmirror label", offset: offset))
      case .failure(.version), .failure(.unknownFeatures):
        found.append(PVForeign(what: "a label of a later nbdmirror", offset: offset))
      case .failure(.unreadable(let code)):
        throw .io(path: path, operation: "read", offset: offset, errno: code)
      case .failure(.noLabel), .failure(.truncated), .failure(.badSize),
        .failure(.badRegionSize), .failure(.badName):
        break
      }
    }
    var buffer = PVBuffer(count: PVForeign.headBytes)
    var got = try readChecked(into: &buffer, offset: 0)
    found += buffer.withBytes(0..<got) { PVForeign.find(inHead: $0) }
    let tailOffset = PVForeign.tailOffset(pvBytes: legBytes)
    got = try readChecked(into: &buffer, offset: tailOffset)
    found += buffer.withBytes(0..<got) {
      PVForeign.find(inTail: $0, tailOffset: tailOffset, pvBytes: legBytes)
    }
    return found
  }

  private func readChecked(into buffer: inout PVBuffer, offset: UInt64) throws(PVError) -> Int {
    let got = read(into: &buffer, count: buffer.count, offset: offset)
    guard got >= 0 else {
      throw .io(path: path, operation: "read", offset: offset, errno: -Int32(got))
    }
    return got
  }
}
