// Goal: a server takes the places it is given or says why not, and leaves them clean. Method: real
// sockets, files in the way, a stop under load.

import Base
import Foundation
import NBDProtocol
import Server
import Testing

@Suite("A server", .serialized)
struct EndpointTests {
  /// What starting a server on this path throws, if it does.
  private func refusal(_ path: String) throws -> ServerError? {
    do {
      let mirror = try ServedMirror { $0.socketPaths = [path] }
      try mirror.stop()
      return nil
    } catch let error as ServerError {
      return error
    }
  }

  private func temporaryPath() -> String {
    "/dev/shm/nbdmirror-test-" + UUID().uuidString
  }

  @Test("replaces a socket file that nobody listens on, and removes its own at the end")
  func stale() throws {
    let path = temporaryPath()
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    let old = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    let result = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe bind(old, generic, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(result == 0)
    close(old)
    #expect(FileManager.default.fileExists(atPath: path))
    #expect(try refusal(path) == nil)
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test("refuses a socket that another one listens on, which goes on")
  func inUse() throws {
    let first = try ServedMirror()
    #expect(try refusal(first.socketPath) == .socketInUse(first.socketPath))
    let client = try RawClient(first.socketPath)
    #expect(try client.read(0, 512).error == 0)
    try first.stop()
  }

  @Test("leaves a file alone that is no socket, and says so")
  func notASocket() throws {
    let path = temporaryPath()
    try Data([1, 2, 3]).write(to: URL(fileURLWithPath: path))
    #expect(try refusal(path) == .notASocket(path))
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == Data([1, 2, 3]))
    try FileManager.default.removeItem(atPath: path)
  }

  @Test("names a path that is too long and addresses that are none")
  func badAddresses() throws {
    let long = "/dev/shm/" + String(repeating: "x", count: 120)
    #expect(try refusal(long) == .pathTooLong(long))
    for text in ["localhost", "127.0.0.1:", "127.0.0.1:70000", "::1:10809", ":x"] {
      do {
        let mirror = try ServedMirror { $0.listenAddresses = [text] }
        try mirror.stop()
        Issue.record("\(text) is taken for an address")
      } catch let error as ServerError {
        #expect("\(error)".hasPrefix(text))
      }
    }
  }

  @Test("says that a port is taken")
  func portTaken() throws {
    let first = try ServedMirror { $0.listenAddresses = ["127.0.0.1:0"] }
    let port = try #require(first.server.ports.first)
    do {
      let second = try ServedMirror { $0.listenAddresses = ["127.0.0.1:\(port)"] }
      try second.stop()
      Issue.record("two servers have one port")
    } catch let error as ServerError {
      #expect("\(error)".contains("in use"))
    }
    try first.stop()
  }

  @Test("that stops under load answers what it took, and is clean", arguments: [true, false])
  func stopUnderLoad(isInMemory: Bool) throws {
    let mirror = try ServedMirror(sizeBytes: 32 << 20, isInMemory: isInMemory) { $0.threads = 2 }
    let clients = try (0..<4).map { _ in try RawClient(mirror.socketPath) }
    for (number, client) in clients.enumerated() {
      let thread = Thread {
        // Ends when the server closes the connection.
        for step in 0..<100_000 as Range<UInt64> {
          let offset = (UInt64(number) << 23) + step % 2048 * 4096
          let payload = [UInt8](repeating: UInt8(truncatingIfNeeded: step / 2048), count: 4096)
          let frame = client.frame(
            .write, offset: offset, count: 4096, cookie: step, payload: payload)
          do { try client.send(frame) } catch { return }
        }
      }
      thread.start()
    }
    // The newest acked value of each block of each client.
    var acked = [[UInt64: UInt64]](repeating: [:], count: 4)
    func take(_ number: Int) throws {
      let reply = try clients[number].reply()
      #expect(reply.error == 0)
      let block = reply.cookie % 2048
      acked[number][block] = max(acked[number][block] ?? 0, reply.cookie / 2048)
    }
    for number in clients.indices {
      for _ in 0..<500 { try take(number) }
    }
    mirror.server.requestStop()
    for number in clients.indices {
      var isOpen = true
      while isOpen {
        do { try take(number) } catch { isOpen = false }
      }
    }
    #expect(mirror.end() == .clean)
    let data = try mirror.data(ofLeg: 1)
    for number in clients.indices {
      #expect(acked[number].count > 0)
      for (block, round) in acked[number] {
        let byte = data[data.startIndex + (number << 23) + Int(block) * 4096]
        // Blocks are written round after round: what is there is at least as new as what was acked.
        #expect(UInt64(byte) >= round)
      }
    }
    try mirror.deleteAfterEnd()
  }

  @Test("sees no block status without a context, no TLS and no other export where there are none")
  func handshakeRefusals() throws {
    let mirror = try ServedMirror()
    #expect(throws: FixtureError.self) {
      _ = try RawClient(mirror.socketPath, wishes: ClientWishes(exportName: "other"))
    }
    let client = try RawClient(mirror.socketPath, wishes: ClientWishes(structuredReplies: true))
    #expect(try client.command(.blockStatus, 0, 512) == NBDError.invalid.rawValue)
    #expect(try client.command(.cache, 0, 512) == 0)
    #expect(try client.read(0, 0).error == 0)
    #expect(try client.read(1 << 40, 1).error == NBDError.invalid.rawValue)
    #expect(try client.write(1 << 40, [1, 2, 3]) == NBDError.noSpace.rawValue)
    #expect(try client.read(0, 512).data.count == 512)
    try mirror.stop()
  }

  @Test("that may write zeros only with writes makes ranges zero all the same")
  func zerosByWriting() throws {
    let mirror = try ServedMirror(sizeBytes: 16 << 20)
    for leg in 0..<2 {
      let way = mirror.table.refused(.keepStorage, on: LegSlot(leg), mayPunchHoles: true)
      #expect(way == .punchHole)
      #expect(mirror.table.refused(way, on: LegSlot(leg), mayPunchHoles: true) == .write)
    }
    let client = try RawClient(mirror.socketPath)
    let bytes = [UInt8](repeating: 7, count: 8 << 20)
    #expect(try client.write(512, bytes) == 0)
    #expect(try client.command(.writeZeroes, 1000, 7 << 20) == 0)
    let reply = try client.read(512, 8 << 20)
    var expected = bytes
    expected.replaceSubrange(488..<488 + 7 << 20, with: repeatElement(0, count: 7 << 20))
    let isEqual = reply.data == expected
    #expect(isEqual)
    try mirror.stop()
  }
}
