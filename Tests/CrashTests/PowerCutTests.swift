// Goal: promise P1 with volatile caches: a power cut takes back a seeded part of what was not
// flushed, never what was; the same seed takes the same; a flush that a disk only says it did loses
// more, and the mirror's other leg still has it.
//
// Method: every sector of 512 bytes is written with its number and a version, so that each says what
// it holds; the data is read back through a server that was started again.
import Fixtures
import Foundation
import Testing

/// Writes, flushes and leaves without a flush what the tests look for.
private let writer = """
  import nbd, sys
  h = nbd.NBD()
  h.connect_uri(sys.argv[1])
  def put(version, first, count):
      h.pwrite(b"".join(b"%s %08d " % (version, first + i) + bytes(501) for i in range(count)), first * 512)
  put(b"A", 0, 2048)
  h.flush()
  put(b"B", 0, 1024)
  put(b"B", 1024, 256)
  h.flush()
  put(b"C", 0, 512)
  put(b"D", 256, 512)
  print("written", flush=True)
  sys.stdin.readline()
  """

/// Reads every sector and says how many of each version there are in 0...767 and behind; fails if a
/// sector holds what was flushed away.
private let reader = """
  import nbd, sys
  h = nbd.NBD()
  h.connect_uri(sys.argv[1])
  data = h.pread(2048 * 512, 0)
  kinds = ""
  for i in range(2048):
      sector = data[i * 512:(i + 1) * 512]
      version = sector[:1]
      assert sector == b"%s %08d " % (version, i) + bytes(501), (i, sector[:16])
      flushed = b"B" if i < 1280 else b"A"
      allowed = flushed + (b"C" if i < 512 else b"") + (b"D" if 256 <= i < 768 else b"")
      assert version in allowed, (i, version, allowed)
      kinds += version.decode()
  print(kinds)
  """

/// Writes, cuts the power (`settled`: when the mirror believes that all is flushed); what `power-cut`
/// says.
private func cut(
  _ mirror: MirrorUnderTest, _ options: [String], settled: Bool = false
) async throws -> String {
  let client = try BackgroundProcess(
    ["/usr/bin/python3", "-c", writer, mirror.uri], directory: mirror.directory, conversation: true)
  defer { client.end() }
  guard try await client.answer(seconds: 30) == "written" else {
    throw FixtureError("the writer failed: \(client.errors)")
  }
  if settled { try await mirror.waitUntilSettled() }
  let result = try await mirror.admin(["fault", "power-cut"] + options)
  guard result.status == 0 else { throw FixtureError("\(result)") }
  let server = try #require(mirror.server)
  let ended = try await server.wait(seconds: 20)
  #expect(ended.status != 0, "a power loss is no clean end")
  return result.output
}

/// What the sectors hold after a start.
private func kinds(_ mirror: MirrorUnderTest) async throws -> String {
  try await mirror.serve()
  try await mirror.waitForRecovery()
  let result = try await mustRun(["/usr/bin/python3", "-c", reader, mirror.uri])
  return result.output.trimmingCharacters(in: .whitespacesAndNewlines)
}

