// Goal: the examples for libvirt are what libvirt takes, and the disk that they describe works.
//
// Method: xmllint holds them against the schemas of Debian's libvirt, which Tests/run.sh unpacks, as
// virt-xml-validate does; a broken copy has to be refused. No daemon runs here, so QEMU gets the
// options that stand in the example, and a guest has to outlive a restart of the server on them.
import Fixtures
import Foundation
import Testing

/// The repository's root.
private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent().path

/// The folder of libvirt's schemas: NBDMIRROR_LIBVIRT_SCHEMAS, else where Tests/run.sh puts them;
/// nil if there is none.
private func findSchemas() -> String? {
  let named = ProcessInfo.processInfo.environment["NBDMIRROR_LIBVIRT_SCHEMAS"]
  return [named, "\(root)/.build/libvirt/usr/share/libvirt/schemas"].compactMap { $0 }.first {
    FileManager.default.fileExists(atPath: "\($0)/domain.rng")
  }
}

extension VirtualMachines {
  struct Libvirt {
    private static func example(_ name: String) throws -> String {
      try String(contentsOfFile: "\(root)/Examples/libvirt/\(name)", encoding: .utf8)
    }

    /// Holds a domain against the schema.
    private static func validate(_ domain: String) async throws -> CommandResult {
      let schemas = try #require(findSchemas())
      let directory = try TemporaryDirectory()
      defer { directory.remove() }
      let path = "\(directory.path)/domain.xml"
      try domain.write(toFile: path, atomically: true, encoding: .utf8)
      return try await run([
        "xmllint", "--nonet", "--noout", "--relaxng", "\(schemas)/domain.rng", path,
      ])
    }

    @Test(
      "libvirt's schema takes the example of a domain, and not one that is broken",
      .enabled(if: findSchemas() != nil, "needs libvirt's schemas, which Tests/run.sh fetches"))
    func domain() async throws {
      let domain = try Self.example("domain.xml")
      let taken = try await Self.validate(domain)
      #expect(taken.status == 0, "\(taken)")
      for (word, typo) in [("<qemu:arg value=", "<qemu:arg val="), ("<vcpu>", "<vcpu>x")] {
        #expect(domain.contains(word))
        let broken = domain.replacingOccurrences(of: word, with: typo)
        #expect(try await Self.validate(broken).status != 0, "\(typo) was taken")
      }
    }

    @Test(
      "libvirt's schema takes the example of a disk but for what is newer, and not one that is broken",
      .enabled(if: findSchemas() != nil, "needs libvirt's schemas, which Tests/run.sh fetches"))
    func disk() async throws {
      let disk = try Self.example("disk.xml")
      // Debian's 9.0 does not know it yet: that is why domain.xml does without.
      let newer = "    <reconnect delay='60'/>\n"
      #expect(disk.components(separatedBy: newer).count == 2)
      func domain(_ disk: String) throws -> String {
        try Self.example("domain.xml").replacingOccurrences(
          of: "  <devices>\n", with: "  <devices>\n\(disk)")
      }
      let known = disk.replacingOccurrences(of: newer, with: "")
      let taken = try await Self.validate(domain(known))
      #expect(taken.status == 0, "\(taken)")
      for (word, typo) in [
        ("protocol='nbd'", "protocol='ndb'"), ("<host transport", "<hst transport"),
      ] {
        #expect(known.contains(word))
        let broken = known.replacingOccurrences(of: word, with: typo)
        #expect(try await Self.validate(domain(broken)).status != 0, "\(typo) was taken")
      }
    }

    @Test(
      "a guest with the options of the example goes on when the server is killed and started again",
      .enabled(
        if: GuestSupport.isComplete(),
        "needs qemu-system-x86, busybox-static and a kernel, which Tests/run.sh fetches"))
    func options() async throws {
      let found = try await mustRun([
        "xmllint", "--xpath", "//*[local-name()='arg']/@value",
        "\(root)/Examples/libvirt/domain.xml",
      ])
      // One ` value="..."` a line.
      let values = found.output.split(separator: "\n").compactMap { line in
        line.split(separator: "\"").dropFirst().first.map(String.init)
      }
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve()
        let options = values.map {
          $0.replacingOccurrences(of: "/run/nbdmirror/data.nbd", with: mirror.socket)
            .replacingOccurrences(of: "export=data", with: "export=\(mirror.name)")
        }
        try #require(options.count == 4 && options != values, "\(values)")
        // What docs/vm.md has people type is the same.
        let manual = try String(contentsOfFile: "\(root)/docs/vm.md", encoding: .utf8)
        #expect(manual.contains("-blockdev \(values[1]) "))
        try await withGuest(disks: options, directory: mirror.directory) { guest in
          let write = "dd if=/dev/urandom of=/dev/vda bs=64k count=1 oflag=direct status=none"
          try await guest.must(write)
          mirror.crash()
          try await guest.must("(\(write); echo $? >/tmp/status) &")
          try await mirror.serve()
          try await eventually("the guest's write is answered", within: 30, every: 0.1) {
            try await guest.run("test -s /tmp/status").status == 0
          }
          #expect(try await guest.must("cat /tmp/status") == ["0"])
          #expect(try await guest.must("dmesg").filter { $0.contains("I/O error") } == [])
          try await guest.powerOff()
        }
        let difference = try await mirror.stopAndCompare()
        #expect(difference == nil)
      }
    }
  }
}
