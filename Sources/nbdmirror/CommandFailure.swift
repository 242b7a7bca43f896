// How a verb says that the operation failed: one sentence, exit status 1.

/// An operation that failed; printed as `nbdmirror: sentence`, exit status 1.
struct CommandFailure: Error, Equatable, CustomStringConvertible {
  /// The sentence, without a full stop.
  var description: String

  /// A failure with its sentence.
  init(_ sentence: String) { description = sentence }
}
