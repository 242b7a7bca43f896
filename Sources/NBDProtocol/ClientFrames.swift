// The client's frames, encoded: for tests, the prober and the benchmark.
//
// Nothing is checked here on purpose: whoever tests a server must be able to send what is wrong.

import Base

/// Encoders of what a client sends.
public enum ClientFrames {
  /// The answer to the greeting.
  public static func clientFlags(_ rawValue: UInt32) -> [UInt8] {
    var frame: [UInt8] = []
    frame.append(bigEndian: rawValue)
    return frame
  }

  /// An option with its data.
  public static func option(_ code: UInt32, _ payload: [UInt8] = []) -> [UInt8] {
    option(code, claimingBytes: UInt32(payload.count), payload)
  }

  /// An option whose length field may differ from what follows.
  public static func option(
    _ code: UInt32, claimingBytes count: UInt32, _ payload: [UInt8]
  ) -> [UInt8] {
    var frame: [UInt8] = []
    frame.append(bigEndian: Magic.option)
    frame.append(bigEndian: code)
    frame.append(bigEndian: count)
    return frame + payload
  }

  /// The data of INFO and GO.
  public static func infoPayload(name: [UInt8], infos: [UInt16]) -> [UInt8] {
    var payload: [UInt8] = []
    payload.append(bigEndian: UInt32(name.count))
    payload += name
    payload.append(bigEndian: UInt16(truncatingIfNeeded: infos.count))
    for info in infos { payload.append(bigEndian: info) }
    return payload
  }

  /// A request header as an array; the payload of a write follows it.
  public static func request(_ header: RequestHeader) -> [UInt8] {
    var frame = [UInt8](repeating: 0, count: Limits.requestHeaderBytes)
    frame.withMutableRawSpan { storeRequest(header, into: &$0) }
    return frame
  }

  /// Writes a request header (`Limits.requestHeaderBytes` bytes) without allocating.
  /// - Precondition: `bytes` has room for it; `header.count` fits 32 bits.
  public static func storeRequest(_ header: RequestHeader, into bytes: inout MutableRawSpan) {
    bytes.store(bigEndian: Magic.request, at: 0)
    bytes.store(bigEndian: header.flags.rawValue, at: 4)
    bytes.store(bigEndian: header.type, at: 6)
    bytes.store(bigEndian: header.cookie, at: 8)
    bytes.store(bigEndian: header.offset, at: 16)
    bytes.store(bigEndian: UInt32(header.count), at: 24)
  }
}
