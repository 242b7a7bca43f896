// Goal: every operation of the ring does what its name says, on every set of setup flags that this
// kernel can be made to fall back to. Method: real files, socket pairs and eventfds.
import CRing
import Glibc
import Ring
import Testing

/// Sets of features to do without, from nothing to the oldest kernel.
let fallbacks: [RingFeatures] = [
  [],
  .registeredRing,
  [.singleIssuer, .deferTaskrun],
  [.taskrunFlag],
  [.taskrunFlag, .multishotAccept, .pollFirst, .registeredRing],
]

@Suite("The ring")
struct RingTests {
  /// Submits and collects completions until `count` are there; fails after ten seconds.
  static func collect(_ ring: borrowing Ring, _ count: Int) -> [UInt64: Int32] {
    var results: [UInt64: Int32] = [:]
    let deadline = monotonicNanoseconds() + 10_000_000_000
    while results.count < count, monotonicNanoseconds() < deadline {
      ring.submitAndWait(timeoutNanoseconds: 100_000_000)
      let reaped = ring.reap()
      for index in 0..<reaped {
        let completion = ring.completion(at: index)
        results[completion.userData] = completion.result
      }
    }
    #expect(results.count == count)
    return results
  }

  @Test("carries more submissions than it has room for, and all user data", arguments: fallbacks)
  func nops(without: RingFeatures) throws {
    let ring = try Ring(entries: 8, without: without)
    let features = ring.features
    #expect(features.isDisjoint(with: without))
    for number in 0..<1000 { ring.prepareNop(userData: UInt64.max - UInt64(number)) }
    let results = Self.collect(ring, 1000)
    #expect(results.values.allSatisfy { $0 == 0 })
    #expect(results[UInt64.max - 999] == 0)
  }

