// Where a file has holes.
//
// Source: lseek(2), SEEK_DATA and SEEK_HOLE.

import Glibc

/// Looks for holes in files. The file's position is changed: nobody here uses it.
public enum FileHoles {
  /// The first byte of data from `offset` on; `UInt64.max`: a hole to the end. A file that cannot
  /// say, as a block device, has data everywhere.
  public static func data(from offset: UInt64, _ descriptor: Int32) -> UInt64 {
    let found = lseek(descriptor, Int(offset), 3 /* SEEK_DATA, unistd.h with _GNU_SOURCE */)
    if found >= 0 { return UInt64(found) }
    return errno == ENXIO ? .max : offset
  }

  /// The first byte of a hole behind data at `offset`, more than `offset`; `Int64.max` where the
  /// file cannot say.
  public static func hole(from offset: UInt64, _ descriptor: Int32) -> UInt64 {
    let found = lseek(descriptor, Int(offset), 4 /* SEEK_HOLE */)
    return found > Int(offset) ? UInt64(found) : UInt64(Int64.max)
  }
}
