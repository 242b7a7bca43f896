// Goal: `create`, `examine` and `explain` as a script sees them: exit status, standard output,
// standard error output, JSON. Method: the command as a process.
import Foundation
import Testing

@testable import Legs
@testable import MirrorEngine
@testable import MirrorFormat
@testable import nbdmirror

@Suite("Offline commands")
struct CommandTests {
  private let folder: TemporaryFolder
  private let first: String
  private let second: String

  init() throws {
    folder = try TemporaryFolder()
    first = folder.at("a")
    second = folder.at("b")
  }

  private func object(_ text: String) throws -> [String: Any] {
    try #require(
      try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  @Test("create, examine and explain work together")
  func quickStart() throws {
    let created = try Run.nbdmirror("create", "demo", first, second, "--size", "10M")
    #expect(created.status == 0 && created.errors == "")
    #expect(created.output.hasPrefix("mirror demo: 10M, regions of 1M, set "))
    let examined = try Run.nbdmirror("examine", first)
    #expect(examined.status == 0 && examined.output.contains("mirror:       demo"))
    let explained = try Run.nbdmirror("explain", first, second)
    #expect(explained.status == 0 && explained.output.hasSuffix("the mirror would start\n"))
  }

  @Test("create says what stays unused of larger PVs, and that a lazy mirror reads as zeros")
  func createTells() throws {
    _ = try folder.file("a", bytes: 4 << 20)
    _ = try folder.file("b", bytes: 6 << 20)
    let created = try Run.nbdmirror("create", "demo", first, second, "--init", "lazy")
    #expect(created.status == 0 && created.errors == "")
    let lines = created.output.split(separator: "\n").dropFirst().map(String.init)
    #expect(
      lines == [
        "leg 0: \(first), in sync",
        "leg 1: \(second), in sync, 2097152 bytes at its end stay unused",
        "the mirror reads as zeros; the server zeroes each region at its first write",
      ])
    let explained = try Run.nbdmirror("explain", first, second)
    #expect(explained.output.contains("2 regions were never written: they read as zeros"))
  }

