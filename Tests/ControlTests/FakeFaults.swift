// The faults of the scripted mirror.
import ControlModel
import ControlPlane

extension FakeMirror {
  func faults() -> [FaultStatus] { state.withLock { $0.faults } }

  func addFault(_ request: AddFaultRequest, slot: Int) throws(ControlError) -> FaultStatus {
    let options = request.options.keys.sorted().map { "\($0)=\(request.options[$0] ?? "")" }
    try note("fault \(slot) \(request.kind) \(options.joined(separator: " "))")
    let fault = FaultStatus(
      name: request.options["name"] ?? "\(request.kind)-1", leg: slot, kind: request.kind,
      words: "\(request.kind) --op write", state: .armed, matched: 7, fired: 3, badBytes: 0)
    state.withLock { $0.faults.append(fault) }
    return fault
  }

  func removeFault(named name: String) throws(ControlError) {
    try note("fault remove \(name)")
    state.withLock { $0.faults.removeAll { $0.name == name } }
  }

  func clearFaults() throws(ControlError) {
    try note("fault clear")
    state.withLock { $0.faults.removeAll() }
  }

  func releaseFault(named name: String) throws(ControlError) -> FaultStatus {
    try note("fault release \(name)")
    guard var fault = faults().first(where: { $0.name == name }) else {
      throw ControlError(.noSuchFault, "there is no fault named '\(name)'")
    }
    fault.state = .released
    return fault
  }

  func cutPower(slots: [Int], seed: UInt64?) throws(ControlError) -> PowerCutReport {
    try note("power-cut \(slots) \(seed ?? 0)")
    return PowerCutReport(
      seed: seed ?? 5,
      legs: slots.map {
        PowerCutReport.Leg(leg: $0, volatileCache: $0 == 0, unflushedSectors: 9, lostSectors: 4)
      })
  }

  private func note(_ call: String) throws(ControlError) {
    state.withLock { $0.calls.append(call) }
    if let error = state.withLock({ $0.error }) { throw error }
  }
}
