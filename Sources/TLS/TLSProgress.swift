// What one call of a session took and made.

/// What became of the bytes lent to a call of `TLSSession`.
public struct TLSProgress: Equatable, Sendable {
  /// Bytes taken from the front of the wire's input.
  public var wireTaken = 0
  /// Bytes for the wire, written to the front of the output.
  public var wireMade = 0
  /// Bytes taken from the front of the plaintext to send.
  public var plaintextTaken = 0
  /// Bytes of plaintext that came in, written to the front of the room for them.
  public var plaintextMade = 0
  /// Whether the call ended early because the output has no room left: send what is there, then
  /// repeat the call with what was not taken.
  public var needsOutputRoom = false

  /// Nothing taken, nothing made.
  public init() {}
}
