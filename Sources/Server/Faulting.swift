// Faults of a served mirror, for the control plane.

import Base
import Faults
import Glibc
import Ring
import Synchronization

extension MirrorServer {
  /// All faults in the order they were added.
  public func faultReports() -> [FaultReport] {
    faults.reports(now: Instant(nanoseconds: monotonicNanoseconds()))
  }

  /// Arms a fault; returns its name.
  public func addFault(_ fault: Fault) throws(FaultSetError) -> String {
    let name = try faults.add(fault, now: Instant(nanoseconds: monotonicNanoseconds()))
    share.wakeAll()
    return name
  }

  /// Removes a fault; what it holds goes on.
  public func removeFault(named name: String) throws(FaultSetError) {
    try faults.remove(named: name)
    share.wakeAll()
  }

  /// Removes all faults; what they hold goes on.
  public func removeAllFaults() throws(FaultSetError) {
    try faults.removeAll()
    share.wakeAll()
  }

  /// Lets go what a hang holds, and disarms it.
  public func releaseFault(named name: String) throws(FaultSetError) {
    try faults.release(named: name)
    share.wakeAll()
  }

  /// Cuts the power: from now on nothing is performed, unflushed writes of the legs are taken back
  /// by the cut's draw, and the process ends by SIGKILL after `graceMilliseconds`, in which the
  /// caller can tell what was lost. Nothing is cleaned up: that is the point.
  ///
  /// - Returns: what was lost; nil if the power was cut before.
  public func cutPower(_ cut: PowerCut, graceMilliseconds: UInt32) -> [PowerCutLoss]? {
    guard faults.beginPowerCut() else { return nil }
    share.wakeAll()
    // Reactors wait a second at most for the kernel; one that is stuck longer does nothing either.
    for _ in 0..<2500 where faults.parked.load(ordering: .acquiring) < share.ports.count {
      usleep(1000)
    }
    let losses = faults.lose(cut, from: legs)
    do throws(ServerError) {
      _ = try ServerThread {
        usleep(graceMilliseconds * 1000)
        kill(getpid(), SIGKILL)
      }
    } catch {
      kill(getpid(), SIGKILL)
    }
    return losses
  }
}
