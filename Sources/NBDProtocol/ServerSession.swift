// The handshake of one connection, sans-I/O: bytes in, reply bytes out.
//
// This file takes the stream apart; ServerSession+Options.swift says what each option gets.
//
//   greeting (18 bytes out)
//      |
//   clientFlags (4 in) -> optionHeader (16 in) -> by option:
//      EXPORT_NAME      exportName                              -> transmission, or close
//      INFO, GO         nameLength -> name -> infos             -> replies; GO -> transmission
//      LIST, SET META   nameLength -> name -> (queryLength -> query)...   -> replies
//      everything else  drain                                   -> reply; ABORT -> close
//   and back to optionHeader. STARTTLS goes there, too, by way of the caller: what comes next was
//   encrypted.
//
// Invariants
// 1. Any split of the stream gives the same replies and the same end: a stage waits until its bytes
//    are complete, and consumes no byte of the next stage.
// 2. What is buffered is at most one name and the fields around it (`Limits.optionBufferBytesMax`);
//    lists are evaluated as they stream by, everything else is thrown away as it comes.
// 3. An option's bytes are consumed to its end before it is answered, right or wrong, so that the
//    stream stays in step. Lengths are compared before they are subtracted.
// 4. Every option gets exactly one final reply, in order, and no answer contains bytes that the
//    client sent. Output per option is bounded by the export's own texts.
// 5. STARTTLS forgets all that was agreed on in plain text; only the client's flags stay, which are
//    said once. Whoever is in the middle can have chosen no more than how the rest is framed.
//
// Source: proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "Option types".

import Base

/// What became of the bytes given to `ServerSession.receive`.
public enum HandshakeStep: Equatable, Sendable {
  /// Every byte was consumed; send the output, receive more.
  case needMore
  /// Send the output, drop the session, go on with `Transmission`; the bytes from `consumed` on
  /// are requests.
  case enteredTransmission(Transmission, consumed: Int)
  /// Send the output, then encrypt: `receive` gets what is decrypted from now on. Bytes from
  /// `consumed` on were said before the client could know that it may encrypt: somebody in the middle
  /// put them there, so the connection has to be closed.
  case startTLS(consumed: Int)
  /// Send the output, then close. No byte after this one matters.
  case close(CloseReason)
}

/// Why the handshake ended without transmission.
public enum CloseReason: UInt8, Sendable {
  /// The client said goodbye (`NBD_OPT_ABORT`).
  case aborted
  /// Client flags that were not offered.
  case unknownClientFlags
  /// An option without `IHAVEOPT`.
  case badOptionMagic
  /// An option longer than `Limits.optionBytesMax`.
  case optionTooLong
  /// More than `Limits.optionCountMax` options.
  case tooManyOptions
  /// `NBD_OPT_EXPORT_NAME` for what is not served (that option has no error reply).
  case unknownExport
  /// `NBD_OPT_EXPORT_NAME` while the server stops.
  case shuttingDown
  /// `NBD_OPT_EXPORT_NAME` without the TLS that is required.
  case tlsRequired
  /// `NBD_OPT_EXPORT_NAME` after extended headers, for which it has no place.
  case extendedHeaders
}

/// One connection from the greeting to the start of transmission.
///
/// May allocate (it runs once per connection); what it buffers is bounded by
/// `Limits.optionBufferBytesMax`. The handshake timer is the caller's.
public struct ServerSession: Sendable {
  /// Set while the server stops: options but ABORT are answered `NBD_REP_ERR_SHUTDOWN`.
  public var isShuttingDown = false

  let export: ExportInfo
  let exportName: [UInt8]
  let tls: TLSPolicy
  /// STARTTLS was accepted.
  var isEncrypted = false
  var isFixedNewstyle = false
  var sendsZeroes = true
  var isStructured = false
  /// Extended headers, which are structured, too.
  var isExtended = false
  /// What the last SET_META_CONTEXT selected.
  var contexts: MetaContexts = []

  /// Where the stream is; see the file's header.
  enum Stage: Equatable {
    case clientFlags
    case optionHeader
    case exportName
    case nameLength
    case name
    case infos
    case queryLength
    case query
    case drain(OptionReplyType)
    case ended
  }
  var stage = Stage.clientFlags
  /// Options begun so far.
  var optionCount = 0
  /// The option being read, as the client numbered it.
  var option: UInt32 = 0
  /// Bytes of the option being read that have not been consumed.
  var optionBytesLeft = 0
  /// Length of the name in the option being read, or of the query.
  var nameBytes = 0
  /// The name in the option being read.
  var name: [UInt8] = []
  /// Infos that the INFO or GO being read asks for: bit n is `InfoType` n.
  var wishes: UInt8 = 0
  /// Queries of the option being read that have not been looked at.
  var queriesLeft: UInt32 = 0
  /// What the queries of the option being read have found.
  var found: MetaContexts = []
  /// The incomplete piece of the current stage.
  var buffer: [UInt8] = []

  /// A session for a new connection to `export`.
  public init(export: ExportInfo, tls: TLSPolicy = .off) {
    self.export = export
    self.tls = tls
    exportName = Array(export.name.utf8)
  }

