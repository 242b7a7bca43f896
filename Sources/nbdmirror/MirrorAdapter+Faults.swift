// The part of the adapter about faults.

import Base
import ControlModel
import ControlPlane
import Faults
import MirrorFormat
import Server

extension MirrorAdapter {
  func faults() -> [FaultStatus] { server.faultReports().map(FaultText.status) }

  func addFault(_ request: AddFaultRequest, slot: Int) throws(ControlError) -> FaultStatus {
    let fault: Fault
    do throws(FaultSyntaxError) {
      fault = try FaultText.fault(request, slot: slot)
    } catch {
      throw ControlError(.invalid, error.description)
    }
    if let problem = FaultText.problem(fault, sizeBytes: facts.layout.sizeBytes) {
      throw ControlError(.invalid, problem)
    }
    return try inOrder { () throws(ControlError) in try add(fault, slot: slot) }
  }

  private func add(_ fault: Fault, slot: Int) throws(ControlError) -> FaultStatus {
    let name: String
    do throws(FaultSetError) { name = try server.addFault(fault) } catch {
      throw ControlError(.conflict, error.description)
    }
    let status = try find(name)
    let message = "fault '\(name)' is armed on leg \(slot): \(status.words)"
    Journal.write(message)
    tell(EventRecord(.faultAdded, message, leg: slot, name: name))
    return status
  }

  func removeFault(named name: String) throws(ControlError) {
    telling.withLock { _ in tellOfFaults() }
    do throws(FaultSetError) { try server.removeFault(named: name) } catch {
      throw FaultText.error(error)
    }
    progress.withLock { $0.fired[name] = nil }
    tell(EventRecord(.faultRemoved, "fault '\(name)' is removed", name: name))
  }

  func clearFaults() throws(ControlError) {
    telling.withLock { _ in tellOfFaults() }
    do throws(FaultSetError) { try server.removeAllFaults() } catch {
      throw FaultText.error(error)
    }
    progress.withLock { $0.fired.removeAll() }
    tell(EventRecord(.faultRemoved, "all faults are removed"))
  }

  func releaseFault(named name: String) throws(ControlError) -> FaultStatus {
    do throws(FaultSetError) { try server.releaseFault(named: name) } catch {
      throw FaultText.error(error)
    }
    tell(EventRecord(.faultReleased, "fault '\(name)' lets go what it holds", name: name))
    return try find(name)
  }

  func cutPower(slots: [Int], seed: UInt64?) throws(ControlError) -> PowerCutReport {
    var legs = LegSet.none
    for slot in slots { legs.insert(LegSlot(slot)) }
    let cut = PowerCut(legs: legs, seed: seed ?? Identifier.random().high)
    let message = "power cut of legs \(legs), seed \(cut.seed): the server dies"
    Journal.write(message)
    tell(EventRecord(.powerCut, message))
    guard let losses = server.cutPower(cut, graceMilliseconds: 200) else {
      throw ControlError(.conflict, "the power is cut already")
    }
    return PowerCutReport(
      seed: cut.seed,
      legs: losses.map {
        PowerCutReport.Leg(
          leg: $0.leg.index, volatileCache: $0.hadVolatileCache,
          unflushedSectors: $0.unflushedSectors, lostSectors: $0.lostSectors)
      })
  }

  private func find(_ name: String) throws(ControlError) -> FaultStatus {
    guard let fault = faults().first(where: { $0.name == name }) else {
      throw ControlError(.noSuchFault, "there is no fault named '\(name)' any more")
    }
    return fault
  }
}

/// Faults between the words of the control plane and those of the core.
enum FaultText {
  /// The fault that a request asks for.
  static func fault(
    _ request: AddFaultRequest, slot: Int
  ) throws(FaultSyntaxError) -> Fault {
    // In one order, so that of several mistakes always the same is told.
    var options: [(FaultOption, String)] = []
    for name in request.options.keys.sorted() {
      options.append((try FaultOption.named(name), request.options[name] ?? ""))
    }
    return try Fault.parse(kind: request.kind, options: options, leg: LegSlot(slot))
  }

  /// Why a fault makes no sense on a device of this size; nil if it does.
  static func problem(_ fault: Fault, sizeBytes: UInt64) -> String? {
    if case .range(let range) = fault.area, range.end > sizeBytes {
      return "the range ends at \(range.end), beyond the device's \(sizeBytes) bytes"
    }
    if case .misdirect(let target?) = fault.action, target >= sizeBytes {
      return "--to \(target) is beyond the device's \(sizeBytes) bytes"
    }
    return nil
  }

  static func status(_ report: FaultReport) -> FaultStatus {
    let state: FaultStatus.State =
      switch report.state {
      case .armed: .armed
      case .spent: .spent
      case .expired: .expired
      case .released: .released
      }
    return FaultStatus(
      name: report.fault.name, leg: report.fault.leg.index, kind: report.fault.action.kind.rawValue,
      words: report.fault.words, state: state, matched: report.matched, fired: report.fired,
      badBytes: report.badBytes)
  }

  static func error(_ error: FaultSetError) -> ControlError {
    switch error {
    case .unknown: ControlError(.noSuchFault, error.description)
    case .nameInUse, .notHang, .tooMany: ControlError(.conflict, error.description)
    }
  }
}
