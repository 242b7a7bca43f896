// The barriers that keep the promises, by name, so that tests can take one away.
//
// Production never does: `EngineStart.removedBarrier` is nil there. The simulator removes one at a
// time and has to find the broken promise; a barrier that is not missed is useless, or the
// simulator has a hole.

/// A barrier that tests may take away.
public enum Barrier: UInt8, CaseIterable, Sendable {
  /// `intent` and the stale bits are durable before data is written.
  case intentBeforeData
}
