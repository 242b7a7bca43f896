// Goal: only files whose I/O cannot wait for a device are worked on by the reactor itself.
// Method: descriptors of each kind; device nodes lie on a tmpfs (devtmpfs) and are none of it.

import Glibc
import Legs
import Testing

@Suite("A leg's file")
struct FileLegTests {
  @Test("is in memory only if it is a regular file on a file system in memory")
  func isMemory() {
    // The calls copy the path.
    let device = unsafe open("/dev/null", O_RDWR | O_CLOEXEC)
    let file = unsafe open("/dev/shm", O_RDWR | temporaryFile | O_CLOEXEC, 0o600)
    #expect(device >= 0 && file >= 0)
    #expect(!FileLeg(descriptor: device).isMemory)
    #expect(FileLeg(descriptor: file).isMemory)
    close(device)
    close(file)
  }

  /// `O_TMPFILE`, which Swift's Glibc module lacks.
  private var temporaryFile: Int32 { 0o20_000_000 | O_DIRECTORY }
}
