// A precondition of the engine that fails ends the process; this says with which seed.

import Glibc
import Synchronization

enum Trap {
  private static let seed = Atomic<UInt64>(0)
  private static let isInstalled = Atomic<Bool>(false)

  /// Remembers the running seed; the first call installs the signal handlers.
  static func note(seed current: UInt64) {
    seed.store(current, ordering: .relaxed)
    guard !isInstalled.exchange(true, ordering: .relaxed) else { return }
    for number in [SIGILL, SIGTRAP] { _ = signal(number, Trap.report) }
  }

  /// Async-signal-safe: no allocation, only `write`.
  private static let report: @convention(c) (Int32) -> Void = { number in
    var rest = seed.load(ordering: .relaxed)
    var line: InlineArray<32, UInt8> = InlineArray(repeating: 0x20)
    line[31] = 0x0a
    var index = 30
    repeat {
      line[index] = 0x30 + UInt8(rest % 10)
      rest /= 10
      index -= 1
    } while rest > 0
    let span = line.span
    // The bytes of a local array, for the length of the call.
    unsafe span.withUnsafeBytes { bytes in
      _ = unsafe write(2, "trap in seed", 12)
      _ = unsafe write(2, bytes.baseAddress, 32)
    }
    _ = signal(number, SIG_DFL)
    raise(number)
  }
}
