// Events: what happened in the mirror, in order, each with a number.

/// What can happen.
public enum EventKind: String, Codable, CaseIterable, Sendable {
  /// The server serves.
  case serverStarted = "server-started"
  /// One decision of the assembly at the start.
  case assembly
  /// The server is told to stop.
  case serverStopping = "server-stopping"
  /// A leg went offline by an error or by command.
  case legFailed = "leg-failed"
  /// A leg is online; `bytes` are to be copied to it.
  case legOnline = "leg-online"
  /// A leg was removed.
  case legRemoved = "leg-removed"
  /// A leg is to take the place of another one.
  case replaceStarted = "replace-started"
  /// It did.
  case legReplaced = "leg-replaced"
  /// It does not any more.
  case replaceEnded = "replace-ended"
  /// A leg was refreshed, or its options were changed, by command.
  case legChanged = "leg-changed"
  /// A spare is no spare any more.
  case spareDropped = "spare-dropped"
  /// Copying began; `bytes` to copy.
  case resyncStarted = "resync-started"
  /// Copying goes on; `bytes` done.
  case resyncProgress = "resync-progress"
  /// Copying ended; `bytes` copied.
  case resyncDone = "resync-done"
  /// Copying was paused or resumed, or its limits were changed, by command.
  case resyncChanged = "resync-changed"
  /// Regions in doubt after a crash are equal again; `bytes` of them.
  case recoveryDone = "recovery-done"
  /// No leg could read blocks that had to be copied; `offset`.
  case copyFailed = "copy-failed"
  /// A scrub began.
  case scrubStarted = "scrub-started"
  /// A scrub goes on; `bytes` compared.
  case scrubProgress = "scrub-progress"
  /// Legs differ; `offset`.
  case scrubMismatch = "scrub-mismatch"
  /// A scrub could not read a leg; `offset`.
  case scrubReadFailed = "scrub-read-failed"
  /// A scrub ended; `bytes` differed.
  case scrubDone = "scrub-done"
  /// A scrub was stopped by command; `bytes` compared.
  case scrubStopped = "scrub-stopped"
  /// No leg could read a block; `offset`.
  case readFailed = "read-failed"
  /// Blocks that a leg could not read were rewritten; `offset`.
  case readRepaired = "read-repaired"
  /// The last good leg failed a flush.
  case flushLatched = "flush-latched"
  /// A label with a new generation is durable on all online legs.
  case labelWritten = "label-written"
  /// A fault was armed; `name`.
  case faultAdded = "fault-added"
  /// A fault hit I/O; `name`, `count` since it was last told.
  case faultFired = "fault-fired"
  /// A hang was released; `name`.
  case faultReleased = "fault-released"
  /// A fault was removed; `name`, or nil: all.
  case faultRemoved = "fault-removed"
  /// The power is cut on purpose.
  case powerCut = "power-cut"
  /// A client came through its handshake; `name` is its number.
  case clientConnected = "client-connected"
  /// It is gone; `bytes` read and written.
  case clientGone = "client-gone"
  /// A client's TLS session failed: a wrong key, a certificate that is not accepted, no TLS.
  case clientRefused = "client-refused"
  /// Events were not kept, or not taken in time; `count` of them.
  case eventsLost = "events-lost"
}

/// One event. What does not apply is null.
public struct EventRecord: Codable, Equatable, Sendable {
  /// Number from 1, in the life of a server. `events-lost` has that of the last that was lost.
  public var sequence: UInt64
  /// When, in UTC: `2026-11-27T07:15:08.123Z`.
  public var time: String
  /// What.
  public var kind: EventKind
  /// A sentence.
  public var message: String
  /// Slot of the leg that it is about.
  public var leg: Int?
  /// Where, in the exported device.
  public var offset: UInt64?
  /// How much.
  public var bytes: UInt64?
  /// How often.
  public var count: UInt64?
  /// Of a fault or a client.
  public var name: String?

  /// Describes an event; whoever keeps it gives it its number and time.
  public init(
    _ kind: EventKind, _ message: String, leg: Int? = nil, offset: UInt64? = nil,
    bytes: UInt64? = nil, count: UInt64? = nil, name: String? = nil
  ) {
    sequence = 0
    time = ""
    self.kind = kind
    self.message = message
    self.leg = leg
    self.offset = offset
    self.bytes = bytes
    self.count = count
    self.name = name
  }

