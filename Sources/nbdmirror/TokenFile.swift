// The file of the token that opens the control plane over TCP: read, or made at the first use.

import ControlModel
import ControlPlane
import Glibc

/// A file with a token in its first line.
struct TokenFile {
  /// Where it is.
  let path: String

  /// The token in the file; if there is no file, it is made with a random one, mode 0600.
  func readOrMake() throws(CommandFailure) -> ControlToken {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    if descriptor < 0 && errno == ENOENT { return try make() }
    guard descriptor >= 0 else { throw failure("read", errno) }
    defer { close(descriptor) }
    return try read(descriptor)
  }

  private func read(_ descriptor: Int32) throws(CommandFailure) -> ControlToken {
    var status = stat()
    // The kernel fills a plain struct.
    guard unsafe fstat(descriptor, &status) == 0 else { throw failure("read", errno) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw CommandFailure("the token file is not a file: \(path)")
    }
    guard status.st_mode & 0o007 == 0 else {
      throw CommandFailure(
        "everybody may read or write the token file \(path): take that away with "
          + "chmod o= \(path)")
    }
    var bytes = [UInt8](repeating: 0, count: ControlToken.lengths.upperBound + 2)
    let count = unsafe bytes.withUnsafeMutableBytes { buffer in
      // The kernel writes at most `count` bytes into the array, which lives through the call.
      unsafe Glibc.read(descriptor, buffer.baseAddress, buffer.count)
    }
    guard count >= 0 else { throw failure("read", errno) }
    let line = bytes.prefix(count).prefix { $0 != UInt8(ascii: "\n") && $0 != UInt8(ascii: "\r") }
    guard let token = ControlToken(String(decoding: line, as: UTF8.self)) else {
      throw CommandFailure(
        "the first line of \(path) is not a token: \(ControlToken.lengths.lowerBound) to "
          + "\(ControlToken.lengths.upperBound) letters, digits and -._~+/=")
    }
    return token
  }

  private func make() throws(CommandFailure) -> ControlToken {
    var random = SystemRandomNumberGenerator()
    let words = (0..<4).map { _ in random.next() as UInt64 }
    let text = words.map { word in
      let digits = String(word, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }.joined()
    guard let token = ControlToken(text) else { preconditionFailure("64 digits are a token") }
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw failure("make", errno) }
    defer { close(descriptor) }
    let bytes = Array((text + "\n").utf8)
    // The array lives through the call.
    let written = unsafe bytes.withUnsafeBytes {
      unsafe write(descriptor, $0.baseAddress, $0.count)
    }
    guard written == bytes.count else {
      let code = written < 0 ? errno : ENOSPC
      unsafe unlink(path)
      throw failure("write", code)
    }
    return token
  }

  private func failure(_ what: String, _ code: Int32) -> CommandFailure {
    CommandFailure("cannot \(what) the token file \(path): \(SystemError(code: code))")
  }
}
