// Goal: every request gets the decision that the catalogue of bad input demands, at every boundary.
// Method: headers by hand; the numbers in the names are the catalogue's. The full answer is checked
// through the encoder where the catalogue speaks of what the client sees.
import Base
import NBDProtocol
import Testing

private let cookie: UInt64 = 0x1122_3344_5566_7788
private let mebi: UInt32 = 1 << 20

private func step(
  _ type: UInt16, flags: UInt16 = 0, at offset: UInt64 = 0, count: UInt32 = 512,
  _ terms: Transmission = terms()
) -> TransmissionStep {
  request(type, flags: flags, at: offset, count: count)
    .withRawSpan { terms.nextRequest($0) }.withoutOffset
}

private func refused(_ refusal: Refusal, isRead: Bool = false, drain: Int = 0) -> TransmissionStep {
  .answer(Answer(cookie: cookie, refusal: refusal, isRead: isRead, drainBytes: drain))
}

private func accepted(
  _ kind: Request.Kind, flags: CommandFlags = [], at offset: UInt64 = 0, count: UInt32 = 512
) -> TransmissionStep {
  .request(
    Request(kind: kind, flags: flags, cookie: cookie, offset: offset, count: UInt64(count)))
}

/// Answered with success without asking the engine.
private func nothingToDo(isRead: Bool = false) -> TransmissionStep {
  .answer(Answer(cookie: cookie, refusal: nil, isRead: isRead))
}

@Suite("Transmission")
struct TransmissionTests {
  @Test("a request is taken apart as drawn, whatever follows it")
  func golden() {
    let frame = hex("25609513 0001 0001 0102030405060708 0000000000001000 00000200")
    let expected = Request(
      kind: .write, flags: .fua, cookie: 0x0102_0304_0506_0708, offset: 4096, count: 512)
    let exact = frame.withRawSpan { terms().nextRequest($0) }
    let more = (frame + [1, 2, 3]).withRawSpan { terms().nextRequest($0) }
    #expect(exact == .request(expected))
    #expect(more == .request(expected))
    #expect(expected.payloadBytes == 512 && expected.isFUA)
    for count in 0..<28 {
      let part = Array(frame[..<count]).withRawSpan { terms().nextRequest($0) }
      #expect(part == .needMore)
    }
  }

  @Test("44, 69: a wrong magic drops the client, that of extended headers too")
  func badMagic() {
    for magic in ["25609512", "21e41c71", "67446698", "00000000"] {
      let frame = hex(magic) + request(0, at: 0, count: 512).dropFirst(4)
      let result = frame.withRawSpan { terms().nextRequest($0) }
      #expect(result == .drop(.badMagic))
    }
  }

