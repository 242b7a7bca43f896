// One connection of a reactor, as plain state in a fixed table.
//
//   free -> handshake      a socket was accepted                            [Reactor.adopt]
//   handshake -> transmission   the handshake is over, its output is sent   [enterTransmission]
//   handshake, transmission -> draining   DISC, end of stream, the last words of a handshake, or the
//                          server stops                                     [drain]
//   draining -> lingering  all that the client was owed is sent             [leave]
//   lingering -> closing   the client ended its side, too, or takes too long  [abort]
//   handshake, transmission, draining -> closing   error, timer             [abort]
//   closing -> free        nothing is in flight on the socket, and the engine has replied to
//                          every request                                    [releaseIfIdle]
//
// Invariants
//  1. At most one receive and one send are in flight on the socket.
//  2. `outstanding` requests of the connection have replies that are not sent yet.
//  3. The receive memory holds received bytes in `start..<end`; nothing is parsed while a stream
//     receive is in flight, and no receive is armed while the connection waits for resources.
//  4. Payload memory of a write that is only partly there belongs to `payloadSlot`, which the engine
//     has not seen: a truncated write writes nothing.

import Base
import Glibc
import NBDProtocol
import Ring

/// Where a connection stands.
enum ConnectionPhase: UInt8 {
  /// No connection.
  case free
  /// Options are exchanged.
  case handshake
  /// Requests are served.
  case transmission
  /// No more requests; replies go out.
  case draining
  /// Our side of the stream is over. What the client still says is read and thrown away: a socket
  /// that is closed with unread bytes in it is reset, and what it has not yet delivered is lost.
  case lingering
  /// The socket is shut down; what is in flight comes back.
  case closing
}

/// What the receive in flight brings.
enum ReceiveState: UInt8 {
  /// No receive is in flight.
  case idle
  /// Bytes for the receive memory.
  case stream
  /// The rest of a large payload, straight into the request's buffer.
  case payload
}

/// Why parsing has stopped although bytes may be there.
enum StallReason: UInt8 {
  /// It has not.
  case none
  /// The connection's own limits: its next reply lets it go on.
  case own
  /// The reactor's memory or slots: it is in the queue of `Reactor.waiting`.
  case shared
  /// The memory of all reactors for large buffers: it is in the queue of `Reactor.waitingHuge`.
  case huge
}

/// One connection.
struct Connection {
  var phase = ConnectionPhase.free
  var receiving = ReceiveState.idle
  var stall = StallReason.none
  var isSending = false
  /// In the list of connections that may have something to send.
  var isListedToSend = false
  /// In the list of connections that want a receive.
  var isListedToReceive = false
  /// In the list of connections whose own limits may let them go on.
  var isListedToParse = false
  /// In the list of connections that may be over.
  var isListedToSettle = false
  /// In `Reactor.waitingHuge`; survives the connection, too.
  var isWaitingHuge = false
  /// In `Reactor.waiting`; survives the connection, like the place itself.
  var isWaiting = false
  /// More data was in the socket when the last receive ended.
  var socketHasMore = false
  /// Over TLS: the last words (close_notify or an alert) are said.
  var saidGoodbye = false
  /// Close when the handshake's output is sent.
  var closesAfterOutput = false
  /// STARTTLS was accepted: encrypt when the handshake's output is sent.
  var startsTLS = false
  /// What an encrypted connection has besides.
  var tls: TLSChannel?
  var socket: Int32 = -1
  var info = ConnectionInfo()

  // Handshake.
  var session: ServerSession?
  var output: [UInt8] = []
  var outputSent = 0
  /// In flight or to be sent; the memory of `outputMemory` is a copy of `output`.
  var outputMemory: UInt = 0

  var terms = Transmission(sizeBytes: 0, flags: [], alignmentBytes: 1, isStructured: false)

