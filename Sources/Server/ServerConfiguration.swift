// What a server is started with, and why a start can fail.

import MirrorEngine
import NBDProtocol
import Base
import TLS

/// Options of a server; sizes in bytes.
public struct ServerConfiguration: Sendable {
  /// What is served.
  public var export: ExportInfo
  /// Block size of the mirror: reads reach the engine aligned to it.
  public var blockBytes: UInt64
  /// Paths of unix sockets to listen on.
  public var socketPaths: [String] = []
  /// TCP addresses to listen on, `HOST:PORT` (`[::1]:10809`).
  public var listenAddresses: [String] = []
  /// Listening sockets that were inherited (systemd).
  public var inheritedListeners: [Int32] = []
  /// Keys for clients that encrypt; nil: they cannot.
  public var credentials: Credentials?
  /// Transports on which nothing is served unencrypted; needs `credentials`.
  public var tlsRequired = TransportSet.none
  /// Number of reactors.
  public var threads = 1
  /// Longest busy wait before a reactor sleeps, in nanoseconds; 0: none.
  public var pollNanosecondsMax: UInt64 = 50 * Nanoseconds.microsecond
  /// Memory for payloads, all reactors together.
  public var arenaBytes = 128 << 20
  /// Memory for payloads above 16 MiB, all reactors together: one 64 MiB request of any alignment
  /// fits.
  public var hugeBytes = (64 << 20) + (1 << 20)
  /// Connections at once, all reactors together.
  public var connectionsMax = 512
  /// Requests of one connection that are worked on at once; beyond it the server stops reading.
  public var requestsPerConnection = 128
  /// A client that has not finished its handshake by then is dropped.
  public var handshakeNanoseconds: UInt64 = 10 * Nanoseconds.second
  /// A client that takes nothing for so long while others wait for memory is dropped; so is one
  /// that should have closed, and one whose payload takes longer while others wait.
  public var stuckNanoseconds: UInt64 = 30 * Nanoseconds.second
  /// In each part of that time, such a part of the payload has to come.
  static let looksPerPayload = 6
  var stillNanoseconds: UInt64 { stuckNanoseconds / UInt64(Self.looksPerPayload) }
  /// A client that was told everything has so long to close its side.
  static let lingerNanoseconds = Nanoseconds.second
  /// How long a stop waits for requests in flight, and then for the engine.
  public var stopNanoseconds: UInt64 = 20 * Nanoseconds.second

  /// What a connection is told about TLS.
  func tlsPolicy(isTCP: Bool) -> TLSPolicy {
    guard credentials != nil else { return .off }
    return tlsRequired.contains(isTCP ? .tcp : .unix) ? .required : .optional
  }

  /// Options with their defaults.
  public init(export: ExportInfo, blockBytes: UInt64) {
    precondition(blockBytes.nonzeroBitCount == 1, "a block is a power of two")
    self.export = export
    self.blockBytes = blockBytes
  }
}

/// Ways in which clients come.
public struct TransportSet: OptionSet, Sendable {
  /// Bits.
  public let rawValue: UInt8
  /// Wraps the bits.
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// Neither.
  public static let none = TransportSet([])
  /// Unix sockets.
  public static let unix = TransportSet(rawValue: 1 << 0)
  /// TCP.
  public static let tcp = TransportSet(rawValue: 1 << 1)
}

/// Why a server cannot start: sentences for the administrator.
public enum ServerError: Error, Equatable, Sendable, CustomStringConvertible {
  /// io_uring or its memory is missing.
  case ring(String)
  /// A server listens on this unix socket already.
  case socketInUse(String)
  /// Somebody listens on this TCP address already.
  case addressInUse(String)
  /// A file that is not a socket is in the way.
  case notASocket(String)
  /// A unix socket's path has too many bytes for the kernel.
  case pathTooLong(String)
  /// An address of `--listen` cannot be understood or resolved: address, reason.
  case badAddress(String, String)
  /// A socket could not be made, bound or listened on: where, reason.
  case listen(String, String)
  /// Neither a socket path nor an address was given.
  case nothingToListenOn
  /// A thread could not be started: errno.
  case thread(Int32)

  /// Somebody listens on the address already; a killed server's end can take a moment.
  var isAddressInUse: Bool {
    switch self {
    case .socketInUse, .addressInUse: true
    case .ring, .notASocket, .pathTooLong, .badAddress, .listen, .nothingToListenOn, .thread: false
    }
  }

  /// What happened and what to do.
  public var description: String {
    switch self {
    case .ring(let text): text
    case .socketInUse(let path):
      "the socket \(path) is in use: another server listens on it; stop it, or choose --socket"
    case .notASocket(let path):
      "\(path) exists and is not a socket: move it away, or choose --socket"
    case .pathTooLong(let path):
      "the socket path \(path) is longer than the 107 bytes that Linux takes: choose --socket"
    case .badAddress(let address, let reason):
      "\(address) is no address to listen on (\(reason)): use HOST:PORT, e.g. 127.0.0.1:10809"
    case .addressInUse(let place):
      "cannot listen on \(place): the address is in use; stop who uses it, or choose another"
    case .listen(let place, let reason): "cannot listen on \(place): \(reason)"
    case .nothingToListenOn: "there is nothing to listen on: give --socket or --listen"
    case .thread(let errno): "a thread could not be started (errno \(errno))"
    }
  }
}

/// Who hears of what happens in the mirror, on a thread of its own, in order; may block.
public protocol MirrorObserver: AnyObject, Sendable {
  /// Something an administrator wants to know.
  func observe(_ event: MirrorEvent)
  /// A client came through its handshake, or is gone after that.
  func clientChanged(_ connection: ConnectionInfo, isGone: Bool)
  /// A client's TLS session failed.
  func clientFailed(_ connection: ConnectionInfo, _ error: TLSError)
  /// So many events and changes of clients were not told, for they came faster than they were taken.
  func eventsDropped(_ count: UInt64)
  /// The leg is offline and nothing is in flight on it: detach it and close its file.
  func legIsIdle(_ slot: LegSlot)
}

/// One connection as `connections` shows it: plain values.
public struct ConnectionInfo: Equatable, Sendable, BitwiseCopyable {
  /// Number of the connection, counted from the start of the server; 0: no connection.
  public var number: UInt64 = 0
  /// Reactor that serves it.
  public var reactor = 0
  /// Whether it came through TCP; else a unix socket.
  public var isTCP = false
  /// Whether the handshake is over.
  public var isTransmitting = false
  /// Whether structured replies were negotiated.
  public var isStructured = false
  /// Whether it is encrypted.
  public var isEncrypted = false
  /// Requests that are worked on now.
  public var requestsInFlight = 0
  /// Requests so far.
  public var requests: UInt64 = 0
  /// Bytes read by the client so far.
  public var readBytes: UInt64 = 0
  /// Bytes written by the client so far.
  public var writtenBytes: UInt64 = 0
}
