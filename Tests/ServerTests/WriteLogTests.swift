// Goal: the memory of a volatile cache gives back exactly what was there before, and never what was
// flushed. Method: writes of known bytes, with every order of completion and flush that matters.
import Base
import Faults
import Testing

@testable import Server

@Suite("The log of overwritten data")
struct WriteLogTests {
  private let leg = LegSlot(0)
  private let everything = PowerCut(legs: LegSet(bits: 1), seed: WriteLogTests.totalLoss)

  /// A seed whose cut takes everything back from leg 0.
  private static let totalLoss: UInt64 =
    (0..<100).first { seed in
      let cut = PowerCut(legs: LegSet(bits: 1), seed: seed)
      return (0..<64).allSatisfy { cut.survivor(leg: LegSlot(0), sector: $0, overwritten: 3) == 0 }
    } ?? 0

  private func bytes(_ value: UInt8, sectors: Int = 1) -> [UInt8] {
    [UInt8](repeating: value, count: 512 * sectors)
  }

  @Test("the oldest state since the last flush comes back, sector by sector")
  func oldest() {
    var log = WriteLog()
    let first = log.begin(offset: 4096, before: bytes(1, sectors: 2))
    log.complete(first, isDurable: false)
    let second = log.begin(offset: 4096, before: bytes(2))
    log.complete(second, isDurable: false)
    let (lost, count) = log.losses(everything, leg: leg)
    #expect(count == 2)
    #expect(lost.map(\.sector) == [8, 9])
    #expect(lost.map { $0.bytes[0] } == [1, 1])
  }

  @Test("a flush makes safe what completed before it began, and nothing else")
  func flush() {
    var log = WriteLog()
    let early = log.begin(offset: 0, before: bytes(1))
    let late = log.begin(offset: 512, before: bytes(2))
    log.complete(early, isDurable: false)
    let mark = log.mark
    log.complete(late, isDurable: false)
    log.flushed(mark)
    #expect(log.losses(everything, leg: leg).lost.map(\.sector) == [1])
    log.flushed(log.mark)
    #expect(log.isEmpty)
  }

  @Test("a write in flight can be lost; a durable one makes all below it safe")
  func durable() {
    var log = WriteLog()
    let below = log.begin(offset: 0, before: bytes(1, sectors: 2))
    log.complete(below, isDurable: false)
    let durable = log.begin(offset: 0, before: bytes(2))
    #expect(log.losses(everything, leg: leg).lost.map(\.sector) == [0, 1])
    log.complete(durable, isDurable: true)
    #expect(log.losses(everything, leg: leg).lost.map(\.sector) == [1])
    let again = log.begin(offset: 0, before: bytes(3))
    log.complete(again, isDurable: false)
    #expect(log.losses(everything, leg: leg).lost.map { $0.bytes[0] } == [3, 1])
  }

  @Test("legs that the cut spares lose nothing")
  func spared() {
    var log = WriteLog()
    log.complete(log.begin(offset: 0, before: bytes(1)), isDurable: false)
    let (lost, count) = log.losses(everything, leg: LegSlot(1))
    #expect(lost.isEmpty)
    #expect(count == 1)
  }

  @Test("memory is bounded: the oldest writes go")
  func bounded() {
    var log = WriteLog()
    let piece = [UInt8](repeating: 7, count: 16 << 20)
    for index in 0..<6 {
      let number = log.begin(offset: UInt64(index) << 24, before: piece)
      log.complete(number, isDurable: false)
    }
    let (_, count) = log.losses(PowerCut(legs: .none, seed: 0), leg: leg)
    #expect(count == WriteLog.bytesMax / 512)
  }

  @Test("what was there before the last write is laid over what is asked for")
  func overlay() {
    var log = WriteLog()
    _ = log.begin(offset: 512, before: bytes(1, sectors: 2))
    _ = log.begin(offset: 512, before: bytes(2))
    var buffer = bytes(9, sectors: 4)
    // The buffer is the test's own.
    unsafe buffer.withUnsafeMutableBytes { memory in
      unsafe log.overlay(
        ByteRange(offset: 0, count: 2048), part: ByteRange(offset: 256, count: 1024),
        into: memory)
    }
    #expect(buffer[511] == 9)
    #expect(buffer[512] == 2)
    #expect(buffer[1023] == 2)
    #expect(buffer[1024] == 1)
    #expect(buffer[1279] == 1)
    #expect(buffer[1280] == 9)
  }
}
