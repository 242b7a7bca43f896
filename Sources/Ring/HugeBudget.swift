// The bound on memory for very large requests, shared by all reactors.

import Synchronization

/// Bytes that all pools together may map for single buffers larger than an arena block.
///
/// Safe from any thread.
public final class HugeBudget: Sendable {
  /// The bound in bytes.
  public let bytesMax: Int
  private let used = Atomic<Int>(0)
  private let refusals = Atomic<Int>(0)

  /// A budget of `bytesMax` bytes.
  public init(bytesMax: Int) {
    precondition(bytesMax > 0, "a budget is not empty")
    self.bytesMax = bytesMax
  }

  /// Bytes taken now.
  public var usedBytes: Int { used.load(ordering: .relaxed) }

  /// How often something did not fit: while this grows, somebody waits.
  public var refusalCount: Int { refusals.load(ordering: .relaxed) }

  /// Takes `bytes` if they fit.
  func take(_ bytes: Int) -> Bool {
    let before = used.wrappingAdd(bytes, ordering: .relaxed).oldValue
    if before + bytes <= bytesMax { return true }
    used.wrappingSubtract(bytes, ordering: .relaxed)
    refusals.wrappingAdd(1, ordering: .relaxed)
    return false
  }

  /// Takes `bytes` whether they fit or not.
  func takeBeyond(_ bytes: Int) { used.wrappingAdd(bytes, ordering: .relaxed) }

  /// Gives `bytes` back.
  func give(_ bytes: Int) {
    let before = used.wrappingSubtract(bytes, ordering: .relaxed).oldValue
    precondition(before >= bytes, "more given back than taken")
  }
}
