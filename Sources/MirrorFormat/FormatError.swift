// Why bytes of a PV are not what they should be.

/// What decoding or planning found wrong; a value, never a trap.
public enum FormatError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The bytes do not start with a label's magic: nothing of ours stands here.
  case noLabel
  /// The magic is there, the checksum is wrong: torn, rotten or half overwritten.
  case checksum
  /// Fewer bytes than the structure has.
  case truncated(byteCount: Int)
  /// The bytes could not be read.
  case unreadable(errno: Int32)
  /// Made by a later major version.
  case version(major: UInt16, minor: UInt16)
  /// Incompatible feature bits that this version does not know.
  case unknownFeatures(UInt32)
  /// The checksum is right and a field is not: made by a defective program.
  case invalidField(String)
  /// Both label copies are valid and speak of different sets or legs.
  case copiesDisagree
  /// The device's size cannot be that; the text says why.
  case badSize(String)
  /// The region size cannot be that; the text says why.
  case badRegionSize(String)
  /// The name cannot be that; the text says why.
  case badName(String)

  /// Whether the bytes are a whole structure of ours that this version must not touch or bypass.
  public var isFromLaterVersion: Bool {
    switch self {
    case .version, .unknownFeatures: true
    case .noLabel, .checksum, .truncated, .unreadable, .invalidField, .copiesDisagree, .badSize,
      .badRegionSize, .badName:
      false
    }
  }

  /// A clause that goes after "PV /path: ".
  public var description: String {
    switch self {
    case .noLabel: "there is no nbdmirror label"
    case .checksum: "the label's checksum is wrong (torn or overwritten)"
    case .truncated(let count): "the label is cut off after \(count) bytes"
    case .unreadable(let code): "the label cannot be read (errno \(code))"
    case .version(let major, let minor):
      "the label has format version \(major).\(minor), this nbdmirror knows \(Label.versionMajor)"
    case .unknownFeatures(let bits):
      "the label uses features unknown to this nbdmirror (0x\(String(bits, radix: 16)))"
    case .invalidField(let text): "the label is damaged: \(text)"
    case .copiesDisagree: "its two label copies belong to different mirrors or legs"
    case .badSize(let text), .badRegionSize(let text), .badName(let text): text
    }
  }
}
