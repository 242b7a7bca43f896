// Goal: a label survives its trip through bytes, and nothing else is ever taken for one. Method:
// random labels; every single-byte error, every truncation, every subset of torn 512-byte
// sectors; random fields under a right checksum.
import Base
import Testing

@testable import MirrorFormat

@Suite("Label")
struct LabelTests {
  @Test("is the same after encoding and decoding")
  func roundTrip() throws {
    var random = PRNG(seed: 11)
    for _ in 0..<200 {
      let label = try Samples.label(&random)
      #expect(try Samples.decode(Samples.bytes(label)).get() == label)
    }
  }

  @Test("stands at the offsets that the documentation names")
  func golden() throws {
    var members = Array(repeating: Member.vacant, count: 8)
    members[2] = Member(
      legId: Identifier(high: 0x0102_0304_0506_0708, low: 0x090a_0b0c_0d0e_0f10),
      state: .failed, isWriteMostly: true, isSyncing: true, isGivenUp: true, offlineSince: 0x55,
      offeredId: Identifier(high: 0x1112_1314_1516_1718, low: 0x191a_1b1c_1d1e_1f20))
    members[3] = Member(
      legId: Identifier(high: 8, low: 8), state: .online, replaces: LegSlot(2))
    var label = Label(
      sequence: 0x1122, setId: Identifier(high: 0xa1a2_a3a4_a5a6_a7a8, low: 1), name: "golden",
      legId: Identifier(high: 2, low: 3), slot: LegSlot(5),
      lineage: Lineage(
        current: Generation(counter: 7, id: Identifier(high: 4, low: 5)),
        parents: [Identifier(high: 6, low: 7)]),
      members: members,
      layout: try Layout.plan(sizeBytes: 1 << 30, regionBytes: nil, blockBytes: 4096),
      logKind: .core, isClean: true, createdSeconds: 0x77)
    label.salt = 0x5a17
    let bytes = Samples.bytes(label)
    #expect(Array(bytes[0..<16]) == Array("nbdmirror label\n".utf8))
    #expect(Array(bytes[16..<24]) == [1, 0, 0, 0, 0, 16, 0, 0])
    #expect(bytes[36] == 1)
    #expect(Array(bytes[40..<42]) == [0x22, 0x11])
    #expect(Array(bytes[48..<52]) == [0xa1, 0xa2, 0xa3, 0xa4])
    #expect(bytes[79] == 3 && bytes[80] == 5 && bytes[81] == 1)
    #expect(Array(bytes[84..<88]) == [0, 16, 0, 0])
    #expect(Array(bytes[88..<96]) == [0, 0, 0, 0x40, 0, 0, 0, 0])
    #expect(Array(bytes[96..<100]) == [0, 0, 16, 0])
    #expect(Array(bytes[104..<108]) == [0, 0, 16, 0])
    #expect(Array(bytes[112..<116]) == [0, 0, 32, 0])
    #expect(bytes[128] == 0x77 && bytes[160] == 7 && bytes[183] == 5 && bytes[184] == 1)
    #expect(bytes[199] == 6 && bytes[207] == 7)
    #expect(Array(bytes[512..<528]) == Array(1...16))
    #expect(bytes[528] == 3 && bytes[529] == 7 && bytes[530] == 0 && bytes[536] == 0x55)
    #expect(bytes[560] == 1 && bytes[562] == 3)
    #expect(Array(bytes[1056..<1072]) == Array(0x11...0x20))
    #expect(bytes[704] == 6 && Array(bytes[706..<712]) == Array("golden".utf8))
    // The salt stands in every sector but the first.
    let salted = (1..<8).map { $0 * 512 + ($0 == 7 ? 496 : 504) }
    for offset in salted {
      #expect(bytes.withRawSpan { $0.littleEndianUInt64(at: offset) } == 0x5a17)
    }
    let rest = Array(961..<1056) + Array(1072..<4092)
    #expect(
      rest.allSatisfy { at in bytes[at] == 0 || salted.contains { ($0..<$0 + 8).contains(at) } })
    // A version that knew no pause wrote just these bytes; only the flag tells them apart.
    #expect(!(try Samples.decode(bytes).get().isResyncPaused))
    label.isResyncPaused = true
    let paused = Samples.bytes(label)
    #expect(paused[36] == 3 && paused[37] == 0)
    let isSame = (0..<4092).allSatisfy { $0 == 36 || paused[$0] == bytes[$0] }
    #expect(isSame, "nothing else moved")
    #expect(try Samples.decode(paused).get() == label)
  }

  @Test("is refused if a member is in the place of itself, of nobody, or of one that is taken")
  func impossibleReplacements() throws {
    var members = Array(repeating: Member.vacant, count: 8)
    for index in 0..<3 {
      members[index] = Member(legId: Identifier(high: 9, low: UInt64(index)), state: .online)
    }
    var random = PRNG(seed: 19)
    var label = try Samples.label(&random)
    label.members = members
    label.members[1].replaces = LegSlot(0)
    #expect(Samples.decode(Samples.bytes(label)).isSuccess)
    for (slot, value) in [(1, 2), (1, 5), (2, 1), (1, 9), (5, 1)] {
      var bytes = Samples.bytes(label)
      bytes[448 + 32 * slot + 18] = UInt8(value)
      Samples.fixChecksum(&bytes)
      #expect(!Samples.decode(bytes).isSuccess, "slot \(slot) in the place of \(value - 1)")
    }
  }

  @Test("is refused after any error in a single byte")
  func singleByteErrors() throws {
    var random = PRNG(seed: 12)
    let bytes = Samples.bytes(try Samples.label(&random))
    for index in bytes.indices {
      var wrong = bytes
      wrong[index] ^= 1 << UInt8(random.below(8))
      guard case .failure(let error) = Samples.decode(wrong) else {
        Issue.record("an error in byte \(index) went unnoticed")
        continue
      }
      #expect(error == (index < 16 ? .noLabel : .checksum))
    }
  }

  @Test("is refused when it is cut off anywhere, or too long")
  func truncation() throws {
    var random = PRNG(seed: 13)
    let bytes = Samples.bytes(try Samples.label(&random))
    for count in 0..<bytes.count {
      #expect(Samples.decode(Array(bytes[..<count])) == .failure(.truncated(byteCount: count)))
    }
    #expect(Samples.decode(bytes + [0]) == .failure(.truncated(byteCount: 4097)))
    #expect(Samples.decode([UInt8](repeating: 0, count: 4096)) == .failure(.noLabel))
  }

  @Test("is old, new or refused after any subset of its sectors was written")
  func tornSectors() throws {
    var random = PRNG(seed: 14)
    let old = try Samples.label(&random)
    var new = try Samples.label(&random)
    new.setId = old.setId
    let blank = [UInt8](repeating: 0, count: 4096)
    for (before, known) in [(Samples.bytes(old), [old, new]), (blank, [new])] {
      for subset in 0..<256 {
        let bytes = Samples.torn(old: before, new: Samples.bytes(new), subset: subset)
        guard case .success(let label) = Samples.decode(bytes) else { continue }
        #expect(known.contains(label), "a mix of two labels (sectors \(subset)) was believed")
      }
    }
  }

  @Test("one that was torn is not completed by the next one, torn too")
  func tornTwice() throws {
    var random = PRNG(seed: 19)
    let before = Samples.bytes(try Samples.label(&random))
    // Two servers that write nearly the same: what they list, and who came before, are equal.
    let first = try Samples.label(&random)
    var second = first
    second.sequence += 1
    second.lineage.current.id = Identifier(high: 1, low: 2)
    second.salt += 1
    let (one, other) = (Samples.bytes(first), Samples.bytes(second))
    for left in 0..<256 {
      let torn = Samples.torn(old: before, new: one, subset: left)
      for _ in 0..<16 {
        let subset = random.int(in: 1...254)
        let result = Samples.decode(Samples.torn(old: torn, new: other, subset: subset))
        #expect(!result.isSuccess, "sectors \(left), then \(subset)")
      }
    }
  }

  @Test("never traps on random fields under a right checksum, and what it accepts is valid")
  func hostileFields() throws {
    var random = PRNG(seed: 15)
    var accepted = 0
    for _ in 0..<4_000 {
      var bytes = Samples.bytes(try Samples.label(&random))
      for _ in 0..<random.int(in: 1...4) {
        let start = random.int(in: 16...970)
        let extremes: [UInt8] = [0, 1, 0x7f, 0x80, 0xff]
        for index in start..<min(start + random.int(in: 1...8), 4092) {
          bytes[index] =
            random.chance(1, in: 2)
            ? extremes[random.int(in: 0...4)] : UInt8(truncatingIfNeeded: random.next())
        }
      }
      Samples.fixChecksum(&bytes)
      guard case .success(let label) = Samples.decode(bytes) else { continue }
      accepted += 1
      #expect(label.layout.problem == nil)
      #expect(Label.nameProblem(label.name) == nil)
      #expect(label.layout.pvBytes >= label.layout.sizeBytes)
      // Whatever was accepted can be written again.
      #expect(Samples.decode(Samples.bytes(label)).isSuccess)
    }
    #expect(accepted > 100, "the test must also reach labels that are accepted")
  }

  @Test("never traps on random bytes")
  func noise() {
    var random = PRNG(seed: 16)
    for _ in 0..<2_000 {
      var bytes = (0..<512).flatMap { _ in
        (0..<8).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      }
      bytes.replaceSubrange(0..<16, with: Array("nbdmirror label\n".utf8))
      #expect(Samples.decode(bytes) == .failure(.checksum))
      Samples.fixChecksum(&bytes)
      #expect(!Samples.decode(bytes).isSuccess)
    }
  }

  @Test("is refused with a sequence or a generation that leaves no next one")
  func lastCounters() throws {
    var random = PRNG(seed: 23)
    let bytes = Samples.bytes(try Samples.label(&random))
    for (offset, name) in [(40, "sequence"), (160, "generation")] {
      for (value, isValid) in [
        (UInt64(1) << 63 - 1, true), (1 << 63, false), (UInt64.max, false),
      ] {
        var changed = bytes
        changed.withMutableRawSpan { $0.store(littleEndian: value, at: offset) }
        Samples.fixChecksum(&changed)
        let result = Samples.decode(changed)
        #expect(result.isSuccess == isValid, "\(name) \(value)")
        guard case .failure(let error) = result else { continue }
        #expect(error.description.contains(name), "\(error)")
      }
    }
  }

  @Test("of a later major version or with unknown features says so")
  func versions() throws {
    var random = PRNG(seed: 17)
    let bytes = Samples.bytes(try Samples.label(&random))
    var later = bytes
    later[16] = 2
    Samples.fixChecksum(&later)
    #expect(Samples.decode(later) == .failure(.version(major: 2, minor: 0)))
    var minor = bytes
    minor[18] = 9
    Samples.fixChecksum(&minor)
    #expect(Samples.decode(minor).isSuccess)
    var features = bytes
    features[32] = 4
    Samples.fixChecksum(&features)
    #expect(Samples.decode(features) == .failure(.unknownFeatures(4)))
    var compatible = bytes
    compatible[24] = 4
    Samples.fixChecksum(&compatible)
    let label = try Samples.decode(compatible).get()
    #expect(label.features.compatible == 4)
    #expect(try Samples.decode(Samples.bytes(label)).get().features.compatible == 0)
  }

  @Test("of a later read-only-compatible feature must not be written")
  func readOnlyFeatures() {
    #expect(Features().allowsWriting)
    #expect(!Features(readOnlyCompatible: 1).allowsWriting)
    #expect(Features(compatible: 1).allowsWriting)
  }

  @Test("has a name of 1 to 255 bytes that can be a file's name")
  func names() {
    #expect(Label.nameProblem("") != nil)
    #expect(Label.nameProblem("a") == nil)
    #expect(Label.nameProblem(String(repeating: "x", count: 255)) == nil)
    #expect(Label.nameProblem(String(repeating: "x", count: 256)) != nil)
    #expect(Label.nameProblem(String(repeating: "é", count: 127)) == nil)
    #expect(Label.nameProblem(String(repeating: "é", count: 128)) != nil)
    for bad in [".", "..", ".x", "-x", "a/b", "a\nb", "a\0b", "a\u{7f}"] {
      #expect(Label.nameProblem(bad) != nil, "\(bad.debugDescription)")
    }
    for good in ["a.b", "a-b", "data base", "日本"] { #expect(Label.nameProblem(good) == nil) }
  }
}

extension Result {
  var isSuccess: Bool {
    if case .success = self { return true }
    return false
  }
}