  /// Appends the greeting: the first bytes that go to the client, once.
  public func greet(output: inout [UInt8]) {
    output.append(bigEndian: Magic.greeting)
    output.append(bigEndian: Magic.option)
    output.append(bigEndian: HandshakeFlags([.fixedNewstyle, .noZeroes]).rawValue)
  }

  /// Takes whatever bytes came (any split, any number of pipelined options), appends replies.
  ///
  /// - Precondition: neither `.enteredTransmission` nor `.close` was returned before; after
  ///   `.startTLS` the bytes are decrypted ones.
  public mutating func receive(_ bytes: RawSpan, output: inout [UInt8]) -> HandshakeStep {
    precondition(stage != .ended, "the handshake of this connection is over")
    var position = 0
    while true {
      switch advance(bytes, &position, &output) {
      case .starved: return .needMore
      case .next: continue
      case .startTLS: return .startTLS(consumed: position)
      case .close(let reason):
        end()
        return .close(reason)
      case .transmission(let terms):
        end()
        return .enteredTransmission(terms, consumed: position)
      }
    }
  }

  /// How one stage ended.
  enum Progress {
    /// It lacks bytes; all that were there are consumed.
    case starved
    /// `stage` says what comes.
    case next
    /// The same, and it comes encrypted.
    case startTLS
    /// The handshake failed, or the client left.
    case close(CloseReason)
    /// The handshake is done.
    case transmission(Transmission)
  }

  private mutating func end() {
    stage = .ended
    buffer = []
  }

  private mutating func advance(
    _ bytes: RawSpan, _ position: inout Int, _ output: inout [UInt8]
  ) -> Progress {
    switch stage {
    case .clientFlags:
      guard fill(4, bytes, &position) else { return .starved }
      return readClientFlags()
    case .optionHeader:
      guard fill(Self.optionHeaderBytes, bytes, &position) else { return .starved }
      return readOptionHeader()
    case .exportName:
      guard fillOption(optionBytesLeft + buffer.count, bytes, &position) else { return .starved }
      return finishExportName(&output)
    case .nameLength:
      guard fillOption(4, bytes, &position) else { return .starved }
      return readNameLength()
    case .name:
      let isMeta = isMetaOption
      guard fillOption((isMeta ? 8 : 6) + nameBytes, bytes, &position) else { return .starved }
      return isMeta ? readQueryCount(&output) : readInfoCount()
    case .infos:
      return readInfos(bytes, &position, &output)
    case .queryLength:
      guard fillOption(4, bytes, &position) else { return .starved }
      return readQueryLength()
    case .query:
      guard fillOption(nameBytes, bytes, &position) else { return .starved }
      return readQuery(&output)
    case .drain(let reply):
      let count = min(optionBytesLeft, bytes.byteCount - position)
      position += count
      optionBytesLeft -= count
      return optionBytesLeft > 0 ? .starved : finishDrained(reply, &output)
    case .ended:
      preconditionFailure("the handshake of this connection is over")
    }
  }

  static let optionHeaderBytes = 16

  /// Moves bytes of the stream to the buffer until it holds `count`; false: they are not all there.
  private mutating func fill(_ count: Int, _ bytes: RawSpan, _ position: inout Int) -> Bool {
    let taken = min(count - buffer.count, bytes.byteCount - position)
    if taken > 0 {
      buffer += bytes.copied(position..<(position + taken))
      position += taken
    }
    return buffer.count == count
  }

  /// Like `fill`, for bytes that belong to the option being read.
  private mutating func fillOption(_ count: Int, _ bytes: RawSpan, _ position: inout Int) -> Bool {
    let before = position
    let isComplete = fill(count, bytes, &position)
    optionBytesLeft -= position - before
    return isComplete
  }

  private mutating func readClientFlags() -> Progress {
    let flags = ClientFlags(rawValue: buffer.withRawSpan { $0.bigEndianUInt32(at: 0) })
    buffer.removeAll(keepingCapacity: true)
    guard flags.subtracting([.fixedNewstyle, .noZeroes]).isEmpty else {
      return .close(.unknownClientFlags)
    }
    isFixedNewstyle = flags.contains(.fixedNewstyle)
    sendsZeroes = !flags.contains(.noZeroes)
    stage = .optionHeader
    return .next
  }

  private mutating func readOptionHeader() -> Progress {
    let header = buffer.withRawSpan {
      (
        magic: $0.bigEndianUInt64(at: 0), option: $0.bigEndianUInt32(at: 8),
        count: $0.bigEndianUInt32(at: 12)
      )
    }
    buffer.removeAll(keepingCapacity: true)
    guard header.magic == Magic.option else { return .close(.badOptionMagic) }
    guard optionCount < Limits.optionCountMax else { return .close(.tooManyOptions) }
    guard header.count <= Limits.optionBytesMax else { return .close(.optionTooLong) }
    optionCount += 1
    option = header.option
    optionBytesLeft = Int(header.count)
    return beginOption()
  }
}
