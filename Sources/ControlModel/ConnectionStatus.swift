// A client's connection, as `connections` shows it.

/// A client of the mirror.
public struct ConnectionStatus: Codable, Equatable, Sendable {
  /// How the client came.
  public enum Transport: String, Codable, CaseIterable, Sendable {
    /// A unix socket.
    case unix
    /// TCP.
    case tcp
  }

  /// What the connection does.
  public enum Phase: String, Codable, CaseIterable, Sendable {
    /// Options are negotiated.
    case handshake
    /// Requests are served.
    case transmission
  }

  /// Number of the connection, counted from the start of the server.
  public var number: UInt64
  /// How the client came.
  public var transport: Transport
  /// What the connection does.
  public var phase: Phase
  /// Thread that serves it.
  public var reactor: Int
  /// Whether structured replies were negotiated.
  public var structuredReplies: Bool
  /// Whether it is encrypted by TLS.
  public var tls: Bool
  /// Requests that are worked on now.
  public var requestsInFlight: Int
  /// Requests so far.
  public var requests: UInt64
  /// Bytes that the client has read.
  public var readBytes: UInt64
  /// Bytes that the client has written.
  public var writtenBytes: UInt64

  /// Describes a connection.
  public init(
    number: UInt64, transport: Transport, phase: Phase, reactor: Int,
    structuredReplies: Bool = false, tls: Bool = false, requestsInFlight: Int = 0,
    requests: UInt64 = 0,
    readBytes: UInt64 = 0, writtenBytes: UInt64 = 0
  ) {
    self.number = number
    self.transport = transport
    self.phase = phase
    self.reactor = reactor
    self.structuredReplies = structuredReplies
    self.tls = tls
    self.requestsInFlight = requestsInFlight
    self.requests = requests
    self.readBytes = readBytes
    self.writtenBytes = writtenBytes
  }
}
