// Bodies of the requests that carry one.
//
// Decoding is strict: an unknown member is an error, so a client that asks an older server for
// something it does not know is told, and not half obeyed.

/// `POST /v1/legs`: add a leg on a PV.
public struct AddLegRequest: Codable, Equatable, Sendable {
  /// Where the PV is; relative to the server's working directory if it does not start with `/`.
  public var path: String
  /// Keep it until a leg fails.
  public var spare: Bool

  /// Asks for a leg, or a spare, on `path`.
  public init(path: String, spare: Bool = false) {
    self.path = path
    self.spare = spare
  }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: ["path", "spare"])
    let container = try decoder.container(keyedBy: CodingKeys.self)
    path = try container.decode(String.self, forKey: .path)
    spare = try container.decodeIfPresent(Bool.self, forKey: .spare) ?? false
  }
}

/// `POST /v1/legs/{leg}/replace`: put a leg on another PV in its place.
public struct ReplaceLegRequest: Codable, Equatable, Sendable {
  /// Where the PV is; relative to the server's working directory if it does not start with `/`.
  public var path: String

  /// Asks for a leg on `path` in the place of another one.
  public init(path: String) { self.path = path }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: ["path"])
    path = try decoder.container(keyedBy: CodingKeys.self).decode(String.self, forKey: .path)
  }
}

/// `PATCH /v1/legs/{leg}`: change what can be changed of a leg; what is left out stays.
public struct SetLegRequest: Codable, Equatable, Sendable {
  /// Read it only if nothing else can.
  public var writeMostly: Bool?

  /// Asks for changes.
  public init(writeMostly: Bool? = nil) { self.writeMostly = writeMostly }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: ["writeMostly"])
    writeMostly = try decoder.container(keyedBy: CodingKeys.self)
      .decodeIfPresent(Bool.self, forKey: .writeMostly)
  }
}

/// `POST /v1/legs/{leg}/readd`; no body stands for `{}`.
public struct ReaddLegRequest: Codable, Equatable, Sendable {
  /// Take the leg back as a new one where its history is unknown or diverged.
  public var force: Bool

  /// Asks for a leg's return.
  public init(force: Bool = false) { self.force = force }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: ["force"])
    let container = try decoder.container(keyedBy: CodingKeys.self)
    force = try container.decodeIfPresent(Bool.self, forKey: .force) ?? false
  }
}

/// `POST /v1/legs/{leg}/refresh`; no body stands for `{}`.
public struct RefreshLegRequest: Codable, Equatable, Sendable {
  /// Copy everything to it again that another leg has.
  public var whole: Bool

  /// Asks for a new begin with a leg.
  public init(whole: Bool = false) { self.whole = whole }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: ["whole"])
    let container = try decoder.container(keyedBy: CodingKeys.self)
    whole = try container.decodeIfPresent(Bool.self, forKey: .whole) ?? false
  }
}

/// Requests without members: `fail`, `shutdown`. No body stands for `{}`.
public struct EmptyRequest: Codable, Equatable, Sendable {
  /// The only value.
  public init() {}

  /// Decodes an object, refusing any member.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: [])
  }
}

/// Any member name.
private struct MemberKey: CodingKey {
  var stringValue: String
  var intValue: Int? { nil }
  init(stringValue: String) { self.stringValue = stringValue }
  init?(intValue: Int) { return nil }
}

extension Decoder {
  /// Throws if the object has members that are not in `known`.
  func refuseMembers(otherThan known: [String]) throws {
    let container = try container(keyedBy: MemberKey.self)
    let unknown = container.allKeys.filter { !known.contains($0.stringValue) }
    guard let first = unknown.min(by: { $0.stringValue < $1.stringValue }) else { return }
    throw DecodingError.dataCorrupted(
      .init(codingPath: codingPath, debugDescription: "unknown member '\(first.stringValue)'"))
  }
}
