// The client's side of the handshake, sans-I/O: for the kernel's device, tests, the prober and the
// benchmark.
//
//   greeting (18 bytes in) -> client flags, [STRUCTURED_REPLY], GO out (pipelined)
//     -> [reply to STRUCTURED_REPLY] -> INFO... -> ACK -> ready
//   or, the old way:            client flags, EXPORT_NAME out -> 10 bytes (134 with zeroes) -> ready
//
// After that, `ClientFrames.storeRequest` and `ReplyHeader.decode` are all a client needs.

import Base

/// What a client wants from the handshake.
public struct ClientWishes: Equatable, Sendable {
  /// The export; "" is the default one.
  public var exportName: String
  /// Ask for structured replies.
  public var structuredReplies: Bool
  /// Ask for block sizes, and promise to honour them.
  public var blockSizes: Bool
  /// Ask for the export's own name and its description.
  public var texts: Bool
  /// Use `NBD_OPT_EXPORT_NAME` instead of `NBD_OPT_GO`.
  public var usesExportName: Bool
  /// With `usesExportName`: let the server send the 124 zeroes.
  public var takesZeroes: Bool

  /// By default: the default export with structured replies and block sizes.
  public init(
    exportName: String = "", structuredReplies: Bool = true, blockSizes: Bool = true,
    texts: Bool = false, usesExportName: Bool = false, takesZeroes: Bool = false
  ) {
    self.exportName = exportName
    self.structuredReplies = structuredReplies
    self.blockSizes = blockSizes
    self.texts = texts
    self.usesExportName = usesExportName
    self.takesZeroes = takesZeroes
  }
}

/// What a client learnt in the handshake.
public struct ClientExport: Equatable, Sendable {
  /// Size in bytes.
  public var sizeBytes: UInt64 = 0
  /// What the export can do.
  public var flags: TransmissionFlags = []
  /// Whether replies to reads are chunks.
  public var isStructured = false
  /// Minimum block in bytes; 1 if not told.
  public var minimumBlockBytes: UInt32 = 1
  /// Preferred block in bytes; 4096 if not told.
  public var preferredBlockBytes: UInt32 = 4096
  /// Maximum payload in bytes; 32 MiB if not told.
  public var maximumPayloadBytes: UInt32 = 32 << 20
  /// The export's own name; nil if not told.
  public var name: String?
  /// What the server says about the export; nil if not told.
  public var description: String?

  /// Nothing known yet.
  public init() {}
}

/// A client's handshake.
public struct ClientSession: Sendable {
  /// How far it is.
  public enum Step: Equatable, Sendable {
    /// Send the output, receive more.
    case needMore
    /// Transmission begins at byte `consumed` of what was given.
    case ready(ClientExport, consumed: Int)
    /// The server refused the export with this reply type (`OptionReplyType`).
    case refused(UInt32)
    /// The server broke the protocol, or does not speak fixed newstyle.
    case malformed
  }

  private enum Stage {
    case greeting
    case replies
    case exportName
  }

  private let wishes: ClientWishes
  private var stage = Stage.greeting
  private var export = ClientExport()
  private var buffer: [UInt8] = []

  /// A handshake that asks for `wishes`.
  public init(_ wishes: ClientWishes = ClientWishes()) { self.wishes = wishes }

  /// Takes whatever bytes came, appends what is to be sent.
  public mutating func receive(_ bytes: RawSpan, output: inout [UInt8]) -> Step {
    var position = 0
    while true {
      switch stage {
      case .greeting:
        guard fill(18, bytes, &position) else { return .needMore }
        guard greet(&output) else { return .malformed }
      case .replies:
        guard fill(OptionReply.headerBytes, bytes, &position) else { return .needMore }
        let length = buffer.withRawSpan { Int($0.bigEndianUInt32(at: 16)) }
        guard length <= OptionReply.payloadBytesMax else { return .malformed }
        guard fill(OptionReply.headerBytes + length, bytes, &position) else { return .needMore }
        guard case .reply(let reply) = buffer.withRawSpan({ OptionReply.decode($0) }) else {
          return .malformed
        }
        buffer.removeAll(keepingCapacity: true)
        if let step = take(reply, position) { return step }
      case .exportName:
        guard fill(wishes.takesZeroes ? 134 : 10, bytes, &position) else { return .needMore }
        takeExport(at: 0)
        return .ready(export, consumed: position)
      }
    }
  }

