// What the suites of this target share: their keys, and a file that would show a leak of secrets.
import Fixtures
import Foundation
import Testing

/// A file for secrets that only this process can open by its path. Programs that are started by
/// other tests inherit SSLKEYLOGFILE, and some, such as curl, create the file before they need it.
final class KeyLog: Sendable {
  static let shared = KeyLog()
  private let descriptor: Int32
  var path: String { "/proc/self/fd/\(descriptor)" }

  private init() {
    let file = NSTemporaryDirectory() + "/nbdmirror-secrets-" + UUID().uuidString
    let first = unsafe open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    precondition(first >= 0, "a file for secrets")
    // No other program has so many files open that it finds one of its own there.
    descriptor = fcntl(first, F_DUPFD_CLOEXEC, 900)
    precondition(descriptor >= 900, "a descriptor for secrets")
    close(first)
    unsafe unlink(file)
  }

  /// Bytes that were written there.
  var byteCount: Int {
    var status = stat()
    return unsafe fstat(descriptor, &status) == 0 ? Int(status.st_size) : -1
  }
}

/// Gives a suite its keys.
struct KeysTrait: SuiteTrait, TestScoping {
  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let keys = try Keys.make()
    // GnuTLS looks at this once, at the first secret of the process.
    // The C function makes copies.
    unsafe setenv("SSLKEYLOGFILE", KeyLog.shared.path, 1)
    defer { keys.remove() }
    try await Keys.$current.withValue(keys) { try await function() }
  }
}

extension Trait where Self == KeysTrait {
  static var keys: Self { Self() }
}
