// What happened: the last events for people, and a hash of all of them for "same seed, same run".

import Base

/// One thing that happened in the simulated world.
public struct TraceEvent: Sendable {
  /// What it was.
  public enum Kind: UInt8, Sendable {
    /// A client asked.
    case submit
    /// The engine answered.
    case reply
    /// The engine gave a buffer back.
    case release
    /// The engine asked for an I/O.
    case issue
    /// An I/O ended.
    case complete
    /// An I/O hangs.
    case hang
    /// The engine replaced a buffer.
    case replace
    /// The engine told something.
    case event
    /// A leg may be closed.
    case idle
    /// An administrator or a fault acted.
    case command
    /// The server started.
    case start
  }

  /// What it was.
  public var kind: Kind
  /// Step of the run.
  public var step: UInt64
  /// Virtual time.
  public var now: Instant
  /// Who or what, in a word.
  public var what: StaticString
  /// The leg, or -1.
  public var leg: Int
  /// Request or I/O.
  public var name: UInt64
  /// Bytes of the device, or of the PV.
  public var range: ByteRange
  /// Errno or another number.
  public var value: Int64
}

/// The last events of a run, and their hash.
public struct Trace: Sendable {
  /// How many events are kept.
  public let keptMax: Int
  private var kept: [TraceEvent] = []
  private var next = 0
  /// Over all events of the run.
  public private(set) var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  /// How many there were.
  public private(set) var count: UInt64 = 0

  /// An empty trace.
  public init(keptMax: Int = 50) { self.keptMax = keptMax }

  mutating func add(_ event: TraceEvent) {
    count += 1
    mix(UInt64(event.kind.rawValue))
    mix(event.now.nanoseconds)
    mix(UInt64(bitPattern: Int64(event.leg)))
    mix(event.name)
    mix(event.range.offset)
    mix(event.range.count)
    mix(UInt64(bitPattern: event.value))
    if kept.count < keptMax {
      kept.append(event)
    } else {
      kept[next] = event
      next = (next + 1) % keptMax
    }
  }

  private mutating func mix(_ value: UInt64) {
    hash = (hash ^ value) &* 0x100_0000_01b3
    hash ^= hash >> 29
  }

  /// The kept events, oldest first, one line each.
  public var table: String {
    var lines = ["     step     ms.us      what              leg  name  range  value"]
    for index in kept.indices {
      let event = kept[(next + index) % kept.count]
      let micros = event.now.nanoseconds / 1000
      lines.append(
        pad("\(event.step)", 9) + pad("\(micros / 1000).\(pad0(micros % 1000))", 14) + "  "
          + "\(event.kind) \(event.what)" + (event.leg < 0 ? "" : " leg \(event.leg)")
          + (event.name == 0 ? "" : " #\(String(event.name, radix: 16))")
          + (event.range.count == 0 ? "" : " \(event.range)")
          + (event.value == 0 ? "" : " = \(event.value)"))
    }
    return lines.joined(separator: "\n")
  }

  private func pad(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  private func pad0(_ value: UInt64) -> String {
    String(repeating: "0", count: value < 10 ? 2 : value < 100 ? 1 : 0) + "\(value)"
  }
}
