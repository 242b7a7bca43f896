// One listening socket of the control plane, with its connections.

import ControlModel
import NIOCore
import NIOHTTP1
import NIOPosix

/// A socket that listens.
struct ControlListener: Sendable {
  /// What its connections need.
  struct Setup: Sendable {
    var responder: Responder
    var pools: ControlThreads
    var limits: ControlLimits
    var access: ControlAccess
  }

  /// The listening channel.
  let channel: any Channel
  /// Its connections; only the event loop touches them.
  let connections: NIOLoopBound<ConnectionRegistry>

  /// Listens on a bound unix socket, which it takes over.
  static func start(
    _ setup: Setup, on group: MultiThreadedEventLoopGroup, descriptor: Int32
  ) throws(ControlServerError) -> ControlListener {
    let registry = group.next().makeBoundRegistry()
    do {
      let channel = try bootstrap(setup, on: group, registry).withBoundSocket(descriptor).wait()
      return ControlListener(channel: channel, connections: registry)
    } catch {
      throw .loop("\(error)")
    }
  }

  /// Listens on a TCP address.
  static func start(
    _ setup: Setup, on group: MultiThreadedEventLoopGroup, _ address: ControlTCP
  ) throws(ControlServerError) -> ControlListener {
    let registry = group.next().makeBoundRegistry()
    do {
      let channel = try bootstrap(setup, on: group, registry)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .bind(host: address.host, port: Int(address.port)).wait()
      return ControlListener(channel: channel, connections: registry)
    } catch {
      throw .tcp("\(address.host):\(address.port)", "\(error)")
    }
  }

  private static func bootstrap(
    _ setup: Setup, on group: MultiThreadedEventLoopGroup,
    _ registry: NIOLoopBound<ConnectionRegistry>
  ) -> ServerBootstrap {
    ServerBootstrap(group: group)
      .childChannelOption(.allowRemoteHalfClosure, value: true)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let pipeline = channel.pipeline.syncOperations
          guard registry.value.count < setup.limits.connectionsMax else {
            try pipeline.addHandler(RefusingHandler())
            return
          }
          var decoder = NIOHTTPDecoderLimitConfiguration()
          decoder.maxHeaderFieldSize = setup.limits.headerFieldBytesMax
          decoder.maxHeaderListSize = setup.limits.headerBytesMax
          decoder.maxHeaderFieldCount = setup.limits.headerFieldsMax
          try pipeline.configureHTTPServerPipeline(
            withPipeliningAssistance: true, withErrorHandling: false,
            withEncoderConfiguration: HTTPResponseEncoder.Configuration(),
            withDecoderLimitConfiguration: decoder)
          let connection = ControlConnection(setup, registry: registry.value)
          try pipeline.addHandler(connection)
        }
      }
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
