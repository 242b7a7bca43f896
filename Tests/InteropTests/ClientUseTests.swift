// Goal: docs/clients.md is true. It says which features of the protocol each client is tested with;
// here each client is made to use them, and the server's own counters have to show that it did.
//
// Method: a mirror of two files, one client, the counters of the requests before and after it. Block
// status is only given to who negotiated structured replies, so a count of it proves both. What the
// clients read and wrote is checked by themselves, and by comparing the legs.
import Fixtures
import Foundation
import Testing

/// A client and what it has to use.
struct ClientUse: Sendable, CustomTestStringConvertible {
  let name: String
  /// A shell command; `$uri`, `$socket` and `$dir` stand for what they say.
  let command: String
  /// Operations, as the counters call them.
  let operations: Set<String>
  /// How many connections it opens; nil: it does not matter.
  var connections: Int?
  var testDescription: String { name }
}

/// QEMU's words for the export.
private let node = "driver=nbd,server.type=unix,server.path=$socket,export="

let clientUses = [
  ClientUse(
    name: "nbdinfo", command: "nbdinfo --map --totals \"$uri\"", operations: ["block-status"]),
  ClientUse(
    name: "nbdcopy into the mirror",
    command: """
      truncate -s 64M "$dir/holes.img"
      head -c 16M /dev/urandom | dd of="$dir/holes.img" conv=notrunc status=none
      nbdcopy --connections=4 --threads=4 --flush "$dir/holes.img" "$uri"
      """,
    operations: ["write", "zero", "flush"], connections: 4),
  ClientUse(
    name: "nbdcopy out of the mirror",
    command: """
      /usr/bin/python3 -m nbd -u "$uri" -c 'h.pwrite(b"c" * 1048576, 33 << 20)'
      nbdcopy --connections=4 --threads=4 "$uri" "$dir/out.img"
      test "$(tr -d '\\0' <"$dir/out.img" | tr -d c | wc -c)" = 0
      test "$(tr -d '\\0' <"$dir/out.img" | wc -c)" = 1048576
      """,
    operations: ["read", "block-status"], connections: 5),
  ClientUse(
    name: "nbdsh",
    command: """
      /usr/bin/python3 -m nbd --base-allocation -u "$uri" -c '
      h.pwrite(b"s" * 4096, 0, nbd.CMD_FLAG_FUA)
      h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
      h.trim(4096, 8192)
      h.flush()
      h.cache(4096, 0)
      h.block_status(65536, 0, lambda *arguments: 0)
      assert h.pread(8192, 0) == b"s" * 4096 + bytes(4096)'
      """,
    operations: ["read", "write", "zero", "trim", "flush", "cache", "block-status"],
    connections: 1),
  ClientUse(
    name: "qemu-img convert",
    command: """
      truncate -s 64M "$dir/holes.img"
      head -c 16M /dev/urandom | dd of="$dir/holes.img" conv=notrunc status=none
      qemu-img convert -f raw -O raw -n -W -m 8 "$dir/holes.img" "$uri"
      qemu-img compare -f raw -F raw "$dir/holes.img" "$uri"
      """,
    operations: ["read", "write", "zero", "flush", "block-status"]),
  ClientUse(
    name: "qemu-img map", command: "qemu-img map -f raw --output=json \"$uri\"",
    operations: ["block-status"]),
  ClientUse(
    name: "qemu-io",
    command: """
      qemu-io -t none -d unmap --trace nbd_send_request --image-opts "\(node)" -c 'write -f -P 7 0 64k' \
        -c 'write -z 64k 64k' -c 'write -z -u 128k 64k' -c 'discard 192k 64k' -c flush \
        -c 'read -P 7 0 64k' -c 'read -P 0 64k 192k' -c map >"$dir/said" 2>"$dir/sent"
      if grep -q failed "$dir/said"; then exit 1; fi
      grep -qF 'flags = 0x1, .type = 1 (write)' "$dir/sent"
      """,
    operations: ["read", "write", "zero", "trim", "flush", "block-status"]),
  ClientUse(
    name: "qemu-nbd",
    command: """
      qemu-nbd --list -k "$socket" >"$dir/said"
      grep -q "export: 'lab'" "$dir/said"
      grep -q 'size:  67108864' "$dir/said"
      grep -qx ' *base:allocation' "$dir/said"
      grep -qx ' *x-nbdmirror:state' "$dir/said"
      """,
    operations: []),
  ClientUse(
    name: "nbd-client",
    command: """
      nbd-client -l -unix "$socket" | tee "$dir/said"
      grep -qE "^lab: mirror [0-9a-f-]{36}$" "$dir/said"
      """,
    operations: [], connections: 1),
  ClientUse(
    name: "fio",
    command: """
      fio --ioengine=nbd --uri="$uri" --bs=16k --iodepth=16 --fsync=16 --size=8m --numjobs=4 \
        --offset_increment=16m --name=verify --rw=randrw --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0
      fio --ioengine=nbd --uri="$uri" --bs=16k --iodepth=16 --size=8m --name=trim --rw=randtrim
      """,
    operations: ["read", "write", "flush", "trim"]),
]

