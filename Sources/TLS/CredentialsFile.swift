// A small file in memory that is wiped when it goes: keys must not stay behind in freed memory.
//
// Every `unsafe` below is about the buffer, which this object owns from `init` to `deinit`.

import Glibc

/// The contents of a file of keys or certificates.
@safe struct CredentialsFile: ~Copyable {
  /// As it was given.
  let path: String
  /// Bytes of the file.
  private(set) var count = 0
  private let buffer: UnsafeMutableRawPointer

  /// Reads the file.
  init(path: String) throws(CredentialsError) {
    self.path = path
    // One byte more than allowed, to see that a file is longer. Untouched pages cost nothing.
    let room = Credentials.fileBytesMax + 1
    unsafe buffer = UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 16)
    // The C function keeps nothing of the path.
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw .cannotRead(path: path, errno: errno) }
    defer { close(descriptor) }
    while true {
      let got = unsafe read(descriptor, buffer + count, room - count)
      if got == 0 { return }
      if got < 0 {
        if errno == EINTR { continue }
        throw .cannotRead(path: path, errno: errno)
      }
      count += got
      if count > Credentials.fileBytesMax { throw .tooLarge(path: path) }
    }
  }

  deinit {
    unsafe explicit_bzero(buffer, count)
    unsafe buffer.deallocate()
  }

  /// The file, for as long as this object lives.
  var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: buffer, count: count) }

  /// Whether there is a file of that name.
  static func exists(path: String) -> Bool {
    // The C function keeps nothing of the path.
    unsafe access(path, F_OK) == 0
  }
}