  // Receiving.
  var start = 0
  var end = 0
  /// Bytes to ask for: grows while receives come back full.
  var receiveBytes = Connection.receiveBytesMin
  var payloadSlot = -1
  var payloadDone = 0
  /// What was there of the payload when it was last looked at.
  var payloadLooked = 0
  /// The receive of the payload was ended, to look how far it came.
  var isLooking = false
  /// Bytes of a refused payload that are still to be thrown away, then the reply of `drainSlot`.
  var drainBytes = 0
  var drainSlot = -1

  // Requests and replies.
  var outstanding = 0
  /// Payload memory in use.
  var chargedBytes = 0
  /// Replies that wait, first to last; -1: none.
  var queueFirst: Int32 = -1
  var queueLast: Int32 = -1
  /// Replies in the send in flight.
  var sendFirst: Int32 = -1
  /// Parts of the send in flight that are not sent yet.
  var partIndex = 0
  var partCount = 0

  // When to give up, in nanoseconds on the server's clock; 0: never.
  /// The handshake, or what a drained connection still has to send.
  var deadline: UInt64 = 0
  /// A send that does not come on: only while others wait for memory.
  var sendDeadline: UInt64 = 0
  /// When to look, while others wait, how far the payload came.
  var payloadDeadline: UInt64 = 0

  /// The receive memory of a connection; resident only as far as it was used.
  static let receiveMemoryBytes = 256 << 10
  /// The first receive asks for this much.
  static let receiveBytesMin = 16 << 10
  /// Payloads of at least this size are received straight into their buffer.
  static let directPayloadBytes = 32 << 10
  /// Payloads larger than this get memory when their first `directPayloadBytes` are there.
  static let promptPayloadBytes = 256 << 10
  /// A connection that uses no more than this is served beside those who wait, from what is kept
  /// for such: memory, and requests.
  static let modestBytes = 512 << 10
  static let modestRequests = 8
  /// `struct iovec`s of one send.
  static let partsMax = 256
  /// A send stops gathering replies beyond this.
  static let sendBytesMax = 1 << 20
}

/// Memory of connections: one receive area and one send area each, reserved once, resident only
/// where it was used.
@safe
struct ConnectionMemory: ~Copyable {
  // Both areas are `count` strides long; indexes are checked here.
  private let receive: UnsafeMutableRawPointer
  private let send: UnsafeMutableRawPointer
  private let count: Int

  /// 256 parts of 16 bytes, then a `struct msghdr` (56 bytes) on a page of its own.
  private static let sendStride = 8192

  init(count: Int) throws(RingError) {
    let (first, second) = (
      unsafe try ConnectionMemory.map(count * Connection.receiveMemoryBytes),
      unsafe try ConnectionMemory.map(count * ConnectionMemory.sendStride)
    )
    self.count = count
    unsafe receive = first
    unsafe send = second
  }

  deinit {
    unsafe munmap(receive, count * Connection.receiveMemoryBytes)
    unsafe munmap(send, count * ConnectionMemory.sendStride)
  }

  private static func map(_ bytes: Int) throws(RingError) -> UnsafeMutableRawPointer {
    let address = unsafe mmap(
      nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw RingError.memory(bytes: bytes, errno: errno)
    }
    return unsafe address
  }

  /// Where connection `index` receives.
  func receiveBase(_ index: Int) -> UnsafeMutableRawPointer {
    precondition(index >= 0 && index < count, "outside the connections")
    return unsafe receive + index * Connection.receiveMemoryBytes
  }

  /// The parts of connection `index`'s send: `Connection.partsMax` of them.
  func parts(_ index: Int) -> UnsafeMutablePointer<iovec> {
    precondition(index >= 0 && index < count, "outside the connections")
    return unsafe (send + index * ConnectionMemory.sendStride).assumingMemoryBound(to: iovec.self)
  }

  /// Room for the message header of connection `index`'s send.
  func message(_ index: Int) -> UnsafeMutableRawPointer {
    precondition(index >= 0 && index < count, "outside the connections")
    return unsafe send + index * ConnectionMemory.sendStride + 4096
  }

  /// Gives the pages of a closed connection back to the kernel.
  func discard(_ index: Int) {
    unsafe madvise(receiveBase(index), Connection.receiveMemoryBytes, MADV_DONTNEED)
  }
}
