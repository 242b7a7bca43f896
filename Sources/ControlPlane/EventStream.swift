// `GET /v1/events`: server-sent events, or a JSON array if the client accepts that.
//
// The stream takes events from the log as fast as the client takes them, so a slow client costs the
// log nothing and itself its place: what the ring has lost by then is told as `events-lost`.
//
// Source: HTML Living Standard, section 9.2 (server-sent events).

import ControlModel
import NIOCore
import NIOHTTP1

/// What a request for events asks for.
struct EventRequest: Equatable {
  /// Only events with numbers above this.
  var after: UInt64 = 0
  /// An array of what there is, instead of a stream.
  var isList: Bool

  /// Reads the target's query and the fields. `Last-Event-ID` is what a client that reconnects sends.
  init(_ head: HTTPRequestHead) throws(ControlError) {
    let accepted = head.headers[canonicalForm: "accept"].map { $0.prefix { $0 != ";" } }
    isList = accepted.contains("application/json") && !accepted.contains("text/event-stream")
    var text = head.headers.first(name: "last-event-id")
    if let question = head.uri.firstIndex(of: "?") {
      let query = head.uri[head.uri.index(after: question)...].prefix { $0 != "#" }
      for part in query.split(separator: "&") where part.hasPrefix("after=") {
        text = text ?? String(part.dropFirst("after=".count))
      }
    }
    guard let text else { return }
    guard let number = UInt64(text) else {
      throw ControlError(.invalid, "'\(text.prefix(40))' is not the number of an event")
    }
    after = number
  }
}

/// One client's place in the stream of events. Touched by the event loop only.
final class EventStream {
  /// Streams at once; commands must still find a free connection.
  static let countMax = 16
  private static let batchMax = 64
  private static let keepAlive = TimeAmount.seconds(15)

  private let log: EventLog
  private let context: ChannelHandlerContext
  private var after: UInt64
  private var reader: Int?
  private var isOver = false
  private var wasStuck = false
  private var timer: RepeatedTask?

  init(_ log: EventLog, after: UInt64, context: ChannelHandlerContext) {
    self.log = log
    self.after = after
    self.context = context
  }

  /// Sends the head and what there is, and goes on with what comes.
  func start(version: HTTPVersion) {
    var head = HTTPResponseHead(version: version == .http1_0 ? .http1_0 : .http1_1, status: .ok)
    head.headers.add(name: "Content-Type", value: "text/event-stream")
    head.headers.add(name: "Cache-Control", value: "no-store")
    head.headers.add(name: "Connection", value: "close")
    context.write(NIOAny(HTTPServerResponsePart.head(head)), promise: nil)
    let loop = context.eventLoop
    let bound = NIOLoopBound(self, eventLoop: loop)
    reader = log.subscribe { loop.execute { bound.value.pump() } }
    timer = loop.scheduleRepeatedTask(
      initialDelay: EventStream.keepAlive, delay: EventStream.keepAlive
    ) { _ in bound.value.stayAlive() }
    pump()
    context.flush()
  }

  /// Sends events while the client takes them.
  func pump() {
    guard !isOver else { return }
    var isWritten = false
    while context.channel.isWritable {
      let events = log.events(after: after, countMax: EventStream.batchMax)
      guard let last = events.last else { break }
      var buffer = context.channel.allocator.buffer(capacity: 256 * events.count)
      for event in events { EventStream.write(event, to: &buffer) }
      context.write(
        NIOAny(HTTPServerResponsePart.body(.byteBuffer(buffer))), promise: nil)
      after = last.sequence
      isWritten = true
    }
    if isWritten { context.flush() }
  }

  /// Sends what there is, ends the stream and closes.
  func finish() {
    guard !isOver else { return }
    pump()
    stop()
    let context = context
    let closed = context.eventLoop.makePromise(of: Void.self)
    closed.futureResult.assumeIsolated().whenComplete { _ in context.close(promise: nil) }
    context.writeAndFlush(NIOAny(HTTPServerResponsePart.end(nil)), promise: closed)
  }

  /// Nothing more is sent.
  func stop() {
    isOver = true
    if let reader { log.unsubscribe(reader) }
    reader = nil
    timer?.cancel()
  }

  /// A comment now and then shows the client that the server lives, and the server that the client
  /// does; one that takes nothing between two of them is given up.
  private func stayAlive() {
    guard !isOver else { return }
    guard context.channel.isWritable else {
      if wasStuck { context.close(promise: nil) }
      wasStuck = true
      return
    }
    wasStuck = false
    let buffer = context.channel.allocator.buffer(string: ":\n\n")
    context.writeAndFlush(
      NIOAny(HTTPServerResponsePart.body(.byteBuffer(buffer))), promise: nil)
  }

  private static func write(_ event: EventRecord, to buffer: inout ByteBuffer) {
    let json: [UInt8]
    // An event holds strings and integers: JSON can hold them all.
    do { json = try ControlJSON.line(event) } catch { return }
    buffer.writeString("id: \(event.sequence)\nevent: \(event.kind.rawValue)\ndata: ")
    buffer.writeBytes(json)
    buffer.writeString("\n\n")
  }
}
