// Goal: with extended headers every request gets the decision that the catalogue of bad input demands,
// and lengths beyond 32 bits are what they say. Method: headers by hand, at the boundaries.
import Base
import NBDProtocol
import Testing

private let cookie: UInt64 = 0x1122_3344_5566_7788
private let tebi: UInt64 = 1 << 40
private let payloadFlag: UInt16 = 1 << 5

@Suite("Extended headers")
struct ExtendedHeaderTests {
  private let terms = NBDProtocolTests.terms(
    sizeBytes: 8 << 40, isExtended: true, contexts: [.allocation, .state])

  private func step(
    _ type: UInt16, flags: UInt16 = 0, at offset: UInt64 = 0, count: UInt64,
    behind: [UInt8] = [], _ terms: Transmission? = nil
  ) -> TransmissionStep {
    let frame = extendedRequest(type, flags: flags, at: offset, count: count) + behind
    return frame.withRawSpan { (terms ?? self.terms).nextRequest($0) }
  }

  private func refused(
    _ refusal: Refusal, at offset: UInt64 = 0, isRead: Bool = false, drain: Int = 0,
    headerBytes: Int = 32
  ) -> TransmissionStep {
    .answer(
      Answer(
        cookie: cookie, offset: offset, refusal: refusal, isRead: isRead, drainBytes: drain,
        headerBytes: headerBytes))
  }

  private func accepted(
    _ kind: Request.Kind, flags: CommandFlags = [], at offset: UInt64 = 0, count: UInt64,
    headerBytes: Int = 32, contexts: MetaContexts = [.allocation, .state]
  ) -> TransmissionStep {
    .request(
      Request(
        kind: kind, flags: flags, cookie: cookie, offset: offset, count: count,
        headerBytes: headerBytes, contexts: contexts))
  }

  @Test("a header has 32 bytes; fewer are not looked at")
  func header() {
    let frame = extendedRequest(0, at: 4096, count: 512)
    for count in 0..<32 {
      let part = Array(frame[..<count]).withRawSpan { terms.nextRequest($0) }
      #expect(part == .needMore)
    }
    #expect(step(0, at: 4096, count: 512) == accepted(.read, at: 4096, count: 512))
  }

  @Test("69: a compact header drops the client")
  func compactMagic() {
    let frame = request(0, at: 0, count: 512) + [0, 0, 0, 0]
    let result = frame.withRawSpan { terms.nextRequest($0) }
    #expect(result == .drop(.badMagic))
  }

  @Test("zeroes, trims, caches and block status go beyond 32 bits, up to the end and no further")
  func longCommands() {
    for (type, kind, beyond) in [
      (4, .trim, .beyondEnd), (5, .cache, .beyondEnd), (6, .writeZeroes, .noSpace),
      (7, .blockStatus, .beyondEnd),
    ] as [(UInt16, Request.Kind, Refusal)] {
      #expect(step(type, count: 8 * tebi) == accepted(kind, count: 8 * tebi))
      #expect(step(type, at: 512, count: 8 * tebi) == refused(beyond, at: 512))
      #expect(step(type, at: 512, count: .max) == refused(beyond, at: 512))
      #expect(step(type, at: .max, count: .max) == refused(beyond, at: .max))
    }
    #expect(step(0, count: 8 * tebi) == refused(.readOverflow, isRead: true))
  }

