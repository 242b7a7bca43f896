// Goal: whoever speaks NBD over TLS is served like anybody else, and whoever should not be served is
// not. Method: keys as certtool and psktool make them, real clients, images that come back unchanged,
// and Python's TLS for what no client does by itself: records of single bytes, abrupt ends.
import Fixtures
import Foundation
import Testing

extension Interop {
  @Suite(.serialized)
  struct Encryption {
    /// Serves a mirror over both transports with these options; the TCP port goes to `body`.
    private func withTLS(
      _ options: (Keys) -> [String], _ body: (MirrorUnderTest, Keys, Int) async throws -> Void
    ) async throws {
      let keys = try Keys.make()
      defer { keys.remove() }
      try await withMirror { mirror in
        try await mirror.serve(["--listen", "localhost:0"] + options(keys))
        let line = try #require(
          mirror.server?.output.split(separator: "\n").last { $0.contains("://localhost:") })
        let port = try #require(Int(line.split(separator: ":")[2].prefix { $0.isNumber }))
        try await body(mirror, keys, port)
      }
    }

    /// Copies an image in and out again.
    private func roundTrip(_ mirror: MirrorUnderTest, _ uri: String, seed: Int) async throws {
      let (image, copy) = ("\(mirror.directory)/in.img", "\(mirror.directory)/out.img")
      try await makeSparseNoise(image, bytes: 64 << 20, seed: seed)
      try await must(["nbdcopy", "--connections=4", "--requests=32", "--flush", image, uri])
      try await must(["nbdcopy", "--connections=4", "--requests=32", uri, copy])
      try await must(["cmp", image, copy])
    }

