// The handshake of one connection, sans-I/O: bytes in, reply bytes out.

import Base

/// What became of the bytes given to `ServerSession.receive`.
public enum HandshakeStep: Equatable, Sendable {
  /// Every byte was consumed; send the output, receive more.
  case needMore
  /// Send the output, drop the session, go on with `Transmission`; the bytes from `consumed` on
  /// are requests.
  case enteredTransmission(Transmission, consumed: Int)
  /// Send the output, then close. No byte after this one matters.
  case close(CloseReason)
}

/// Why the handshake ended without transmission.
public enum CloseReason: UInt8, Sendable {
  /// The client said goodbye (`NBD_OPT_ABORT`).
  case aborted
  /// Client flags that were not offered.
  case unknownClientFlags
  /// An option without `IHAVEOPT`.
  case badOptionMagic
  /// An option longer than `Limits.optionBytesMax`.
  case optionTooLong
  /// More than `Limits.optionCountMax` options.
  case tooManyOptions
  /// `NBD_OPT_EXPORT_NAME` for what is not served (that option has no error reply).
  case unknownExport
  /// `NBD_OPT_EXPORT_NAME` while the server stops.
  case shuttingDown
}

/// One connection from the greeting to the start of transmission.
///
/// May allocate (it runs once per connection); what it buffers is bounded by
/// `Limits.optionBufferBytesMax`. The handshake timer is the caller's.
public struct ServerSession: Sendable {
  /// Set while the server stops: options but ABORT are answered `NBD_REP_ERR_SHUTDOWN`.
  public var isShuttingDown = false

  let export: ExportInfo

  /// A session for a new connection to `export`.
  public init(export: ExportInfo) {
    self.export = export
  }

  /// Appends the greeting: the first bytes that go to the client, once.
  public func greet(output: inout [UInt8]) {
    output.append(bigEndian: Magic.greeting)
  }

  /// Takes whatever bytes came (any split, any number of pipelined options), appends replies.
  ///
  /// Not to be called again after `.enteredTransmission` or `.close`.
  public mutating func receive(_ bytes: RawSpan, output: inout [UInt8]) -> HandshakeStep {
    .needMore
  }
}

extension Array where Element == UInt8 {
  /// Appends a number, most significant byte first.
  mutating func append(bigEndian value: some FixedWidthInteger) {
    var shift = value.bitWidth
    while shift > 0 {
      shift -= 8
      append(UInt8(truncatingIfNeeded: value >> shift))
    }
  }
}
