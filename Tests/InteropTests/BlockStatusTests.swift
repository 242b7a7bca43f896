// Goal: what block status calls a hole reads as zeros from every leg, what it calls data is what was
// written, and the map of the mirror's state follows what happens to it. Method: libnbd with a model
// of the contents, nbdinfo, nbdcopy and qemu-img as people use them.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct BlockStatus {
    /// `extents(context, flags)` asks until the whole export is told: [(offset, length, flags)].
    private static let helpers = """
      def selecting(*contexts):
          h = nbd.NBD()
          h.set_strict_mode(0)
          for context in contexts:
              h.add_meta_context(context)
          h.connect_uri(URI)
          return h
      def extents(h, context, flags=0):
          at, size, found = 0, h.get_size(), []
          while at < size:
              told = []
              def extent(name, offset, entries, error):
                  if name == context:
                      assert offset == at and entries, (offset, at, entries)
                      told.extend(zip(entries[0::2], entries[1::2]))
              h.block_status(size - at, at, extent, flags)
              assert told, "every selected context is answered"
              for length, status in told:
                  assert 0 < length <= size - at
                  found.append((at, length, status))
                  at += length
          return found
      ALLOCATION, STATE = "base:allocation", "x-nbdmirror:state"

      """

    @Test("holes read as zeros and data is told as data, through writes, zeroes and trims")
    func model() async throws {
      try await withMirror(legs: 3, size: "64M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          Self.helpers + """
            h = selecting(STATE, ALLOCATION)
            rng, size, page = random.Random(71), h.get_size(), 4096
            model = bytearray(size)
            for turn in range(30):
                for step in range(8):
                    at, count = rng.randrange(size - 300000), rng.choice((1, 700, 4096, 65536, 262144))
                    if rng.randrange(3):
                        h.pwrite(rng.randbytes(count), at)
                        model[at:at + count] = h.pread(count, at)
                    else:
                        rng.choice((h.zero, h.trim))(count, at)
                        model[at:at + count] = h.pread(count, at)
                for offset, length, status in extents(h, ALLOCATION):
                    assert status in (0, 3), status
                    if status == 3:
                        part = model[offset:offset + length]
                        assert not any(part), f"a hole at {offset}, {length} bytes, is not zero"
            assert h.pread(32 * MiB, 0) == model[:32 * MiB]
            told = extents(h, ALLOCATION)
            data = sum(length for _, length, status in told if status == 0)
            written = sum(any(model[at:at + page]) for at in range(0, size, page)) * page
            # A page, or a huge page, is the least that a file can allocate.
            assert written <= data < size, (written, data)
            # One extent is enough for REQ_ONE, and it does not end beyond the request.
            for offset, length, status in told[:50]:
                one = []
                h.block_status(
                    length + 10, offset, lambda n, o, e, err: one.append((n, e)) and 0,
                    nbd.CMD_FLAG_REQ_ONE)
                assert sorted(n for n, _ in one) == [ALLOCATION, STATE]
                assert all(len(e) == 2 and e[0] <= length + 10 for _, e in one), one
            """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("a range is a hole only if it is one on every leg that is read")
    func everyLeg() async throws {
      try await withMirror(size: "64M") { mirror in
        // Zeros that are written into one PV make its file dense, and change no byte.
        let offset = try await mirror.examine(mirror.paths[1]).dataOffset
        try await must([
          "dd", "if=/dev/zero", "of=\(mirror.paths[1])", "bs=1M", "count=8", "conv=notrunc,fsync",
          "oflag=seek_bytes", "seek=\(offset + (16 << 20))",
        ])
        try await mirror.serve()
        let both =
          Self.helpers + """
            told = extents(selecting(ALLOCATION), ALLOCATION)
            """
        try await libnbd(
          mirror.uri,
          both + """

            assert told == [(0, 16 * MiB, 3), (16 * MiB, 8 * MiB, 0), (24 * MiB, 40 * MiB, 3)], told
            """)
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await libnbd(mirror.uri, both + "\nassert told == [(0, 64 * MiB, 3)], told")
        try await mirror.stop()
      }
    }

    @Test("the map of the state shows what a leg misses, until it has it")
    func state() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        let map = ["nbdinfo", "--map=x-nbdmirror:state", "--totals", mirror.uri]
        #expect(try await must(map).output.split(separator: "\n").count == 1)
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await libnbd(
          mirror.uri,
          Self.helpers + """
            h = selecting(STATE)
            h.pwrite(b"missed", 20 * MiB + 5)
            h.flush()
            told = extents(h, STATE)
            assert [e[:2] for e in told if e[2] & 2] == [(20 * MiB, MiB)], told
            """)
        try await mirror.mustAdmin(["leg", "readd", "1"])
        try await mirror.mustAdmin(["resync", "wait"])
        try await libnbd(
          mirror.uri,
          Self.helpers + """
            told = extents(selecting(STATE), STATE)
            assert not any(e[2] & 6 for e in told), told
            """)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("nbdcopy and qemu-img keep the holes of a sparse disk, and every byte")
    func copies() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        let source = mirror.directory + "/source.img"
        try await makeSparseNoise(source, bytes: 64 << 20, seed: 72)
        try await must(["nbdcopy", source, mirror.uri])
        let map = try await must(["nbdinfo", "--map", "--totals", mirror.uri]).output
        #expect(map.contains("hole,zero") && map.contains("data"), "\(map)")
        let copy = mirror.directory + "/copy.img"
        try await must(["nbdcopy", mirror.uri, copy])
        try await must(["cmp", source, copy])
        let image = mirror.directory + "/image.raw"
        try await must(["qemu-img", "convert", "-f", "raw", "-O", "raw", mirror.uri, image])
        try await must(["qemu-img", "compare", "-f", "raw", "-F", "raw", image, mirror.uri])
        let told = try await must(["qemu-img", "map", "--output=json", "-f", "raw", mirror.uri])
        #expect(told.output.contains("\"data\": false"), "\(told)")
        for file in [copy, image] {
          let blocks = try await must(["stat", "-c", "%b", file])
          let allocated =
            512 * (Int(blocks.output.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0)
          #expect(allocated > 0 && allocated < 56 << 20, "\(file) has \(allocated) bytes")
        }
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test(
      "without a context, without bytes and past the end it is EINVAL, and the connection lives")
    func refusals() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve()
        try await libnbd(
          mirror.uri,
          Self.helpers + """
            none = lambda *arguments: 0
            h = connect()
            refused("EINVAL", lambda: h.block_status(4096, 0, none))
            h = selecting(ALLOCATION)
            refused("EINVAL", lambda: h.block_status(0, 0, none))
            refused("EINVAL", lambda: h.block_status(1, 16 * MiB, none))
            refused("EINVAL", lambda: h.block_status(4096, 0, none, nbd.CMD_FLAG_DF))
            assert extents(h, ALLOCATION)
            """)
        try await mirror.stop()
      }
    }

    /// At once: while the label of the start is written, for which clients wait as for any leg.
    @Test(
      "a file system that hangs holds nobody up: its file counts as data, others go on",
      arguments: [(true, 1.0), (false, 5.0)])
    func hangingFile(isSettled: Bool, secondsMax: Double) async throws {
      let folder = try TemporaryDirectory()
      defer { folder.remove() }
      let hanging = "\(folder.path)/b.pv"
      _ = FileManager.default.createFile(atPath: hanging, contents: nil)
      let fuse = try BackgroundProcess(
        ["nbdfuse", hanging, "--command", "nbdkit", "-s", "memory", "96M"], directory: folder.path)
      defer {
        fuse.signal(SIGCONT)
        fuse.end()
      }
      try await eventually("the file of the PV is there", within: 20) {
        (try FileManager.default.attributesOfItem(atPath: hanging)[.size] as? Int ?? 0) > 0
      }
      try await withMirror(
        on: ["\(folder.path)/a.pv", hanging], size: "64M", options: ["--init", "assume-clean"],
        directory: folder.path
      ) { mirror in
        try await mirror.serve([
          "--threads", "1", "--read-policy", "prefer=0", "--leg-timeout", isSettled ? "30" : "1",
        ])
        if isSettled {
          try await eventually("the label of the start is written", within: 20) {
            try await mirror.admin(["events"]).output.contains("label-written")
          }
        }
        fuse.signal(SIGSTOP)
        // Before the server is ended: the end of a process waits for its files.
        defer { fuse.signal(SIGCONT) }
        try await libnbd(
          mirror.uri,
          Self.helpers + """
            import time
            busy, asking = connect(), selecting(ALLOCATION)
            told = []
            def extent(name, offset, entries, error):
                told.extend(entries[0::2])
                assert not any(entries[1::2]), "what nobody can say is data"
            cookie = asking.aio_block_status(64 * MiB, 0, extent)
            begun, slowest, reads = time.monotonic(), 0, 0
            while not asking.aio_command_completed(cookie):
                assert time.monotonic() - begun < 30
                asking.poll(0)
                before = time.monotonic()
                busy.pread(4096, 0)
                slowest = max(slowest, time.monotonic() - before)
                reads += 1
            assert sum(told) == 64 * MiB and reads > \(isSettled ? 1 : 0), (told, reads)
            assert slowest < \(secondsMax), slowest
            """)
      }
      try await must(["fusermount3", "-u", hanging])
    }
  }
}
