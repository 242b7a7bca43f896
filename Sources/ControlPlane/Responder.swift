// From a route and a body to a response: decodes, asks the controller, encodes. Blocks as long as
// the controller does, so it never runs on the event loop.

import ControlModel

/// A response before it is put on the wire.
struct Response: Equatable, Sendable {
  /// The HTTP status.
  var status: Int
  /// Fields besides `Content-Length`, `Server` and `Connection`.
  var fields: [(String, String)]
  /// The body; empty for 202 and 204.
  var body: [UInt8]

  static func == (left: Response, right: Response) -> Bool {
    left.status == right.status && left.body == right.body
      && left.fields.elementsEqual(right.fields, by: ==)
  }

  /// A response without a body.
  init(status: Int) {
    self.status = status
    fields = []
    body = []
  }

  /// A problem document.
  init(_ problem: Problem, allow: [String] = []) {
    status = problem.status
    fields = [("Content-Type", "application/problem+json")]
    if !allow.isEmpty { fields.append(("Allow", allow.joined(separator: ", "))) }
    // A problem holds strings and a number: there is nothing in it that JSON cannot hold.
    do { body = try ControlJSON.encode(problem) } catch { body = [] }
  }

  /// A text.
  init(text: String, type: String) {
    status = 200
    fields = [("Content-Type", type)]
    body = Array(text.utf8)
  }

  /// A JSON document.
  init(status: Int = 200, json value: some Encodable) {
    do {
      let body = try ControlJSON.encode(value)
      self.status = status
      fields = [("Content-Type", "application/json")]
      self.body = body
    } catch {
      self = Response(Problem(ControlError(.failed, error.message)))
    }
  }

  /// The response to a request that names no operation.
  init(_ refusal: Route.Refusal, method: String, target: String) {
    let shown = target.prefix(200)
    switch refusal {
    case .badTarget:
      self.init(
        Problem(status: 400, code: "bad-target", detail: "'\(shown)' is not a path of this server"))
    case .notFound:
      self.init(
        Problem(status: 404, code: "no-such-path", detail: "there is nothing at '\(shown)'"))
    case .badMethod(let allowed):
      self.init(
        Problem(
          status: 405, code: "bad-method",
          detail: "'\(shown)' takes \(allowed.joined(separator: " and ")), not \(method)"),
        allow: allowed)
    }
  }
}

/// Performs operations on a controller.
struct Responder: Sendable {
  /// The mirror.
  var controller: any MirrorController
  /// Its revision.
  var revisions = RevisionCounter(first: 1)

  /// Performs `route`; blocks as long as the controller does.
  func respond(
    to route: Route, body: [UInt8], under conditions: Conditions = Conditions()
  ) -> Response {
    do {
      if let response = check(conditions, for: route) { return response }
      return try perform(route, body: body)
    } catch let error as ControlError {
      return Response(Problem(error))
    } catch let error as ControlJSON.Failure {
      return Response(
        Problem(status: 400, code: "bad-json", detail: "bad request body: \(error.message)"))
    } catch {
      return Response(Problem(ControlError(.failed, "\(error)")))
    }
  }

