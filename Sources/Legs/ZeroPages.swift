// Zeros to write from, where a file can neither punch nor zero a range.

import Glibc
import Ring

/// Read-only memory full of zeros, page-aligned; the kernel backs all of it by one page.
@safe
public final class ZeroPages: @unchecked Sendable {  // Nobody can write to it.
  /// First byte.
  public let base: UnsafeRawPointer
  /// Size: the largest single write of zeros.
  public static var bytes: Int { 1 << 20 }

  /// Maps the memory.
  /// - Throws: `RingError.memory`.
  public init() throws(RingError) {
    let address = unsafe mmap(
      nil, ZeroPages.bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw RingError.memory(bytes: ZeroPages.bytes, errno: errno)
    }
    unsafe base = UnsafeRawPointer(address)
  }

  deinit { unsafe munmap(UnsafeMutableRawPointer(mutating: base), ZeroPages.bytes) }
}
