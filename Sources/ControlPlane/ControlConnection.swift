// One connection to the control socket: requests in, one response at a time out.
//
//                 head            end               result           flushed
//   waiting -----------> receiving ------> working ----------> sending --------> waiting
//      |                    |                 |                   |
//      | deadline,          | too large,      |   (the client's   | last response
//      | end of input       | broken, slow    |    deadline does  v
//      v                    +-----------------|--- not run) --> lingering --> closed
//    closed
//
// `streaming`: instead of `working`, a response of events without an end (EventStream).
//
// `lingering`: the last response is out, our side is shut, input is thrown away, so that a client
// that is still sending gets to read the response.
//
// The end part of a response is written only when its bytes are flushed: the pipelining handler
// below lets the next request through at that part, so a client that sends requests and takes no
// responses holds one response in memory, not many.

import ControlModel
import NIOCore
import NIOHTTP1
import NIOPosix

/// Handles the requests of one connection.
final class ControlConnection: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private enum State {
    case waiting
    case receiving(HTTPRequestHead, ByteBuffer)
    case working(HTTPRequestHead)
    case sending
    case streaming(EventStream)
    case lingering
    case closed
  }

  private let responder: Responder
  private let pools: ControlThreads
  private let limits: ControlLimits
  private let registry: ConnectionRegistry
  private let access: ControlAccess
  private var peer = "an unknown peer"
  private var state = State.waiting
  private var isLast = false
  private var timer: Scheduled<Void>?
  private var context: ChannelHandlerContext?

  init(_ setup: ControlListener.Setup, registry: ConnectionRegistry) {
    responder = setup.responder
    pools = setup.pools
    limits = setup.limits
    access = setup.access
    self.registry = registry
  }

  // MARK: Events

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    registry.insert(self)
    context.channel.describePeer(access).assumeIsolated().whenSuccess { self.peer = $0 }
    startTimer(milliseconds: limits.clientMillisecondsMax)
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    if case .streaming(let stream) = state {
      stream.stop()
      registry.streamCount -= 1
    }
    state = .closed
    timer?.cancel()
    registry.remove(self)
    self.context = nil
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch (unwrapInboundIn(data), state) {
    case (.head(let head), .waiting): receive(head, context: context)
    case (.body(var part), .receiving(let head, var body)):
      guard body.readableBytes + part.readableBytes <= limits.bodyBytesMax else {
        refuse(Response(tooLarge), context: context)
        return
      }
      // Let go of the state's copy first, so that the buffer grows in place.
      state = .waiting
      body.writeBuffer(&part)
      state = .receiving(head, body)
    case (.end, .receiving(let head, let body)): work(on: head, body: body, context: context)
    case (_, .lingering), (_, .closed): break
    case (.head, _), (.body, _), (.end, _):
      // The pipelining handler holds further requests back until the response's end.
      context.close(promise: nil)
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .some(ChannelEvent.inputClosed) = event as? ChannelEvent {
      switch state {
      case .waiting, .receiving, .streaming, .lingering: context.close(promise: nil)
      case .working, .sending: isLast = true
      case .closed: break
      }
    }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // More bytes behind an error that was told already, maybe while an answer is on its way.
    if error is ByteToMessageDecoderError { return }
    guard let error = error as? HTTPParserError else {
      context.close(promise: nil)
      return
    }
    switch state {
    case .waiting, .receiving:
      let isOverflow = error == .headerOverflow
      let problem = Problem(
        status: isOverflow ? 431 : 400, code: isOverflow ? "header-too-large" : "bad-http",
        detail: isOverflow
          ? "the request's header is too large" : "this is not an HTTP/1.1 request")
      refuse(Response(problem), context: context)
    case .working, .sending: isLast = true
    case .streaming, .lingering, .closed: break
    }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if case .streaming(let stream) = state { stream.pump() }
    context.fireChannelWritabilityChanged()
  }

  /// Ends the connection: at once if no request is complete, else after its response.
  func finish() {
    isLast = true
    switch state {
    case .waiting, .receiving, .lingering: context?.close(promise: nil)
    case .streaming(let stream): stream.finish()
    case .working, .sending, .closed: break
    }
  }

  // MARK: One request

  private var tooLarge: Problem {
    Problem(
      status: 413, code: "body-too-large",
      detail: "a request body may have at most \(limits.bodyBytesMax) bytes")
  }

  private func receive(_ head: HTTPRequestHead, context: ChannelHandlerContext) {
    state = .receiving(head, context.channel.allocator.buffer(capacity: 0))
    guard access.admits(authorization: head.headers.first(name: "authorization")) else {
      return refuseStranger(head, context: context)
    }
    if let text = head.headers.first(name: "content-length"), let count = Int(text),
      count > limits.bodyBytesMax
    {
      refuse(Response(tooLarge), context: context)
    } else if head.headers.first(name: "expect")?.lowercased() == "100-continue" {
      let proceed = HTTPResponseHead(version: head.version, status: .continue)
      context.writeAndFlush(wrapOutboundOut(.head(proceed)), promise: nil)
    }
  }

  /// Answers a request over TCP that does not show the token.
  private func refuseStranger(_ head: HTTPRequestHead, context: ChannelHandlerContext) {
    responder.controller.commanded(
      "control: \(head.method.rawValue) without the token, by \(peer): 401")
    var response = Response(
      Problem(
        status: 401, code: "unauthorized",
        detail: "this address wants the header field 'Authorization: Bearer TOKEN'"))
    response.fields.append(("WWW-Authenticate", "Bearer realm=\"nbdmirror\""))
    refuse(response, context: context)
  }

  private func work(on head: HTTPRequestHead, body: ByteBuffer, context: ChannelHandlerContext) {
    timer?.cancel()
    state = .working(head)
    if !head.isKeepAlive || head.version != .http1_1 { isLast = true }
    let route: Route
    do {
      route = try Route.find(method: head.method.rawValue, target: head.uri)
    } catch {
      send(
        Response(error, method: head.method.rawValue, target: head.uri), to: head,
        context: context)
      return
    }
    if route == .events, head.method == .GET { return beginEvents(head, context: context) }
    let responder = responder
    let bytes = Array(body.readableBytesView)
    let conditions = Conditions(
      match: head.headers.first(name: "if-match"),
      noneMatch: head.headers.first(name: "if-none-match"))
    pools.run(isCommand: route.isCommand, on: context.eventLoop) {
      responder.respond(to: route, body: bytes, under: conditions)
    }.assumeIsolated().whenComplete { result in
      self.journal(head, result)
      guard case .working = self.state, let context = self.context else { return }
      switch result {
      case .success(let response): self.send(response, to: head, context: context)
      case .failure:
        self.isLast = true
        let problem = Problem(ControlError(.stopping, "the server is stopping"))
        self.send(Response(problem), to: head, context: context)
      }
    }
  }

  /// Tells the journal of a command, also if its client is gone.
  private func journal(_ head: HTTPRequestHead, _ result: Result<Response, any Error>) {
    guard head.method != .GET, head.method != .HEAD else { return }
    let outcome =
      switch result {
      case .success(let response): "\(response.status)"
      case .failure: "not performed, the server is stopping"
      }
    responder.controller.commanded(
      "control: \(head.method.rawValue) \(head.uri.prefix(200)) by \(peer): \(outcome)")
  }

  /// Sends the events that there are, and those that come if a stream is wanted.
  private func beginEvents(_ head: HTTPRequestHead, context: ChannelHandlerContext) {
    let log = responder.controller.events
    let request: EventRequest
    do { request = try EventRequest(head) } catch {
      return send(Response(Problem(error)), to: head, context: context)
    }
    if request.isList {
      return send(Response(json: log.events(after: request.after)), to: head, context: context)
    }
    guard registry.streamCount < EventStream.countMax else {
      let problem = Problem(
        status: 503, code: "too-many-streams",
        detail: "\(EventStream.countMax) clients follow the events already")
      return send(Response(problem), to: head, context: context)
    }
    registry.streamCount += 1
    let stream = EventStream(log, after: request.after, context: context)
    state = .streaming(stream)
    stream.start(version: head.version)
  }

  /// Answers a request that will not be read to its end.
  private func refuse(_ response: Response, context: ChannelHandlerContext) {
    isLast = true
    send(response, to: nil, context: context)
  }

  private func send(
    _ response: Response, to request: HTTPRequestHead?, context: ChannelHandlerContext
  ) {
    state = .sending
    startTimer(milliseconds: limits.clientMillisecondsMax)
    var head = HTTPResponseHead(
      version: request.map { $0.version == .http1_0 ? .http1_0 : .http1_1 } ?? .http1_1,
      status: HTTPResponseStatus(statusCode: response.status))
    for (name, value) in response.fields { head.headers.add(name: name, value: value) }
    if response.status != 204 && response.status != 304 {
      head.headers.add(name: "Content-Length", value: "\(response.body.count)")
    }
    head.headers.add(name: "Cache-Control", value: "no-store")
    if isLast { head.headers.add(name: "Connection", value: "close") }
    let hasBody = !response.body.isEmpty && request?.method != .HEAD
    let flushed = context.eventLoop.makePromise(of: Void.self)
    flushed.futureResult.assumeIsolated().whenComplete { result in
      guard case .sending = self.state, let context = self.context else { return }
      switch result {
      case .success: self.sent(context: context)
      case .failure: context.close(promise: nil)
      }
    }
    context.write(wrapOutboundOut(.head(head)), promise: hasBody ? nil : flushed)
    if hasBody {
      let body = context.channel.allocator.buffer(bytes: response.body)
      context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: flushed)
    }
    context.flush()
  }

  /// The response's bytes are with the kernel.
  private func sent(context: ChannelHandlerContext) {
    if isLast {
      state = .lingering
      startTimer(milliseconds: limits.lingerMillisecondsMax)
      context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
      context.close(mode: .output, promise: nil)
    } else {
      // The end part may deliver the next request before the call returns.
      state = .waiting
      startTimer(milliseconds: limits.clientMillisecondsMax)
      context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }
  }

  // MARK: Time

  /// Gives the client `milliseconds` for its next step.
  private func startTimer(milliseconds: Int64) {
    timer?.cancel()
    timer = context?.eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(milliseconds)) {
      self.expire()
    }
  }

  private func expire() {
    guard let context else { return }
    switch state {
    case .receiving:
      let problem = Problem(status: 408, code: "too-slow", detail: "the request took too long")
      refuse(Response(problem), context: context)
    case .waiting, .sending, .lingering: context.close(promise: nil)
    case .working, .streaming, .closed: break
    }
  }
}