    @Test("nbdinfo and nbdcopy, certificates on both sides, over TCP and the unix socket")
    func certificates() async throws {
      try await withTLS {
        ["--tls", "require", "--tls-certificates", $0["mutual"], "--tls-verify-peer"]
      } _: { mirror, keys, port in
        let tcp = "nbds://localhost:\(port)/lab?tls-certificates=\(keys["mutual"])"
        let unix =
          "nbds+unix://localhost/lab?socket=\(mirror.socket)&tls-certificates=\(keys["mutual"])"
          + "&tls-hostname=localhost"
        for uri in [tcp, unix] {
          let info = try await must(["nbdinfo", uri])
          #expect(info.output.contains("with TLS"))
          try await roundTrip(mirror, uri, seed: 31)
        }
        #expect(mirror.server?.output.contains("nbds://localhost:") == true)
        #expect(mirror.server?.output.contains("nbds+unix:///lab?socket=") == true)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("nbdinfo and nbdcopy with a pre-shared key")
    func preShared() async throws {
      try await withTLS {
        ["--tls", "require", "--tls-psk", $0["users.psk"]]
      } _: { mirror, keys, port in
        let uri = "nbds://alice@localhost:\(port)/lab?tls-psk-file=\(keys["users.psk"])"
        let info = try await must(["nbdinfo", uri])
        #expect(info.output.contains("with TLS"))
        try await roundTrip(mirror, uri, seed: 32)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("qemu-img, qemu-io and qemu-nbd with certificates")
    func qemu() async throws {
      try await withTLS {
        ["--tls", "require-tcp", "--tls-certificates", $0["mutual"], "--tls-verify-peer"]
      } _: { mirror, keys, port in
        let tls = "tls-creds-x509,id=tls0,endpoint=client,dir=\(keys["mutual"])"
        let image =
          "driver=nbd,server.type=inet,server.host=localhost,server.port=\(port),export=lab,"
          + "tls-creds=tls0"
        let file = "\(mirror.directory)/in.img"
        try await makeSparseNoise(file, bytes: 64 << 20, seed: 33)
        try await must([
          "qemu-img", "convert", "--object", tls, "-n", "-f", "raw", "--target-image-opts", file,
          image,
        ])
        try await must(["nbdcopy", mirror.uri, "\(mirror.directory)/out.img"])
        try await must(["cmp", file, "\(mirror.directory)/out.img"])
        try await must([
          "qemu-io", "--object", tls, "--image-opts", image, "-c", "write -P 7 4k 8k", "-c",
          "write -z 64k 64k", "-c", "discard 128k 64k", "-c", "flush", "-c", "read -P 7 4k 8k",
          "-c", "read -P 0 64k 128k",
        ])
        try await expectListed(port, tls)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    /// qemu-nbd, as a client, names the export.
    private func expectListed(_ port: Int, _ credentials: String) async throws {
      let listed = try await must([
        "qemu-nbd", "--list", "--object", credentials, "--tls-creds", "tls0", "--bind", "localhost",
        "--port", "\(port)",
      ])
      #expect(listed.output.contains("export: 'lab'"), "\(listed)")
    }

    @Test("qemu-io and qemu-nbd with a pre-shared key")
    func qemuPreShared() async throws {
      try await withTLS {
        ["--tls", "require-tcp", "--tls-psk", $0["users.psk"]]
      } _: { mirror, keys, port in
        // QEMU wants this name, in a folder.
        try FileManager.default.createDirectory(
          atPath: keys["qemu"], withIntermediateDirectories: false)
        try FileManager.default.copyItem(atPath: keys["users.psk"], toPath: keys["qemu/keys.psk"])
        let tls = "tls-creds-psk,id=tls0,endpoint=client,dir=\(keys["qemu"]),username=bob"
        try await must([
          "qemu-io", "--object", tls, "--image-opts",
          "driver=nbd,server.type=inet,server.host=localhost,server.port=\(port),export=lab,"
            + "tls-creds=tls0", "-c", "write -P 9 1M 2M", "-c", "flush", "-c", "read -P 9 1M 2M",
        ])
        try await must(["qemu-io", "-f", "raw", mirror.uri, "-c", "read -P 9 1M 2M"])
        try await expectListed(port, tls)
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("nbd-client lists the export with certificates")
    func nbdClient() async throws {
      try await withTLS {
        ["--tls", "require", "--tls-certificates", $0["mutual"], "--tls-verify-peer"]
      } _: { mirror, keys, _ in
        let listed = try await must([
          "nbd-client", "-unix", mirror.socket, "-l", "-enable-tls", "-cacertfile",
          keys["mutual/ca-cert.pem"], "-certfile", keys["mutual/client-cert.pem"], "-keyfile",
          keys["mutual/client-key.pem"], "-tlshostname", "localhost",
        ])
        #expect(listed.output.contains("lab"), "\(listed)")
      }
    }

    @Test("who has no certificate, or one of somebody else, gets nothing; the log says why")
    func refusedCertificates() async throws {
      try await withTLS {
        ["--tls", "require", "--tls-certificates", $0["mutual"], "--tls-verify-peer"]
      } _: { mirror, keys, port in
        for (folder, reason) in [
          ("anonymous", "shows no certificate"), ("stranger", "certificate"),
          ("expired", "expired"),
        ] {
          let uri = "nbds://localhost:\(port)/lab?tls-certificates=\(keys[folder])"
          let info = try await run(["nbdinfo", uri])
          #expect(info.status != 0 && !info.output.contains("export-size"), "\(folder): \(info)")
          try await eventually("the refusal of \(folder) is told", within: 10) {
            try await mirror.admin(["events"]).output.split(separator: "\n")
              .contains { $0.contains("client-refused") && $0.contains(reason) }
          }
        }
        let plain = try await run(["nbdinfo", "nbd://localhost:\(port)/lab"])
        #expect(plain.status != 0 && !plain.output.contains("67108864"))
        let list = try await run(["nbdinfo", "--list", "nbd://localhost:\(port)/"])
        #expect(!list.output.contains("lab"), "LIST tells no names before TLS")
      }
    }

    @Test("a wrong key and an unknown user are dropped, and the next client is served")
    func refusedKeys() async throws {
      try await withTLS {
        ["--tls", "on", "--tls-psk", $0["users.psk"]]
      } _: { mirror, keys, port in
        for user in ["alice", "mallory"] {
          let uri = "nbds://\(user)@localhost:\(port)/lab?tls-psk-file=\(keys["other.psk"])"
          #expect(try await run(["nbdinfo", uri]).status != 0)
        }
        let uri = "nbds://bob@localhost:\(port)/lab?tls-psk-file=\(keys["users.psk"])"
        try await must(["nbdinfo", uri])
        // `on` leaves the choice to the client.
        try await must(["nbdinfo", "nbd://localhost:\(port)/lab"])
        try await must(["nbdinfo", mirror.uri])
      }
    }

    @Test(
      "requests in records of one byte, payloads in any pieces, a thousand requests in one breath",
      arguments: ["1.2", "1.3"])
    func anyRecords(version: String) async throws {
      try await withTLS {
        ["--tls", "require", "--tls-certificates", $0["anonymous"]]
      } _: { mirror, keys, port in
        let result = try await run(
          [
            "/usr/bin/python3", fixtures + "/tls_records.py", "\(port)", keys["anonymous"], version,
          ], seconds: 120)
        #expect(result.status == 0, "\(result)")
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("keys that cannot be used are told before anything is served")
    func badKeys() async throws {
      let keys = try Keys.make()
      defer { keys.remove() }
      try await withMirror { mirror in
        try keys.write("empty.psk", "")
        for (options, status, word) in [
          (["--tls", "require"], 2, "--tls-certificates"),
          (["--tls", "on", "--tls-psk", keys["none.psk"]], 1, "none.psk"),
          (["--tls-psk", keys["empty.psk"]], 1, "no pre-shared key"),
          (["--tls-certificates", keys.folder], 1, "ca-cert.pem"),
          (["--tls-psk", "x", "--tls-certificates", "y"], 2, "exclude"),
          (["--tls", "off", "--tls-psk", keys["users.psk"]], 2, "--tls off"),
        ] as [([String], Int32, String)] {
          let refused = try await mirror.serveRefused(options)
          #expect(refused.status == status && refused.errors.contains(word), "\(refused)")
        }
        try await mirror.serve(["--tls-psk", keys["users.psk"]])
      }
    }
  }
}
