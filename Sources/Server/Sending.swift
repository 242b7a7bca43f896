// Replies: encoded into the slot's header memory, queued per connection, sent many at a time.
//
// All finished replies of a connection go out in one sendmsg (header and data parts); what the
// socket does not take is sent on; never two sends in flight.
//
// Every `unsafe` here is an address inside a connection's send memory, a slot's header or a
// request's buffer; none of them is reused before the send has ended.

import Base
import Glibc
import MirrorEngine
import NBDProtocol
import Ring

extension Reactor {
  // MARK: From the engine

  /// The engine's answer to a request.
  mutating func reply(_ slot: Int, error: ReplyError) {
    if replyClock == 0 { replyClock = monotonicNanoseconds() }
    countReply(slot, isError: error != 0)
    let place = Int(requests[slot].connection)
    guard place >= 0, connections[place].phase != .closing else { return replied(slot) }
    if error != 0 {
      encodeFailure(slot, nbdError(fromErrno: error))
    } else if requests[slot].isRead {
      encodeRead(slot)
    } else {
      encodeSuccess(slot)
    }
    enqueueReply(slot)
  }

  /// The engine and the kernel are done with the buffer of a request.
  mutating func release(_ slot: Int) {
    requests[slot].isInEngine = false
    dropRetired(slot)
    if requests[slot].isPinned {
      requests[slot].isPinned = false
      changePinned(by: -(requests[slot].buffer?.bytes ?? 0))
    }
    if !requests[slot].isRead || !requests[slot].isReplyPending { freeBuffer(slot) }
    if !requests[slot].isReplyPending { freeSlot(slot) }
  }

  private mutating func dropRetired(_ slot: Int) {
    var index = retired.count
    while index > 0 {
      index -= 1
      if retired[index].slot == slot { pool.free(retired.remove(at: index).buffer) }
    }
  }

  // MARK: The end of a request

  /// The reply is sent, or will never be.
  mutating func replied(_ slot: Int) {
    requests[slot].isReplyPending = false
    let place = Int(requests[slot].connection)
    connections[place].outstanding -= 1
    connections[place].chargedBytes -= requests[slot].chargedBytes
    if requests[slot].isInEngine {
      // A leg that hangs may keep the buffer for ever; others get its share of the memory.
      if let buffer = requests[slot].buffer {
        requests[slot].isPinned = true
        changePinned(by: buffer.bytes)
      }
    } else {
      freeBuffer(slot)
      freeSlot(slot)
    }
    let phase = connections[place].phase
    if phase == .closing || phase == .draining {
      wantSettle(place)
    } else if mayGoOn(place), !connections[place].isListedToParse {
      connections[place].isListedToParse = true
      toParse.append(Int32(place))
    }
  }

  private mutating func changePinned(by bytes: Int) {
    pinnedBytes += bytes
    pool.limitBytes = min(pool.arenaBytes, baseLimitBytes + pinnedBytes)
    somethingFreed = true
  }

  private mutating func freeBuffer(_ slot: Int) {
    guard let buffer = requests[slot].buffer.take() else { return }
    pool.free(buffer)
    somethingFreed = true
  }

  private mutating func freeSlot(_ slot: Int) {
    requests.free(slot)
    somethingFreed = true
  }

  // MARK: Encoding

  /// Runs `body` on the header memory of a slot and notes the length that it gives.
  @inline(__always)
  private func encodeHeader(
    _ slot: Int, _ body: (ReplyEncoder, inout MutableRawSpan) -> Int
  ) {
    let place = Int(requests[slot].connection)
    let replies = connections[place].terms.replies
    var bytes = unsafe MutableRawSpan(
      _unsafeStart: requests.header(slot), byteCount: RequestTable.headerStride)
    requests[slot].headerBytes = body(replies, &bytes)
  }

  private func encodeRead(_ slot: Int) {
    let (tag, count) = (tag(slot), UInt32(requests[slot].count))
    guard !foundZeros(slot) else {
      return encodeHeader(slot) { replies, bytes in replies.hole(into: &bytes, tag, count: count) }
    }
    encodeHeader(slot) { replies, bytes in replies.readHeader(into: &bytes, tag, count: count) }
    requests[slot].dataBytes = Int(count)
  }

