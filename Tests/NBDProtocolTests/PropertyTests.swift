// Goal: whatever the bytes are, nothing traps, output stays bounded, and where the stream is cut
// changes nothing. Method: seeded random frames: pure noise, valid frames with flipped bits, and
// valid streams cut at random points.
import Base
import NBDProtocol
import Testing

@Suite("Any bytes")
struct PropertyTests {
  /// Most bytes that one option can be answered with, for the export of these tests.
  private let optionReplyBytesMax = 20 * 5 + 300

  private func noise(_ random: inout PRNG, _ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  }

  /// An option that is right, or wrong in one of the ways that people get it wrong.
  private func randomOption(_ random: inout PRNG) -> [UInt8] {
    let code = UInt32(random.below(13))
    let names = ["", "disk", "disc", "d\0", String(repeating: "n", count: 300)]
    var payload: [UInt8] = []
    switch random.below(4) {
    case 0: payload = noise(&random, random.int(in: 0...40))
    case 1, 2:
      let infos = (0..<random.int(in: 0...5)).map { _ in UInt16(random.below(6)) }
      payload = infoData(names[random.int(in: 0...4)], infos)
    default: break
    }
    var frame = option(code, payload)
    if random.chance(1, in: 8) {
      frame[random.int(in: 0...(frame.count - 1))] = UInt8(truncatingIfNeeded: random.next())
    }
    return frame
  }

  @Test("random handshakes never trap, and each option costs a bounded reply")
  func handshakes() {
    var random = PRNG(seed: 0x6e62_6401)
    for _ in 0..<20_000 {
      var stream = random.chance(1, in: 20) ? noise(&random, 4) : modern
      for _ in 0..<random.int(in: 1...6) {
        stream += random.chance(1, in: 10) ? noise(&random, 30) : randomOption(&random)
      }
      let whole = Conversation.fed(stream)
      #expect(whole.output.count <= Limits.optionCountMax * optionReplyBytesMax)
      #expect(whole.output.count <= (stream.count / 16 + 1) * optionReplyBytesMax)
      let pieces = Conversation.fed(stream, piece: random.int(in: 1...50))
      #expect(whole.output == pieces.output)
      #expect(whole.last == pieces.last)
    }
  }

  @Test("random request headers never trap, and what is accepted lies inside and is permitted")
  func requests() {
    var random = PRNG(seed: 0x6e62_6402)
    var counts = (accepted: 0, answered: 0, dropped: 0)
    for _ in 0..<200_000 {
      let agreed = terms(
        sizeBytes: random.next() >> (1 + random.below(63)), isReadOnly: random.chance(1, in: 4),
        alignmentBytes: 1 << UInt32(random.below(17)), isStructured: random.chance(1, in: 2))
      let frame = randomRequest(&random, near: agreed.sizeBytes)
      switch frame.withRawSpan({ agreed.nextRequest($0) }) {
      case .request(let request):
        counts.accepted += 1
        expectValid(request, agreed)
      case .answer(let answer):
        counts.answered += 1
        #expect(answer.drainBytes >= 0)
        #expect(answer.drainBytes <= Int(Limits.drainedPayloadBytesMax))
        let reply = encoded(answer, isStructured: agreed.isStructured)
        #expect(reply.count <= ReplyEncoder.replyBytesMax)
      case .drop: counts.dropped += 1
      case .needMore, .disconnect: break
      }
    }
    // The generator reaches every branch, or this test says little.
    #expect(counts.accepted > 2000 && counts.answered > 20_000 && counts.dropped > 2000)
  }

  private func expectValid(_ request: Request, _ agreed: Transmission) {
    #expect(request.offset <= agreed.sizeBytes)
    #expect(UInt64(request.count) <= agreed.sizeBytes - request.offset)
    #expect(request.range.count == UInt64(request.count))
    let changes: Bool
    switch request.kind {
    case .write, .trim, .writeZeroes: changes = true
    case .read, .flush, .cache, .blockStatus: changes = false
    }
    #expect(!changes || !agreed.flags.contains(.readOnly))
    #expect((request.count == 0) == (request.kind == .flush))
    let mask = UInt64(agreed.alignmentBytes) - 1
    #expect((request.offset | UInt64(request.count)) & mask == 0)
    if request.kind == .read || request.kind == .write {
      #expect(request.count <= Limits.servedPayloadBytesMax)
    }
  }

