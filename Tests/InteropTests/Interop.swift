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

/// Makes a file of seeded noise in which every fourth 64 KiB is a hole.
func makeSparseNoise(_ path: String, bytes: Int, seed: Int) async throws {
  try await must([
    "/usr/bin/python3", "-c",
    """
    import random
    noise, chunk = random.Random(\(seed)), 65536
    with open("\(path)", "wb") as file:
        for index in range(\(bytes) // chunk):
            if index % 4 != 3:
                file.seek(index * chunk)
                file.write(noise.randbytes(chunk))
        file.truncate(\(bytes))
    """,
  ])
}
