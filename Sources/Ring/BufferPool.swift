// Memory for payloads: one arena per reactor, reserved once, resident only where it was used.
//
// A buddy allocator over pages of 4 KiB with blocks up to 16 MiB; larger buffers are mapped one by
// one under a budget that all reactors share. All bookkeeping is allocated at creation; when
// nothing fits, `allocate` says so and the caller waits (back-pressure): the pool never grows.
//
// Invariants
//  1. `state[page]` describes the block that starts at `page`: free of order n, taken of order n,
//     cached, or nothing (the page is inside a block).
//  2. A free block is in the list of its order; its buddy is not free of the same order (else the
//     two were merged) as long as neither is cached.
//  3. `leasedBytes` is the sum of the blocks handed out; at most `limitBytes`.
//  4. Blocks of one page come back to a small stack first (`cache`): in the steady state of small
//     requests neither splitting nor merging happens, and the memory is warm.
//
// A part of the limit is kept for small requests (`reserveBytes`), so that large ones which stay for
// long do not hold them up.
//
// The limit is below the arena's size: a leg that hangs keeps buffers for as long as it likes, and
// those that were answered already are made up for by raising the limit (`limitBytes`).
//
// Every `unsafe` below stays inside the arena or the tables that this value owns; indexes are
// checked where they enter (`free`) and follow from invariants 1 and 2 elsewhere.

import Glibc

/// A block of the pool, or a mapping of its own.
@safe
public struct Buffer: @unchecked Sendable {  // A value; who may touch the memory holds the lease.
  /// First byte; aligned to 4 KiB.
  public let base: UnsafeMutableRawPointer
  /// Bytes that may be used.
  public let bytes: Int
  /// Whether it is a mapping of its own.
  let isMapped: Bool
}

/// Memory of one reactor; not Sendable, used by its thread only.
@safe
public struct BufferPool: ~Copyable {
  /// The granularity.
  public static var pageBytes: Int { 4096 }
  /// The largest block of the arena.
  public static var blockBytesMax: Int { 16 << 20 }

  private static var none: UInt32 { .max }
  private static var orderCount: Int { 13 }
  private static var takenBit: UInt8 { 0x40 }
  private static var freeBit: UInt8 { 0x80 }
  private static var cachedState: UInt8 { 0x20 }
  private static var cacheCount: Int { 256 }

  private let arena: UnsafeMutableRawPointer
  private let pageCount: Int
  private let orderMax: Int
  private let state: UnsafeMutablePointer<UInt8>
  private let next: UnsafeMutablePointer<UInt32>
  private let previous: UnsafeMutablePointer<UInt32>
  private let heads: UnsafeMutablePointer<UInt32>
  private let cache: UnsafeMutablePointer<UInt32>
  private var cached = 0
  private let huge: HugeBudget

  /// Bytes of the arena that are handed out.
  public private(set) var leasedBytes = 0
  /// Bytes of the arena that may be handed out: at most `arenaBytes`.
  public var limitBytes: Int {
    didSet { precondition(limitBytes <= arenaBytes, "the limit lies inside the arena") }
  }
  /// Bytes of the limit that are kept for those who ask with `mayUseReserve`.
  public var reserveBytes = 0
  /// Size of the arena.
  public let arenaBytes: Int

