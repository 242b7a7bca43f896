// Who may use the control plane, and who does: the owner of the unix socket, or over TCP whoever
// knows the token.
//
// Source: RFC 6750, section 2.1 (bearer tokens), RFC 9110, section 11.6.1 (WWW-Authenticate).

import ControlModel
import Glibc
import NIOCore

/// A TCP address to serve the control plane on, besides the unix socket.
public struct ControlTCP: Sendable {
  /// Name or address to bind.
  public var host: String
  /// Port; 0: the kernel chooses.
  public var port: UInt16
  /// What every request over TCP has to show.
  public var token: ControlToken

  /// An address, and the token that opens it.
  public init(host: String, port: UInt16, token: ControlToken) {
    self.host = host
    self.port = port
    self.token = token
  }
}

/// The secret of the TCP control socket.
public struct ControlToken: Sendable {
  /// Bytes of the shortest and of the longest token.
  public static let lengths = 16...512

  private let bytes: [UInt8]

  /// - Returns: nil unless `text` has a fitting length and is made of the characters of a bearer
  ///   token (RFC 6750: letters, digits and `-._~+/=`).
  public init?(_ text: String) {
    bytes = Array(text.utf8)
    guard ControlToken.lengths.contains(bytes.count) else { return nil }
    let marks = Array("-._~+/=".utf8)
    for byte in bytes {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        continue
      default: guard marks.contains(byte) else { return nil }
      }
    }
  }

  /// Whether the value of an `Authorization` field shows the token. How long it takes does not
  /// depend on where the two differ.
  func isShown(by field: String?) -> Bool {
    let scheme = Array("bearer ".utf8)
    let shown = Array((field ?? "").utf8)
    guard shown.count == scheme.count + bytes.count else { return false }
    var difference: UInt8 = 0
    for (index, byte) in scheme.enumerated() { difference |= byte ^ (shown[index] | 0x20) }
    for (index, byte) in bytes.enumerated() { difference |= byte ^ shown[scheme.count + index] }
    return difference == 0
  }
}

/// How clients of one listener are let in.
enum ControlAccess: Sendable {
  /// The unix socket: the file's mode has let the client in.
  case owner
  /// TCP: each request shows the token.
  case token(ControlToken)

  /// Whether a request with this `Authorization` may go on.
  func admits(authorization field: String?) -> Bool {
    switch self {
    case .owner: true
    case .token(let token): token.isShown(by: field)
    }
  }
}

/// `struct ucred`. Source: unix(7); Glibc's module does not show it.
struct PeerCredentials: Sendable {
  var process: Int32 = 0
  var user: UInt32 = 0
  var group: UInt32 = 0
}

extension Channel {
  /// Who is at the other end, for the journal: `uid 0, pid 4711`, or an address.
  func describePeer(_ access: ControlAccess) -> EventLoopFuture<String> {
    let address =
      remoteAddress.flatMap { address in
        address.ipAddress.map { "\($0) port \(address.port ?? 0)" }
      } ?? "an unknown address"
    guard case .owner = access, let provider = self as? any SocketOptionProvider else {
      return eventLoop.makeSucceededFuture(address)
    }
    // SO_PEERCRED fills exactly this struct: its socket is a unix one.
    let asked: EventLoopFuture<PeerCredentials> = provider.unsafeGetSocketOption(
      level: .socket, name: NIOBSDSocket.Option(rawValue: SO_PEERCRED))
    return asked.map { "uid \($0.user), pid \($0.process)" }.recover { _ in "an unknown process" }
  }
}
