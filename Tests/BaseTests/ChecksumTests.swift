// Goal: the checksum is CRC32C on every path. Method: RFC 3720's vectors, and the instruction
// against the table over every length and alignment that the word loop distinguishes.
import Base
import CChecksum
import Testing

@Suite("CRC32C")
struct ChecksumTests {
  @Test("gives the values of RFC 3720, appendix B.4")
  func vectors() {
    #expect([UInt8](repeating: 0, count: 32).withRawSpan { $0.crc32c() } == 0x8a91_36aa)
    #expect([UInt8](repeating: 0xff, count: 32).withRawSpan { $0.crc32c() } == 0x62a8_ab43)
    #expect([UInt8](0..<32).withRawSpan { $0.crc32c() } == 0x46dd_794e)
    #expect([UInt8]((0..<32).reversed()).withRawSpan { $0.crc32c() } == 0x113f_db5c)
  }

  @Test("is the same by instruction and by table, for every length and alignment")
  func paths() {
    var random = PRNG(seed: 1)
    let bytes = (0..<200).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    for start in 0..<9 {
      for end in start...bytes.count {
        let part = Array(bytes[start..<end])
        let table = unsafe part.withUnsafeBytes {
          unsafe nbdmirror_crc32c_portable(0, $0.baseAddress, $0.count)
        }
        #expect(part.withRawSpan { $0.crc32c() } == table)
      }
    }
  }
}