  @Test("writes, syncs, punches and reads a file back", arguments: fallbacks)
  func file(without: RingFeatures) throws {
    let ring = try Ring(entries: 8, without: without)
    let file = nbdmirror_memory_file()
    defer { close(file) }
    ftruncate(file, 65536)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 16384, alignment: 4096)
    defer { unsafe memory.deallocate() }
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0xab, count: 8192)
    unsafe ring.prepareWrite(
      file, from: memory, count: 8192, offset: 4096, options: .durable, userData: 1)
    #expect(Self.collect(ring, 1) == [1: 8192])
    ring.prepareSync(file, userData: 2)
    #expect(Self.collect(ring, 1) == [2: 0])
    ring.prepareZero(file, mode: .punchHole, offset: 4096, count: 4096, userData: 3)
    #expect(Self.collect(ring, 1) == [3: 0])
    unsafe ring.prepareRead(file, into: memory + 8192, count: 8192, offset: 4096, userData: 4)
    #expect(Self.collect(ring, 1) == [4: 8192])
    let zero = unsafe memory.load(fromByteOffset: 8192 + 4095, as: UInt8.self)
    let kept = unsafe memory.load(fromByteOffset: 8192 + 4096, as: UInt8.self)
    #expect(zero == 0 && kept == 0xab)
    unsafe ring.prepareRead(file, into: memory, count: 4096, offset: 65536, userData: 5)
    ring.prepareSync(-1, userData: 6)
    #expect(Self.collect(ring, 2) == [5: 0, 6: -EBADF])
  }

  @Test("uses registered files")
  func fixedFile() throws {
    let ring = try Ring(entries: 8)
    let file = nbdmirror_memory_file()
    defer { close(file) }
    let registered = ring.registerFiles(count: 8) && ring.updateFile(at: 3, descriptor: file)
    #expect(registered)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { unsafe memory.deallocate() }
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 1, count: 4096)
    unsafe ring.prepareWrite(
      3, from: memory, count: 4096, offset: 0, options: .fixedFile, userData: 1)
    unsafe ring.prepareWrite(
      4, from: memory, count: 4096, offset: 0, options: .fixedFile, userData: 2)
    #expect(Self.collect(ring, 2) == [1: 4096, 2: -EBADF])
  }

  @Test("sends parts in order and receives them whole", arguments: fallbacks)
  func sockets(without: RingFeatures) throws {
    let ring = try Ring(entries: 8, without: without)
    let (left, right) = Self.pair()
    defer {
      close(left)
      close(right)
    }
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { unsafe memory.deallocate() }
    for index in 0..<64 {
      unsafe memory.storeBytes(of: UInt8(index), toByteOffset: index, as: UInt8.self)
    }
    let parts = UnsafeMutablePointer<iovec>.allocate(capacity: 2)
    let message = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
    defer {
      unsafe parts.deallocate()
      unsafe message.deallocate()
    }
    unsafe parts[0] = iovec(iov_base: memory, iov_len: 40)
    unsafe parts[1] = iovec(iov_base: memory + 40, iov_len: 24)
    unsafe ring.prepareReceive(
      right, into: memory + 1024, count: 64, options: [.waitAll, .pollFirst], userData: 1)
    ring.submit()
    unsafe ring.prepareSend(
      left, message: message, parts: parts, count: 2, options: .waitAll, userData: 2)
    #expect(Self.collect(ring, 2) == [1: 64, 2: 64])
    let equal = unsafe memcmp(memory, memory + 1024, 64) == 0
    #expect(equal)
    shutdown(left, Int32(SHUT_WR))
    unsafe ring.prepareReceive(right, into: memory, count: 64, userData: 3)
    #expect(Self.collect(ring, 1) == [3: 0])
  }

  @Test("polls, cancels and closes", arguments: fallbacks)
  func waiting(without: RingFeatures) throws {
    let ring = try Ring(entries: 8, without: without)
    let event = try Event()
    ring.preparePoll(event.descriptor, userData: 7)
    ring.submit()
    let early = ring.reap()
    #expect(early == 0)
    event.signal()
    let polled = Self.collect(ring, 1)
    #expect((polled[7] ?? 0) & Int32(POLLIN) != 0)
    event.clear()
    ring.preparePoll(event.descriptor, userData: 8)
    ring.submit()
    ring.prepareCancel(8, userData: 9)
    #expect(Self.collect(ring, 2) == [8: -ECANCELED, 9: 0])
    let file = nbdmirror_memory_file()
    ring.prepareClose(file, userData: 10)
    #expect(Self.collect(ring, 1) == [10: 0])
    #expect(close(file) == -1)
  }

  @Test("accepts connections, one after the other")
  func accepting() throws {
    let ring = try Ring(entries: 8)
    let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // An autobound abstract address: no file is left behind.
    var size = socklen_t(MemoryLayout<sa_family_t>.size)
    unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        #expect(unsafe bind(listener, generic, size) == 0)
        #expect(listen(listener, 8) == 0)
        size = socklen_t(MemoryLayout<sockaddr_un>.size)
        #expect(unsafe getsockname(listener, generic, &size) == 0)
      }
    }
    ring.prepareAccept(listener, userData: 1)
    for _ in 0..<3 {
      let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      defer { close(client) }
      let connected = unsafe withUnsafePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
          unsafe connect(client, generic, size)
        }
      }
      #expect(connected == 0)
      let accepted = Self.collect(ring, 1)
      let descriptor = accepted[1] ?? -1
      #expect(descriptor >= 0)
      close(descriptor)
    }
  }

  @Test("comes back from waiting when the time is over, and sees work without a system call")
  func timeouts() throws {
    let ring = try Ring(entries: 8)
    let before = monotonicNanoseconds()
    ring.submitAndWait(timeoutNanoseconds: 20_000_000)
    #expect(monotonicNanoseconds() - before >= 20_000_000)
    let idle = ring.hasWork || ring.spin(nanoseconds: 100_000)
    #expect(!idle)
    let (left, right) = Self.pair()
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    unsafe ring.prepareReceive(right, into: memory, count: 4096, userData: 1)
    ring.submit()
    let early = ring.hasWork
    #expect(!early)
    var byte: UInt8 = 1
    unsafe write(left, &byte, 1)
    let seen = ring.spin(nanoseconds: 5_000_000_000)
    #expect(seen)
    #expect(Self.collect(ring, 1) == [1: 1])
    close(left)
    close(right)
    unsafe memory.deallocate()
  }

  @Test("says what to change when io_uring is refused")
  func messages() {
    #expect(RingError.notSupported.description.contains("CONFIG_IO_URING"))
    #expect(RingError.disabledBySetting(2).description.contains("kernel.io_uring_disabled=0"))
    #expect(RingError.refused.description.contains("seccomp"))
  }

  static func pair() -> (Int32, Int32) {
    var sockets: (Int32, Int32) = (-1, -1)
    let result = unsafe withUnsafeMutableBytes(of: &sockets) { bytes in
      unsafe socketpair(
        AF_UNIX, Int32(SOCK_STREAM.rawValue), 0,
        bytes.assumingMemoryBound(to: Int32.self).baseAddress)
    }
    #expect(result == 0)
    return sockets
  }
}