  /// Reserves an arena.
  ///
  /// - Parameters:
  ///   - arenaBytes: Rounded up to whole blocks: of 16 MiB, or of the next power of two if less.
  ///   - huge: The budget for larger buffers.
  /// - Throws: `RingError.memory`.
  public init(arenaBytes: Int, huge: HugeBudget) throws(RingError) {
    precondition(arenaBytes >= BufferPool.pageBytes, "an arena has a page")
    var order = 0
    while order < BufferPool.orderCount - 1, BufferPool.pageBytes << order < arenaBytes {
      order += 1
    }
    let block = BufferPool.pageBytes << order
    let bytes = (arenaBytes + block - 1) / block * block
    unsafe arena = try BufferPool.map(bytes)
    self.arenaBytes = bytes
    limitBytes = bytes
    self.huge = huge
    orderMax = order
    pageCount = bytes / BufferPool.pageBytes
    unsafe state = .allocate(capacity: pageCount)
    unsafe state.initialize(repeating: 0, count: pageCount)
    unsafe next = .allocate(capacity: pageCount)
    unsafe next.initialize(repeating: BufferPool.none, count: pageCount)
    unsafe previous = .allocate(capacity: pageCount)
    unsafe previous.initialize(repeating: BufferPool.none, count: pageCount)
    unsafe heads = .allocate(capacity: BufferPool.orderCount)
    unsafe heads.initialize(repeating: BufferPool.none, count: BufferPool.orderCount)
    unsafe cache = .allocate(capacity: BufferPool.cacheCount)
    unsafe cache.initialize(repeating: 0, count: BufferPool.cacheCount)
    // Pushed from the end, so that the lowest addresses are used first.
    var page = pageCount
    while page > 0 {
      page -= 1 << order
      pushFree(page, order: order)
    }
  }

  deinit {
    unsafe munmap(arena, arenaBytes)
    unsafe state.deallocate()
    unsafe next.deallocate()
    unsafe previous.deallocate()
    unsafe heads.deallocate()
    unsafe cache.deallocate()
  }

  private static func map(_ bytes: Int) throws(RingError) -> UnsafeMutableRawPointer {
    // Reserved, not resident: pages come when they are first used.
    let address = unsafe mmap(
      nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw RingError.memory(bytes: bytes, errno: errno)
    }
    return unsafe address
  }

  // MARK: The interface

  /// Whether a buffer of `bytes` comes out of the budget for large ones: it is larger than a block,
  /// or than what the arena ever gives.
  public func isHuge(bytes: Int) -> Bool {
    let order = BufferPool.order(of: bytes)
    return order > orderMax || BufferPool.pageBytes << order > limitBytes - reserveBytes
  }

  /// A buffer of at least `bytes`, or nil if it does not fit now: wait for a `free`.
  ///
  /// Cost: constant for one page, else up to 12 splits; a system call if it `isHuge`.
  public mutating func allocate(bytes: Int, mayUseReserve: Bool = false) -> Buffer? {
    precondition(bytes > 0, "a buffer is not empty")
    if isHuge(bytes: bytes) { return allocateHuge(bytes) }
    let order = BufferPool.order(of: bytes)
    let size = BufferPool.pageBytes << order
    let limit = mayUseReserve ? limitBytes : limitBytes - reserveBytes
    guard leasedBytes + size <= limit else { return nil }
    let page: Int
    if order == 0, cached > 0 {
      cached -= 1
      page = unsafe Int(cache[cached])
    } else if let found = takeBlock(order: order) {
      page = found
    } else {
      guard cached > 0 else { return nil }
      emptyCache()
      guard let found = takeBlock(order: order) else { return nil }
      page = found
    }
    unsafe state[page] = BufferPool.takenBit | UInt8(order)
    leasedBytes += size
    return unsafe Buffer(
      base: arena + page * BufferPool.pageBytes, bytes: size, isMapped: false)
  }

  /// How often a large buffer did not fit, for any pool: while this grows, somebody waits.
  public var hugeRefusalCount: Int { huge.refusalCount }

  /// Gives a buffer back. A buffer that is not out, or of another pool, traps.
  public mutating func free(_ buffer: Buffer) {
    if buffer.isMapped {
      freeHuge(buffer)
      return
    }
    let offset = unsafe buffer.base - arena
    precondition(offset >= 0 && offset < arenaBytes, "a buffer of another pool is given back")
    let page = offset / BufferPool.pageBytes
    let order = BufferPool.order(of: buffer.bytes)
    precondition(
      unsafe offset % BufferPool.pageBytes == 0
        && state[page] == BufferPool.takenBit | UInt8(order),
      "a buffer is given back that is not out")
    leasedBytes -= buffer.bytes
    if order == 0, cached < BufferPool.cacheCount {
      unsafe state[page] = BufferPool.cachedState
      unsafe cache[cached] = UInt32(page)
      cached += 1
    } else {
      release(page, order: order)
    }
  }

