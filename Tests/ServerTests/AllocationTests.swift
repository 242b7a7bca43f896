// Goal: a request in the steady state costs no allocation. Method: malloc itself counts, for the
// reactor's thread only; 100,000 requests after a warm-up, of a client whose own allocations are
// on another thread. Only an optimised build promises zero (`swift test -c release -Xswiftc
// -enable-testing`): without the optimiser Swift itself allocates for closures and iterators, up to 6
// times a request when this was written; there the bound is what nobody adds to unnoticed.

import CAllocationCounter
import Foundation
import NBDProtocol
import Ring
import Server
import Testing

@Suite("Memory", .serialized)
struct AllocationTests {
  @Test("is not allocated for requests in the steady state", arguments: [true, false])
  func steadyState(isInMemory: Bool) throws {
    let mirror = try ServedMirror(
      sizeBytes: 16 << 20, isInMemory: isInMemory,
      onThread: { allocation_counter_watch(true) })
    let client = try RawClient(mirror.socketPath)
    // 16 reads and 16 writes at once; every batch is the same, so is the memory it needs.
    var batch: [UInt8] = []
    for number in 0..<32 as Range<UInt64> {
      let offset = (number * 37 % 512) * 4096
      if number % 2 == 0 {
        batch += client.frame(.read, offset: offset, count: 4096, cookie: number)
      } else {
        batch += client.frame(
          .write, offset: offset, count: 4096, cookie: number,
          payload: [UInt8](repeating: UInt8(number), count: 4096))
      }
    }
    let replyBytes = 16 * (16 + 4096) + 16 * 16
    let total = isInMemory ? 100_000 : 20_000
    // The warm-up is over when the timers have run a few times, too.
    let warm = monotonicNanoseconds() + 700_000_000
    while monotonicNanoseconds() < warm {
      try client.send(batch)
      #expect(client.receive(replyBytes) != nil)
    }
    let before = allocation_counter_total()
    #expect(before > 0, "the counter counts nothing")
    for _ in 0..<total / 32 {
      try client.send(batch)
      #expect(client.receive(replyBytes) != nil)
    }
    let allocations = allocation_counter_total() - before
    let allowed = _isDebugAssertConfiguration() ? 8 * total : 0
    #expect(allocations <= allowed)
    try mirror.stop()
  }
}