  /// Whether a read can be answered by a hole. Data rarely begins with zeros: mostly this looks at
  /// one word.
  private func foundZeros(_ slot: Int) -> Bool {
    guard connections[Int(requests[slot].connection)].terms.isStructured else { return false }
    let data = unsafe replyData(slot)
    guard let base = data.baseAddress, data.count >= Reactor.holeBytesMin,
      unsafe base.loadUnaligned(as: UInt64.self) == 0
    else { return false }
    // Each byte is as the one before it, and the first one is zero.
    return unsafe memcmp(base, base + 1, data.count - 1) == 0
  }

  /// A hole saves less than it costs to find below this.
  private static let holeBytesMin = 512

  /// The data of a read's reply.
  private func replyData(_ slot: Int) -> UnsafeRawBufferPointer {
    guard let buffer = requests[slot].buffer else {
      preconditionFailure("a read without a buffer")
    }
    let start =
      requests[slot].dataOffset + Int(requests[slot].offset - requests[slot].engineRange.offset)
    let count = Int(requests[slot].count)
    precondition(start + count <= buffer.bytes, "a reply outside its buffer")
    return unsafe UnsafeRawBufferPointer(start: buffer.base + start, count: count)
  }

  private func tag(_ slot: Int) -> ReplyTag {
    ReplyTag(cookie: requests[slot].cookie, offset: requests[slot].offset)
  }

  /// Encodes a success without data.
  func encodeSuccess(_ slot: Int) {
    let tag = tag(slot)
    encodeHeader(slot) { replies, bytes in replies.success(into: &bytes, tag) }
  }

  private func encodeFailure(_ slot: Int, _ error: NBDError) {
    let tag = tag(slot)
    encodeHeader(slot) { replies, bytes in replies.failure(into: &bytes, tag, error: error) }
  }

  /// Encodes an answer that needs no engine.
  func encode(_ slot: Int, _ answer: Answer) {
    requests[slot].isRead = answer.isRead
    encodeHeader(slot) { replies, bytes in replies.answer(answer, into: &bytes) }
  }

  // MARK: Queues

  /// Puts a finished reply behind those that wait on its connection.
  mutating func enqueueReply(_ slot: Int) {
    let place = Int(requests[slot].connection)
    requests[slot].next = -1
    if connections[place].queueLast >= 0 {
      requests[Int(connections[place].queueLast)].next = Int32(slot)
    } else {
      connections[place].queueFirst = Int32(slot)
    }
    connections[place].queueLast = Int32(slot)
    wantSend(place)
  }

  private mutating func wantSend(_ place: Int) {
    guard !connections[place].isListedToSend else { return }
    connections[place].isListedToSend = true
    toSend.append(Int32(place))
  }

  /// Prepares a send for every connection that has replies and none in flight.
  mutating func sendReplies() {
    while let listed = toSend.pop() {
      let place = Int(listed)
      connections[place].isListedToSend = false
      if !connections[place].isSending, connections[place].queueFirst >= 0,
        connections[place].phase != .closing
      {
        gather(place)
      }
    }
  }

  private mutating func gather(_ place: Int) {
    let parts = unsafe memory.parts(place)
    var count = 0
    var bytes = 0
    var slot = connections[place].queueFirst
    var last: Int32 = -1
    connections[place].sendFirst = slot
    while slot >= 0, count <= Connection.partsMax - 2, bytes < Connection.sendBytesMax {
      let index = Int(slot)
      let headerBytes = requests[index].headerBytes
      if headerBytes > 0 {
        unsafe parts[count] = iovec(iov_base: requests.header(index), iov_len: headerBytes)
        count += 1
        bytes += headerBytes
      }
      let dataBytes = requests[index].dataBytes
      if dataBytes > 0, let buffer = requests[index].buffer {
        let start =
          requests[index].dataOffset
          + Int(requests[index].offset - requests[index].engineRange.offset)
        precondition(start + dataBytes <= buffer.bytes, "a reply outside its buffer")
        unsafe parts[count] = iovec(iov_base: buffer.base + start, iov_len: dataBytes)
        count += 1
        bytes += dataBytes
      }
      last = slot
      slot = requests[index].next
    }
    requests[Int(last)].next = -1
    connections[place].queueFirst = slot
    if slot < 0 { connections[place].queueLast = -1 }
    connections[place].partIndex = 0
    connections[place].partCount = count
    startSend(place)
  }

