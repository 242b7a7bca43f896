// The client's side against a server that may say anything: where the stream is cut changes
// nothing, nothing waits for more than its bound, and the replies of the transmission phase are
// understood or called malformed.
//
//   input: what the client wants, seed of the cuts, then the server's bytes

import Base
import NBDProtocol

enum ClientFuzz {
  private struct Outcome: Equatable {
    var step = ClientSession.Step.needMore
    var consumed = 0
    var output: [UInt8] = []
  }

  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    var input = FuzzInput(input)
    let settings = input.byte()
    let wishes = ClientWishes(
      exportName: settings & 1 == 0 ? "" : "disk", structuredReplies: settings & 2 != 0,
      blockSizes: settings & 4 != 0, usesExportName: settings & 8 != 0,
      takesZeroes: settings & 16 != 0)
    let seed = input.byte()
    let stream = input.rest
    let outcomes = Cuts.ways(stream, seed: seed).map { talk($0, wishes) }
    try require(outcomes[0] == outcomes[1], "single bytes have another outcome than the whole")
    try require(outcomes[0] == outcomes[2], "pieces have another outcome than the whole")
    try require(outcomes[0].output.count <= 200, "a client says little")
    // A client that settles for nothing has got at most one reply that is not whole.
    switch outcomes[0].step {
    case .ready:
      try require(outcomes[0].consumed <= stream.count, "more is consumed than came")
      try replies(Array(stream[outcomes[0].consumed...]))
    case .needMore, .refused, .malformed: break
    }
    try replies(stream)
  }

  private static func talk(_ pieces: [[UInt8]], _ wishes: ClientWishes) -> Outcome {
    var session = ClientSession(wishes)
    var outcome = Outcome()
    for piece in pieces {
      outcome.step = piece.withRawSpan { session.receive($0, output: &outcome.output) }
      if case .ready(let export, let consumed) = outcome.step {
        outcome.consumed += consumed
        outcome.step = .ready(export, consumed: 0)
        return outcome
      }
      guard outcome.step == .needMore else { break }
      outcome.consumed += piece.count
    }
    outcome.consumed = 0
    return outcome
  }

  /// Replies one after the other, as long as they are some.
  private static func replies(_ stream: [UInt8]) throws(FuzzProblem) {
    var rest = stream[...]
    while true {
      let step = Array(rest.prefix(64)).withRawSpan { ReplyHeader.decode($0) }
      guard case .header(let header) = step else {
        if step == .needMore { try require(rest.count < 20, "a whole header is not looked at") }
        return
      }
      rest = rest.dropFirst(header.headerBytes)
      guard case .chunk(_, let type, _, let payloadBytes) = header else { continue }
      guard rest.count >= Int(payloadBytes) else { return }
      let payload = Array(rest.prefix(Int(payloadBytes)))
      try check(payload.withRawSpan { ChunkContent.decode(type: type, payload: $0) }, payload)
      rest = rest.dropFirst(payload.count)
    }
  }

  private static func check(
    _ content: ChunkContent?, _ payload: [UInt8]
  ) throws(FuzzProblem) {
    switch content {
    case .data(_, let bytes): try require(bytes == payload.count - 8 && bytes > 0, "no data")
    case .hole(_, let bytes): try require(bytes > 0, "a hole of no bytes")
    case .error(let code, let text, _):
      try require(code != 0, "an error without a number")
      // Each byte that is not UTF-8 becomes three.
      try require(text.utf8.count <= 3 * payload.count, "a text that is longer than the chunk")
    case .some(.none): try require(payload.isEmpty, "a chunk of nothing has something")
    default: break
    }
  }
}
