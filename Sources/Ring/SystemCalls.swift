// System calls that Swift's Glibc module does not show, or not with what is needed here.
//
// Results below zero are negative errno values, as in the ring. Every `unsafe` here passes on what
// the caller owns for the length of the call.

import CRing

/// Blocking I/O on a file, all or nothing about EINTR.
public enum FileCalls {
  /// pread(2): bytes read, or a negative errno.
  @inline(__always)
  public static func read(
    _ file: Int32, into buffer: UnsafeMutableRawPointer, count: Int, offset: UInt64
  ) -> Int {
    unsafe Int(nbdmirror_read(file, buffer, UInt64(count), offset))
  }

  /// pwrite(2): bytes written, or a negative errno. `isDurable`: `RWF_DSYNC`.
  @inline(__always)
  public static func write(
    _ file: Int32, from buffer: UnsafeRawPointer, count: Int, offset: UInt64, isDurable: Bool
  ) -> Int {
    unsafe Int(nbdmirror_write(file, buffer, UInt64(count), offset, isDurable))
  }

  /// fdatasync(2): 0 or a negative errno.
  public static func sync(_ file: Int32) -> Int32 { nbdmirror_sync(file) }

  /// Whether fallocate(2) punches a hole of 4 KiB there; the file's size stays.
  public static func canPunchHole(_ file: Int32, at offset: UInt64) -> Bool {
    nbdmirror_punch_hole(file, offset, 4096) == 0
  }

  /// The magic number of the file system that holds the file, or a negative errno.
  public static func fileSystem(_ file: Int32) -> Int64 { nbdmirror_file_system(file) }
}

/// SIGTERM and SIGINT as something to poll.
public enum SignalCalls {
  /// Blocks both for this thread and all that it starts, ignores SIGPIPE, and returns a
  /// signalfd, or a negative errno.
  public static func create() -> Int32 { nbdmirror_signals_create() }

  /// Takes a signal out of the signalfd: its number, or 0.
  public static func take(_ signals: Int32) -> Int32 { nbdmirror_signals_take(signals) }
}

/// Small things about the process.
public enum ProcessCalls {
  /// Names the calling thread `reactor N`.
  public static func nameReactor(_ number: Int) { nbdmirror_name_thread(Int32(number)) }

  /// Starts the program at `path` with a file that holds `text` as its standard input, and our
  /// standard error output as its output: its process, or a negative errno.
  public static func spawn(_ path: String, text: String) -> Int32 {
    unsafe nbdmirror_spawn(path, text)
  }

  /// Whether a child has ended, which is reaped then: 1 + its exit status (128 + the signal that
  /// ended it), 0 if it runs, or a negative errno.
  public static func hasEnded(_ process: Int32) -> Int32 { nbdmirror_has_ended(process) }

  /// Sends one datagram to a unix socket (`@` first: abstract): 0 or a negative errno.
  public static func sendDatagram(to address: String, _ text: String) -> Int32 {
    unsafe nbdmirror_send_datagram(address, text)
  }
}
