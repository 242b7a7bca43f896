// The faults' part of the HTTP interface.
//
//   GET    /v1/faults                      [FaultStatus]
//   POST   /v1/faults                      AddFaultRequest -> 201 FaultStatus
//   DELETE /v1/faults                      -> 204
//   DELETE /v1/faults/{name}               -> 204
//   POST   /v1/faults/{name}/release       -> 200 FaultStatus
//   POST   /v1/power-cut                   PowerCutRequest -> 202 PowerCutReport; then no server
//
// None of these waits for a command that blocks: a command may block because of a fault.

import ControlModel

/// What the control plane needs for faults. Called from any thread; returns quickly, but for
/// `cutPower`, which may take three seconds.
public protocol FaultController: Sendable {
  /// All faults, in the order they were added.
  func faults() -> [FaultStatus]

  /// Arms a fault on the leg in `slot`.
  func addFault(_ request: AddFaultRequest, slot: Int) throws(ControlError) -> FaultStatus

  /// Removes a fault; what it holds goes on.
  func removeFault(named name: String) throws(ControlError)

  /// Removes all faults.
  func clearFaults() throws(ControlError)

  /// Lets go what a hang holds, and disarms it.
  func releaseFault(named name: String) throws(ControlError) -> FaultStatus

  /// Cuts the power of the legs in `slots`; the process dies soon after the call returns.
  func cutPower(slots: [Int], seed: UInt64?) throws(ControlError) -> PowerCutReport
}

/// One operation on faults.
enum FaultRoute: Equatable {
  case list
  case add
  case clear
  case remove(String)
  case release(String)
  case powerCut

  /// The operations of a path behind `/v1`.
  static func operations(_ segments: ArraySlice<String>) -> [(String, FaultRoute)] {
    let rest = Array(segments)
    switch (rest[0], rest.count) {
    case ("power-cut", 1): return [("POST", .powerCut)]
    case ("faults", 1): return [("GET", .list), ("POST", .add), ("DELETE", .clear)]
    case ("faults", 2) where !rest[1].isEmpty: return [("DELETE", .remove(rest[1]))]
    case ("faults", 3) where !rest[1].isEmpty && rest[2] == "release":
      return [("POST", .release(rest[1]))]
    default: return []
    }
  }
}

extension Responder {
  /// Performs an operation on faults.
  func perform(_ route: FaultRoute, body: [UInt8]) throws -> Response {
    switch route {
    case .list: return Response(json: controller.faults())
    case .add:
      let request = try ControlJSON.decode(AddFaultRequest.self, from: body)
      let fault = try controller.addFault(request, slot: try find(request.leg))
      var response = Response(status: 201, json: fault)
      response.fields.append(("Location", "/v1/faults/\(PercentEncoding.encode(fault.name))"))
      return response
    case .clear:
      _ = try decode(EmptyRequest.self, from: body)
      try controller.clearFaults()
      return Response(status: 204)
    case .remove(let name):
      _ = try decode(EmptyRequest.self, from: body)
      try controller.removeFault(named: name)
      return Response(status: 204)
    case .release(let name):
      _ = try decode(EmptyRequest.self, from: body)
      return Response(json: try controller.releaseFault(named: name))
    case .powerCut:
      let request = try decode(PowerCutRequest.self, from: body)
      guard request.legs != [] else { throw ControlError(.invalid, "'legs' names no leg") }
      let slots = try request.legs?.map { leg throws(ControlError) in try find(leg) }
      let report = try controller.cutPower(
        slots: slots ?? controller.status().legs.map(\.slot), seed: request.seed)
      return Response(status: 202, json: report)
    }
  }
}
