// Why the kernel has no device of an export: sentences for the administrator.

import Glibc

/// What goes wrong when an export is attached, watched or detached.
public struct AttachError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The sentence, without a full stop.
  public let description: String

  /// An error with its sentence.
  public init(_ sentence: String) { description = sentence }

  /// `what`, and the text of the system's error `code`.
  static func system(_ what: String, _ code: Int32) -> AttachError {
    // strerror never returns NULL; the text is copied before any other call.
    AttachError("\(what): \(unsafe String(cString: strerror(code)))")
  }
}
