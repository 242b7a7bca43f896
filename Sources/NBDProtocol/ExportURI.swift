// Where an export is, as the NBD URI says it:
//
//   nbd://HOST[:PORT]/EXPORT            nbd+unix:///EXPORT?socket=PATH
//
// The export may be empty: the server's default one. The forms with `nbds` ask for TLS.
//
// Source: NetworkBlockDevice/nbd doc/uri.md; RFC 3986 for the percent signs and brackets.

/// Why a text is no URI of an export: a sentence.
public struct ExportURIError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The sentence, without a full stop.
  public let description: String
}

/// An export's place and name.
public struct ExportURI: Equatable, Sendable {
  /// How its server is reached.
  public enum Place: Equatable, Sendable {
    /// A unix socket.
    case unix(path: String)
    /// A TCP port.
    case tcp(host: String, port: UInt16)
  }

  /// The port of NBD when none is said.
  public static let port: UInt16 = 10809

  /// How its server is reached.
  public let place: Place
  /// The name; "" is the default export.
  public let exportName: String

  /// Names an export.
  public init(place: Place, exportName: String) {
    self.place = place
    self.exportName = exportName
  }

  /// Understands a URI.
  public init(_ text: String) throws(ExportURIError) {
    func fail(_ why: String) -> ExportURIError {
      ExportURIError(description: "'\(text)' is not the URI of an export: \(why)")
    }
    guard let separator = text.firstIndex(of: ":"), text[separator...].hasPrefix("://") else {
      throw fail("it begins with neither nbd:// nor nbd+unix://")
    }
    let scheme = text[..<separator].lowercased()
    let rest = text[text.index(separator, offsetBy: 3)...]
    let authority = rest.prefix { $0 != "/" && $0 != "?" }
    let (path, query) = ExportURI.split(rest[authority.endIndex...], at: "?")
    guard let name = ExportURI.decode(path.dropFirst()) else {
      throw fail("the export's name is no text behind its percent signs")
    }
    exportName = name
    switch scheme {
    case "nbd":
      guard query == nil else { throw fail("nbd:// takes no parameters") }
      guard let place = ExportURI.tcp(authority) else { throw fail("it names no HOST[:PORT]") }
      self.place = place
    case "nbd+unix":
      guard authority.isEmpty else { throw fail("nbd+unix:// is followed by /, not by a host") }
      let parameters = (query ?? "").split(separator: "&").map { ExportURI.split($0, at: "=") }
      guard parameters.count == 1, parameters[0].0 == "socket",
        let socket = parameters[0].1.flatMap({ ExportURI.decode($0) }), !socket.isEmpty
      else { throw fail("it needs ?socket=PATH, and takes nothing else") }
      place = .unix(path: socket)
    case "nbds", "nbds+unix": throw fail("TLS cannot be used here")
    default: throw fail("it begins with neither nbd:// nor nbd+unix://")
    }
  }

  private static func tcp(_ authority: Substring) -> Place? {
    var host = authority
    var port = ""[...]
    if authority.hasPrefix("[") {
      guard let end = authority.firstIndex(of: "]") else { return nil }
      host = authority[..<end].dropFirst()
      port = authority[authority.index(after: end)...]
      guard port.isEmpty || port.hasPrefix(":") else { return nil }
      port = port.dropFirst()
    } else if let colon = authority.firstIndex(of: ":") {
      host = authority[..<colon]
      port = authority[authority.index(after: colon)...]
    }
    guard let name = decode(host), !name.isEmpty, !name.contains("@") else { return nil }
    if port.isEmpty { return .tcp(host: name, port: ExportURI.port) }
    guard port.allSatisfy(\.isNumber), let number = UInt16(port), number > 0 else { return nil }
    return .tcp(host: name, port: number)
  }

  /// The parts before and behind the first `mark`; nil behind if there is none.
  private static func split(
    _ text: Substring, at mark: Character
  ) -> (Substring, Substring?) {
    guard let index = text.firstIndex(of: mark) else { return (text, nil) }
    return (text[..<index], text[text.index(after: index)...])
  }

  /// `text` without percent signs; nil if they are wrong, or give no UTF-8, or a NUL.
  private static func decode(_ text: Substring) -> String? {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2,
        let high = Character(Unicode.Scalar(rest.removeFirst())).hexDigitValue,
        let low = Character(Unicode.Scalar(rest.removeFirst())).hexDigitValue
      else { return nil }
      bytes.append(UInt8(high << 4 | low))
    }
    return bytes.contains(0) ? nil : String(validating: bytes, as: UTF8.self)
  }
}
