// The file of pre-shared keys, as psktool writes it and nbdkit, QEMU and libnbd read it.
//
//   file    = lines; empty lines and blanks at the end of a line do not count
//   line    = user ":" hex-digits, or "#" hex-digits-of-the-user ":" hex-digits
//
// As in GnuTLS the first line of a user counts. A line that is not of this form is an error, with
// its number but not its contents.
//
// Every `unsafe` below reads inside the file's bytes, which the caller keeps alive.

/// Takes a file of pre-shared keys apart.
enum PSKFile {
  private typealias Slice = UnsafeRawBufferPointer.SubSequence

  /// Calls `body` with the user and the key, still in hexadecimal digits, of every line; `body` says
  /// whether they could be used.
  static func forEachUser(
    _ file: borrowing CredentialsFile,
    _ body: (_ user: [UInt8], _ hex: UnsafeRawBufferPointer) throws(CredentialsError) -> Bool
  ) throws(CredentialsError) {
    let bytes = unsafe file.bytes
    var number = 0
    var start = 0
    while start < bytes.count {
      let end = unsafe bytes[start...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
      let line = unsafe trimmed(bytes[start..<end])
      start = end + 1
      number += 1
      if unsafe line.isEmpty { continue }
      let colon = unsafe line.lastIndex(of: UInt8(ascii: ":"))
      guard let colon, let user = unsafe user(line[..<colon]),
        unsafe try body(user, UnsafeRawBufferPointer(rebasing: line[(colon + 1)...]))
      else { throw .badLine(path: file.path, line: number) }
    }
  }

  private static func trimmed(_ line: Slice) -> Slice {
    var end = unsafe line.endIndex
    while unsafe end > line.startIndex {
      let last = unsafe line[end - 1]
      guard last == UInt8(ascii: " ") || last == UInt8(ascii: "\r") else { break }
      end -= 1
    }
    return unsafe line[..<end]
  }

  /// A user's name; nil: its hexadecimal digits are none.
  private static func user(_ text: Slice) -> [UInt8]? {
    guard unsafe text.first == UInt8(ascii: "#") else { return unsafe [UInt8](text) }
    let hex = unsafe [UInt8](text.dropFirst())
    let digits = hex.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
    guard digits.count == hex.count, digits.count % 2 == 0 else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map {
      UInt8(digits[$0] * 16 + digits[$0 + 1])
    }
  }
}