extension Interop {
  struct Clients {
    /// The counters of one family by operation; without one under the empty word.
    private static func counters(
      _ family: String, _ mirror: MirrorUnderTest
    ) async throws -> [String: Int] {
      var counters: [String: Int] = [:]
      for line in try await mirror.admin(["metrics"]).output.split(separator: "\n")
      where line.hasPrefix(family + "{") {
        let words = line.split(separator: " ")
        let operation = words[0].split(separator: "operation=\"").dropFirst().first
        let name = operation.map { String($0.prefix { $0 != "\"" }) } ?? ""
        let count = try #require(Int(words[1]), "\(line)")
        counters[name] = count
      }
      return counters
    }

    /// Expects that clients asked for these operations. The counters are published with each tick.
    private static func expect(_ operations: Set<String>, _ mirror: MirrorUnderTest) async throws {
      var requests: [String: Int] = [:]
      do {
        try await eventually("the operations are counted", within: 10, every: 0.1) {
          requests = try await counters("nbdmirror_requests_total", mirror)
          return operations.allSatisfy { requests[$0, default: 0] > 0 }
        }
      } catch {
        Issue.record("not all of \(operations.sorted()) were asked for: \(requests)")
      }
    }

    @Test("a client uses what docs/clients.md says of it", arguments: clientUses)
    func uses(_ client: ClientUse) async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        let script = """
          set -euo pipefail
          uri='\(mirror.uri)' socket='\(mirror.socket)' dir='\(mirror.directory)'

          """
        try await must(["bash", "-c", script + client.command])
        try await Self.expect(client.operations, mirror)
        let failed = try await Self.counters("nbdmirror_request_errors_total", mirror)
        #expect(failed.values.allSatisfy { $0 == 0 }, "\(failed)")
        if let connections = client.connections {
          // The counters are published with each tick, and no operation was waited for here.
          try await eventually("\(connections) connections are counted", within: 10, every: 0.1) {
            try await Self.counters("nbdmirror_connections_total", mirror)[""] ?? 0 >= connections
          }
          let total = try await Self.counters("nbdmirror_connections_total", mirror)
          #expect(total == ["": connections])
        }
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test(
      "docs/clients.md has the versions that the tests run with",
      .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/dpkg-query")))
    func versions() async throws {
      let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path
      let text = try String(contentsOfFile: "\(root)/docs/clients.md", encoding: .utf8)
      var checked: Set<Substring> = []
      // The second cell of a row is `package` version.
      for line in text.split(separator: "\n") where line.hasPrefix("| ") {
        let words = line.split(separator: "|")[1].split(separator: " ")
        guard words.count == 2, words[0].hasPrefix("`") else { continue }
        let package = words[0].dropFirst().dropLast()
        let query = try await must(["dpkg-query", "-W", "-f", "${Version}", "\(package)"])
        // What stands before the colon is the epoch.
        let version = query.output.split(separator: ":").last ?? ""
        let next = version.dropFirst(words[1].count).first
        #expect(version.hasPrefix(words[1]) && next?.isNumber != true, "\(package) is \(version)")
        checked.insert(package)
      }
      #expect(checked.count == 6, "\(checked)")
    }

    @Test(
      "a file system on a loop device over nbdfuse holds, and is there again after a new attach",
      .enabled(
        if: FileHandle(forUpdatingAtPath: "/dev/fuse") != nil,
        "no /dev/fuse that can be opened here"))
    func fuse() async throws {
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        let script = """
          set -euo pipefail
          cd '\(mirror.directory)'
          mkdir fuse disk
          device=
          attach() {
            nbdfuse --pidfile fuse.pid fuse '\(mirror.uri)' &
            for _ in {1..200}; do if [[ -f fuse/nbd ]]; then break; fi; sleep 0.05; done
            device=$(losetup --find --show --direct-io=on fuse/nbd)
          }
          detach() {
            if mountpoint -q disk; then umount disk; fi
            if [[ -n $device ]]; then losetup -d "$device"; device=; fi
            if mountpoint -q fuse; then fusermount3 -u fuse; fi
            wait
          }
          trap detach EXIT
          attach
          mke2fs -q -t ext4 "$device"
          mount -t ext4 "$device" disk
          fio --name=file --directory=disk --rw=randrw --bs=4k --size=8m --ioengine=libaio \
            --direct=1 --iodepth=16 --fsync=64 --verify=crc32c --verify_fatal=1 \
            --verify_state_save=0
          head -c 8M /dev/urandom >disk/noise
          sum=$(sha256sum <disk/noise)
          detach
          attach
          e2fsck -fn "$device"
          mount -t ext4 -o ro "$device" disk
          [[ $(sha256sum <disk/noise) == "$sum" ]]
          """
        try await must(["bash", "-c", script])
        try await Self.expect(["read", "write", "flush"], mirror)
        // Four for each attach: it takes the offer of CAN_MULTI_CONN.
        #expect(try await Self.counters("nbdmirror_connections_total", mirror) == ["": 8])
        try await mirror.expectEqualLegsAfterStop()
      }
    }
  }
}
