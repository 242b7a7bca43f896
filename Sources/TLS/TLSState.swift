// The states of a TLS session. The diagram is in TLSSession.swift.

/// Where a session stands.
public enum TLSState: Equatable, Sendable {
  /// The peers agree on keys; no plaintext passes.
  case handshaking
  /// Plaintext passes both ways.
  case open
  /// One side said close_notify: that direction is over, the other may go on.
  case closing(by: TLSSide)
  /// Both sides are done, in good order.
  case closed
  /// Nothing passes any more but, possibly, the alert that tells the peer.
  case failed(TLSError)
}

/// A side of the session, as this end sees it.
public enum TLSSide: Equatable, Sendable {
  /// This end.
  case us
  /// The other end.
  case peer
}
