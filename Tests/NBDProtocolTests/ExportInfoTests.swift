// Goal: an export says of itself what its connections can rely on. Method: the flag words by hand.
import NBDProtocol
import Testing

@Suite("Export")
struct ExportInfoTests {
  @Test("a writable export offers everything served; DF only with structured replies")
  func writable() {
    let export = ExportInfo(name: "x", sizeBytes: 4096)
    #expect(export.flags(structuredReplies: false).rawValue == 0b0000_1101_0110_1101)
    #expect(export.flags(structuredReplies: true).rawValue == 0b0000_1101_1110_1101)
  }

  @Test("a read-only export offers no trim and no zeroes")
  func readOnly() {
    let export = ExportInfo(name: "x", sizeBytes: 4096, isReadOnly: true, isRotational: true)
    #expect(export.flags(structuredReplies: false).rawValue == 0b0000_0101_0001_1111)
  }

  @Test("the size is rounded down to whole minimum blocks")
  func size() {
    #expect(ExportInfo(name: "x", sizeBytes: 8191, minimumBlockBytes: 4096).sizeBytes == 4096)
    #expect(ExportInfo(name: "x", sizeBytes: 8191).sizeBytes == 8191)
    let largest: UInt64 = 0x7fff_ffff_ffff_ffff
    let export = ExportInfo(name: "x", sizeBytes: largest, minimumBlockBytes: 512)
    #expect(export.sizeBytes == largest - 511)
  }

  @Test("errnos of legs become the protocol's errors and nothing else")
  func errnos() {
    #expect(nbdError(fromErrno: 30) == .notPermitted)
    for errno in [27, 28, 122] as [Int32] { #expect(nbdError(fromErrno: errno) == .noSpace) }
    #expect(nbdError(fromErrno: 108) == .shuttingDown)
    for errno in Int32(-4)...140 where ![27, 28, 30, 108, 122].contains(errno) {
      #expect(nbdError(fromErrno: errno) == .inputOutput)
    }
  }
}
