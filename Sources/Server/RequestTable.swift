// The requests of one reactor: fixed slots, from the first byte of a request to the last of its
// reply and the engine's release.
//
//   free --take--> taken --(payload complete)--> in the engine --reply--> reply pending
//                    \--(refused, hint)---------------------------------> reply pending
//   reply pending --(sent, or the connection is gone)--> replied
//   a slot is free again when it is replied and the engine has released it.
//
// The generation of a slot changes when it is freed: a token of an earlier life traps.

import Base
import MirrorEngine
import NBDProtocol
import Ring

/// One request.
struct RequestSlot {
  /// Of this life of the slot.
  var generation: UInt32 = 1
  /// Index of the connection.
  var connection: Int32 = -1
  /// Next slot in the free list or in a reply queue; -1: none.
  var next: Int32 = -1
  /// What the engine is asked for.
  var kind = MirrorRequest.Kind.flush
  var isFUA = false
  var mayPunchHoles = false
  var engineRange = ByteRange(offset: 0, count: 0)
  /// The client's words.
  var isRead = false
  /// For statistics: a `ClientOperation`, and when it was taken.
  var operation: UInt8 = 0
  var begun: UInt64 = 0
  var cookie: UInt64 = 0
  var offset: UInt64 = 0
  var count: UInt64 = 0
  /// Payload memory, if any; `dataOffset` is where the byte of `engineRange.offset` stands.
  var buffer: Buffer?
  var dataOffset = 0
  /// Bytes of the buffer that count against the connection.
  var chargedBytes = 0
  /// The engine has it: submitted and not released.
  var isInEngine = false
  /// Its reply is not yet sent.
  var isReplyPending = false
  /// Replied, while the engine still holds the buffer.
  var isPinned = false
  /// The reply: header bytes in the header memory, then data in the buffer.
  var headerBytes = 0
  var dataBytes = 0
}

/// The slots of a reactor and the memory for their reply headers.
@safe
struct RequestTable: ~Copyable {
  private let slots: FixedTable<RequestSlot>
  // One header of `ReplyEncoder.replyBytesMax` bytes per slot; indexes are checked by `slots`.
  private let headers: UnsafeMutableRawPointer
  private var firstFree: Int32 = 0
  private(set) var freeCount: Int

  static var headerStride: Int { 128 }

  init(count: Int) {
    precondition(count <= 1 << 24, "a token has 24 bits for the slot")
    slots = FixedTable(count: count, filler: RequestSlot())
    unsafe headers = .allocate(byteCount: count * RequestTable.headerStride, alignment: 64)
    freeCount = count
    for index in 0..<count { slots[index].next = index + 1 < count ? Int32(index + 1) : -1 }
  }

  deinit { unsafe headers.deallocate() }

  subscript(index: Int) -> RequestSlot {
    @inline(__always)
    unsafeAddress { return unsafe slots.address(of: index) }
    @inline(__always)
    nonmutating unsafeMutableAddress { return unsafe slots.mutableAddress(of: index) }
  }

  /// Where the reply header of a slot stands.
  func header(_ index: Int) -> UnsafeMutableRawPointer {
    precondition(index >= 0 && index < slots.count, "outside the request table")
    return unsafe headers + index * RequestTable.headerStride
  }

  /// Takes a slot out of the free list.
  mutating func take() -> Int? {
    guard firstFree >= 0 else { return nil }
    let index = Int(firstFree)
    firstFree = slots[index].next
    freeCount -= 1
    slots[index].next = -1
    slots[index].headerBytes = 0
    slots[index].dataBytes = 0
    slots[index].chargedBytes = 0
    slots[index].isReplyPending = true
    return index
  }

  /// Puts a slot back.
  mutating func free(_ index: Int) {
    precondition(
      !slots[index].isInEngine && !slots[index].isReplyPending && slots[index].buffer == nil,
      "a slot is freed while somebody uses it")
    slots[index].generation = slots[index].generation &+ 1
    slots[index].connection = -1
    slots[index].isPinned = false
    slots[index].next = firstFree
    firstFree = Int32(index)
    freeCount += 1
  }

  /// The token of a slot's request.
  func token(_ index: Int, reactor: Int) -> RequestToken {
    Token.pack(reactor: reactor, slot: index, generation: slots[index].generation)
  }

  /// The slot of a token.
  /// - Precondition: the request is in the engine.
  @inline(__always)
  func slot(of token: RequestToken) -> Int {
    let index = Token.slot(of: token)
    precondition(
      slots[index].generation == Token.generation(of: token) && slots[index].isInEngine,
      "the engine names a request that it has released")
    return index
  }
}
