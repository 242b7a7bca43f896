// Goal: what the protocol has gained over the years works end to end: extended headers, zeroes that
// are fast or refused, holes instead of zeros in reads. Method: a client in Python where Debian has
// none, libnbd for the rest; a file system that cannot punch holes for what is slow.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct Extensions {
    @Test("requests, replies and block status in 64 bits, with extended headers")
    func extendedHeaders() async throws {
      try await withMirror(size: "6G") { mirror in
        try await mirror.serve()
        try await must(
          ["/usr/bin/python3", fixtures + "/extended_headers.py", mirror.socket], seconds: 120)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("fast zeroes are made by punching holes, and the data before and behind stays")
    func fastZeroes() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          assert h.can_fast_zero()
          h.pwrite(b"x" * MiB, 0)
          h.zero(MiB // 2, 1000, nbd.CMD_FLAG_FAST_ZERO)
          h.zero(4096, 800000, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
          expected = bytearray(b"x" * MiB)
          expected[1000:1000 + MiB // 2] = bytes(MiB // 2)
          expected[800000:804096] = bytes(4096)
          assert h.pread(MiB, 0) == expected
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("where one leg would have to write the zeros, fast zeroes are ENOTSUP and change nothing")
    func slowZeroes() async throws {
      let place = try TemporaryDirectory()
      defer { place.remove() }
      // It knows neither FALLOC_FL_PUNCH_HOLE nor FALLOC_FL_ZERO_RANGE.
      try await must(["mount", "-t", "ramfs", "ramfs", place.path])
      func body() async throws {
        let fast = try TemporaryDirectory()
        defer { fast.remove() }
        try await withMirror(
          on: ["\(fast.path)/a.pv", "\(place.path)/b.pv"], size: "16M", directory: fast.path
        ) { mirror in
          try await mirror.serve()
          try await libnbd(
            mirror.uri,
            """
            h = connect()
            h.pwrite(b"x" * MiB, 0)
            for flags in 0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA:
                refused("ENOTSUP", lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO | flags))
            assert h.pread(MiB, 0) == b"x" * MiB
            h.zero(4096, 0)
            assert h.pread(MiB, 0) == bytes(4096) + b"x" * (MiB - 4096)
            """)
          try await mirror.expectEqualLegsAfterStop()
        }
      }
      let result = await Result.of { try await body() }
      try await must(["umount", place.path])
      try result.get()
    }

    @Test("reads of zeros are holes for who understands chunks, and zeros for who does not")
    func sparseReads() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          def kinds(h, count, offset, flags=0):
              found = []
              def chunk(data, at, status, error):
                  found.append((status, at, len(data)))
                  assert status != nbd.READ_HOLE or len(data) == 0 or not any(data)
                  return 0
              return found, h.pread_structured(count, offset, chunk, flags)
          h = connect()
          h.pwrite(b"x" + bytes(70000), 100000)
          for count, offset in ((MiB, 2 * MiB), (4096, 0), (512, 7), (60000, 100001)):
              found, data = kinds(h, count, offset)
              assert [status for status, _, _ in found] == [nbd.READ_HOLE], found
              assert data == bytes(count)
          for count, offset in ((MiB, 0), (60001, 100000), (511, 0), (100001, 0)):
              found, data = kinds(h, count, offset)
              assert [status for status, _, _ in found] == [nbd.READ_DATA], found
              expected = bytearray(count)
              if offset <= 100000 < offset + count:
                  expected[100000 - offset] = ord("x")
              assert data == expected
          simple = connect(structured=False)
          assert simple.pread(MiB, 2 * MiB) == bytes(MiB)
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}

extension Result where Success == Void, Failure == any Error {
  /// What became of an asynchronous piece of work.
  fileprivate static func of(_ body: () async throws -> Void) async -> Self {
    do {
      return .success(try await body())
    } catch {
      return .failure(error)
    }
  }
}
