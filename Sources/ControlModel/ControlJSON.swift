// JSON of the control plane, in one place: FoundationEssentials, sorted keys.

import FoundationEssentials

/// Encoding and decoding of the control plane's JSON.
public enum ControlJSON {
  /// Why a text is not the JSON that was expected: one sentence.
  public struct Failure: Error, Equatable, Sendable {
    /// The sentence.
    public var message: String
  }

  /// `value` as JSON: sorted keys, indented, a newline at the end.
  /// - Throws: `Failure` for numbers that JSON cannot hold.
  public static func encode(_ value: some Encodable) throws(Failure) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    do {
      return [UInt8](try encoder.encode(value)) + [UInt8(ascii: "\n")]
    } catch {
      throw Failure(message: "a value cannot be written as JSON: \(error)")
    }
  }

  /// `value` as JSON on one line, without an end of line: sorted keys.
  /// - Throws: `Failure` for numbers that JSON cannot hold.
  public static func line(_ value: some Encodable) throws(Failure) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
      return [UInt8](try encoder.encode(value))
    } catch {
      throw Failure(message: "a value cannot be written as JSON: \(error)")
    }
  }

  /// The value that `bytes` hold.
  public static func decode<Value: Decodable>(
    _ type: Value.Type, from bytes: [UInt8]
  ) throws(Failure) -> Value {
    do {
      return try JSONDecoder().decode(type, from: Data(bytes))
    } catch let error as DecodingError {
      throw Failure(message: sentence(error))
    } catch {
      throw Failure(message: "this is not JSON")
    }
  }

  private static func sentence(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, _): "the member '\(key.stringValue)' is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
      context.codingPath.isEmpty
        ? "a JSON object is expected"
        : "the member '\(path(context.codingPath))' has the wrong type"
    case .dataCorrupted(let context):
      context.debugDescription.hasPrefix("unknown member")
        ? context.debugDescription
        : context.codingPath.isEmpty
          ? "this is not JSON" : "the member '\(path(context.codingPath))' has a wrong value"
    @unknown default: "this is not the JSON that is expected"
    }
  }

  private static func path(_ keys: [any CodingKey]) -> String {
    keys.map(\.stringValue).joined(separator: ".")
  }
}