  @Test("45: an unknown command is EINVAL and has no payload", arguments: [8, 9, 255, 65535])
  func unknownCommand(type: UInt16) {
    #expect(step(type) == refused(.unknownCommand))
    #expect(step(type, count: .max) == refused(.unknownCommand))
    #expect(
      encoded(
        Answer(cookie: cookie, refusal: .unknownCommand, isRead: false), isStructured: false)
        == hex("67446698 00000016 1122334455667788"))
  }

  @Test("46: an unknown flag on a read is EINVAL, as a chunk where replies are structured")
  func unknownFlagOnRead() {
    for bit in 5..<16 {
      #expect(step(0, flags: 1 << bit) == refused(.invalidFlags, isRead: true))
    }
    let answer = Answer(cookie: cookie, refusal: .invalidFlags, isRead: true)
    #expect(encoded(answer, isStructured: false) == hex("67446698 00000016 1122334455667788"))
    #expect(
      encoded(answer, isStructured: true)
        == hex("668e33ef 0001 8001 1122334455667788 00000035 00000016 002f")
        + "a flag is unknown or not valid for this command".utf8)
  }

  @Test("47: an unknown flag on a write is drained, then EINVAL")
  func unknownFlagOnWrite() {
    #expect(step(1, flags: 1 << 15, count: 777) == refused(.invalidFlags, drain: 777))
  }

  @Test("48, 49, 50: bounds hold at the end, one beyond, and where offset + length wraps")
  func bounds() {
    let end: UInt64 = 1 << 30
    let beyond: [(UInt64, UInt32)] = [
      (end - 512, 513), (end - 511, 512), (end, 1), (end + 1, 512), (1 << 63, 512),
      (.max - 511, 1024), (.max, 1), (.max, 0), (end + 1, 0),
    ]
    for (offset, count) in beyond {
      #expect(step(0, at: offset, count: count) == refused(.beyondEnd, isRead: true))
      #expect(step(1, at: offset, count: count) == refused(.noSpace, drain: Int(count)))
      #expect(step(4, at: offset, count: count) == refused(.beyondEnd))
      #expect(step(5, at: offset, count: count) == refused(.beyondEnd))
      #expect(step(6, at: offset, count: count) == refused(.noSpace))
    }
    for (offset, count) in [(end - 512, 512), (end - 1, 1), (0, 1)] as [(UInt64, UInt32)] {
      #expect(step(0, at: offset, count: count) == accepted(.read, at: offset, count: count))
      #expect(step(1, at: offset, count: count) == accepted(.write, at: offset, count: count))
      #expect(step(4, at: offset, count: count) == accepted(.trim, at: offset, count: count))
      #expect(step(5, at: offset, count: count) == accepted(.cache, at: offset, count: count))
      #expect(step(6, at: offset, count: count) == accepted(.writeZeroes, at: offset, count: count))
    }
    #expect(Refusal.beyondEnd.error == .invalid && Refusal.noSpace.error == .noSpace)
  }

  @Test("51: no bytes succeed on every command, at the end too, and reach nobody")
  func empty() {
    for offset in [0, 7, 1 << 30] as [UInt64] {
      #expect(step(0, at: offset, count: 0) == nothingToDo(isRead: true))
      for type in [1, 4, 5, 6] as [UInt16] {
        #expect(step(type, at: offset, count: 0) == nothingToDo())
      }
    }
    #expect(step(3, count: 0) == accepted(.flush, count: 0))
  }

  @Test("52-54: writes up to 64 MiB are served, up to 128 MiB drained, beyond that dropped")
  func writeSizes() {
    for count in [32 * mebi, 48 * mebi, 64 * mebi - 1, 64 * mebi] {
      #expect(step(1, count: count) == accepted(.write, count: count))
    }
    for count in [64 * mebi + 1, 64 * mebi + 512, 128 * mebi - 1, 128 * mebi] {
      #expect(step(1, count: count) == refused(.payloadTooLarge, drain: Int(count)))
    }
    for count in [128 * mebi + 1, .max] {
      #expect(step(1, count: count) == .drop(.payloadTooLarge))
    }
    #expect(Refusal.payloadTooLarge.error == .invalid)
  }

  @Test("55: reads up to 64 MiB are served; larger are EINVAL, EOVERFLOW with structured replies")
  func readSizes() {
    let structured = terms(sizeBytes: 1 << 40, isStructured: true)
    let simple = terms(sizeBytes: 1 << 40)
    #expect(step(0, count: 64 * mebi, simple) == accepted(.read, count: 64 * mebi))
    #expect(step(0, count: 64 * mebi, structured) == accepted(.read, count: 64 * mebi))
    for count in [64 * mebi + 1, .max] {
      #expect(step(0, count: count, simple) == refused(.readTooLarge, isRead: true))
      #expect(step(0, count: count, structured) == refused(.readOverflow, isRead: true))
    }
    #expect(Refusal.readTooLarge.error == .invalid && Refusal.readOverflow.error == .overflow)
  }

  @Test("56, 57: trims, zeroes and caches may be as long as 4 GiB - 1")
  func longCommands() {
    let large = terms(sizeBytes: 1 << 40)
    #expect(step(4, count: .max, large) == accepted(.trim, count: .max))
    #expect(step(5, count: .max, large) == accepted(.cache, count: .max))
    #expect(step(6, count: .max, large) == accepted(.writeZeroes, count: .max))
    #expect(step(4, count: .max) == refused(.beyondEnd))
    #expect(step(6, count: .max) == refused(.noSpace))
  }

  @Test("58, 59, 64: each flag is valid exactly where it means something")
  func flags() {
    let structured = terms(isStructured: true)
    let commands: [(UInt16, Request.Kind, CommandFlags)] = [
      (0, .read, .df), (1, .write, []), (3, .flush, []), (4, .trim, []), (5, .cache, []),
      (6, .writeZeroes, [.noHole, .fastZero]),
    ]
    for (type, kind, own) in commands {
      let count: UInt32 = kind == .flush ? 0 : 512
      for bit in 0..<16 {
        let flag = CommandFlags(rawValue: 1 << bit)
        let result = step(type, flags: flag.rawValue, count: count, structured)
        if flag == .fua || own.contains(flag) {
          #expect(result == accepted(kind, flags: flag, count: count))
        } else {
          let drain = kind == .write ? 512 : 0
          #expect(result == refused(.invalidFlags, isRead: kind == .read, drain: drain))
        }
      }
    }
    #expect(step(0, flags: CommandFlags.df.rawValue) == refused(.invalidFlags, isRead: true))
    let both = CommandFlags([.fua, .noHole])
    #expect(step(6, flags: both.rawValue) == accepted(.writeZeroes, flags: both))
  }

  @Test("storage may be given back by trims and by zeroes without NO_HOLE")
  func holes() {
    func request(_ kind: Request.Kind, _ flags: CommandFlags) -> Request {
      Request(kind: kind, flags: flags, cookie: 0, offset: 0, count: 1)
    }
    #expect(request(.trim, []).mayPunchHoles)
    #expect(request(.writeZeroes, []).mayPunchHoles)
    #expect(!request(.writeZeroes, .noHole).mayPunchHoles)
    #expect(!request(.writeZeroes, [.noHole, .fua]).mayPunchHoles)
  }

  @Test("60: a flush with a range is EINVAL")
  func flushWithRange() {
    #expect(step(3, at: 0, count: 512) == refused(.flushWithRange))
    #expect(step(3, at: 512, count: 0) == refused(.flushWithRange))
    #expect(step(3, at: .max, count: .max) == refused(.flushWithRange))
    #expect(Refusal.flushWithRange.error == .invalid)
  }

  @Test("61: block status without a context is EINVAL")
  func blockStatus() {
    #expect(step(7) == refused(.noMetaContext))
    #expect(step(7, count: 0) == refused(.noMetaContext))
    #expect(step(7, at: .max, count: .max) == refused(.noMetaContext))
    #expect(Refusal.noMetaContext.error == .invalid)
  }

  @Test("62: changes of a read-only export are EPERM whatever else is wrong; a write is drained")
  func readOnly() {
    let readOnly = terms(isReadOnly: true)
    for (offset, count, flags) in [(0, 512, 0), (.max, 99, 0x8000), (0, 0, 0), (0, 100 * mebi, 0)]
      as [(UInt64, UInt32, UInt16)]
    {
      #expect(
        step(1, flags: flags, at: offset, count: count, readOnly)
          == refused(.readOnly, drain: Int(count)))
      #expect(step(4, flags: flags, at: offset, count: count, readOnly) == refused(.readOnly))
      #expect(step(6, flags: flags, at: offset, count: count, readOnly) == refused(.readOnly))
    }
    #expect(step(1, count: 128 * mebi + 1, readOnly) == .drop(.payloadTooLarge))
    #expect(step(0, readOnly) == accepted(.read))
    #expect(step(3, count: 0, readOnly) == accepted(.flush, count: 0))
    #expect(step(5, readOnly) == accepted(.cache))
    #expect(Refusal.readOnly.error == .notPermitted)
  }

  @Test("63: any alignment is served to who made no promise; who did gets EINVAL")
  func alignment() {
    let promised = terms(alignmentBytes: 512)
    for (type, kind) in [(0, .read), (1, .write), (4, .trim), (5, .cache), (6, .writeZeroes)]
      as [(UInt16, Request.Kind)]
    {
      #expect(step(type, at: 7, count: 3) == accepted(kind, at: 7, count: 3))
      for (offset, count) in [(511, 512), (513, 512), (512, 511), (512, 513), (0, 1)]
        as [(UInt64, UInt32)]
      {
        #expect(
          step(type, at: offset, count: count, promised)
            == refused(.unaligned, isRead: kind == .read, drain: kind == .write ? Int(count) : 0))
      }
      #expect(step(type, at: 512, count: 1024, promised) == accepted(kind, at: 512, count: 1024))
    }
    #expect(Refusal.unaligned.error == .invalid)
  }

  @Test("the first mistake in the order of checks decides: size, bounds, flags, alignment")
  func order() {
    let promised = terms(sizeBytes: 1 << 20, alignmentBytes: 512)
    #expect(
      step(1, flags: 0x8000, at: 7, count: 64 * mebi + 1, promised)
        == refused(.payloadTooLarge, drain: Int(64 * mebi) + 1))
    #expect(
      step(1, flags: 0x8000, at: 7, count: mebi, promised)
        == refused(.noSpace, drain: Int(mebi)))
    #expect(step(1, flags: 0x8000, at: 7, count: 8, promised) == refused(.invalidFlags, drain: 8))
    #expect(step(1, at: 7, count: 8, promised) == refused(.unaligned, drain: 8))
    #expect(step(1, at: 7, count: 0, promised) == refused(.unaligned))
    #expect(step(0, flags: 0x8000, count: 0, promised) == refused(.invalidFlags, isRead: true))
  }

  @Test("70: DISC is DISC whatever its fields say, on a read-only export too")
  func disconnect() {
    #expect(step(2, at: 0, count: 0) == .disconnect)
    #expect(step(2, flags: 0xffff, at: .max, count: .max) == .disconnect)
    #expect(step(2, terms(isReadOnly: true, isStructured: true)) == .disconnect)
  }

  @Test("74: the cookie is opaque; the same one twice is two requests")
  func cookies() {
    for cookie in [0, .max, 1 << 63] as [UInt64] {
      let frame = request(0, cookie: cookie, at: 0, count: 1)
      for _ in 0..<2 {
        let result = frame.withRawSpan { terms().nextRequest($0) }
        #expect(
          result
            == .request(Request(kind: .read, flags: [], cookie: cookie, offset: 0, count: 1)))
      }
    }
  }
}
