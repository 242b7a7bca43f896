// Goal: while everything that a client can do wrong goes on at once on 1000 connections, honest
// clients read what they wrote, memory and descriptors stay flat, and the legs stay equal.
//
// Method: verifying loads beside a crowd (`Crowd.swift`) of idle, slow, dying, greedy and senseless
// connections. 20 s as a rule, more where they are not enough for the crowd; NBDMIRROR_SOAK says how many seconds, NBDMIRROR_SEED repeats the draws.

import Fixtures
import Foundation
import Testing

extension Prober {
  @Suite("Hostile load")
  struct HostileLoad {
    /// What is measured of the server.
    private struct Figures: CustomStringConvertible {
      var residentMebibytes: Int
      var peakMebibytes: Int
      var descriptors: Int

      init(_ target: Target) throws {
        residentMebibytes = try target.memoryKibibytes("VmRSS") / 1024
        peakMebibytes = try target.memoryKibibytes("VmHWM") / 1024
        descriptors = try target.descriptorCount()
      }

      var description: String {
        "\(residentMebibytes) MiB (peak \(peakMebibytes)), \(descriptors) descriptors"
      }
    }

    /// fio that verifies what it wrote.
    private func fio(
      _ mirror: MirrorUnderTest, _ uri: String, offset: String, seconds: Int
    ) throws -> BackgroundProcess {
      try BackgroundProcess(
        [
          "fio", "--name=verify", "--ioengine=nbd", "--uri=\(uri)", "--rw=randrw",
          "--bsrange=4k-128k", "--blockalign=4k", "--offset=\(offset)", "--size=64M", "--iodepth=8",
          "--verify=crc32c", "--verify_backlog=64", "--time_based", "--runtime=\(seconds)",
          "--verify_fatal=1", "--verify_state_save=0",
        ], directory: mirror.directory)
    }

    private static var seconds: Int {
      Int(ProcessInfo.processInfo.environment["NBDMIRROR_SOAK"] ?? "") ?? 20
    }

    @Test("1000 connections of every bad kind beside verifying loads", .timeLimit(.minutes(60)))
    func crowd() async throws {
      let (seed, seconds) = (seedOfThisRun(), Self.seconds)
      print("hostile load: seed \(seed), \(seconds) s")
      try raiseDescriptorLimit()
      try await withMirror(size: "192M") { mirror in
        try await mirror.serve(Target.options)
        let target = try Target(mirror)
        let tcp = "nbd://127.0.0.1:\(target.port)/"
        let loads = [
          try fio(mirror, mirror.uri, offset: "0", seconds: seconds + 300),
          try fio(mirror, tcp, offset: "96M", seconds: seconds + 300),
        ]
        defer { for load in loads { load.end() } }
        let honest = WireKind.allCases.enumerated().map { index, kind in
          HonestClient(kind, target, offset: (168 << 20) + UInt64(index) << 20, count: 4096)
        }
        for client in honest { try await client.waitFor(rounds: 20, within: 60) }
        // A line above them, four honest clients, two loads.
        try await eventually("the loads have begun", within: 60) {
          try await mirror.admin(["connections"]).output.split(separator: "\n").count >= 7
        }
        let crowd = Crowd(target, seed: UInt64(seed))
        crowd.begin()
        let figures = try await watch(target, crowd, loads, seconds: seconds, seed: seed)
        let done = try await crowd.end()
        print("the crowd: \(done)")
        #expect(done.problem == nil, "seed \(seed)")
        for client in honest {
          let record = try await client.stop()
          print("honest client of 4096 bytes: \(record)")
          #expect(record.problem == nil, "seed \(seed)")
          #expect(record.longestSeconds < 5, "seed \(seed)")
        }
        for load in loads {
          load.signal(SIGINT)
          let verified = try await load.wait(seconds: 120)
          #expect(verified.output.contains("err= 0"), "seed \(seed): \(verified)")
          print(verified.output.split(separator: "\n").first { $0.contains("IOPS=") } ?? "no IOPS")
        }
        try await eventually("the crowd's connections are gone", within: 30, every: 0.1) {
          try target.descriptorCount() < 60
        }
        let last = try Figures(target)
        print("before \(figures.first), in the midst \(figures.last), after \(last)")
        if !isSanitized {
          #expect(last.residentMebibytes < figures.first.residentMebibytes + 200)
          #expect(figures.last.peakMebibytes < 400)
          // The second half of the time needs no more than the first.
          #expect(figures.last.peakMebibytes <= figures.middle.peakMebibytes + 32)
        }
        try target.expectAlive(.unix, at: 190 << 20)
        #expect(try await mirror.stopAndCompare() == nil, "seed \(seed)")
      }
    }

    /// Looks at the server while the crowd is there: for so many seconds, and until the crowd has had
    /// as many rounds in the second part as in the first, which is 2000 of them at least.
    private func watch(
      _ target: Target, _ crowd: Crowd, _ loads: [BackgroundProcess], seconds: Int, seed: UInt32
    ) async throws -> (first: Figures, middle: Figures, last: Figures) {
      let first = try Figures(target)
      var middle = first
      var middleRounds = 0
      let begun = ContinuousClock.now
      var next = 30.0
      while true {
        let passed = (ContinuousClock.now - begun) / .seconds(1)
        let rounds = crowd.record.rounds
        if passed >= Double(seconds), rounds >= 2 * middleRounds, rounds >= 4000 { break }
        try #require(passed < Double(seconds + 240), "seed \(seed): \(rounds) rounds only")
        for load in loads {
          try #require(load.isRunning, "seed \(seed): \(load.output) \(load.errors)")
        }
        try #require(target.isRunning, "seed \(seed): the server has ended")
        let figures = try Figures(target)
        #expect(figures.descriptors < 512 + 64)
        if passed < Double(seconds) / 2 || rounds < 2000 {
          (middle, middleRounds) = (figures, rounds)
        }
        if passed > next {
          print("after \(Int(passed)) s: \(figures); \(crowd.record)")
          next += 30
        }
        try await Task.sleep(for: .milliseconds(200))
      }
      return (first, middle, try Figures(target))
    }
  }
}
