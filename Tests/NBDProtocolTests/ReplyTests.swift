// Goal: replies have the specification's bytes. Method: golden frames, drawn by hand.
import Base
import NBDProtocol
import Testing

@Suite("Replies")
struct ReplyTests {
  let cookie: UInt64 = 0x0102_0304_0506_0708

  @Test("a simple success is 16 bytes, the same for reads and the rest")
  func simpleSuccess() {
    let golden = hex("67446698 00000000 0102030405060708")
    let read = encoded(isStructured: false) {
      $0.readHeader(into: &$1, cookie: cookie, offset: 512, count: 4096)
    }
    let write = encoded(isStructured: false) { $0.success(into: &$1, cookie: cookie) }
    let structuredWrite = encoded(isStructured: true) { $0.success(into: &$1, cookie: cookie) }
    #expect(read == golden)
    #expect(write == golden)
    #expect(structuredWrite == golden)
  }

  @Test("a structured read is one chunk: OFFSET_DATA, done, 8 bytes of offset, then the data")
  func structuredRead() {
    let one = encoded(isStructured: true) {
      $0.readHeader(into: &$1, cookie: cookie, offset: 0x1_0000_0200, count: 1)
    }
    #expect(one == hex("668e33ef 0001 0001 0102030405060708 00000009 0000000100000200"))
    let most = encoded(isStructured: true) {
      $0.readHeader(into: &$1, cookie: .max, offset: 0, count: Limits.servedPayloadBytesMax)
    }
    #expect(most == hex("668e33ef 0001 0001 ffffffffffffffff 04000008 0000000000000000"))
  }

  @Test("an error is 16 bytes, or a chunk with a text")
  func errors() {
    let simple = encoded(isStructured: false) {
      $0.failure(into: &$1, cookie: cookie, error: .inputOutput)
    }
    #expect(simple == hex("67446698 00000005 0102030405060708"))
    let chunk = encoded(isStructured: true) {
      $0.failure(into: &$1, cookie: cookie, error: .inputOutput)
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

  @Test("every error of every kind fits the room that replies need, and names its errno")
  func everyError() {
    for error in NBDError.allCases {
      let chunk = encoded(isStructured: true) {
        $0.failure(into: &$1, cookie: cookie, error: error)
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
