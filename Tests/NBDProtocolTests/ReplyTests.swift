// Goal: replies have the specification's bytes. Method: golden frames, drawn by hand.
import Base
import NBDProtocol
import Testing

@Suite("Replies")
struct ReplyTests {
  let cookie: UInt64 = 0x0102_0304_0506_0708
  let tag = ReplyTag(cookie: 0x0102_0304_0506_0708, offset: 0x7000)

  @Test("a simple success is 16 bytes, the same for reads and the rest")
  func simpleSuccess() {
    let golden = hex("67446698 00000000 0102030405060708")
    let read = encoded(isStructured: false) {
      $0.readHeader(into: &$1, ReplyTag(cookie: cookie, offset: 512), count: 4096)
    }
    let write = encoded(isStructured: false) { $0.success(into: &$1, tag) }
    let structuredWrite = encoded(isStructured: true) { $0.success(into: &$1, tag) }
    #expect(read == golden)
    #expect(write == golden)
    #expect(structuredWrite == golden)
  }

  @Test("a structured read is one chunk: OFFSET_DATA, done, 8 bytes of offset, then the data")
  func structuredRead() {
    let one = encoded(isStructured: true) {
      $0.readHeader(into: &$1, ReplyTag(cookie: cookie, offset: 0x1_0000_0200), count: 1)
    }
    #expect(one == hex("668e33ef 0001 0001 0102030405060708 00000009 0000000100000200"))
    let most = encoded(isStructured: true) {
      $0.readHeader(
        into: &$1, ReplyTag(cookie: .max, offset: 0), count: Limits.servedPayloadBytesMax)
    }
    #expect(most == hex("668e33ef 0001 0001 ffffffffffffffff 04000008 0000000000000000"))
  }

  @Test("an error is 16 bytes, or a chunk with a text")
  func errors() {
    let simple = encoded(isStructured: false) {
      $0.failure(into: &$1, tag, error: .inputOutput)
    }
    #expect(simple == hex("67446698 00000005 0102030405060708"))
    let chunk = encoded(isStructured: true) {
      $0.failure(into: &$1, tag, error: .inputOutput)
    }
    #expect(
      chunk == hex("668e33ef 0001 8001 0102030405060708 00000026 00000005 0020")
        + "no leg of the mirror could do it".utf8)
  }

  @Test("a read of no bytes succeeds with an empty reply: NONE where replies are structured")
  func emptyRead() {
    let answer = Answer(cookie: cookie, refusal: nil, isRead: true)
    #expect(encoded(answer, isStructured: false) == hex("67446698 00000000 0102030405060708"))
    #expect(
      encoded(answer, isStructured: true) == hex("668e33ef 0001 0000 0102030405060708 00000000"))
    let write = Answer(cookie: cookie, refusal: nil, isRead: false)
    #expect(encoded(write, isStructured: true) == hex("67446698 00000000 0102030405060708"))
  }

  @Test("a read of zeros is a hole: where, and how long, no data")
  func hole() {
    let hole = encoded(isStructured: true) { $0.hole(into: &$1, tag, count: 4096) }
    #expect(
      hole == hex("668e33ef 0001 0002 0102030405060708 0000000c 0000000000007000 00001000"))
    let content = Array(hole[20...]).withRawSpan { ChunkContent.decode(type: 2, payload: $0) }
    #expect(content == .hole(offset: 0x7000, bytes: 4096))
  }

  @Test("with extended headers every reply is a chunk that repeats where the request began")
  func extended() {
    func reply(_ body: (ReplyEncoder, inout MutableRawSpan) -> Int) -> [UInt8] {
      encoded(isStructured: true, isExtended: true, body)
    }
    let head = hex("0102030405060708 0000000000007000")
    #expect(
      reply { $0.readHeader(into: &$1, tag, count: 512) }
        == hex("6e8a278c 0001 0001") + head + hex("0000000000000208 0000000000007000"))
    #expect(
      reply { $0.hole(into: &$1, tag, count: 512) }
        == hex("6e8a278c 0001 0002") + head + hex("000000000000000c 0000000000007000 00000200"))
    let success = hex("6e8a278c 0001 0000") + head + hex("0000000000000000")
    #expect(reply { $0.success(into: &$1, tag) } == success)
    for isRead in [false, true] {
      let answer = Answer(cookie: tag.cookie, offset: tag.offset, refusal: nil, isRead: isRead)
      #expect(reply { $0.answer(answer, into: &$1) } == success)
    }
    for refusal in Refusal.allCases {
      let answer = Answer(cookie: tag.cookie, offset: tag.offset, refusal: refusal, isRead: false)
      let chunk = reply { $0.answer(answer, into: &$1) }
      let text = String(describing: refusal.text).utf8
      #expect(
        chunk == hex("6e8a278c 0001 8001") + head + big(UInt64(6 + text.count), 8)
          + big(UInt64(refusal.error.rawValue), 4) + big(UInt64(text.count), 2) + text)
      #expect(chunk.count <= ReplyEncoder.replyBytesMax)
    }
  }

  @Test("every error of every kind fits the room that replies need, and names its errno")
  func everyError() {
    for error in NBDError.allCases {
      let chunk = encoded(isStructured: true) {
        $0.failure(into: &$1, tag, error: error)
      }
      expectError(chunk, error)
    }
    for refusal in Refusal.allCases {
      let chunk = encoded(
        Answer(cookie: cookie, refusal: refusal, isRead: true), isStructured: true)
      expectError(chunk, refusal.error)
    }
  }

  private func expectError(_ chunk: [UInt8], _ error: NBDError) {
    #expect(chunk.count <= ReplyEncoder.replyBytesMax)
    let header = chunk.withRawSpan { ReplyHeader.decode($0) }
    #expect(
      header
        == .header(
          .chunk(
            cookie: cookie, type: 0x8001, isDone: true, payloadBytes: UInt32(chunk.count - 20))))
    let content = Array(chunk[20...]).withRawSpan {
      ChunkContent.decode(type: 0x8001, payload: $0)
    }
    guard case .error(let number, let text, nil) = content else {
      Issue.record("not an error: \(String(describing: content))")
      return
    }
    #expect(number == error.rawValue)
    #expect(!text.isEmpty && text.utf8.allSatisfy { $0 >= 32 && $0 < 127 })
  }
}
