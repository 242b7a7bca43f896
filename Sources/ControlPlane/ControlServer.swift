// The control plane's server: HTTP/1.1 on a unix socket, on one event loop thread of its own.
//
// Invariants
// 1. No controller call runs on the event loop: commands run one at a time on a thread of their
//    own, everything else on two others, so a command that blocks hides no status.
// 2. Memory is bounded: connections, header bytes, body bytes, and one response in flight per
//    connection.
// 3. Nobody but the owner can connect, from the first moment on (`SocketFile`).
// 4. `stop` ends within its deadline, whatever clients or the controller do.

import ControlModel
import NIOCore
import NIOHTTP1
import NIOPosix

/// Bounds of the control plane.
public struct ControlLimits: Sendable {
  /// Connections served at once; further ones are told 503.
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
  private let listener: any Channel
  private let connections: NIOLoopBound<ConnectionRegistry>

  private init(
    file: SocketFile, limits: ControlLimits, group: MultiThreadedEventLoopGroup,
    pools: ControlThreads, listener: any Channel, connections: NIOLoopBound<ConnectionRegistry>
  ) {
    self.file = file
    self.limits = limits
    self.group = group
    self.pools = pools
    self.listener = listener
    self.connections = connections
  }

  /// Starts to serve `controller` at `path`. Blocks until it listens.
  ///
  /// The new threads inherit the caller's signal mask: whoever takes signals by descriptor blocks
  /// them first. The folder of `path` must exist.
  public static func start(
    path: String, controller: any MirrorController, limits: ControlLimits = ControlLimits()
  ) throws(ControlServerError) -> ControlServer {
    let (file, descriptor) = try SocketFile.make(at: path)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let pools = ControlThreads()
    let responder = Responder(controller: controller)
    let loop = group.next()
    let registry = loop.makeBoundRegistry()
    let bootstrap = ServerBootstrap(group: group)
      .childChannelOption(.allowRemoteHalfClosure, value: true)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let pipeline = channel.pipeline.syncOperations
          guard registry.value.count < limits.connectionsMax else {
            try pipeline.addHandler(RefusingHandler())
            return
          }
          var decoder = NIOHTTPDecoderLimitConfiguration()
          decoder.maxHeaderFieldSize = limits.headerFieldBytesMax
          decoder.maxHeaderListSize = limits.headerBytesMax
          decoder.maxHeaderFieldCount = limits.headerFieldsMax
          try pipeline.configureHTTPServerPipeline(
            withPipeliningAssistance: true, withErrorHandling: false,
            withEncoderConfiguration: HTTPResponseEncoder.Configuration(),
            withDecoderLimitConfiguration: decoder)
          let connection = ControlConnection(
            responder: responder, pools: pools, limits: limits, registry: registry.value)
          try pipeline.addHandler(connection)
        }
      }
    do {
      let listener = try bootstrap.withBoundSocket(descriptor).wait()
      return ControlServer(
        file: file, limits: limits, group: group, pools: pools, listener: listener,
        connections: registry)
    } catch {
      file.remove()
      pools.stop()
      group.shutdownGracefully { _ in }
      throw .loop("\(error)")
    }
  }

  /// Stops: removes the socket's file, refuses new connections, lets responses under way go out,
  /// closes every connection. Blocks, at most about `limits.stopMillisecondsMax`; call it once,
  /// not from a controller call.
  public func stop() {
    file.remove()
    let loop = listener.eventLoop
    let connections = connections
    let drained = loop.makePromise(of: Void.self)
    let deadline = loop.scheduleTask(in: .milliseconds(limits.stopMillisecondsMax)) {
      drained.succeed()
    }
    listener.close(promise: nil)
    loop.execute { connections.value.drain(promise: drained) }
    // The promise cannot fail: it is succeeded by the last connection or by the deadline.
    do { try drained.futureResult.wait() } catch {}
    deadline.cancel()
    // A controller call that still blocks will hop back to the loop: then the loop stays.
    guard pools.stop() else { return }
    do { try group.syncShutdownGracefully() } catch {}
  }
}

extension EventLoop {
  /// A registry that only this loop touches.
  fileprivate func makeBoundRegistry() -> NIOLoopBound<ConnectionRegistry> {
    do {
      return try submit { NIOLoopBound(ConnectionRegistry(), eventLoop: self) }.wait()
    } catch {
      preconditionFailure("a new event loop refuses work: \(error)")
    }
  }
}
