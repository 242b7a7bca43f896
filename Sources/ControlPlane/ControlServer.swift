// The control plane's server: HTTP/1.1 on a unix socket, and over TCP if asked for, on one event
// loop thread of its own.
//
// Invariants
// 1. No controller call runs on the event loop: commands run one at a time on a thread of their
//    own, everything else on two others, so a command that blocks hides no status.
// 2. Memory is bounded: connections, header bytes, body bytes, and one response in flight per
//    connection.
// 3. Nobody but the owner can connect, from the first moment on (`SocketFile`); over TCP a request
//    without the token is refused before anything of it is looked at. Each listener has its own
//    bound of connections, so strangers cannot keep the owner out.
// 4. `stop` ends within its deadline, whatever clients or the controller do.

import ControlModel
import Glibc
import NIOCore
import NIOPosix

/// Bounds of the control plane.
public struct ControlLimits: Sendable {
  /// Connections served at once by each listener; further ones are told 503.
  public var connectionsMax = 32
  /// Bytes of a request's body.
  public var bodyBytesMax = 1 << 20
  /// Bytes of one header field and of the request line.
  public var headerFieldBytesMax = 16 << 10
  /// Bytes of all header fields of a request.
  public var headerBytesMax = 64 << 10
  /// Header fields of a request.
  public var headerFieldsMax = 64
  /// Milliseconds that a client may take to send a request, to take the response, and between
  /// two requests.
  public var clientMillisecondsMax: Int64 = 30_000
  /// Milliseconds that a refused client is listened to after the last response.
  public var lingerMillisecondsMax: Int64 = 1_000
  /// Milliseconds that `stop` waits for responses under way.
  public var stopMillisecondsMax: Int64 = 5_000

  /// The defaults.
  public init() {}
}

/// A running control plane.
public final class ControlServer: Sendable {
  private let file: SocketFile
  private let limits: ControlLimits
  private let group: MultiThreadedEventLoopGroup
  private let pools: ControlThreads
  private let listeners: [ControlListener]

  private init(
    file: SocketFile, limits: ControlLimits, group: MultiThreadedEventLoopGroup,
    pools: ControlThreads, listeners: [ControlListener]
  ) {
    self.file = file
    self.limits = limits
    self.group = group
    self.pools = pools
    self.listeners = listeners
  }

  /// The TCP addresses that are listened on, as in a URI: `127.0.0.1:8080`, `[::1]:8080`.
  public var addresses: [String] {
    listeners.compactMap { listener in
      guard let address = listener.channel.localAddress, let host = address.ipAddress,
        let port = address.port
      else { return nil }
      return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
  }

  /// Starts to serve `controller` at `path` and at the TCP addresses. Blocks until it listens.
  ///
  /// The new threads inherit the caller's signal mask: whoever takes signals by descriptor blocks
  /// them first. The folder of `path` must exist.
  public static func start(
    path: String, tcp: [ControlTCP] = [], controller: any MirrorController,
    limits: ControlLimits = ControlLimits()
  ) throws(ControlServerError) -> ControlServer {
    let (file, descriptor) = try SocketFile.make(at: path)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let pools = ControlThreads()
    let responder = Responder(
      controller: controller, revisions: RevisionCounter(first: microsecondsSinceEpoch()))
    var listeners: [ControlListener] = []
    do throws(ControlServerError) {
      let owner = ControlListener.Setup(
        responder: responder, pools: pools, limits: limits, access: .owner)
      listeners.append(try .start(owner, on: group, descriptor: descriptor))
      for address in tcp {
        let strangers = ControlListener.Setup(
          responder: responder, pools: pools, limits: limits, access: .token(address.token))
        listeners.append(try .start(strangers, on: group, address))
      }
    } catch {
      file.remove()
      for listener in listeners { listener.channel.close(promise: nil) }
      pools.stop()
      group.shutdownGracefully { _ in }
      throw error
    }
    return ControlServer(
      file: file, limits: limits, group: group, pools: pools, listeners: listeners)
  }

  /// Stops: removes the socket's file, refuses new connections, lets responses under way go out,
  /// closes every connection. Blocks, at most about `limits.stopMillisecondsMax`; call it once,
  /// not from a controller call.
  public func stop() {
    file.remove()
    let loop = listeners[0].channel.eventLoop
    let listeners = listeners
    let drained = loop.makePromise(of: Void.self)
    let deadline = loop.scheduleTask(in: .milliseconds(limits.stopMillisecondsMax)) {
      drained.succeed()
    }
    for listener in listeners { listener.channel.close(promise: nil) }
    // All listeners are on one loop.
    loop.execute {
      let ends = listeners.map { listener in
        let end = loop.makePromise(of: Void.self)
        listener.connections.value.drain(promise: end)
        return end.futureResult
      }
      EventLoopFuture.andAllComplete(ends, on: loop).cascade(to: drained)
    }
    // The promise cannot fail: it is succeeded by the last connection or by the deadline.
    do { try drained.futureResult.wait() } catch {}
    deadline.cancel()
    // A controller call that still blocks will hop back to the loop: then the loop stays.
    guard pools.stop() else { return }
    do { try group.syncShutdownGracefully() } catch {}
  }
}

/// Time of day in microseconds.
private func microsecondsSinceEpoch() -> UInt64 {
  var time = timespec()
  // The kernel fills a plain struct.
  unsafe clock_gettime(CLOCK_REALTIME, &time)
  return UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_nsec) / 1000
}
