// What the control plane needs from whoever serves the mirror. The executable implements it over
// the server; tests over a script.

import ControlModel

/// A served mirror, as the control plane sees and commands it.
///
/// Threads: no function is called on the event loop. Those that change a leg are called one at a
/// time, from one thread, and may block for seconds: they return when the change is durable (the
/// label that records it is written), not when a resync is done.
/// `status` and `shutdown` are called from other threads at any time, also while a command
/// blocks, and must return quickly.
public protocol MirrorController: FaultController {
  /// How the mirror is now. The legs are the configured ones, in the order of their slots.
  func status() -> MirrorStatus

  /// The clients' connections, by number. Like `status`: from any thread, and quickly.
  func connections() -> [ConnectionStatus]

  /// The region map at a glance. Like `status`: from any thread, and quickly.
  func regions() -> RegionMapStatus

  /// Takes the leg in `slot` offline as failed.
  func failLeg(_ slot: Int) throws(ControlError)

  /// Takes the leg in `slot` out of the mirror for good.
  func removeLeg(_ slot: Int) throws(ControlError)

  /// Brings the leg in `slot` back; `force` takes a leg with an unknown or diverged history as a
  /// new one.
  func readdLeg(_ slot: Int, force: Bool) throws(ControlError)

  /// Makes a new leg, or a spare, on the PV at `path` in a free slot.
  /// - Returns: the slot.
  func addLeg(path: String, spare: Bool) throws(ControlError) -> Int

  /// Makes a new leg on the PV at `path`; when it is in sync, the leg in `slot` is removed.
  /// - Returns: the slot of the new leg.
  func replaceLeg(_ slot: Int, path: String) throws(ControlError) -> Int

  /// Begins anew with the leg in `slot`: brings it back if it is offline, else forgets its errors
  /// and a flush that failed.
  func refreshLeg(_ slot: Int, whole: Bool) throws(ControlError)

  /// Changes options of the leg in `slot`; what is nil stays.
  func setLeg(_ slot: Int, writeMostly: Bool?) throws(ControlError)

  /// The running resync, else the last one. Like `status`: from any thread, and quickly.
  func resync() -> ResyncReport

  /// Pauses or resumes copying, changes its limits. Called like `failLeg`.
  func changeResync(_ request: ResyncRequest) throws(ControlError)

  /// The running scrub, else the last one. Like `status`: from any thread, and quickly.
  func scrub() -> ScrubReport

  /// Starts a scrub that prefers the leg in slot `preferred`; `request.prefer` has been looked up.
  /// Called like `failLeg`, but returns when it has begun.
  func startScrub(_ request: ScrubRequest, preferred: Int?) throws(ControlError)

  /// Stops the running scrub. Called like `failLeg`.
  func stopScrub() throws(ControlError)

  /// What happened, and what happens.
  var events: EventLog { get }

  /// The metrics in Prometheus' text format. Like `status`: from any thread, and quickly.
  func metrics() -> String

  /// A client has commanded something: one line that says what, by whom, and how it ended. Called
  /// on the event loop, for the journal: must return at once.
  func commanded(_ line: String)

  /// Tells the server to stop cleanly; returns at once. Whoever runs the server stops the
  /// control plane as the last thing, so that `status` answers until then.
  func shutdown()
}
