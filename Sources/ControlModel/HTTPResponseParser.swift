// An HTTP/1.1 response, parsed from bytes as they come. No I/O.
//
//   head ---> length(n) ---> done          Content-Length
//    |  \---> chunkHead <--> chunkData     Transfer-Encoding: chunked
//    |            \---> trailer ---> done
//    |------> untilEnd ---> done           neither: the body ends with the connection
//    \------> done                         204, 304; 1xx responses are skipped
//
// Invariant: memory is bounded by `headBytesMax` and `bodyBytesMax`, whatever the peer sends.
// Source: RFC 9112, sections 2 to 7.

/// Parses one HTTP/1.1 response.
public struct HTTPResponseParser: Sendable {
  /// Why a response cannot be used: one sentence.
  public struct Failure: Error, Equatable, Sendable {
    /// The sentence.
    public var message: String
  }

  private enum State { case head, length(Int), chunkHead, chunkData(Int), trailer, untilEnd, done }

  /// The status; 0 until the head is complete.
  public private(set) var status = 0
  /// The header fields, names in lower case.
  public private(set) var fields: [(name: String, value: String)] = []
  /// The body so far.
  public private(set) var body: [UInt8] = []

  /// Bytes of a line or of a whole head that are accepted.
  public let headBytesMax: Int
  /// Bytes of a body that are accepted.
  public let bodyBytesMax: Int

  private var state = State.head
  private var pending: [UInt8] = []
  private var headBytes = 0
  private var hasChunk = false

  /// A parser that accepts this much.
  public init(headBytesMax: Int = 64 << 10, bodyBytesMax: Int = 16 << 20) {
    self.headBytesMax = headBytesMax
    self.bodyBytesMax = bodyBytesMax
  }

  /// Whether the response is complete.
  public var isDone: Bool { if case .done = state { true } else { false } }

  /// Value of the first field called `name` (in lower case).
  public func field(_ name: String) -> String? { fields.first { $0.name == name }?.value }

  /// Takes more bytes. Bytes after the response are ignored.
  public mutating func feed(_ bytes: [UInt8]) throws(Failure) {
    pending += bytes
    var start = 0
    defer { pending.removeFirst(min(start, pending.count)) }
    while !isDone {
      switch state {
      case .head, .chunkHead, .trailer:
        guard let line = try line(from: &start) else { return }
        try take(line: line)
      case .length(let count), .chunkData(let count):
        let taken = try take(from: &start, countMax: count)
        if count > taken {
          if case .length = state {
            state = .length(count - taken)
          } else {
            state = .chunkData(count - taken)
          }
          return
        }
        if case .length = state { state = .done } else { state = .chunkHead }
      case .untilEnd:
        _ = try take(from: &start, countMax: Int.max)
        return
      case .done: return
      }
    }
    start = pending.count
  }

  /// The peer sends no more.
  /// - Throws: if the response is not complete.
  public mutating func end() throws(Failure) {
    switch state {
    case .untilEnd: state = .done
    case .done: break
    case .head, .length, .chunkHead, .chunkData, .trailer:
      throw Failure(message: "the server closed the connection before the end of its answer")
    }
  }

  /// The body so far, which is forgotten: of a response that is worked on while it comes.
  public mutating func takeBody() -> [UInt8] {
    let taken = body
    body = []
    return taken
  }

  /// A complete line without its end, or nil if there is none yet.
  private mutating func line(from start: inout Int) throws(Failure) -> String? {
    guard let end = pending[start...].firstIndex(of: UInt8(ascii: "\n")) else {
      guard headBytes + pending.count - start <= headBytesMax else { throw tooLong }
      return nil
    }
    headBytes += end + 1 - start
    guard headBytes <= headBytesMax else { throw tooLong }
    var bytes = pending[start..<end]
    if bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
    start = end + 1
    return String(decoding: bytes, as: UTF8.self)
  }

  private var tooLong: Failure { Failure(message: "the header of the server's answer is too long") }

  private mutating func take(
    from start: inout Int, countMax: Int
  ) throws(Failure) -> Int {
    let count = min(countMax, pending.count - start)
    guard body.count + count <= bodyBytesMax else {
      throw Failure(message: "the server's answer is larger than \(bodyBytesMax) bytes")
    }
    body += pending[start..<start + count]
    start += count
    return count
  }

  private mutating func take(line: String) throws(Failure) {
    switch state {
    case .head:
      if status == 0 {
        try takeStatus(line)
      } else if line.isEmpty {
        try endHead()
      } else {
        guard let colon = line.firstIndex(of: ":"), colon != line.startIndex else {
          throw Failure(message: "the server's answer has a malformed header")
        }
        let value = line[line.index(after: colon)...].trimmed
        fields.append((line[..<colon].lowercased(), value))
      }
    case .chunkHead:
      // The end of the chunk before leaves an empty line.
      if line.isEmpty && hasChunk { return }
      let digits = line.prefix { $0 != ";" }[...].trimmed
      guard let count = Int(digits, radix: 16), count >= 0, !digits.hasPrefix("+") else {
        throw Failure(message: "the server's answer has a malformed chunk")
      }
      // Only header bytes of one chunk at a time count.
      headBytes = 0
      hasChunk = true
      state = count == 0 ? .trailer : .chunkData(count)
    case .trailer: if line.isEmpty { state = .done }
    case .length, .chunkData, .untilEnd, .done: break
    }
  }

  private mutating func takeStatus(_ line: String) throws(Failure) {
    let parts = line.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count >= 2, parts[0] == "HTTP/1.1" || parts[0] == "HTTP/1.0",
      parts[1].utf8.count == 3, let code = Int(parts[1]), code >= 100
    else { throw Failure(message: "what answers there does not speak HTTP") }
    status = code
  }

  private mutating func endHead() throws(Failure) {
    if status / 100 == 1 {
      status = 0
      fields = []
    } else if status == 204 || status == 304 {
      state = .done
    } else if let coding = field("transfer-encoding") {
      guard coding.lowercased() == "chunked" else {
        throw Failure(message: "the server's answer is coded as '\(coding)'")
      }
      state = .chunkHead
    } else if let text = field("content-length") {
      guard let count = Int(text), count >= 0 else {
        throw Failure(message: "the server's answer has a malformed length")
      }
      guard count <= bodyBytesMax else {
        throw Failure(message: "the server's answer is larger than \(bodyBytesMax) bytes")
      }
      state = count == 0 ? .done : .length(count)
    } else {
      state = .untilEnd
    }
  }
}

extension Substring {
  /// Without spaces and tabs at the ends.
  fileprivate var trimmed: String {
    var part = self
    while let first = part.first, first == " " || first == "\t" { part.removeFirst() }
    while let last = part.last, last == " " || last == "\t" { part.removeLast() }
    return String(part)
  }
}
