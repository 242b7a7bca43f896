// The open connections, so that they can be counted and ended. Touched by the event loop only.

import NIOCore

/// The connections of one server.
final class ConnectionRegistry {
  private var connections: [ObjectIdentifier: ControlConnection] = [:]
  /// Connections that follow events.
  var streamCount = 0
  private var drained: EventLoopPromise<Void>?

  /// How many there are.
  var count: Int { connections.count }

  /// A connection began.
  func insert(_ connection: ControlConnection) {
    connections[ObjectIdentifier(connection)] = connection
    if drained != nil { connection.finish() }
  }

  /// A connection ended.
  func remove(_ connection: ControlConnection) {
    connections[ObjectIdentifier(connection)] = nil
    if connections.isEmpty { drained?.succeed() }
  }

  /// Ends every connection once its response is out, and succeeds `promise` when none is left.
  func drain(promise: EventLoopPromise<Void>) {
    drained = promise
    if connections.isEmpty { promise.succeed() }
    for connection in Array(connections.values) { connection.finish() }
  }
}
