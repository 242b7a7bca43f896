// What each option gets. The stream's side is in ServerSession.swift.
//
// | option              | right                                  | wrong                         |
// |---------------------|----------------------------------------|-------------------------------|
// | EXPORT_NAME         | size, flags, zeroes -> transmission    | close: it has no error reply  |
// | ABORT               | ACK, close                             | its data is ignored           |
// | LIST                | SERVER, ACK                            | INVALID with data             |
// | STARTTLS            | ACK, then TLS; POLICY without TLS      | INVALID with data, or twice   |
// | INFO, GO            | INFO..., ACK (GO -> transmission)      | INVALID, UNKNOWN              |
// | STRUCTURED_REPLY    | ACK, also when repeated                | INVALID with data;            |
// |                     |                                        | EXT_HEADER_REQD with those    |
// | LIST, SET META      | META_CONTEXT..., ACK                   | INVALID, UNKNOWN              |
// | EXTENDED_HEADERS    | ACK, also when repeated                | INVALID with data             |
// | any other           | UNSUP                                  | UNSUP                         |
//
// A client without NBD_FLAG_C_FIXED_NEWSTYLE has only EXPORT_NAME and ABORT; the rest is INVALID.
// Where TLS is required all but STARTTLS and ABORT is TLS_REQD before it; EXPORT_NAME closes.

import Base

extension ServerSession {
  /// Chooses the stage that reads the option whose header was read.
  mutating func beginOption() -> Progress {
    let code = OptionCode(rawValue: option)
    if code == .exportName {
      guard tls != .required || isEncrypted else { return .close(.tlsRequired) }
      guard !isExtended else { return .close(.extendedHeaders) }
      guard optionBytesLeft <= Limits.stringBytesMax else { return .close(.unknownExport) }
      stage = .exportName
    } else if code == .abort {
      stage = .drain(.ack)
    } else if !isFixedNewstyle {
      stage = .drain(.invalid)
    } else if isShuttingDown {
      stage = .drain(.shuttingDown)
    } else if tls == .required, !isEncrypted, code != .startTLS {
      stage = .drain(.tlsRequired)
    } else {
      beginFixedOption(code)
    }
    return .next
  }

  private mutating func beginFixedOption(_ code: OptionCode?) {
    let hasData = optionBytesLeft > 0
    switch code {
    case .list, .extendedHeaders: stage = .drain(hasData ? .invalid : .ack)
    case .structuredReply:
      stage = .drain(hasData ? .invalid : isExtended ? .extendedHeadersRequired : .ack)
    case .startTLS:
      stage = .drain(hasData || isEncrypted ? .invalid : tls == .off ? .policy : .ack)
    case .info, .go: stage = optionBytesLeft < Self.infoBytesMin ? .drain(.invalid) : .nameLength
    case .listMetaContext, .setMetaContext: beginMetaOption()
    case .exportName, .abort, nil: stage = .drain(.unsupported)
    }
  }

  /// INFO and GO: a name's length and a number of infos, both zero.
  private static let infoBytesMin = 6

  /// Answers an option whose bytes are all thrown away.
  mutating func finishDrained(_ reply: OptionReplyType, _ output: inout [UInt8]) -> Progress {
    stage = .optionHeader
    if reply == .ack {
      switch OptionCode(rawValue: option) {
      case .abort:
        appendReply(.ack, to: &output)
        return .close(.aborted)
      case .list: appendListEntry(to: &output)
      case .structuredReply: isStructured = true
      case .extendedHeaders: (isStructured, isExtended) = (true, true)
      case .startTLS:
        appendReply(.ack, to: &output)
        return beginEncrypted()
      case .exportName, .info, .go, .listMetaContext, .setMetaContext, nil:
        preconditionFailure("an option that has no plain success")
      }
    }
    appendReply(reply, to: &output)
    return .next
  }

  /// STARTTLS: nothing that was said in plain text holds any longer.
  private mutating func beginEncrypted() -> Progress {
    isEncrypted = true
    (isStructured, isExtended) = (false, false)
    contexts = []
    found = []
    name = []
    buffer = []
    return .startTLS
  }

  /// EXPORT_NAME: the old way into transmission, with the old zeroes unless declined.
  mutating func finishExportName(_ output: inout [UInt8]) -> Progress {
    guard !isShuttingDown else { return .close(.shuttingDown) }
    guard selectsExport(buffer) else { return .close(.unknownExport) }
    let terms = agreement(asksBlockSize: false)
    output.append(bigEndian: terms.sizeBytes)
    output.append(bigEndian: terms.flags.rawValue)
    if sendsZeroes { output += [UInt8](repeating: 0, count: 124) }
    return .transmission(terms)
  }

  /// Options with a name, first piece: compares the name's length with what the option holds.
  mutating func readNameLength() -> Progress {
    let count = buffer.withRawSpan { $0.bigEndianUInt32(at: 0) }
    // The number after the name is left: the option has `infoBytesMin` (`metaBytesMin`) or more.
    let after = isMetaOption ? 4 : 2
    guard count <= Limits.stringBytesMax, Int(count) <= optionBytesLeft - after else {
      return reject()
    }
    nameBytes = Int(count)
    stage = .name
    return .next
  }