  private func perform(_ route: Route, body: [UInt8]) throws -> Response {
    switch route {
    case .mirror: return mirror()
    case .legs: return Response(json: controller.status().legs)
    case .connections: return Response(json: controller.connections())
    case .regions: return Response(json: controller.regions())
    case .resync: return Response(json: controller.resync())
    case .changeResync:
      let request = try ControlJSON.decode(ResyncRequest.self, from: body)
      guard request != ResyncRequest() else {
        throw ControlError(.invalid, "nothing to change is named")
      }
      try controller.changeResync(request)
      return Response(json: controller.resync())
    case .scrub: return Response(json: controller.scrub())
    case .startScrub:
      let request = try ControlJSON.decode(ScrubRequest.self, from: body)
      let preferred = try request.prefer.map { leg throws(ControlError) in try find(leg) }
      try controller.startScrub(request, preferred: preferred)
      return Response(status: 202, json: controller.scrub())
    case .stopScrub:
      _ = try decode(EmptyRequest.self, from: body)
      try controller.stopScrub()
      return Response(json: controller.scrub())
    case .addLeg:
      let request = try ControlJSON.decode(AddLegRequest.self, from: body)
      try checkPath(request.path)
      return made(try controller.addLeg(path: request.path, spare: request.spare))
    case .replaceLeg(let leg):
      let request = try ControlJSON.decode(ReplaceLegRequest.self, from: body)
      try checkPath(request.path)
      return made(try controller.replaceLeg(try find(leg), path: request.path))
    case .refreshLeg(let leg):
      let request = try decode(RefreshLegRequest.self, from: body)
      let slot = try find(leg)
      try controller.refreshLeg(slot, whole: request.whole)
      return answer(slot: slot)
    case .setLeg(let leg):
      let request = try ControlJSON.decode(SetLegRequest.self, from: body)
      let slot = try find(leg)
      try controller.setLeg(slot, writeMostly: request.writeMostly)
      return answer(slot: slot)
    case .failLeg(let leg):
      _ = try decode(EmptyRequest.self, from: body)
      let slot = try find(leg)
      try controller.failLeg(slot)
      return answer(slot: slot)
    case .readdLeg(let leg):
      let request = try decode(ReaddLegRequest.self, from: body)
      let slot = try find(leg)
      try controller.readdLeg(slot, force: request.force)
      return answer(slot: slot)
    case .removeLeg(let leg):
      _ = try decode(EmptyRequest.self, from: body)
      let slot = try find(leg)
      try controller.removeLeg(slot)
      return answer(slot: slot)
    case .shutdown:
      _ = try decode(EmptyRequest.self, from: body)
      controller.shutdown()
      return Response(status: 202)
    case .fault(let route): return try perform(route, body: body)
    case .metrics:
      return Response(text: controller.metrics(), type: "text/plain; version=0.0.4; charset=utf-8")
    case .description: return Response(text: OpenAPI.yaml, type: "application/yaml")
    case .events: return Response(json: controller.events.events(after: 0))
    }
  }

  private func mirror() -> Response {
    let status = revisions.stamp(controller.status())
    var response = Response(json: status)
    response.fields.append(("ETag", status.entityTag))
    return response
  }

  /// The response to a request whose conditions do not hold; nil if they do.
  private func check(_ conditions: Conditions, for route: Route) -> Response? {
    guard conditions != Conditions() else { return nil }
    let tag = revisions.stamp(controller.status()).entityTag
    if let wanted = conditions.match, !Conditions.lists(wanted, tag) {
      return Response(
        Problem(
          status: 412, code: "changed",
          detail: "the mirror has changed: it is at revision \(tag) now, not \(wanted.prefix(100))")
      )
    }
    if let known = conditions.noneMatch, route == .mirror, Conditions.lists(known, tag) {
      var response = Response(status: 304)
      response.fields.append(("ETag", tag))
      return response
    }
    return nil
  }

  private func checkPath(_ path: String) throws(ControlError) {
    guard !path.isEmpty, path.utf8.count < 4096, !path.utf8.contains(0) else {
      throw ControlError(.invalid, "'path' is not the path of a file or device")
    }
  }

  /// The leg that was made in `slot`.
  private func made(_ slot: Int) -> Response {
    var response = answer(slot: slot, status: 201)
    response.fields.append(("Location", "/v1/legs/\(slot)"))
    return response
  }

  /// Decodes a body that may be left out, which stands for `{}`.
  func decode<Value: Decodable>(
    _ type: Value.Type, from body: [UInt8]
  ) throws(ControlJSON.Failure) -> Value {
    try ControlJSON.decode(type, from: body.isEmpty ? Array("{}".utf8) : body)
  }

  /// The slot of the leg that goes by the name `leg`.
  func find(_ leg: String) throws(ControlError) -> Int {
    guard let found = LegStatus.find(leg, in: controller.status().legs) else {
      throw ControlError(.noSuchLeg, "no leg goes by the name '\(leg.prefix(200))'")
    }
    return found.slot
  }

  /// The leg in `slot` after a command.
  private func answer(slot: Int, status: Int = 200) -> Response {
    guard let leg = controller.status().legs.first(where: { $0.slot == slot }) else {
      return Response(status: 204)
    }
    return Response(status: status, json: leg)
  }
}
