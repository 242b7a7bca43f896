// A TCP address as the command line has it.

/// `HOST:PORT`, `[HOST]:PORT` or `:PORT` in its two parts.
public struct ListenAddress: Equatable, Sendable {
  /// A name or an address, without brackets; empty: none was said.
  public var host: String
  /// The port; 0: the kernel chooses.
  public var port: UInt16

  /// Splits `text`.
  /// - Throws: `.badAddress`.
  public init(_ text: String) throws(ServerError) {
    guard let colon = text.lastIndex(of: ":") else { throw .badAddress(text, "no port") }
    var host = text[..<colon]
    guard let port = UInt16(text[text.index(after: colon)...]) else {
      throw .badAddress(text, "a port is 0 to 65535")
    }
    if host.hasPrefix("[") && host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      throw .badAddress(text, "an IPv6 address stands in [ ]")
    }
    self.host = String(host)
    self.port = port
  }
}