  private func randomRequest(_ random: inout PRNG, near size: UInt64) -> [UInt8] {
    if random.chance(1, in: 10) { return noise(&random, random.int(in: 20...40)) }
    let offset: UInt64
    switch random.below(4) {
    case 0: offset = random.next()
    case 1: offset = size &- random.below(1024)
    case 2: offset = 0
    default: offset = random.below(size + 1) & ~0xffff
    }
    let counts: [UInt32] = [
      0, 1, 512, 4096, 65536, 1 << 26, 1 << 27, .max, UInt32(truncatingIfNeeded: random.next()),
    ]
    let count = counts[random.int(in: 0...8)] &+ UInt32(random.chance(1, in: 3) ? 1 : 0)
    let flags = random.chance(1, in: 2) ? 0 : UInt16(random.below(64))
    return request(
      UInt16(random.below(10)), flags: flags, cookie: random.next(), at: offset, count: count)
  }

  @Test("a stream of valid requests means the same wherever it is cut")
  func cuts() {
    var random = PRNG(seed: 0x6e62_6403)
    for _ in 0..<300 {
      let agreed = terms(sizeBytes: 1 << 20, isStructured: random.chance(1, in: 2))
      var stream: [UInt8] = []
      for index in 0..<random.int(in: 1...20) {
        let type = [0, 1, 1, 3, 4, 5, 6, 9][random.int(in: 0...7)]
        let count = type == 3 ? 0 : UInt32(random.below(3000))
        stream += request(
          UInt16(type), cookie: UInt64(index), at: type == 3 ? 0 : random.below(1 << 20),
          count: count)
        if type == 1 { stream += noise(&random, Int(count)) }
      }
      if random.chance(1, in: 2) { stream += request(2, at: 0, count: 0) + noise(&random, 50) }
      let whole = Stream(agreed, stream) { $0 }
      let bytes = Stream(agreed, stream) { _ in 1 }
      let parts = Stream(agreed, stream) { _ in random.int(in: 1...4000) }
      #expect(whole == bytes)
      #expect(whole == parts)
      #expect(!whole.steps.isEmpty)
    }
  }
}

extension Conversation {
  /// A conversation that was fed exactly `stream`.
  fileprivate static func fed(_ stream: [UInt8], piece: Int = .max) -> Conversation {
    var conversation = Conversation()
    conversation.send(stream, piece: piece)
    return conversation
  }
}

/// What a reactor makes of a stream: the walk in Transmission.swift's header.
private struct Stream: Equatable {
  var steps: [TransmissionStep] = []
  var payload: [UInt8] = []

  init(_ agreed: Transmission, _ stream: [UInt8], cut: (Int) -> Int) {
    var pending: [UInt8] = []
    var payloadLeft = 0
    var isKept = false
    var position = 0
    while position < stream.count {
      let end = min(position + cut(stream.count - position), stream.count)
      pending += stream[position..<end]
      position = end
      while true {
        let taken = min(payloadLeft, pending.count)
        if isKept { payload += pending[..<taken] }
        pending.removeFirst(taken)
        payloadLeft -= taken
        if payloadLeft > 0 { break }
        let step = pending.withRawSpan { agreed.nextRequest($0) }
        if step == .needMore { break }
        steps.append(step)
        switch step {
        case .request(let request): (payloadLeft, isKept) = (request.payloadBytes, true)
        case .answer(let answer): (payloadLeft, isKept) = (answer.drainBytes, false)
        case .disconnect, .drop, .needMore: return
        }
        pending.removeFirst(Limits.requestHeaderBytes)
      }
    }
  }
}
