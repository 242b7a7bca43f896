// The programs that people attach to an NBD server, as Debian ships them, against this server.
//
// Method: each test makes a mirror of two files, serves it, lets a real client work on it, judges
// by what the client measured itself (fio's and nbdcopy's own verification, cmp), stops the server
// cleanly, and then compares the two PVs' data areas byte by byte, past the server.
import Fixtures
import Foundation
import Testing

/// All interop tests, one after the other: each has a server and its clients on two cores.
@Suite(.serialized, .timeLimit(.minutes(5)))
enum Interop {}

extension MirrorUnderTest {
  /// Stops the server and expects equal data areas.
  func expectEqualLegsAfterStop(sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let difference = try await stopAndCompare()
    #expect(difference == nil, sourceLocation: sourceLocation)
  }
}

/// Runs a client that has to succeed.
@discardableResult
func must(
  _ command: [String], seconds: Double = 120, sourceLocation: SourceLocation = #_sourceLocation
) async throws -> CommandResult {
  let result = try await run(command, seconds: seconds)
  try #require(result.status == 0, "\(result)", sourceLocation: sourceLocation)
  return result
}

/// Runs Python statements with libnbd's bindings; an assertion in them fails the test.
///
/// `connect(...)` gives a handle that sends whatever it is told (strict mode off); `refused(name, f)`
/// asserts that `f` fails with that errno.
func libnbd(
  _ uri: String, _ script: String, seconds: Double = 60,
  sourceLocation: SourceLocation = #_sourceLocation
) async throws {
  let prelude = """
    import errno, nbd, os, random, select, socket, struct, sys
    URI = sys.argv[1]
    MiB = 1 << 20
    def connect(block_size=True, structured=True):
        h = nbd.NBD()
        h.set_strict_mode(0)
        h.set_request_block_size(block_size)
        h.set_request_structured_replies(structured)
        h.connect_uri(URI)
        return h
    def refused(name, call):
        try:
            call()
        except nbd.Error as error:
            assert error.errno == name, f"expected {name}, got {error.errno}: {error}"
        else:
            raise AssertionError(f"expected {name}, but it succeeded")

    """
  try await must(
    ["/usr/bin/python3", "-c", prelude + script, uri], seconds: seconds,
    sourceLocation: sourceLocation)
}

/// Writes `bytes` bytes of seeded noise, every fourth 64 KiB a hole, to a new file.
func makeSparseNoise(_ path: String, bytes: Int, seed: UInt64) throws {
  guard FileManager.default.createFile(atPath: path, contents: nil) else {
    throw FixtureError("can't create \(path)")
  }
  let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
  var state = seed
  let chunk = 64 << 10
  for index in 0..<(bytes / chunk) where index % 4 != 3 {
    try file.seek(toOffset: UInt64(index * chunk))
    var block = [UInt64](repeating: 0, count: chunk / 8)
    for word in block.indices {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      block[word] = state ^ (state >> 29)
    }
    try file.write(
      contentsOf: Data(
        block.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }))
  }
  try file.truncate(atOffset: UInt64(bytes))
  try file.close()
}