  @Test("examine --json has the fields of the contract; several PVs are an array")
  func examineJSON() throws {
    _ = try Run.nbdmirror("create", "demo", first, second, "--size", "10M", "--init", "sync")
    let one = try object(try Run.nbdmirror("examine", "--json", second).output)
    #expect(one["name"] as? String == "demo")
    #expect(Identifier(parsing: try #require(one["setId"] as? String)) != nil)
    #expect(Identifier(parsing: try #require(one["legId"] as? String)) != nil)
    #expect(one["slot"] as? Int == 1)
    #expect(one["size"] as? Int == 10 << 20)
    #expect(one["dataOffset"] as? Int == 2 << 20)
    #expect(one["regionSize"] as? Int == 1 << 20)
    #expect(one["generation"] as? Int == 1)
    let members = try #require(one["members"] as? [[String: Any]])
    #expect(members.count == 2)
    #expect(members[1]["legId"] as? String == one["legId"] as? String)
    #expect(members.map { $0["state"] as? String } == ["online", "online"])
    #expect(members.map { $0["syncing"] as? Bool } == [false, true])
    let both = try Run.nbdmirror("examine", first, second, "--json").output
    let array = try #require(
      try JSONSerialization.jsonObject(with: Data(both.utf8)) as? [[String: Any]])
    #expect(array.map { $0["slot"] as? Int } == [0, 1])
  }

  @Test("examine shows what it can and fails for the rest")
  func examineFailures() throws {
    _ = try Run.nbdmirror("create", "demo", first, "--size", "1M")
    let none = try folder.file("none", bytes: 4 << 20)
    let run = try Run.nbdmirror("examine", first, none, folder.at("no"))
    #expect(run.status == 1 && run.output.contains("mirror:       demo"))
    #expect(
      run.errors
        == "nbdmirror: PV \(none): there is no nbdmirror label\nnbdmirror: PV \(folder.at("no")) "
        + "cannot be opened: No such file or directory\n")
    let json = try object(try Run.nbdmirror("examine", "--json", none).output)
    #expect(json["error"] as? String == "PV \(none): there is no nbdmirror label")
  }

  @Test("examine and explain look at a PV that a server holds; create does not touch it")
  func whileInUse() throws {
    _ = try Run.nbdmirror("create", "demo", first, "--size", "1M")
    let holder = try PVFile.open(path: first, access: .readWrite)
    #expect(try Run.nbdmirror("examine", first).status == 0)
    #expect(try Run.nbdmirror("explain", first).status == 0)
    let run = try Run.nbdmirror("create", "demo", first, "--force")
    #expect(run.status == 1)
    #expect(
      run.errors
        == "nbdmirror: PV \(first) is in use by another program (a running server, a mount, or "
        + "another holder of the device)\n")
    #expect(try holder.readLabel().get().label.name == "demo")
  }

  @Test("explain tells why a mirror would not start, and what the options change")
  func explainRefusal() throws {
    _ = try Run.nbdmirror("create", "demo", first, second, "--size", "1M")
    let refused = try Run.nbdmirror("explain", first)
    #expect(refused.status == 0 && refused.errors == "")
    #expect(refused.output.contains("refused: leg 1 ("))
    let json = try object(try Run.nbdmirror("explain", "--json", first).output)
    #expect(json["verdict"] as? String == "refused")
    #expect((json["reason"] as? String)?.contains("--degraded") == true)
    let degraded = try object(
      try Run.nbdmirror("explain", "--json", "--degraded", first).output)
    #expect(degraded["verdict"] as? String == "starts-degraded")
    #expect(degraded["lost"] as? [Int] == [1])
    let absent = try Run.nbdmirror("explain", folder.at("no"))
    #expect(absent.status == 1 && absent.output == "")
  }

  @Test("explain prints both histories of a split brain")
  func explainSplitBrain() throws {
    _ = try Run.nbdmirror("create", "demo", first, second, "--size", "1M")
    for (index, path) in [first, second].enumerated() {
      let pv = try PVFile.open(path: path, access: .readWrite)
      let elected = try pv.readLabel().get()
      var label = elected.label
      label.lineage = label.lineage.successor(id: .random())
      label.members[1 - index].state = .missing
      label.members[1 - index].offlineSince = 2
      label.sequence = elected.nextSequence
      try pv.write(label: label, copy: elected.nextCopy)
    }
    let run = try Run.nbdmirror("explain", first, second)
    #expect(run.output.contains("history of \(first): generation 2"))
    #expect(run.output.contains("history of \(second): generation 2"))
    #expect(run.output.contains("refused: split brain"))
    let chosen = try Run.nbdmirror("explain", first, second, "--choose-leg", "1")
    #expect(chosen.output.contains("leg 0 (PV \(first)): what it has was given up"))
    #expect(chosen.output.hasSuffix("the mirror would start\n"))
  }

  @Test(
    "wrong calls end with 2 and one sentence",
    arguments: [
      ["create", "demo"], ["create"], ["create", ".x", "/tmp/x"], ["create", "a/b", "/tmp/x"],
      ["create", "demo", "/tmp/x", "--size", "1X"], ["create", "demo", "/tmp/x", "--init", "lazy"],
      ["create", "demo", "/tmp/x", "--log", "tape"], ["create", "demo", "/tmp/x", "--what"],
      ["examine"], ["explain"], ["nonsense"],
      ["create", "demo", "1", "2", "3", "4", "5", "6", "7", "8", "9", "--size", "1M"],
      ["create", "demo", "/nonexistent-nbdmirror-file"],
      ["create", "demo", "/nonexistent-nbdmirror-file", "--size", "1000"],
    ])
  func wrongCalls(arguments: [String]) throws {
    let own = try Run.nbdmirrorArray(arguments)
    #expect(own.status == 2 && own.output == "")
    #expect(own.errors.hasPrefix("nbdmirror: "), "\(own.errors)")
  }

  @Test("help ends with 0")
  func help() throws {
    for arguments in [["--help"], ["help", "create"], ["create", "--help"]] {
      let run = try Run.nbdmirrorArray(arguments)
      #expect(run.status == 0 && run.output.contains("USAGE") && run.errors == "")
    }
  }

  @Test("sizes take binary units up to 2^64 - 1")
  func sizes() {
    for (text, bytes) in [
      ("0", 0), ("512", 512), ("1K", 1024), ("1k", 1024), ("1KiB", 1024), ("5G", 5 << 30),
      ("2T", 2 << 40), ("3m", 3 << 20), ("1P", 1 << 50), ("16383P", 16383 << 50),
      ("18446744073709551615", UInt64.max),
    ] as [(String, UInt64)] {
      #expect(ByteSize(argument: text)?.bytes == bytes, "\(text)")
    }
    for text in [
      "", "K", "-1", "+1", "1.5G", "1 G", "1X", "1KK", "1GB", "0x10", "16384P", "1iB",
      "18446744073709551616", "١",
    ] {
      #expect(ByteSize(argument: text) == nil, "\(text)")
    }
    for bytes: UInt64 in [0, 1, 1023, 1024, 1536, 5 << 30, (1 << 40) + 1, .max] {
      #expect(ByteSize(argument: ByteSize(bytes: bytes).text)?.bytes == bytes)
    }
  }
}
