// A PV becomes a leg: wiping what was there, zeroing data, the first map and the first labels.
//
// Order, for a crash in between: labels are wiped first and written last, after everything they
// speak of is durable. A PV is a leg only from its first valid label on.

import Base
import CLegs
import Glibc
import MirrorFormat

extension PVFile {
  /// Bytes of the boot area, which holds no metadata.
  static let bootBytes = 4096
  private static let zeroChunkBytes = 1 << 20

  /// Removes both labels and the signatures that lie outside map and data, and makes that
  /// durable.
  func wipe(_ foreign: [PVForeign], layout: Layout) throws(PVError) {
    let zeros = PVBuffer(count: 4096)
    for copy in 0..<Layout.copyCount {
      try write(zeros, count: 4096, offset: Layout.labelOffset(copy: copy))
    }
    for finding in foreign {
      let offset = Bytes.alignDown(finding.offset, to: 4096)
      if offset + 4096 <= layout.mapOffset {
        try write(zeros, count: 4096, offset: offset)
      } else if offset >= layout.pvBytes {
        // The end of a device need not be a multiple of 4096.
        let count = Int(min(4096, legBytes - offset))
        try write(zeros, count: count, offset: offset)
      }
    }
    try flush()
  }

  /// One line for people in the boot area, if it is all zeros.
  func writeBootText(_ text: String) throws(PVError) {
    var buffer = PVBuffer(count: PVFile.bootBytes)
    guard read(into: &buffer, count: PVFile.bootBytes, offset: 0) == PVFile.bootBytes else {
      return
    }
    let isZero = buffer.withBytes(0..<PVFile.bootBytes) { bytes in
      for index in 0..<bytes.byteCount where bytes.uint8(at: index) != 0 { return false }
      return true
    }
    guard isZero else { return }
    buffer.withMutableBytes(0..<PVFile.bootBytes) { bytes in
      bytes.store(Array(text.utf8.prefix(PVFile.bootBytes)), at: 0)
    }
    try write(buffer, count: PVFile.bootBytes, offset: 0)
  }

  /// Makes the range of a regular file read as zeros without writing it: a file that has all its
  /// storage keeps it, another one gets a hole. False where the file system cannot, and for a
  /// block device.
  func clear(_ range: ByteRange) throws(PVError) -> Bool {
    guard !isBlockDevice else { return false }
    let result =
      isFullyAllocated
      ? nbdmirror_pv_zero(fileDescriptor, range.offset, range.count)
      : nbdmirror_pv_punch(fileDescriptor, range.offset, range.count)
    if result == -EOPNOTSUPP || result == -ENOSYS { return false }
    guard result == 0 else {
      throw .io(path: path, operation: "clear the data", offset: range.offset, errno: -result)
    }
    return true
  }

  /// Makes the range read as zeros by whatever means there is, writes at last.
  func zero(_ range: ByteRange) throws(PVError) {
    if try clear(range) { return }
    if nbdmirror_pv_zero(fileDescriptor, range.offset, range.count) == 0 { return }
    let zeros = PVBuffer(count: PVFile.zeroChunkBytes)
    var offset = range.offset
    while offset < range.end {
      let count = min(UInt64(PVFile.zeroChunkBytes), range.end - offset)
      try write(zeros, count: Int(count), offset: offset)
      offset += count
    }
  }

  /// Writes both copies of a PV's first label, each durable before the next: copy 1 with the
  /// label's sequence, copy 0 with one more. Returns the latter.
  public func writeFirstLabels(_ label: Label) throws(PVError) -> Label {
    try write(label: label, copy: 1)
    var second = label
    second.sequence &+= 1
    try write(label: second, copy: 0)
    return second
  }
}

extension Identifier {
  /// A random identifier (a UUID of version 4).
  public static func random() -> Identifier {
    var halves: (UInt64, UInt64) = (0, 0)
    // The C function writes 8 bytes to each integer; any bytes are a valid integer.
    let first = unsafe nbdmirror_random(&halves.0, 8)
    let second = unsafe nbdmirror_random(&halves.1, 8)
    precondition(first == 0 && second == 0, "the kernel gives no random numbers")
    return Identifier(
      high: halves.0 & 0xffff_ffff_ffff_0fff | 0x4000,
      low: halves.1 & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000)
  }
}