  /// INFO and GO, second piece: keeps the name, compares the number of infos with what is left.
  mutating func readInfoCount() -> Progress {
    let count = buffer.withRawSpan { Int($0.bigEndianUInt16(at: buffer.count - 2)) }
    guard count * 2 == optionBytesLeft else { return reject() }
    name = Array(buffer[4..<(4 + nameBytes)])
    buffer.removeAll(keepingCapacity: true)
    guard !name.contains(0) else { return reject() }
    wishes = 0
    stage = .infos
    return .next
  }

  mutating func reject() -> Progress {
    buffer.removeAll(keepingCapacity: true)
    stage = .drain(.invalid)
    return .next
  }

  /// INFO and GO, third piece: the infos as they stream by, then the replies.
  mutating func readInfos(
    _ bytes: RawSpan, _ position: inout Int, _ output: inout [UInt8]
  ) -> Progress {
    while optionBytesLeft > 0 {
      guard position < bytes.byteCount else { return .starved }
      buffer.append(bytes.uint8(at: position))
      position += 1
      optionBytesLeft -= 1
      guard buffer.count == 2 else { continue }
      let type = buffer.withRawSpan { $0.bigEndianUInt16(at: 0) }
      buffer.removeAll(keepingCapacity: true)
      if InfoType(rawValue: type) != nil { wishes |= 1 << UInt8(truncatingIfNeeded: type) }
    }
    stage = .optionHeader
    return finishInfo(&output)
  }

  private mutating func finishInfo(_ output: inout [UInt8]) -> Progress {
    guard !isShuttingDown else {
      appendReply(.shuttingDown, to: &output)
      return .next
    }
    guard selectsExport(name) else {
      appendReply(.unknownExport, to: &output)
      return .next
    }
    // Only a GO that asks for block sizes binds the client to them.
    let terms = agreement(asksBlockSize: wants(.blockSize))
    var info = infoPayload(.export)
    info.append(bigEndian: terms.sizeBytes)
    info.append(bigEndian: terms.flags.rawValue)
    appendReply(.info, info, to: &output)
    if wants(.name) {
      appendReply(.info, infoPayload(.name) + exportName, to: &output)
    }
    if wants(.description) && !export.description.isEmpty {
      appendReply(.info, infoPayload(.description) + export.description.utf8, to: &output)
    }
    if wants(.blockSize) {
      info = infoPayload(.blockSize)
      info.append(bigEndian: export.minimumBlockBytes)
      info.append(bigEndian: export.preferredBlockBytes)
      info.append(bigEndian: export.maximumPayloadBytes)
      appendReply(.info, info, to: &output)
    }
    appendReply(.ack, to: &output)
    return OptionCode(rawValue: option) == .go ? .transmission(terms) : .next
  }

  private func wants(_ type: InfoType) -> Bool { wishes & (1 << UInt8(type.rawValue)) != 0 }

  private func infoPayload(_ type: InfoType) -> [UInt8] {
    var payload: [UInt8] = []
    payload.append(bigEndian: type.rawValue)
    return payload
  }

  func selectsExport(_ name: [UInt8]) -> Bool { name.isEmpty || name == exportName }

  private func agreement(asksBlockSize: Bool) -> Transmission {
    Transmission(
      sizeBytes: export.sizeBytes,
      flags: export.flags(
        structuredReplies: isStructured, statusPayload: isExtended && !contexts.isEmpty),
      alignmentBytes: asksBlockSize ? export.minimumBlockBytes : 1, isStructured: isStructured,
      isExtended: isExtended, contexts: contexts)
  }

  private func appendListEntry(to output: inout [UInt8]) {
    var entry: [UInt8] = []
    entry.append(bigEndian: UInt32(exportName.count))
    appendReply(.server, entry + exportName + export.description.utf8, to: &output)
  }

  /// Appends a reply to the option being answered; errors get a text for people.
  func appendReply(
    _ type: OptionReplyType, _ payload: [UInt8] = [], to output: inout [UInt8]
  ) {
    let payload = payload.isEmpty ? Array(type.text.utf8) : payload
    output.append(bigEndian: Magic.optionReply)
    output.append(bigEndian: option)
    output.append(bigEndian: type.rawValue)
    output.append(bigEndian: UInt32(payload.count))
    output += payload
  }
}

extension OptionReplyType {
  /// The text of an error reply; empty for replies that are not errors.
  fileprivate var text: String {
    switch self {
    case .ack, .server, .info, .metaContext: ""
    case .unsupported: "this option is not supported"
    case .policy: "this server does not offer that"
    case .invalid: "malformed option"
    case .platform: "not available on this platform"
    case .tlsRequired: "TLS is required"
    case .unknownExport: "no such export"
    case .shuttingDown: "the server is shutting down"
    case .blockSizeRequired: "block sizes must be negotiated"
    case .tooBig: "the option is too long"
    case .extendedHeadersRequired: "extended headers are in use"
    }
  }
}

extension Array where Element == UInt8 {
  /// Appends a number, most significant byte first.
  mutating func append(bigEndian value: some FixedWidthInteger) {
    var shift = value.bitWidth
    while shift > 0 {
      shift -= 8
      append(UInt8(truncatingIfNeeded: value >> shift))
    }
  }
}
