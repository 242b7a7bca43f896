// Goal: what is said to the kernel is what its headers draw, and nothing that is received can trap.
// Method: requests written down a second time, attribute by attribute; a real kernel's answers; each
// of them cut at every byte and with random bytes changed.
import Base
import Netlink
import Testing

/// Bytes from hexadecimal text; blanks are for the eye.
func hex(_ text: String) -> [UInt8] {
  let digits = text.filter { !$0.isWhitespace }.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count - 1, by: 2).map {
    UInt8(digits[$0] * 16 + digits[$0 + 1])
  }
}

/// What Linux 6.18 answers to the question for the family `nlctrl`, which has one group.
let familyAnswer = hex(
  """
  88000000 1000 0000 07000000 df3b0000 01 02 0000
  0b00 0200 6e6c6374726c00 00
  0600 0100 1000 0000
  0800 0300 02000000
  0800 0400 00000000
  0800 0500 00000000
  2c00 0600
    1400 0100 0800 0100 03000000 0800 0200 0e000000
    1400 0200 0800 0100 0a000000 0800 0200 0c000000
  1c00 0700
    1800 0100 0800 0200 10000000 0b00 0100 6e6f7469667900 00
  """)

/// What the same kernel says after it, and what it says when there is no such family (`-ENOENT`).
let acknowledged = hex(
  "24000000 0200 0001 07000000 df3b0000 00000000 20000000 1000 0500 07000000 00000000")
let refused = hex(
  """
  30000000 0200 0000 07000000 df3b0000 feffffff 1c000000 1000 0500 07000000 00000000
  03010000 0800 0200 6e626400
  """)

/// A dead connection of device 3, of the family 0x23.
let deadLink = hex("1c000000 2300 0000 00000000 00000000 04 01 0000 0800 0100 03000000")

let device = DeviceConfiguration(
  index: 3, sizeBytes: 64 << 20, blockBytes: 4096, serverFlags: 0x56d, requestTimeoutSeconds: 10,
  deadTimeoutSeconds: 120, identifier: "lab 512 m")

/// Timeout, dead timeout, identifier, and the sockets 6 and 9.
let common = """
  0c00 0400 0a00000000000000
  0c00 0800 7800000000000000
  0e00 0a00 6c616220353132206d00 0000
  1c00 0780
    0c00 0180 0800 0100 06000000
    0c00 0180 0800 0100 09000000
  """

@Suite("Messages")
struct MessageTests {
  @Test("CONNECT, RECONFIGURE and DISCONNECT are encoded as the kernel's headers draw them")
  func requests() {
    #expect(
      NBDDriver.connect(device, sockets: [6, 9], family: 0x23, sequence: 5)
        == hex(
          """
          84000000 2300 0500 05000000 00000000 01 01 0000
          0800 0100 03000000
          0c00 0200 0000000400000000
          0c00 0300 0010000000000000
          0c00 0500 6d05000000000000
          """ + common))
    #expect(
      NBDDriver.reconfigure(device, sockets: [6, 9], family: 0x23, sequence: 5)
        == hex(
          "60000000 2300 0500 05000000 00000000 03 01 0000 0800 0100 03000000" + common))
    #expect(
      NBDDriver.disconnect(index: 3, family: 0x23, sequence: 5)
        == hex("1c000000 2300 0500 05000000 00000000 02 01 0000 0800 0100 03000000"))
    #expect(
      GenericFamily.request(name: "nbd", sequence: 7)
        == hex("1c000000 1000 0500 07000000 00000000 03 01 0000 0800 0200 6e626400"))
  }

  @Test("a kernel's answers are understood")
  func answers() throws {
    let family = try familyAnswer.withRawSpan { span throws(NetlinkError) in
      try NetlinkMessage.decode(span)
    }
    #expect(family.count == 1 && family[0].sequence == 7)
    #expect(try family[0].acknowledgement() == nil)
    let found = try #require(try GenericFamily(family[0]))
    #expect(found.id == 0x10 && found.groups == ["notify": 0x10])
    #expect(try acknowledgements(acknowledged + refused) == [0, 2])
    let dead = try deadLink.withRawSpan { span throws(NetlinkError) in
      try NetlinkMessage.decode(span)
    }
    #expect(try NBDDriver.deadLink(dead[0], family: 0x23) == 3)
    #expect(try NBDDriver.deadLink(dead[0], family: 0x24) == nil)
  }

  @Test("an acknowledgement that makes no sense is malformed")
  func wrongAcknowledgements() {
    for code in ["01000000", "00000080", "", "000000"] {
      let payload = hex(code)
      let header = [UInt8(16 + payload.count), 0, 0, 0] + hex("0200 0000 07000000 00000000")
      let bytes = header + payload
      #expect(throws: NetlinkError.malformed) { try acknowledgements(bytes) }
    }
  }

  @Test("an answer that is cut anywhere is malformed, and never trusted")
  func cut() {
    var malformed = 0
    for whole in [familyAnswer, acknowledged, refused, deadLink] {
      for count in 1..<whole.count {
        let part = Array(whole[..<count])
        #expect(throws: NetlinkError.malformed, "\(count)") { try understand(part) }
        // The same with a message's length that agrees: the attributes end too early.
        guard whole == familyAnswer || whole == deadLink, count >= 20 else { continue }
        var shorter = part
        shorter[0] = UInt8(count)
        do { _ = try understand(shorter) } catch { malformed += 1 }
      }
    }
    // An end between two attributes is none that can be seen.
    #expect(malformed > 60)
  }

  @Test("random bytes in an answer trap nothing")
  func random() {
    var random = PRNG(seed: 20)
    var malformed = 0
    for _ in 0..<20_000 {
      var bytes = [familyAnswer, acknowledged, refused, deadLink][Int(random.below(4))]
      for _ in 0...random.below(4) {
        bytes[Int(random.below(UInt64(bytes.count)))] = UInt8(random.below(256))
      }
      do { _ = try understand(bytes) } catch { malformed += 1 }
    }
    #expect(malformed > 1000 && malformed < 19_000)
  }

  private func acknowledgements(_ bytes: [UInt8]) throws -> [Int32?] {
    let messages = try bytes.withRawSpan { span throws(NetlinkError) in
      try NetlinkMessage.decode(span)
    }
    return try messages.map { try $0.acknowledgement() }
  }

  /// Everything that the driver's users ask of a datagram.
  @discardableResult
  private func understand(_ bytes: [UInt8]) throws -> Set<String> {
    var told: Set<String> = []
    let messages = try bytes.withRawSpan { span throws(NetlinkError) in
      try NetlinkMessage.decode(span)
    }
    for message in messages {
      if try message.acknowledgement() != nil { told.insert("acknowledged") }
      if try GenericFamily(message) != nil { told.insert("family") }
      if try NBDDriver.deadLink(message, family: 0x23) != nil { told.insert("dead") }
    }
    return told
  }
}
