// Faults on the control socket: what is asked for, what is in force, what a power cut took.
//
// The words of a fault's options, and what they mean, are not known here: the server reads them.

/// One fault, with its counters.
public struct FaultStatus: Codable, Equatable, Sendable {
  /// What has become of it.
  public enum State: String, Codable, CaseIterable, Sendable {
    /// In force.
    case armed
    /// It hit as often as it may, or nothing of it is left.
    case spent
    /// Its time is over.
    case expired
    /// It was released.
    case released
  }

  /// Its name.
  public var name: String
  /// Slot of the leg.
  public var leg: Int
  /// `error`, `delay`...
  public var kind: String
  /// The words that make such a fault: kind and options.
  public var words: String
  /// What has become of it.
  public var state: State
  /// I/O that it selected.
  public var matched: UInt64
  /// I/O that it hit.
  public var fired: UInt64
  /// `bad-sector`: bytes that are still bad; 0 of other kinds.
  public var badBytes: UInt64

  /// Describes a fault.
  public init(
    name: String, leg: Int, kind: String, words: String, state: State, matched: UInt64,
    fired: UInt64, badBytes: UInt64
  ) {
    self.name = name
    self.leg = leg
    self.kind = kind
    self.words = words
    self.state = state
    self.matched = matched
    self.fired = fired
    self.badBytes = badBytes
  }
}

/// `POST /v1/faults`: `leg`, `kind`, and any option of `fault add` by its name without the dashes,
/// as a string or a number.
public struct AddFaultRequest: Codable, Equatable, Sendable {
  /// Slot, leg id or path.
  public var leg: String
  /// `error`, `delay`...
  public var kind: String
  /// Options by name.
  public var options: [String: String]

  /// Asks for a fault.
  public init(leg: String, kind: String, options: [String: String] = [:]) {
    self.leg = leg
    self.kind = kind
    self.options = options
  }

  /// Decodes; all members but two are options.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: AnyMember.self)
    leg = try container.text("leg")
    kind = try container.decode(String.self, forKey: AnyMember("kind"))
    options = [:]
    for key in container.allKeys where key.stringValue != "leg" && key.stringValue != "kind" {
      options[key.stringValue] = try container.text(key.stringValue)
    }
  }

  /// Encodes leg, kind and options as members of one object.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: AnyMember.self)
    try container.encode(leg, forKey: AnyMember("leg"))
    try container.encode(kind, forKey: AnyMember("kind"))
    for (name, value) in options { try container.encode(value, forKey: AnyMember(name)) }
  }
}

/// `POST /v1/power-cut`: which legs lose what was not flushed. The server dies in any case.
public struct PowerCutRequest: Codable, Equatable, Sendable {
  /// Slots, leg ids or paths; nil: all legs.
  public var legs: [String]?
  /// Fixes what is lost; nil: the server draws one and tells it.
  public var seed: UInt64?

  /// Asks for a power cut.
  public init(legs: [String]? = nil, seed: UInt64? = nil) {
    self.legs = legs
    self.seed = seed
  }

  /// Decodes, refusing unknown members.
  public init(from decoder: any Decoder) throws {
    try decoder.refuseMembers(otherThan: ["legs", "seed"])
    let container = try decoder.container(keyedBy: CodingKeys.self)
    legs = try container.decodeIfPresent([String].self, forKey: .legs)
    seed = try container.decodeIfPresent(UInt64.self, forKey: .seed)
  }
}

/// What a power cut took; the server is dead soon after it is sent.
public struct PowerCutReport: Codable, Equatable, Sendable {
  /// What one leg lost.
  public struct Leg: Codable, Equatable, Sendable {
    /// Its slot.
    public var leg: Int
    /// Whether it had a fault of kind volatile-cache: without it nothing could be taken back.
    public var volatileCache: Bool
    /// Sectors of 512 bytes whose newest state was not flushed.
    public var unflushedSectors: Int
    /// How many of them went back to an older state.
    public var lostSectors: Int

    /// Describes a loss.
    public init(leg: Int, volatileCache: Bool, unflushedSectors: Int, lostSectors: Int) {
      self.leg = leg
      self.volatileCache = volatileCache
      self.unflushedSectors = unflushedSectors
      self.lostSectors = lostSectors
    }
  }

  /// The seed that fixes what was lost.
  public var seed: UInt64
  /// By slot.
  public var legs: [Leg]

  /// Describes a power cut.
  public init(seed: UInt64, legs: [Leg]) {
    self.seed = seed
    self.legs = legs
  }
}

/// A member of any name.
private struct AnyMember: CodingKey {
  var stringValue: String
  var intValue: Int? { nil }
  init(_ name: String) { stringValue = name }
  init?(stringValue: String) { self.stringValue = stringValue }
  init?(intValue: Int) { return nil }
}

extension KeyedDecodingContainer where Key == AnyMember {
  /// A string, or a number as text.
  fileprivate func text(_ name: String) throws -> String {
    let key = AnyMember(name)
    do {
      return try decode(String.self, forKey: key)
    } catch DecodingError.typeMismatch {
      // A number, then.
    }
    let number = try decode(Double.self, forKey: key)
    // Seeds have 64 bits, of which a Double holds 53.
    guard number >= 0, number <= 0x1p64, number == number.rounded() else {
      return AddFaultRequest.decimal(number)
    }
    return "\(try decode(UInt64.self, forKey: key))"
  }
}

extension AddFaultRequest {
  /// `value` without an exponent, to nine digits after the point.
  static func decimal(_ value: Double) -> String {
    guard value.isFinite, value.magnitude < 1e9 else { return "\(value)" }
    let billionths = UInt64((value.magnitude * 1e9).rounded())
    var fraction = "\(1_000_000_000 + billionths % 1_000_000_000)".dropFirst()
    while fraction.last == "0", fraction.count > 1 { fraction = fraction.dropLast() }
    return "\(value < 0 ? "-" : "")\(billionths / 1_000_000_000).\(fraction)"
  }
}

extension ControlClient {
  /// All faults, in the order they were added.
  public func faults() throws(ControlClientError) -> [FaultStatus] {
    try decoded(send("GET", "/v1/faults"))
  }

  /// Arms a fault.
  public func addFault(_ request: AddFaultRequest) throws(ControlClientError) -> FaultStatus {
    try decoded(send("POST", "/v1/faults", json: request))
  }

  /// Removes a fault; what it holds goes on.
  public func removeFault(_ name: String) throws(ControlClientError) {
    _ = try send("DELETE", "/v1/faults/\(PercentEncoding.encode(name))")
  }

  /// Removes all faults.
  public func clearFaults() throws(ControlClientError) { _ = try send("DELETE", "/v1/faults") }

  /// Lets go what a hang holds, and disarms it.
  public func releaseFault(_ name: String) throws(ControlClientError) -> FaultStatus {
    try decoded(send("POST", "/v1/faults/\(PercentEncoding.encode(name))/release"))
  }

  /// Cuts the power; the server dies after the answer.
  public func cutPower(_ request: PowerCutRequest) throws(ControlClientError) -> PowerCutReport {
    try decoded(send("POST", "/v1/power-cut", json: request))
  }
}
