// The language of faults: a file is read or refused with a sentence; a fault that was read can be
// written in words that are read as the same fault; and deciding about I/O with it never traps.
//
//   input: the file

import Base
import Faults

enum FaultFuzz {
  static func run(_ input: [UInt8]) throws(FuzzProblem) {
    let text = String(decoding: input, as: UTF8.self)
    let file: FaultFile
    do throws(FaultSyntaxError) { file = try FaultFile(text: text) } catch {
      try require(error.description.hasPrefix("line "), "a refusal names the line")
      return
    }
    var set = FaultSet(seed: file.seed ?? 1, deviceBytes: 1 << 30)
    for line in file.lines {
      let fault = try parse(line.words)
      try writeAgain(fault)
      try add(fault, &set)
    }
    try decide(&set)
  }

  private static func add(_ fault: Fault, _ set: inout FaultSet) throws(FuzzProblem) {
    let name: String
    do throws(FaultSetError) {
      name = try set.add(fault, now: Instant(nanoseconds: 5))
    } catch {
      try require(!error.description.isEmpty, "a refusal says why")
      return
    }
    try require(FaultWords.isName(name), "a fault has a name that is none")
  }

  private static func parse(_ words: [String]) throws(FuzzProblem) -> Fault {
    do throws(FaultSyntaxError) { return try Fault.parse(words, leg: LegSlot(1)) } catch {
      throw FuzzProblem("a line of a file that was read is refused: \(error)")
    }
  }

  /// Words and back.
  private static func writeAgain(_ fault: Fault) throws(FuzzProblem) {
    let words = fault.words.split(separator: " ").map(String.init)
    var again = try parse(words)
    again.name = fault.name
    try require(again == fault, "'\(fault.words)' is read as another fault: \(again.words)")
    try require(again.words == fault.words, "a fault has two texts")
  }

  /// I/O of all kinds at the edges.
  private static func decide(_ set: inout FaultSet) throws(FuzzProblem) {
    let device: UInt64 = 1 << 30
    let ranges = [
      ByteRange(offset: 0, count: 512), ByteRange(offset: 4096, count: 65536),
      ByteRange(offset: device - 512, count: 512), ByteRange(offset: 0, count: device),
      ByteRange(offset: device, count: 0),
    ]
    for second in [0, 1, 90_000] as [UInt64] {
      let now = Instant(nanoseconds: second * Nanoseconds.second)
      for operation in FaultOperation.allCases {
        for range in ranges {
          let io =
            operation == .flush
            ? FaultIO.flush(leg: LegSlot(1))
            : FaultIO(operation, leg: LegSlot(1), range: range, isMetadata: range.count == 65536)
          try check(set.decide(io, now: now), io)
        }
      }
      set.wrote(ranges[1], on: LegSlot(1))
      for report in set.reports(now: now) {
        try require(report.fired <= report.matched, "a fault hit more than it selected")
        _ = set.isHolding(1, now: now)
      }
    }
  }

  private static func check(_ decision: FaultDecision, _ io: FaultIO) throws(FuzzProblem) {
    switch decision.effect {
    case .corrupt(let flips):
      try require(
        flips.part.offset <= io.range.count
          && flips.part.count <= io.range.count
            - flips.part.offset,
        "bits outside of the I/O")
      for index in 0..<min(flips.count, 64) {
        try require(flips.bit(index).byte < io.range.count, "a bit outside of the I/O")
      }
    case .torn(let sectors, _):
      try require(UInt64(sectors) * 512 < io.range.count, "torn, and whole")
    case .misdirect(let offset):
      try require(
        offset <= 1 << 30 && io.range.count <= 1 << 30 - offset && offset != io.range.offset,
        "misdirected to where it belongs, or beyond the device")
    case .error(let errno): try require(errno > 0 && errno < 4096, "an error that is none")
    default: break
    }
  }
}