  /// Sends the parts that are left.
  private mutating func startSend(_ place: Int) {
    guard connections[place].tls == nil else { return sendEncrypted(place) }
    noteSending(place)
    let index = connections[place].partIndex
    unsafe ring.prepareSend(
      connections[place].socket, message: memory.message(place),
      parts: UnsafeMutableRawPointer(memory.parts(place) + index),
      count: connections[place].partCount - index, options: .waitAll,
      userData: CompletionKind.send.userData(place))
  }

  /// A send begins.
  mutating func noteSending(_ place: Int) {
    connections[place].isSending = true
    connections[place].sendDeadline = now.nanoseconds + configuration.stuckNanoseconds
    if connections[place].phase == .draining {
      connections[place].deadline = connections[place].sendDeadline
    }
  }

  /// A send has ended.
  mutating func sent(_ place: Int, _ result: Int32) {
    connections[place].isSending = false
    let isClosing = connections[place].phase == .closing
    if result < 0, result != -EINTR, result != -EAGAIN, !isClosing { abort(place) }
    if connections[place].phase == .closing {
      finishSent(place)
      wantSettle(place)
      return
    }
    let count = Int(max(result, 0))
    let channel = connections[place].tls
    if let channel {
      if sentEncrypted(place, channel, count) { return }
    } else {
      advance(place, count)
      if connections[place].partIndex < connections[place].partCount { return startSend(place) }
    }
    connections[place].sendDeadline = 0
    if connections[place].outputMemory != 0 {
      freeOutput(place)
      outputSent(place)
    } else {
      finishSent(place)
      if connections[place].queueFirst >= 0 { wantSend(place) }
    }
    if connections[place].phase == .draining { wantSettle(place) }
    if channel != nil { resumeAfterSend(place) }
  }

  private func advance(_ place: Int, _ count: Int) {
    let parts = unsafe memory.parts(place)
    var left = count
    var index = connections[place].partIndex
    while index < connections[place].partCount {
      guard unsafe left >= parts[index].iov_len else { break }
      left -= unsafe parts[index].iov_len
      index += 1
    }
    connections[place].partIndex = index
    if left > 0, index < connections[place].partCount {
      unsafe parts[index].iov_base += left
      unsafe parts[index].iov_len -= left
    }
  }

  /// The replies of the send that ended, or will never begin, are done.
  mutating func finishSent(_ place: Int) {
    var slot = connections[place].sendFirst
    connections[place].sendFirst = -1
    while slot >= 0 {
      let next = requests[Int(slot)].next
      replied(Int(slot))
      slot = next
    }
  }

  // MARK: Handshake output

  /// Sends the handshake's output.
  mutating func sendOutput(_ place: Int) {
    let count = connections[place].output.count
    let copy = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 8)
    unsafe connections[place].output.withUnsafeBytes { bytes in
      unsafe copy.copyMemory(from: bytes.baseAddress ?? UnsafeRawPointer(copy), byteCount: count)
    }
    connections[place].output = []
    connections[place].outputMemory = UInt(bitPattern: copy)
    unsafe memory.parts(place)[0] = iovec(iov_base: copy, iov_len: count)
    connections[place].partIndex = 0
    connections[place].partCount = 1
    startSend(place)
  }

  /// Frees the copy of the handshake's output; no send is in flight.
  func freeOutput(_ place: Int) {
    let address = connections[place].outputMemory
    connections[place].outputMemory = 0
    unsafe UnsafeMutableRawPointer(bitPattern: address)?.deallocate()
  }
}
