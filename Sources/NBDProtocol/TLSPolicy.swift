// Whether a connection is encrypted.
//
// Source: proto.md, "TLS support": NOTLS, SELECTIVETLS and FORCEDTLS mode. The mode of a connection
// never changes.

/// What a connection is told about TLS.
public enum TLSPolicy: UInt8, Sendable, BitwiseCopyable {
  /// STARTTLS is refused (NOTLS mode).
  case off
  /// The client may encrypt (SELECTIVETLS mode with an export that does not ask for it).
  case optional
  /// Before STARTTLS nothing is told and nothing is served (FORCEDTLS mode).
  case required
}
