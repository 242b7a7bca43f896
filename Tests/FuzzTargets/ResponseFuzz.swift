// What a client of the control socket receives: the parser gives the same wherever the stream is cut,
// keeps its bounds, and what is decoded of a body is encoded as the same value again.
//
//   input: seed of the cuts, then the server's bytes

import ControlModel

enum ResponseFuzz {
  private struct Outcome: Equatable {
    var status = 0
    var names: [String] = []
    var values: [String] = []
    var body: [UInt8] = []
    var isDone = false
    var failure: String?
  }

  private static let headBytesMax = 1024
  private static let bodyBytesMax = 4096

  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    var input = FuzzInput(input)
    let seed = input.byte()
    let stream = input.rest
    let outcomes = Cuts.ways(stream, seed: seed).map(parse)
    try require(outcomes[0] == outcomes[1], "single bytes have another outcome than the whole")
    try require(outcomes[0] == outcomes[2], "pieces have another outcome than the whole")
    try require(outcomes[0].body.count <= bodyBytesMax, "the body is too large")
    try decode(outcomes[0].isDone ? outcomes[0].body : stream)
  }

  private static func parse(_ pieces: [[UInt8]]) -> Outcome {
    var parser = HTTPResponseParser(headBytesMax: headBytesMax, bodyBytesMax: bodyBytesMax)
    var outcome = Outcome()
    do throws(HTTPResponseParser.Failure) {
      for piece in pieces { try parser.feed(piece) }
      try parser.end()
    } catch {
      // What had come before the mistake depends on the cuts.
      outcome.failure = error.message
      return outcome
    }
    outcome.status = parser.status
    outcome.names = parser.fields.map(\.name)
    outcome.values = parser.fields.map(\.value)
    outcome.body = parser.body
    outcome.isDone = parser.isDone
    return outcome
  }

  /// A body as everything that a body can be.
  private static func decode(_ body: [UInt8]) throws(FuzzProblem) {
    try decode(MirrorStatus.self, body)
    try decode([LegStatus].self, body)
    try decode([ConnectionStatus].self, body)
    try decode(RegionMapStatus.self, body)
    try decode(ResyncReport.self, body)
    try decode(ScrubReport.self, body)
    try decode([FaultStatus].self, body)
    try decode(PowerCutReport.self, body)
    try decode([EventRecord].self, body)
    try decode(AddLegRequest.self, body)
    try decode(AddFaultRequest.self, body)
    try decode(ResyncRequest.self, body)
    try decode(ScrubRequest.self, body)
    try decode(PowerCutRequest.self, body)
    try decode(Problem.self, body)
  }

  private static func decode<Value: Codable & Equatable>(
    _ type: Value.Type, _ body: [UInt8]
  ) throws(FuzzProblem) {
    let value: Value
    do throws(ControlJSON.Failure) { value = try ControlJSON.decode(type, from: body) } catch {
      try require(!error.message.isEmpty, "a refusal says why")
      return
    }
    let again: Value
    do throws(ControlJSON.Failure) {
      again = try ControlJSON.decode(type, from: try ControlJSON.encode(value))
    } catch {
      throw FuzzProblem("\(type) cannot be written and read: \(error.message)")
    }
    try require(again == value, "\(type) is another one when it is written and read")
  }
}