extension Crash {
  struct PowerCuts {
    @Test("a power cut loses a part of what was not flushed and nothing else; legs become equal")
    func all() async throws {
      var before = ""
      for round in 0..<2 {
        try await withMirror { mirror in
          let faults = "\(mirror.directory)/faults"
          try "0 volatile-cache\n1 volatile-cache\n".write(
            toFile: faults, atomically: true, encoding: .utf8)
          try await mirror.serve(["--faults", faults, "--threads", "1"])
          let told = try await cut(mirror, ["--all", "--seed", "11"])
          let lines = told.split(separator: "\n")
          #expect(lines.first == "power cut, seed 11")
          #expect(lines.count == 3)
          for line in lines.dropFirst() {
            let numbers = line.split { !$0.isNumber }.compactMap { Int($0) }
            try #require(numbers.count == 3, "\(line)")
            #expect(numbers[1] > 0, "nothing was lost: \(line)")
            #expect(numbers[2] >= 768, "fewer sectors than were written were unflushed: \(line)")
          }
          let after = try await kinds(mirror)
          #expect(after.prefix(768).contains("B"), "no unflushed sector was lost")
          #expect(after.prefix(768).contains { $0 != "B" }, "every unflushed sector was lost")
          if round == 1 { #expect(after == before, "the same seed took something else") }
          before = after
          let difference = try await mirror.stopAndCompare()
          #expect(difference == nil)
        }
      }
    }

    @Test(
      "power cuts under load lose no write that was flushed or FUA, and leave equal legs",
      .timeLimit(.minutes(5)))
    func underLoad() async throws {
      let seed = UInt32.random(in: 0...UInt32.max)
      try await withMirror { mirror in
        let faults = "\(mirror.directory)/faults"
        try "0 volatile-cache\n1 volatile-cache\n".write(
          toFile: faults, atomically: true, encoding: .utf8)
        let load = try VerifyingLoad(mirror, seed: seed, blocks: 512, connections: 2)
        defer { load.end() }
        var lost = 0
        try await mirror.serve(["--faults", faults])
        for round in 0..<8 {
          try await load.work(requests: 100)
          try await load.begin()
          try await eventually("the load writes", within: 20) {
            try await mirror.status().dirtyRegions > 0
          }
          let cut = try await mirror.admin(["fault", "power-cut", "--seed", "\(round)"])
          #expect(cut.status == 0, "\(cut)")
          _ = try await load.serverGone()
          try await mirror.serve(["--faults", faults])
          do { lost += try await load.losses() } catch {
            throw FixtureError("seed \(seed), round \(round): \(error)")
          }
        }
        #expect(lost > 0, "no power cut lost anything (seed \(seed))")
        let difference = try await mirror.stopAndCompare()
        #expect(difference == nil, "seed \(seed)")
      }
    }

    @Test("without volatile-cache nothing can be taken back, and the command says so")
    func unarmed() async throws {
      try await withMirror { mirror in
        try await mirror.serve()
        let told = try await cut(mirror, ["--leg", "1", "--seed", "1"])
        #expect(
          told == """
            power cut, seed 1
            leg 1: nothing lost, for it had no fault of kind volatile-cache

            """)
        #expect(try await kinds(mirror).prefix(768).allSatisfy { $0 == "C" || $0 == "D" })
        let difference = try await mirror.stopAndCompare()
        #expect(difference == nil)
      }
    }

    @Test("a leg whose flushes lie loses what was safe; a scrub finds it, the other leg has it")
    func lyingFlush() async throws {
      try await withMirror { mirror in
        let faults = "\(mirror.directory)/faults"
        try "1 volatile-cache\n1 drop --op flush\n".write(
          toFile: faults, atomically: true, encoding: .utf8)
        try await mirror.serve(["--faults", faults])
        let told = try await cut(mirror, ["--leg", "1", "--seed", "4"], settled: true)
        #expect(told.contains("leg 1: "))
        #expect(!told.contains("leg 1: 0 of"))
        try await mirror.serve(["--read-policy", "prefer=0"])
        try await mirror.waitForRecovery()
        #expect(try await mirror.status().state == "healthy")
        try await mirror.mustAdmin(["scrub", "check"])
        let check = try await mirror.admin(["scrub", "wait"])
        #expect(check.status == 1, "the scrub found nothing: \(check)")
        try await mirror.mustAdmin(["scrub", "repair", "--prefer", "0"])
        try await mirror.mustAdmin(["scrub", "wait"])
        let result = try await mustRun(["/usr/bin/python3", "-c", reader, mirror.uri])
        #expect(result.output.prefix(768).allSatisfy { $0 == "C" || $0 == "D" })
        let difference = try await mirror.stopAndCompare()
        #expect(difference == nil)
      }
    }
  }
}
