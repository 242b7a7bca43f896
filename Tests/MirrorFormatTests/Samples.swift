// Random but valid labels, and byte tricks, for the tests of this target.
import Base

@testable import MirrorFormat

enum Samples {
  static func identifier(_ random: inout PRNG) -> Identifier {
    Identifier(high: random.next() | 1, low: random.next())
  }

  static func label(_ random: inout PRNG) throws -> Label {
    var members = (0..<LegSlot.count).map { _ -> Member in
      let state = MemberState.allCases[random.int(in: 0...6)]
      if state == .vacant { return .vacant }
      return Member(
        legId: identifier(&random), state: state, isWriteMostly: random.chance(1, in: 2),
        isSyncing: random.chance(1, in: 2), isGivenUp: random.chance(1, in: 2),
        offlineSince: random.next(), offeredId: identifier(&random))
    }
    for (new, old) in [(1, 6), (7, 0)]
    where members[new].state != .vacant && members[old].state != .vacant {
      members[new].replaces = LegSlot(old)
    }
    let block: UInt32 = random.chance(1, in: 2) ? 512 : 4096
    let size = UInt64(block) * (1 + random.below(1 << UInt64(random.int(in: 1...30))))
    let letters = ["a", "Z", "9", "é", "日", " ", "-", "."]
    let name =
      "m" + (0..<random.int(in: 0...80)).map { _ in letters[random.int(in: 0...7)] }.joined()
    var label = Label(
      sequence: random.next() >> 1, setId: identifier(&random), name: name,
      legId: identifier(&random), slot: LegSlot(random.int(in: 0...7)),
      lineage: Lineage(
        current: Generation(counter: random.next() >> 1, id: identifier(&random)),
        parents: (0..<random.int(in: 0...16)).map { _ in identifier(&random) }),
      members: members,
      layout: try Layout.plan(sizeBytes: size, regionBytes: nil, blockBytes: block),
      logKind: random.chance(1, in: 2) ? .disk : .core, isClean: random.chance(1, in: 2),
      createdSeconds: random.next(), resyncMinBytesPerSecond: random.next(),
      resyncMaxBytesPerSecond: random.next(),
      features: Features(
        compatible: 0, readOnlyCompatible: UInt32(truncatingIfNeeded: random.next()),
        incompatible: 0))
    label.writtenSeconds = random.next()
    label.isResyncPaused = random.chance(1, in: 2)
    label.salt = random.next()
    return label
  }

  static func bytes(_ label: Label) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xee, count: Label.byteCount)
    bytes.withMutableRawSpan { label.encode(into: &$0) }
    return bytes
  }

  static func page(
    _ page: Int, sequence: UInt64, setId: Identifier, words: [UInt16], firstWord: Int
  ) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xee, count: Layout.pageBytes)
    bytes.withMutableRawSpan {
      RegionMapPage.encode(
        page: page, sequence: sequence, setId: setId, words: words, firstWord: firstWord,
        into: &$0)
    }
    return bytes
  }

  static func decode(_ bytes: [UInt8]) -> Result<Label, FormatError> {
    bytes.withRawSpan { span in
      do throws(FormatError) { return .success(try Label.decode(span)) } catch {
        return .failure(error)
      }
    }
  }

  /// The new bytes where `subset` has a bit for the 512-byte sector, else the old ones.
  static func torn(old: [UInt8], new: [UInt8], subset: Int) -> [UInt8] {
    old.indices.map { subset >> ($0 / 512) & 1 == 1 ? new[$0] : old[$0] }
  }

  /// Makes the label's checksum right again.
  static func fixChecksum(_ bytes: inout [UInt8]) {
    let sum = Array(bytes[..<4092]).withRawSpan { $0.crc32c() }
    bytes.withMutableRawSpan { $0.store(littleEndian: sum, at: 4092) }
  }
}
