// Netlink messages as bytes: the envelope of everything that is said to the kernel here.
//
//   0  u32 length, this header included      16  u8  command    (generic netlink only)
//   4  u16 type                              17  u8  version
//   6  u16 flags                             18  u16 reserved
//   8  u32 sequence                          20  attributes: u16 length (4 + payload), u16 type,
//  12  u32 port                                  payload, padding to 4 bytes
//
// Numbers are in the host's order; every host that Swift runs Linux on is little-endian. Nothing
// that was received is trusted: a length that leaves its container ends the decoding with an error.
//
// Source: Linux include/uapi/linux/netlink.h, genetlink.h; netlink(7).

import Base

/// What was received is no netlink.
public enum NetlinkError: Error, Equatable, Sendable {
  /// A length is shorter than its header, or longer than what holds it.
  case malformed
}

/// An attribute: a type and its payload, which may be attributes again.
public struct NetlinkAttribute: Equatable, Sendable {
  /// The type, without the flags for nesting and byte order.
  public let type: UInt16
  /// The payload.
  public let payload: [UInt8]

  /// Bytes of the header.
  static let headerBytes = 4
  /// The bits of the type field that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
  static let typeMask: UInt16 = 0x3fff
  /// `NLA_F_NESTED`.
  static let nested: UInt16 = 0x8000

  /// Describes an attribute.
  public init(type: UInt16, payload: [UInt8]) {
    self.type = type
    self.payload = payload
  }

  /// Takes a run of attributes apart.
  public static func decode(_ bytes: [UInt8]) throws(NetlinkError) -> [NetlinkAttribute] {
    try bytes.withRawSpan { span throws(NetlinkError) in
      var attributes: [NetlinkAttribute] = []
      var position = 0
      while span.byteCount - position >= headerBytes {
        let length = Int(span.littleEndianUInt16(at: position))
        guard length >= headerBytes, length <= span.byteCount - position else { throw .malformed }
        attributes.append(
          NetlinkAttribute(
            type: span.littleEndianUInt16(at: position + 2) & typeMask,
            payload: span.copied((position + headerBytes)..<(position + length))))
        // The padding of the last one may be missing.
        position = min(position + padded(length), span.byteCount)
      }
      guard position == span.byteCount else { throw .malformed }
      return attributes
    }
  }

  /// The payload as a 16-bit number; nil if it has another length.
  public var uint16: UInt16? {
    payload.count == 2 ? payload.withRawSpan { $0.littleEndianUInt16(at: 0) } : nil
  }

  /// The payload as a 32-bit number; nil if it has another length.
  public var uint32: UInt32? {
    payload.count == 4 ? payload.withRawSpan { $0.littleEndianUInt32(at: 0) } : nil
  }

  /// The payload as text up to its NUL.
  public var text: String { String(decoding: payload.prefix { $0 != 0 }, as: UTF8.self) }

  static func padded(_ length: Int) -> Int { (length + 3) & ~3 }
}

/// One message.
public struct NetlinkMessage: Equatable, Sendable {
  /// `NLMSG_ERROR`, `NLMSG_OVERRUN`, or the number of a family.
  public let type: UInt16
  /// Which request it answers; 0 for what nobody asked for.
  public let sequence: UInt32
  /// What follows the header.
  public let payload: [UInt8]

  static let headerBytes = 16
  static let errorType: UInt16 = 2

  /// Takes a datagram apart.
  public static func decode(_ bytes: RawSpan) throws(NetlinkError) -> [NetlinkMessage] {
    var messages: [NetlinkMessage] = []
    var position = 0
    while position < bytes.byteCount {
      let left = bytes.byteCount - position
      guard left >= headerBytes else { throw .malformed }
      let length = bytes.littleEndianUInt32(at: position)
      guard length >= headerBytes, length <= left else { throw .malformed }
      messages.append(
        NetlinkMessage(
          type: bytes.littleEndianUInt16(at: position + 4),
          sequence: bytes.littleEndianUInt32(at: position + 8),
          payload: bytes.copied((position + headerBytes)..<(position + Int(length)))))
      position += min(NetlinkAttribute.padded(Int(length)), left)
    }
    return messages
  }

  /// What the kernel says to a request: 0 for done, else an errno; nil for any other message.
  /// - Throws: `.malformed` for an error message that is too short to say which, or a positive one.
  public func acknowledgement() throws(NetlinkError) -> Int32? {
    guard type == NetlinkMessage.errorType else { return nil }
    guard payload.count >= 4 else { throw .malformed }
    let code = Int32(bitPattern: payload.withRawSpan { $0.littleEndianUInt32(at: 0) })
    guard code <= 0, code > Int32.min else { throw .malformed }
    return -code
  }

  /// The command and the attributes of a generic netlink message.
  public func generic() throws(NetlinkError) -> (command: UInt8, attributes: [NetlinkAttribute]) {
    guard payload.count >= 4 else { throw .malformed }
    return (payload[0], try NetlinkAttribute.decode(Array(payload[4...])))
  }
}

/// A generic netlink request that is being written.
public struct NetlinkRequest: Sendable {
  private var bytes: [UInt8] = []

  /// `NLM_F_REQUEST` and `NLM_F_ACK`: the kernel always answers.
  private static let flags: UInt16 = 0x1 | 0x4

  /// Begins a request to `family`.
  init(family: UInt16, command: UInt8, version: UInt8, sequence: UInt32) {
    append(UInt32(0))  // The length, when it is known.
    append(family)
    append(NetlinkRequest.flags)
    append(sequence)
    append(UInt32(0))  // The kernel knows our port.
    bytes += [command, version, 0, 0]
  }

  mutating func add(_ type: UInt16, _ value: UInt32) {
    add(type) { $0.append(value) }
  }

  mutating func add(_ type: UInt16, _ value: UInt64) {
    add(type) { $0.append(value) }
  }

  /// A text, with its NUL.
  mutating func add(_ type: UInt16, _ value: String) {
    precondition(!value.utf8.contains(0), "a text of netlink ends at its first NUL")
    add(type) { $0.bytes += Array(value.utf8) + [0] }
  }

  /// Attributes in an attribute.
  mutating func nest(_ type: UInt16, _ body: (inout NetlinkRequest) -> Void) {
    add(type | NetlinkAttribute.nested, body)
  }

  private mutating func add(_ type: UInt16, _ body: (inout NetlinkRequest) -> Void) {
    let start = bytes.count
    append(UInt16(0))
    append(type)
    body(&self)
    let length = bytes.count - start
    precondition(length <= Int(UInt16.max), "an attribute of netlink is shorter than 64 KiB")
    bytes.withMutableRawSpan { $0.store(littleEndian: UInt16(length), at: start) }
    while bytes.count % 4 != 0 { bytes.append(0) }
  }

  private mutating func append(_ value: some FixedWidthInteger) {
    for index in 0..<(value.bitWidth / 8) {
      bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index)))
    }
  }

  /// The whole message.
  func encoded() -> [UInt8] {
    var message = bytes
    let count = UInt32(message.count)
    message.withMutableRawSpan { $0.store(littleEndian: count, at: 0) }
    return message
  }
}
