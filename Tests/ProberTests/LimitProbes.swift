// Goal: however many connect, and however slowly they speak, the server keeps descriptors and time for
// those who were there before and for administrators. Numbers are those of the catalogue in
// docs/protocol.md.

import Fixtures
import Foundation
import Testing

extension Prober {
  @Suite("Limits", .timeLimit(.minutes(10)))
  struct Limits {
    /// Connections that the server admits at once.
    private static let connectionsMax = 512

    private func serve(
      wrapper: [String] = [], _ body: (MirrorUnderTest, Target) async throws -> Void
    ) async throws {
      try raiseDescriptorLimit()
      try await withMirror(size: "64M") { mirror in
        try await mirror.serve(Target.options, wrapper: wrapper)
        try await body(mirror, try Target(mirror))
        #expect(try await mirror.stopAndCompare() == nil)
      }
    }

    /// How many of the clients the server has hung up on.
    private func closedCount(_ clients: [ProbeClient]) throws -> Int {
      try clients.reduce(0) { count, client in
        count + (try client.wire.socket.isAtEnd() ? 1 : 0)
      }
    }

    @Test(
      "42. 2000 connections that say nothing: those beyond the limit are closed, others after the timer",
      arguments: WireKind.plain)
    func manyIdle(kind: WireKind) async throws {
      try await serve { mirror, target in
        let honest = try ProbeClient.transmitting(kind, target)
        var clients: [ProbeClient] = []
        for _ in 0..<2000 { clients.append(try ProbeClient(kind, target)) }
        try await eventually("those beyond the limit are closed", within: 8, every: 0.1) {
          try closedCount(clients) >= 2001 - Self.connectionsMax
        }
        #expect(try closedCount(clients) <= 2001 - Self.connectionsMax + 8)
        #expect(try target.descriptorCount() < Self.connectionsMax + 100)
        try honest.expectWorks()
        #expect(try await mirror.status().state == "healthy")
        try await eventually("the timer ends the others", within: 20, every: 0.1) {
          try closedCount(clients) == clients.count
        }
        try honest.expectWorks()
        try target.expectAlive(kind, at: 32 << 20)
        #expect(try target.descriptorCount() < 100)
      }
    }

