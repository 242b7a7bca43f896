// Goal: the corners of the protocol that the ready-made tools don't reach, through libnbd with its
// own checks off: odd offsets, no bytes, past the end, large payloads, many connections, leaving
// with requests in flight, commands that nobody knows.
import Fixtures
import Testing

extension Interop {
  struct LibNBD {
    @Test("single bytes at odd offsets change nothing beside them")
    func oddBytes() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          h = connect(block_size=False)
          rng = random.Random(21)
          model = bytearray(rng.randbytes(256 * 1024))
          h.pwrite(bytes(model), 0)
          edges = [e + d for e in (0, 511, 512, 4095, 4096, 65535, 65536) for d in (0, 1, 2)]
          for at in edges + [rng.randrange(len(model) - 16) for _ in range(300)]:
              piece = rng.randbytes(rng.choice((1, 1, 1, 3, 13)))
              h.pwrite(piece, at, rng.choice((0, nbd.CMD_FLAG_FUA)))
              model[at:at + len(piece)] = piece
              a = max(0, at - 7)
              assert h.pread(31, a) == bytes(model[a:a + 31]), f"around {at}"
          assert h.pread(len(model), 0) == bytes(model)
          size = h.get_size()
          h.pwrite(b"z", size - 1)
          assert h.pread(3, size - 3) == b"\\0\\0z"
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("odd zeroes and trims change nothing beside them")
    func oddZeroes() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          h = connect(block_size=False)
          rng = random.Random(22)
          model = bytearray(rng.randbytes(1 * MiB))
          h.pwrite(bytes(model), 0)
          for round in range(60):
              at, count = rng.randrange(1 * MiB - 70000), rng.choice((1, 100, 511, 4097, 65537))
              if round % 3:
                  h.zero(count, at, rng.choice((0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA)))
                  model[at:at + count] = bytes(count)
              else:
                  h.trim(count, at)
                  after = h.pread(count, at)
                  assert all(now in (0, was) for now, was in zip(after, model[at:at + count]))
                  model[at:at + count] = after
          assert h.pread(len(model), 0) == bytes(model)
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("requests without bytes neither fail the connection nor change a byte")
    func noBytes() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          for structured in (True, False):
              h = connect(structured=structured)
              h.pwrite(b"a" * 4096, 0)
              for call in (lambda: h.pread(0, 0), lambda: h.pwrite(b"", 0), lambda: h.zero(0, 0),
                           lambda: h.trim(0, 0), lambda: h.cache(0, 0)):
                  try:
                      call()
                  except nbd.Error as error:
                      assert error.errno == "EINVAL", error
              assert h.pread(4096, 0) == b"a" * 4096
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("requests past the end fail as the protocol says and the connection goes on")
    func pastTheEnd() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          for structured in (True, False):
              h = connect(structured=structured)
              size = h.get_size()
              last = b"e" * 4096
              h.pwrite(last, size - 4096)
              for at, count in ((size - 4096, 8192), (size, 4096), (size + 4096, 4096),
                                (1 << 62, 4096), ((1 << 63) - 4096, 8192)):
                  refused("EINVAL", lambda: h.pread(count, at))
                  refused("ENOSPC", lambda: h.pwrite(b"x" * count, at))
                  refused("ENOSPC", lambda: h.zero(count, at))
                  refused("EINVAL", lambda: h.trim(count, at))
                  refused("EINVAL", lambda: h.cache(count, at))
              assert h.pread(4096, size - 4096) == last
              h.pwrite(last, size - 4096)
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("payloads of 32, 47 and 64 MiB are written and read in one request")
    func largePayloads() async throws {
      try await withMirror(size: "128M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          h = connect()
          for count in (32 * MiB, 47 * MiB, 64 * MiB):
              data = random.Random(count).randbytes(count)
              h.pwrite(data, 8 * MiB)
              assert h.pread(count, 8 * MiB) == data, count
              assert h.pread(512, 8 * MiB - 512) == bytes(512), count
          h.flush()
          assert h.pread(4096, 72 * MiB) == bytes(4096)
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("what one connection wrote, the others read at once, and a flush of any covers it")
    func manyConnections() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          handles = [connect() for _ in range(16)]
          assert all(h.can_multi_conn() for h in handles)
          rng = random.Random(23)
          for round in range(400):
              writer, flusher, reader = rng.sample(handles, 3)
              at = rng.randrange(4096) * 4096
              data = rng.randbytes(4096)
              writer.pwrite(data, at)
              assert reader.pread(4096, at) == data
              if round % 4 == 0:
                  flusher.flush()
                  assert reader.pread(4096, at) == data
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a client that leaves politely gets every reply it still waits for")
    func politeGoodbye() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          w = connect()
          data = random.Random(24).randbytes(16 * MiB)
          w.pwrite(data, 0)
          h = connect()
          done = {}
          buffers = [nbd.Buffer(256 * 1024) for _ in range(64)]
          for i, buffer in enumerate(buffers):
              def completed(error, i=i):
                  done[i] = error if isinstance(error, int) else error.value
                  return 1
              h.aio_pread(buffer, i * 256 * 1024, completion=completed)
          h.aio_disconnect()
          while not h.aio_is_closed() and not h.aio_is_dead():
              h.poll(10000)
          assert done == {i: 0 for i in range(64)}, done
          for i, buffer in enumerate(buffers):
              assert buffer.to_bytearray() == data[i * 256 * 1024:(i + 1) * 256 * 1024], i
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("clients that vanish with reads and writes in flight hurt nobody")
    func rudeGoodbye() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          steady = connect()
          steady.pwrite(b"s" * 4096, 0)
          for round in range(30):
              h = connect()
              keep = []
              for i in range(100):
                  buffer = nbd.Buffer(64 * 1024) if i % 2 else nbd.Buffer.from_bytearray(
                      bytearray(bytes([round]) * 65536))
                  keep.append(buffer)
                  call = h.aio_pread if i % 2 else h.aio_pwrite
                  call(buffer, MiB + (i % 64) * 65536)
              socket.socket(fileno=os.dup(h.aio_get_fd())).shutdown(socket.SHUT_RDWR)
              del h
              assert steady.pread(4096, 0) == b"s" * 4096
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a command that nobody knows gets EINVAL and the connection goes on")
    func unknownCommand() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          """
          s = socket.socket(socket.AF_UNIX)
          s.connect(URI.split("socket=")[1])
          def take(count):
              data = b""
              while len(data) < count:
                  piece = s.recv(count - len(data))
                  assert piece, "the server hung up"
                  data += piece
              return data
          assert take(18)[:16] == b"NBDMAGICIHAVEOPT"
          s.sendall(struct.pack(">I", 3))
          s.sendall(b"IHAVEOPT" + struct.pack(">II", 999, 5) + b"hello")
          magic, option, kind, count = struct.unpack(">QIII", take(20))
          assert (magic, option, kind) == (0x3E889045565A9, 999, 0x80000001), hex(kind)
          take(count)
          s.sendall(b"IHAVEOPT" + struct.pack(">II", 7, 6) + struct.pack(">IH", 0, 0))
          while True:
              magic, option, kind, count = struct.unpack(">QIII", take(20))
              assert (magic, option) == (0x3E889045565A9, 7)
              take(count)
              if kind == 1:
                  break
              assert kind == 3, hex(kind)
          def ask(kind, cookie, at, count, flags=0):
              s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, at, count))
              magic, error, got = struct.unpack(">IIQ", take(16))
              assert (magic, got) == (0x67446698, cookie)
              return error
          assert ask(99, 1, 0, 4096) == errno.EINVAL
          assert ask(0, 2, 0, 512) == 0
          assert take(512) == bytes(512)
          assert ask(0, 3, 0, 512, flags=1 << 15) == errno.EINVAL
          assert ask(3, 4, 0, 0) == 0
          """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
