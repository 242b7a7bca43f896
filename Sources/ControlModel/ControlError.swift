// Why a command on the control socket failed, on both sides of it.
//
// The server's side throws `ControlError`; on the wire it is a `Problem` (RFC 9457); the client
// hands the problem back to its caller.

/// Why the mirror did not do what it was told.
public struct ControlError: Error, Equatable, Sendable {
  /// What kind of failure it is; decides the HTTP status.
  public enum Kind: String, CaseIterable, Sendable {
    /// The call makes no sense, whatever the mirror's state (400).
    case invalid
    /// No leg goes by that name (404).
    case noSuchLeg = "no-such-leg"
    /// No fault goes by that name (404).
    case noSuchFault = "no-such-fault"
    /// The mirror's state forbids it: the last good leg, a leg already online, no free slot (409).
    case conflict
    /// It was tried and failed: the PV cannot be opened, a label cannot be written (500).
    case failed
    /// The server is stopping (503).
    case stopping
  }

  /// What kind of failure it is.
  public var kind: Kind
  /// One sentence for people: what failed, which leg, what to do; no full stop.
  public var message: String

  /// Describes a failure.
  public init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }
}

/// A problem document, `application/problem+json`.
///
/// Source: RFC 9457, section 3. `type` is `about:blank`, so `title` is the HTTP status phrase;
/// `code` is our extension member for programs, `detail` the sentence for people.
public struct Problem: Codable, Equatable, Sendable {
  /// `about:blank`.
  public var type: String
  /// The HTTP status phrase.
  public var title: String
  /// The HTTP status.
  public var status: Int
  /// What went wrong here, one sentence.
  public var detail: String
  /// A stable word for programs: `no-such-leg`, `conflict`, `bad-json`...
  public var code: String

  /// Describes a problem.
  public init(status: Int, code: String, detail: String) {
    type = "about:blank"
    title = Problem.phrase(of: status)
    self.status = status
    self.detail = detail
    self.code = code
  }

  /// The problem that tells of `error`.
  public init(_ error: ControlError) {
    let status =
      switch error.kind {
      case .invalid: 400
      case .noSuchLeg, .noSuchFault: 404
      case .conflict: 409
      case .failed: 500
      case .stopping: 503
      }
    self.init(status: status, code: error.kind.rawValue, detail: error.message)
  }

  /// The phrase of an HTTP status; of the statuses this project sends.
  /// Source: RFC 9110, section 15; RFC 6585.
  public static func phrase(of status: Int) -> String {
    switch status {
    case 200: "OK"
    case 201: "Created"
    case 202: "Accepted"
    case 304: "Not Modified"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 409: "Conflict"
    case 412: "Precondition Failed"
    case 413: "Content Too Large"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 503: "Service Unavailable"
    default: "Error"
    }
  }
}