    @Test(
      "37. a handshake that takes more than 10 s: hangup, however busy it is; in transmission none",
      arguments: WireKind.allCases)
    func handshakeTimer(kind: WireKind) async throws {
      try await serve { _, target in
        let begun = ContinuousClock.now
        let idle = try ProbeClient.transmitting(kind, target)
        let silent = try ProbeClient(kind, target)
        let greeted = try ProbeClient.negotiating(kind, target)
        let slow = try ProbeClient.negotiating(kind, target)
        let busy = try ProbeClient.negotiating(kind, target)
        try silent.greeting()
        var waiting = ["silent": silent, "greeted": greeted, "slow": slow, "busy": busy]
        var options = 0
        while !waiting.isEmpty {
          try #require(ContinuousClock.now - begun < .seconds(25), "\(waiting.keys) are left")
          try slow.sendIfTaken([0x49])
          if options < 50 {
            options += 1
            try busy.sendIfTaken(Frames.option(99))
          }
          for (name, client) in waiting {
            guard try client.wire.socket.isAtEnd(takingAnswers: true) else { continue }
            waiting[name] = nil
            // "slow" sends no valid magic: it may be dropped for that, but not before 8 bytes.
            let after = (ContinuousClock.now - begun) / .seconds(1)
            if name != "slow" { #expect(after > 9 && after < 13, "\(name): \(after) s") }
          }
          try await Task.sleep(for: .milliseconds(250))
        }
        try idle.expectWorks()
        try target.expectAlive(kind, at: 32 << 20)
      }
    }

    @Test(
      "42. a server with few descriptors admits fewer connections and stays reachable",
      arguments: WireKind.plain)
    func fewDescriptors(kind: WireKind) async throws {
      try await serve(wrapper: ["prlimit", "--nofile=256:256"]) { mirror, target in
        let honest = try ProbeClient.transmitting(kind, target)
        var clients: [ProbeClient] = []
        for _ in 0..<400 { clients.append(try ProbeClient(kind, target)) }
        try await eventually("those beyond the limit are closed", within: 8, every: 0.1) {
          try closedCount(clients) > 250
        }
        #expect(try target.descriptorCount() < 200)
        // An administrator comes in, and a leg comes back: its file has to be opened.
        try await mirror.mustAdmin(["leg", "fail", "1"])
        try await mirror.mustAdmin(["leg", "readd", "1"])
        try honest.expectWorks()
        let isWarned = try #require(mirror.server).errors.contains("open files")
        #expect(isWarned)
        clients = []
        try await eventually("the leg is in sync", within: 30, every: 0.1) {
          try await mirror.status().state == "healthy"
        }
        try target.expectAlive(kind, at: 32 << 20)
      }
    }

    @Test("8. STARTTLS where TLS is not offered: POLICY, goes on")
    func noTLS() async throws {
      try await withMirror(size: "16M") { mirror in
        try await mirror.serve(["--listen", "127.0.0.1:0"])
        let target = try Target(mirror)
        let client = try ProbeClient.negotiating(.tcp, target)
        #expect(try client.answer(Opt.startTLS) == Rep.policy)
        try client.expectInStep()
        try client.go()
        try client.expectWorks()
        try target.expectAlive(.unix, at: 8 << 20)
        try await mirror.stop()
      }
    }

    @Test("42. a soft limit of descriptors is raised as far as the hard one")
    func softLimit() async throws {
      try await serve(wrapper: ["prlimit", "--nofile=128:4096"]) { _, target in
        var clients: [ProbeClient] = []
        for _ in 0..<500 { clients.append(try ProbeClient.transmitting(.unix, target)) }
        for client in clients { try client.expectWorks() }
        #expect(try target.descriptorCount() > 500)
        clients = []
      }
    }

    @Test(
      "a place in the house is free again when its client is gone, whatever the client did",
      arguments: WireKind.plain)
    func churn(kind: WireKind) async throws {
      try await serve { _, target in
        let before = try target.descriptorCount()
        for round in 0..<1500 {
          let client = try ProbeClient(kind, target)
          if round % 3 > 0 { try client.send([UInt8](big: UInt32(round % 5))) }
          if round % 7 == 0 { try client.sendIfTaken(pattern(UInt64(round), 300)) }
          if round % 2 == 0 { client.wire.reset() }
          client.wire.close()
        }
        // A server with a sanitizer opens some of its own late.
        let late = isSanitized ? 9 : 0
        try waitUntil("the server closes them", within: 15) {
          try target.descriptorCount() <= before + late
        }
        try target.expectAlive(kind, at: 32 << 20)
      }
    }
  }
}

/// Lets this process open as many files as it may: a prober has many connections.
func raiseDescriptorLimit() throws {
  var limit = rlimit()
  // The structure lives through the calls.
  let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
  guard unsafe getrlimit(resource, &limit) == 0 else { throw FixtureError(systemError()) }
  limit.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 8192))
  guard unsafe setrlimit(resource, &limit) == 0 else { throw FixtureError(systemError()) }
}

extension SocketWire {
  /// Whether the server has closed the connection; `takingAnswers`: also what came before is taken.
  func isAtEnd(takingAnswers: Bool = false) throws -> Bool {
    while isReady(POLLIN, within: 0) {
      var byte: UInt8 = 0
      if takingAnswers {
        if try receive(upTo: 4096, within: 0) == .end { return true }
        continue
      }
      // The greeting stands before the end: what is left of the socket says it.
      let got = unsafe recv(
        descriptor, &byte, 1, Int32(MSG_DONTWAIT) | Int32(MSG_PEEK))
      if got == 0 || (got < 0 && errno == ECONNRESET) { return true }
      // POLLRDHUP
      var entry = pollfd(fd: descriptor, events: 0x2000, revents: 0)
      return unsafe poll(&entry, 1, 0) > 0
    }
    return false
  }
}
