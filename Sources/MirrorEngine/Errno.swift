// The errnos that the engine itself speaks of, by their Linux numbers (the cores import no libc).

enum Errno {
  /// I/O error.
  static let eio: Int32 = 5
  /// No space left on device.
  static let enospc: Int32 = 28
  /// The leg did not answer in time.
  static let etimedout: Int32 = 110
  /// Ended by command; no error.
  static let none: Int32 = 0
}
