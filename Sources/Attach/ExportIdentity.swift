// What makes two servers serve the same export: its name, its size, and what the server says about
// it, which for a mirror of ours is the id of its set of PVs.
//
// A reconnect hands sockets to the kernel while a file system waits; writes to another mirror's
// data would destroy both. So identities are compared before, and the kernel is told one as the
// device's identifier and compares it, too.

import NBDProtocol

/// The identity of an export.
public struct ExportIdentity: Equatable, Sendable {
  /// Its own name, or the name it was asked for by.
  public let name: String
  /// Size in bytes.
  public let sizeBytes: UInt64
  /// What the server says about it; "" if nothing.
  public let description: String

  /// The identity of `export`, which was asked for by `name`.
  init(_ export: ClientExport, askedAs name: String) {
    self.name = export.name ?? name
    sizeBytes = export.sizeBytes
    description = export.description ?? ""
  }

  /// Whether the server says which mirror it is, not only its name and size.
  public var isUnique: Bool { !description.isEmpty }

  /// The identity in one line for the kernel, cut where it gets long.
  var identifier: String {
    let words = [name, "\(sizeBytes)", description].map { word in
      String(
        String.UnicodeScalarView(
          word.unicodeScalars.map { $0.value > 0x20 && $0.value < 0x7f ? $0 : "_" }))
    }
    return String(words.joined(separator: " ").prefix(1000))
  }

  /// How `other` differs, as the end of a sentence; nil if it does not.
  func difference(_ other: ExportIdentity) -> String? {
    if other.sizeBytes != sizeBytes {
      return "its size is \(other.sizeBytes) bytes, not \(sizeBytes)"
    }
    if other.name != name { return "it is called '\(other.name)', not '\(name)'" }
    if other.description != description {
      return "it is '\(other.description)', not '\(description)'"
    }
    return nil
  }
}
