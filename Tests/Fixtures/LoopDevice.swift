// Block devices for tests: loop devices over files of the test's own. Needs root.
import Foundation

/// A loop device.
public struct LoopDevice: Sendable {
  /// Its path.
  public let path: String

  /// Attaches a loop device to `file`.
  public init(over file: String, sectorBytes: Int = 512) async throws {
    let attached = try await mustRun([
      "losetup", "--find", "--show", "--sector-size", "\(sectorBytes)", file,
    ])
    path = attached.output.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Makes it as long as its file is now.
  public func resize() async throws { try await mustRun(["losetup", "-c", path]) }

  /// Detaches it; while somebody has it open the kernel puts that off.
  public func detach() async throws { try await mustRun(["losetup", "-d", path]) }

  /// Whether it is attached, or will be until its last user closes it.
  public func isAttached() async throws -> Bool { try await run(["losetup", path]).status == 0 }

  /// Runs `body` with a loop device over `file`, and detaches it whatever happens, unless `body` did.
  public static func with(
    over file: String, sectorBytes: Int = 512, _ body: (LoopDevice) async throws -> Void
  ) async throws {
    let device = try await LoopDevice(over: file, sectorBytes: sectorBytes)
    do {
      try await body(device)
    } catch {
      if try await device.isAttached() { try await device.detach() }
      throw error
    }
    if try await device.isAttached() { try await device.detach() }
  }
}
