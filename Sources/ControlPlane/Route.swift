// Which operation a method and a target name. Pure; the table of the whole HTTP interface.
//
//   GET    /v1/mirror                      MirrorStatus
//   GET    /v1/legs                        [LegStatus]
//   GET    /v1/connections                 [ConnectionStatus]
//   GET    /v1/regions                     RegionMapStatus
//   GET    /v1/resync                      ResyncReport
//   PATCH  /v1/resync                      ResyncRequest -> 200 ResyncReport
//   GET    /v1/scrub                       ScrubReport
//   POST   /v1/scrub                       ScrubRequest -> 202 ScrubReport
//   DELETE /v1/scrub                       -> 200 ScrubReport
//   POST   /v1/legs                        AddLegRequest -> 201 LegStatus
//   POST   /v1/legs/{leg}/fail             -> 200 LegStatus
//   POST   /v1/legs/{leg}/readd            ReaddLegRequest -> 200 LegStatus
//   POST   /v1/legs/{leg}/replace          ReplaceLegRequest -> 201 LegStatus of the new leg
//   POST   /v1/legs/{leg}/refresh          -> 200 LegStatus
//   PATCH  /v1/legs/{leg}                  SetLegRequest -> 200 LegStatus
//   DELETE /v1/legs/{leg}                  -> 200 LegStatus, or 204 if nothing is left of it
//   POST   /v1/shutdown                    -> 202
//   GET    /v1/events                      server-sent events, or [EventRecord]: see EventStream
//   GET    /metrics                        Prometheus' text format
//   GET    /openapi.yaml                   this interface, as OpenAPI 3.1
//   /v1/faults, /v1/power-cut              see FaultRoutes
//
// {leg} is a slot number, a leg id, or the percent-encoded path of the PV. HEAD is answered as GET
// without a body. A query is ignored, but for that of /v1/events.

import ControlModel

/// One operation of the HTTP interface.
enum Route: Equatable {
  case mirror
  case legs
  case connections
  case regions
  case resync
  case changeResync
  case scrub
  case startScrub
  case stopScrub
  case addLeg
  case failLeg(String)
  case readdLeg(String)
  case removeLeg(String)
  case replaceLeg(String)
  case refreshLeg(String)
  case setLeg(String)
  case shutdown
  case fault(FaultRoute)
  case events
  case metrics
  case description

  /// Why there is no such operation.
  enum Refusal: Error, Equatable {
    /// The target is not an absolute path, or badly encoded.
    case badTarget
    /// Nothing has this path.
    case notFound
    /// The path exists, with these methods.
    case badMethod(allowed: [String])
  }

  /// Whether commands must run one after the other.
  var isCommand: Bool {
    switch self {
    case .mirror, .legs, .connections, .regions, .resync, .scrub, .shutdown, .fault, .events,
      .metrics, .description:
      false
    case .addLeg, .failLeg, .readdLeg, .removeLeg, .replaceLeg, .refreshLeg, .setLeg: true
    case .changeResync, .startScrub, .stopScrub: true
    }
  }

  /// The operation that `method` on `target` (path and query as sent) names.
  static func find(method: String, target: String) throws(Refusal) -> Route {
    let operations = try Route.operations(target: target)
    guard !operations.isEmpty else { throw .notFound }
    let wanted = method == "HEAD" ? "GET" : method
    for (name, route) in operations where name == wanted { return route }
    throw .badMethod(allowed: operations.flatMap { $0.0 == "GET" ? ["GET", "HEAD"] : [$0.0] })
  }

  /// Every operation of a path.
  private static func operations(target: String) throws(Refusal) -> [(String, Route)] {
    guard target.utf8.first == UInt8(ascii: "/") else { throw .badTarget }
    let path = target.prefix { $0 != "?" }.dropFirst()
    var segments: [String] = []
    for segment in path.split(separator: "/", omittingEmptySubsequences: false) {
      guard let decoded = PercentEncoding.decode(segment) else { throw .badTarget }
      segments.append(decoded)
    }
    if segments == ["metrics"] { return [("GET", .metrics)] }
    if segments == ["openapi.yaml"] { return [("GET", .description)] }
    guard segments.count >= 2, segments[0] == "v1" else { return [] }
    switch (segments[1], segments.count) {
    case ("mirror", 2): return [("GET", .mirror)]
    case ("connections", 2): return [("GET", .connections)]
    case ("regions", 2): return [("GET", .regions)]
    case ("resync", 2): return [("GET", .resync), ("PATCH", .changeResync)]
    case ("scrub", 2):
      return [("GET", .scrub), ("POST", .startScrub), ("DELETE", .stopScrub)]
    case ("shutdown", 2): return [("POST", .shutdown)]
    case ("events", 2): return [("GET", .events)]
    case ("faults", _), ("power-cut", _):
      return FaultRoute.operations(segments[1...]).map { ($0.0, .fault($0.1)) }
    case ("legs", 2): return [("GET", .legs), ("POST", .addLeg)]
    case ("legs", 3) where !segments[2].isEmpty:
      return [("PATCH", .setLeg(segments[2])), ("DELETE", .removeLeg(segments[2]))]
    case ("legs", 4) where !segments[2].isEmpty: return verb(segments[3], on: segments[2])
    default: return []
    }
  }

  private static func verb(_ verb: String, on leg: String) -> [(String, Route)] {
    switch verb {
    case "fail": [("POST", .failLeg(leg))]
    case "readd": [("POST", .readdLeg(leg))]
    case "replace": [("POST", .replaceLeg(leg))]
    case "refresh": [("POST", .refreshLeg(leg))]
    default: []
    }
  }
}