  @Test("65: a payload where none belongs is thrown away up to 128 MiB; 67: beyond, the client is")
  func unexpectedPayload() {
    let most: UInt64 = 128 << 20
    for type in [3, 4, 5, 6, 99] as [UInt16] {
      #expect(
        step(type, flags: payloadFlag, count: 4096) == refused(.unexpectedPayload, drain: 4096))
      #expect(
        step(type, flags: payloadFlag, count: most) == refused(.unexpectedPayload, drain: 128 << 20)
      )
      #expect(step(type, flags: payloadFlag, count: most + 1) == .drop(.payloadTooLarge))
      #expect(step(type, flags: payloadFlag, count: tebi) == .drop(.payloadTooLarge))
    }
    #expect(
      step(0, flags: payloadFlag, count: 4096)
        == refused(.unexpectedPayload, isRead: true, drain: 4096))
    #expect(step(2, flags: payloadFlag, count: tebi) == .disconnect)
  }

  @Test("66: a write has its payload whether it says so or not; 67: beyond 128 MiB it drops")
  func write() {
    for flags in [0, payloadFlag] {
      #expect(step(1, flags: flags, count: 512) == accepted(.write, count: 512))
      #expect(
        step(1, flags: flags, count: (64 << 20) + 1)
          == refused(.payloadTooLarge, drain: (64 << 20) + 1))
      #expect(step(1, flags: flags, count: tebi) == .drop(.payloadTooLarge))
    }
    #expect(
      step(1, flags: payloadFlag | 1, count: 512) == accepted(.write, flags: .fua, count: 512))
  }

  private func ids(_ length: UInt64, _ ids: [UInt64]) -> [UInt8] {
    big(length, 8) + ids.flatMap { big($0, 4) }
  }

  @Test("68: a block status that names contexts gets those, and EINVAL for any other or twice one")
  func namedContexts() {
    func status(_ payload: [UInt8], _ terms: Transmission? = nil) -> TransmissionStep {
      step(7, flags: payloadFlag, at: 512, count: UInt64(payload.count), behind: payload, terms)
    }
    #expect(
      status(ids(tebi, [2]))
        == accepted(.blockStatus, at: 512, count: tebi, headerBytes: 44, contexts: .state))
    #expect(
      status(ids(4096, [2, 1])) == accepted(.blockStatus, at: 512, count: 4096, headerBytes: 48))
    for bad in [[1, 1], [3], [0], [1, 99]] as [[UInt64]] {
      #expect(
        status(ids(4096, bad))
          == refused(.badContexts, at: 512, headerBytes: 40 + 4 * bad.count))
    }
    let one = NBDProtocolTests.terms(sizeBytes: 8 << 40, isExtended: true, contexts: .allocation)
    #expect(status(ids(4096, [2]), one) == refused(.badContexts, at: 512, headerBytes: 44))
    #expect(status(ids(4096, [])) == refused(.noMetaContext, at: 512, headerBytes: 40))
    #expect(status(ids(0, [1])) == refused(.emptyStatus, at: 512, headerBytes: 44))
    #expect(status(ids(8 * tebi, [1])) == refused(.beyondEnd, at: 512, headerBytes: 44))
    // Too short, too long, and not in whole ids: thrown away.
    for count in [0, 4, 7, 13, 20, 4096] as [UInt64] {
      #expect(
        step(7, flags: payloadFlag, at: 512, count: count)
          == refused(.badContexts, at: 512, drain: Int(count)))
    }
    // Where nothing was advertised it is a payload like any other.
    let none = NBDProtocolTests.terms(sizeBytes: 8 << 40, isExtended: true)
    #expect(status(ids(4096, [1]), none) == refused(.badContexts, at: 512, drain: 12))
  }

  @Test("ids that are not all there are waited for")
  func partialNames() {
    let whole = extendedRequest(7, flags: payloadFlag, at: 0, count: 12) + ids(4096, [1])
    for count in 32..<whole.count {
      let part = Array(whole[..<count]).withRawSpan { terms.nextRequest($0) }
      #expect(part == .needMore)
    }
    let all = whole.withRawSpan { terms.nextRequest($0) }
    #expect(
      all == accepted(.blockStatus, count: 4096, headerBytes: 44, contexts: .allocation))
  }

  @Test("without extended headers PAYLOAD_LEN is a flag that nobody knows")
  func compactPayloadFlag() {
    let compact = NBDProtocolTests.terms(isStructured: true)
    let frame = request(7, flags: payloadFlag, at: 0, count: 512)
    let result = frame.withRawSpan { compact.nextRequest($0) }
    #expect(
      result == .answer(Answer(cookie: cookie, refusal: .noMetaContext, isRead: false)))
    let read = request(0, flags: payloadFlag, at: 0, count: 512).withRawSpan {
      compact.nextRequest($0)
    }
    #expect(read == .answer(Answer(cookie: cookie, refusal: .invalidFlags, isRead: true)))
  }
}
