// What a client gets that connects when all connections are taken.

import ControlModel
import NIOCore

/// Answers 503 without reading, and closes.
final class RefusingHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  func channelActive(context: ChannelHandlerContext) {
    let response = Response(
      Problem(
        status: 503, code: "too-many-connections",
        detail: "too many connections to the control socket; try again"))
    var text = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    for (name, value) in response.fields { text += "\(name): \(value)\r\n" }
    text += "Content-Length: \(response.body.count)\r\n\r\n"
    var buffer = context.channel.allocator.buffer(string: text)
    buffer.writeBytes(response.body)
    let done = context.eventLoop.makePromise(of: Void.self)
    done.futureResult.assumeIsolated().whenComplete { _ in context.close(promise: nil) }
    context.writeAndFlush(wrapOutboundOut(buffer), promise: done)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }
}