  /// Whether nothing of the arena is out and all of it has been merged again. For tests: empties
  /// the cache.
  public mutating func isWhole() -> Bool {
    emptyCache()
    guard leasedBytes == 0 else { return false }
    for page in stride(from: 0, to: pageCount, by: 1 << orderMax)
    where unsafe state[page] != BufferPool.freeBit | UInt8(orderMax) {
      return false
    }
    return true
  }

  // MARK: Blocks

  private static func order(of bytes: Int) -> Int {
    let pages = (bytes + pageBytes - 1) / pageBytes
    return pages <= 1 ? 0 : Int.bitWidth - (pages - 1).leadingZeroBitCount
  }

  private mutating func takeBlock(order: Int) -> Int? {
    var from = order
    while from <= orderMax, unsafe heads[from] == BufferPool.none { from += 1 }
    guard from <= orderMax else { return nil }
    let page = unsafe Int(heads[from])
    removeFree(page, order: from)
    while from > order {
      from -= 1
      pushFree(page + (1 << from), order: from)
    }
    return page
  }

  private mutating func release(_ start: Int, order startOrder: Int) {
    var page = start
    var order = startOrder
    unsafe state[page] = 0
    while order < orderMax {
      let buddy = page ^ (1 << order)
      guard unsafe state[buddy] == BufferPool.freeBit | UInt8(order) else { break }
      removeFree(buddy, order: order)
      page = min(page, buddy)
      order += 1
    }
    pushFree(page, order: order)
  }

  private mutating func emptyCache() {
    while cached > 0 {
      cached -= 1
      unsafe release(Int(cache[cached]), order: 0)
    }
  }

  private mutating func pushFree(_ page: Int, order: Int) {
    let head = unsafe heads[order]
    unsafe state[page] = BufferPool.freeBit | UInt8(order)
    unsafe next[page] = head
    unsafe previous[page] = BufferPool.none
    if head != BufferPool.none { unsafe previous[Int(head)] = UInt32(page) }
    unsafe heads[order] = UInt32(page)
  }

  private mutating func removeFree(_ page: Int, order: Int) {
    let after = unsafe next[page]
    let before = unsafe previous[page]
    if before == BufferPool.none {
      unsafe heads[order] = after
    } else {
      unsafe next[Int(before)] = after
    }
    if after != BufferPool.none { unsafe previous[Int(after)] = before }
    unsafe state[page] = 0
  }

  // MARK: Large buffers

  /// A buffer of its own mapping, also beyond the budget: for the few requests whose buffer a
  /// failed leg may still write into, and which need another one to go on. Nil only if the kernel
  /// has no memory.
  public func allocateBeyondBudget(bytes: Int) -> Buffer? {
    let size = BufferPool.wholePages(bytes)
    huge.takeBeyond(size)
    return mapped(size)
  }

  private static func wholePages(_ bytes: Int) -> Int {
    (bytes + pageBytes - 1) / pageBytes * pageBytes
  }

  private func allocateHuge(_ bytes: Int) -> Buffer? {
    let size = BufferPool.wholePages(bytes)
    return huge.take(size) ? mapped(size) : nil
  }

  private func mapped(_ size: Int) -> Buffer? {
    do {
      return try unsafe Buffer(base: BufferPool.map(size), bytes: size, isMapped: true)
    } catch {
      huge.give(size)
      return nil
    }
  }

  private func freeHuge(_ buffer: Buffer) {
    // The mapping was made by `allocateHuge`, and the lease ends here.
    let result = unsafe munmap(buffer.base, buffer.bytes)
    precondition(result == 0, "a large buffer is given back that is not out")
    huge.give(buffer.bytes)
  }
}