  /// Encodes with every key.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(sequence, forKey: .sequence)
    try container.encode(time, forKey: .time)
    try container.encode(kind, forKey: .kind)
    try container.encode(message, forKey: .message)
    try container.encode(leg, forKey: .leg)
    try container.encode(offset, forKey: .offset)
    try container.encode(bytes, forKey: .bytes)
    try container.encode(count, forKey: .count)
    try container.encode(name, forKey: .name)
  }
}

/// Times as they stand in events.
public enum EventTime {
  /// UTC with milliseconds. Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
  public static func text(seconds: UInt64, milliseconds: UInt64) -> String {
    let days = seconds / 86_400 + 719_468
    let era = days / 146_097
    let dayOfEra = days - era * 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    let date =
      "\(padded(year, 4))-\(padded(month, 2))-\(padded(dayOfYear - (153 * shifted + 2) / 5 + 1, 2))"
    let rest = seconds % 86_400
    return "\(date)T\(padded(rest / 3600, 2)):\(padded(rest / 60 % 60, 2)):"
      + "\(padded(rest % 60, 2)).\(padded(milliseconds, 3))Z"
  }

  private static func padded(_ number: UInt64, _ digits: Int) -> String {
    let text = "\(number)"
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
}

/// Server-sent events, parsed from bytes as they come. No I/O.
///
/// Only `data` counts: each event's data is one line of JSON that has the rest.
/// Source: HTML Living Standard, section 9.2.6.
struct EventStreamParser: Sendable {
  /// An event may be so large.
  static let bytesMax = 1 << 20

  private var pending: [UInt8] = []
  private var data: [UInt8] = []

  /// Takes the next bytes; returns the data of events that are complete now.
  mutating func feed(_ bytes: [UInt8]) throws(HTTPResponseParser.Failure) -> [[UInt8]] {
    var events: [[UInt8]] = []
    pending += bytes
    var start = 0
    while let end = pending[start...].firstIndex(of: UInt8(ascii: "\n")) {
      var line = pending[start..<end]
      if line.last == UInt8(ascii: "\r") { line.removeLast() }
      start = end + 1
      if line.isEmpty {
        if !data.isEmpty { events.append(data) }
        data = []
      } else if line.starts(with: "data:".utf8) {
        line = line.dropFirst(5)
        if line.first == UInt8(ascii: " ") { line = line.dropFirst() }
        data += line
      }
    }
    pending.removeFirst(start)
    guard pending.count + data.count <= EventStreamParser.bytesMax else {
      throw HTTPResponseParser.Failure(message: "the server sent an event without an end")
    }
    return events
  }
}

extension ControlClient {
  /// The events that the server keeps and whose numbers are above `after`.
  public func events(after: UInt64 = 0) throws(ControlClientError) -> [EventRecord] {
    try decoded(send("GET", "/v1/events?after=\(after)", accept: "application/json"))
  }

  /// The same, then those that happen, until the server ends the stream; blocks.
  ///
  /// - Parameters:
  ///   - after: Events up to this number are left out.
  ///   - body: Called with each.
  /// - Throws: `ControlClientError`; also when the server says nothing for a minute, for it sends
  ///   at least a comment each 15 s.
  public func followEvents(
    after: UInt64 = 0, _ body: (EventRecord) -> Void
  ) throws(ControlClientError) {
    let request =
      "GET /v1/events?after=\(after) HTTP/1.1\r\nHost: nbdmirror\r\n"
      + "Accept: text/event-stream\r\nConnection: close\r\n\r\n"
    var parser = HTTPResponseParser()
    var stream = EventStreamParser()
    do {
      let socket = try UnixSocket.connect(to: path, deadline: deadline)
      try socket.send(Array(request.utf8), deadline: deadline)
      while !parser.isDone {
        let bytes = try socket.receive(countMax: 64 << 10, deadline: deadline)
        if bytes.isEmpty { try parser.end() } else { try parser.feed(bytes) }
        guard parser.status == 200 || parser.status == 0 else { continue }
        for data in try stream.feed(parser.takeBody()) {
          body(try ControlJSON.decode(EventRecord.self, from: data))
        }
      }
      try check(parser)
    } catch let error as SystemError {
      throw failure(error)
    } catch let error as HTTPResponseParser.Failure {
      throw .badAnswer(path: path, error.message)
    } catch let error as ControlJSON.Failure {
      throw .badAnswer(path: path, "the server's answer is not understood: \(error.message)")
    } catch let error as ControlClientError {
      throw error
    } catch {
      throw .badAnswer(path: path, "\(error)")
    }
  }

  private var deadline: ContinuousClock.Instant { .now + .milliseconds(timeoutMilliseconds) }
}
