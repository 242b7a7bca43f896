// Lines on the standard error output: the server's, and remarks of commands.

import Glibc

/// Writes lines for the administrator; safe from any thread, one system call a line.
enum Journal {
  /// Writes `nbdmirror: ` and the line; what cannot be written is lost.
  static func write(_ line: String) {
    let bytes = Array("nbdmirror: \(line)\n".utf8)
    // The array lives through the call.
    unsafe bytes.withUnsafeBytes { buffer in
      _ = unsafe Glibc.write(STDERR_FILENO, buffer.baseAddress, buffer.count)
    }
  }
}
