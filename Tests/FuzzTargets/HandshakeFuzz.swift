// The server's handshake: where the stream is cut changes nothing, each option gets exactly one final
// reply, in order, of bounded size; then the requests under what was agreed.
//
//   input: settings of the export, seed of the cuts, then the client's bytes

import Base
import NBDProtocol

enum HandshakeFuzz {
  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    var input = FuzzInput(input)
    let settings = input.byte()
    let seed = input.byte()
    let stream = input.rest
    let export = export(settings)
    var outcomes: [Outcome] = []
    for pieces in Cuts.ways(stream, seed: seed) {
      outcomes.append(try converse(pieces, export, settings))
    }
    try require(outcomes[0] == outcomes[1], "single bytes have another outcome than the whole")
    try require(outcomes[0] == outcomes[2], "pieces have another outcome than the whole")
    try require(outcomes[0].encryptions <= 1, "TLS in TLS")
    var replies = OptionReplies(stream, outcomes[0].output, export)
    try replies.check(outcomes[0])
  }

  private static func export(_ settings: UInt8) -> ExportInfo {
    ExportInfo(
      name: "disk", description: settings & 1 == 0 ? "a mirror" : "", sizeBytes: 1 << 30,
      isReadOnly: settings & 2 != 0, isRotational: settings & 4 != 0,
      minimumBlockBytes: settings & 8 == 0 ? 1 : 512)
  }

  /// What came of a stream.
  struct Outcome: Equatable {
    /// Greeting and option replies.
    var output: [UInt8] = []
    /// How the handshake ended.
    var end = HandshakeStep.needMore
    /// How often it went over to TLS.
    var encryptions = 0
    /// What the requests after it came to.
    var requests = RequestWalk.Outcome()
  }

  private static func converse(
    _ pieces: [[UInt8]], _ export: ExportInfo, _ settings: UInt8
  ) throws(FuzzProblem) -> Outcome {
    let policies: [TLSPolicy] = [.off, .optional, .required, .off]
    var session = ServerSession(export: export, tls: policies[Int(settings >> 4 & 3)])
    session.isShuttingDown = settings & 0x80 != 0
    var outcome = Outcome()
    session.greet(output: &outcome.output)
    var walk: RequestWalk?
    for piece in pieces {
      if walk != nil {
        try walk?.receive(piece)
        continue
      }
      var rest = piece
      while outcome.end == .needMore, !rest.isEmpty {
        let step = rest.withRawSpan { session.receive($0, output: &outcome.output) }
        switch step {
        case .needMore: rest = []
        case .startTLS(let consumed):
          // What follows counts as decrypted.
          try require(consumed > 0 && consumed <= rest.count, "more is consumed than was given")
          rest.removeFirst(consumed)
          outcome.encryptions += 1
        case .enteredTransmission(let terms, let consumed):
          try require(consumed > 0 && consumed <= rest.count, "more is consumed than was given")
          outcome.end = .enteredTransmission(terms, consumed: 0)
          walk = RequestWalk(terms)
          try walk?.receive(Array(rest.dropFirst(consumed)))
        case .close: outcome.end = step
        }
      }
    }
    outcome.requests = walk?.outcome ?? outcome.requests
    return outcome
  }
}

/// The replies to the options of a stream, held against the options themselves.
private struct OptionReplies {
  /// Options that are in the stream to their end.
  private var options: [UInt32] = []
  private let output: [UInt8]
  private let replyBytesMax: Int
  private var position = 0

  init(_ stream: [UInt8], _ output: [UInt8], _ export: ExportInfo) {
    self.output = output
    // A description, a name, and the fixed parts of the longest reply.
    replyBytesMax = 400 + export.name.utf8.count + export.description.utf8.count
    var start = 4
    while start + 16 <= stream.count, options.count < Limits.optionCountMax {
      let header = Array(stream[start..<(start + 16)]).withRawSpan {
        (
          magic: $0.bigEndianUInt64(at: 0), option: $0.bigEndianUInt32(at: 8),
          count: Int($0.bigEndianUInt32(at: 12))
        )
      }
      guard header.magic == Magic.option, header.count <= stream.count - start - 16 else { break }
      options.append(header.option)
      start += 16 + header.count
    }
  }

  mutating func check(_ outcome: HandshakeFuzz.Outcome) throws(FuzzProblem) {
    try require(output.count >= 18, "the greeting has 18 bytes")
    position = 18
    for option in options {
      if position == output.count, outcome.end != .needMore { return }
      if option == OptionCode.exportName.rawValue { return try checkExportName(outcome) }
      let isGood = try takeReplies(to: option)
      if option == OptionCode.abort.rawValue {
        try require(outcome.end == .close(.aborted), "an abort ends the conversation")
        return try expectEnd()
      }
      if option == OptionCode.go.rawValue, isGood {
        guard case .enteredTransmission = outcome.end else {
          throw FuzzProblem("a GO that was accepted leads into transmission")
        }
        return try expectEnd()
      }
    }
    try expectEnd()
  }

  private func expectEnd() throws(FuzzProblem) {
    try require(position == output.count, "\(output.count - position) bytes answer no option")
  }

  private func checkExportName(_ outcome: HandshakeFuzz.Outcome) throws(FuzzProblem) {
    if case .enteredTransmission = outcome.end {
      let count = output.count - position
      try require(count == 10 || count == 134, "EXPORT_NAME is answered by \(count) bytes")
    } else {
      try expectEnd()
    }
  }

  /// The replies to one option up to the final one; whether that is an ACK.
  private mutating func takeReplies(to option: UInt32) throws(FuzzProblem) -> Bool {
    let start = position
    while true {
      let step = Array(output[position...].prefix(70_000)).withRawSpan { OptionReply.decode($0) }
      guard case .reply(let reply) = step else {
        throw FuzzProblem("option \(option) has no whole reply")
      }
      position += reply.frameBytes
      try require(reply.option == option, "option \(option) is answered as \(reply.option)")
      try require(position - start <= replyBytesMax, "the replies to an option are too long")
      guard let type = OptionReplyType(rawValue: reply.type) else {
        throw FuzzProblem("there is no reply type \(reply.type)")
      }
      switch type {
      case .server, .info, .metaContext: continue
      case .ack:
        try require(reply.payload.isEmpty, "an ACK carries nothing")
        return true
      default:
        try require(reply.type >= 1 << 31, "an error has bit 31")
        return false
      }
    }
  }
}