  private mutating func fill(_ count: Int, _ bytes: RawSpan, _ position: inout Int) -> Bool {
    let taken = min(count - buffer.count, bytes.byteCount - position)
    if taken > 0 {
      buffer += bytes.copied(position..<(position + taken))
      position += taken
    }
    return buffer.count >= count
  }

  private mutating func greet(_ output: inout [UInt8]) -> Bool {
    let isNewstyle = buffer.withRawSpan {
      $0.bigEndianUInt64(at: 0) == Magic.greeting && $0.bigEndianUInt64(at: 8) == Magic.option
        && HandshakeFlags(rawValue: $0.bigEndianUInt16(at: 16))
          .isSuperset(of: [.fixedNewstyle, .noZeroes])
    }
    guard isNewstyle else { return false }
    buffer.removeAll(keepingCapacity: true)
    let flags: ClientFlags =
      wishes.takesZeroes ? .fixedNewstyle : [.fixedNewstyle, .noZeroes]
    output += ClientFrames.clientFlags(flags.rawValue)
    if wishes.structuredReplies {
      output += ClientFrames.option(OptionCode.structuredReply.rawValue)
    }
    let name = Array(wishes.exportName.utf8)
    if wishes.usesExportName {
      output += ClientFrames.option(OptionCode.exportName.rawValue, name)
      stage = wishes.structuredReplies ? .replies : .exportName
    } else {
      let infos =
        (wishes.texts ? [InfoType.name.rawValue, InfoType.description.rawValue] : [])
        + (wishes.blockSizes ? [InfoType.blockSize.rawValue] : [])
      output += ClientFrames.option(
        OptionCode.go.rawValue, ClientFrames.infoPayload(name: name, infos: infos))
      stage = .replies
    }
    return true
  }

  /// Nil: go on with what is there.
  private mutating func take(_ reply: OptionReply, _ position: Int) -> Step? {
    let type = OptionReplyType(rawValue: reply.type)
    if reply.option == OptionCode.structuredReply.rawValue {
      export.isStructured = type == .ack
      if wishes.usesExportName { stage = .exportName }
      return nil
    }
    guard reply.option == OptionCode.go.rawValue else { return .malformed }
    if type == .ack { return .ready(export, consumed: position) }
    guard type == .info else { return .refused(reply.type) }
    return takeInfo(reply.payload) ? nil : .malformed
  }

  private mutating func takeInfo(_ payload: [UInt8]) -> Bool {
    guard payload.count >= 2 else { return false }
    switch InfoType(rawValue: payload.withRawSpan { $0.bigEndianUInt16(at: 0) }) {
    case .export:
      guard payload.count == 12 else { return false }
      buffer = payload
      takeExport(at: 2)
      return true
    case .blockSize:
      guard payload.count == 14 else { return false }
      payload.withRawSpan {
        export.minimumBlockBytes = $0.bigEndianUInt32(at: 2)
        export.preferredBlockBytes = $0.bigEndianUInt32(at: 6)
        export.maximumPayloadBytes = $0.bigEndianUInt32(at: 10)
      }
      return true
    case .name:
      export.name = text(payload)
      return export.name != nil
    case .description:
      export.description = text(payload)
      return export.description != nil
    case nil: return true
    }
  }

  /// The text behind the type; nil if it is none.
  private func text(_ payload: [UInt8]) -> String? {
    let bytes = payload.dropFirst(2)
    guard bytes.count <= Limits.stringBytesMax, !bytes.contains(0) else { return nil }
    return String(validating: bytes, as: UTF8.self)
  }

  /// Takes size and flags out of the buffer and empties it.
  private mutating func takeExport(at offset: Int) {
    buffer.withRawSpan {
      export.sizeBytes = $0.bigEndianUInt64(at: offset)
      export.flags = TransmissionFlags(rawValue: $0.bigEndianUInt16(at: offset + 8))
    }
    buffer.removeAll(keepingCapacity: true)
  }
}
