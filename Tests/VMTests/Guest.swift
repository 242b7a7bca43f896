// A virtual machine for one test: QEMU with Debian's kernel, all in an initramfs, and the disks that
// the test gives it. The test types commands, and reads what they print.
//
// Invariants
//  1. The processor is emulated (TCG): the same test runs where there is no KVM, and where there is.
//  2. The guest's own files are in its memory. Whatever the disks do, it answers.
//  3. `withGuest` ends the machine, whatever the test throws, and shows its console with the error.
import Fixtures
import Foundation
import Testing

/// All tests with a machine, one after the other.
@Suite(.serialized, .timeLimit(.minutes(5)))
enum VirtualMachines {}

/// What a guest needs from the host.
enum GuestSupport {
  private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path

  /// The folder into which a linux-image package was unpacked: NBDMIRROR_VM_KERNEL, else where
  /// Tests/run.sh puts it; nil if there is none.
  static func kernel() -> String? {
    let named = ProcessInfo.processInfo.environment["NBDMIRROR_VM_KERNEL"]
    return [named, "\(folder)/../../.build/linux"].compactMap { $0 }.first {
      FileManager.default.fileExists(atPath: "\($0)/boot")
    }
  }

  /// Whether guests can run here: Debian's qemu-system-x86, busybox-static and a kernel.
  static func isComplete() -> Bool {
    kernel() != nil
      && ["/usr/bin/qemu-system-x86_64", "/bin/busybox"].allSatisfy {
        FileManager.default.isExecutableFile(atPath: $0)
      }
  }

  /// The kernel image in a kernel folder.
  static func image(_ kernel: String) throws -> String {
    let names = try FileManager.default.contentsOfDirectory(atPath: "\(kernel)/boot")
    guard let name = names.first(where: { $0.hasPrefix("vmlinuz-") }) else {
      throw FixtureError("no kernel in \(kernel)/boot")
    }
    return "\(kernel)/boot/\(name)"
  }

  /// Makes the initramfs; costs half a second.
  static func makeInitramfs(_ kernel: String, at path: String) async throws {
    try await mustRun(["bash", "\(folder)/make-initramfs.sh", kernel, path])
  }
}

/// Boots a guest, runs `body`, ends the machine.
///
/// - Parameters:
///   - disks: QEMU's options for the disks, in the order of /dev/vda, /dev/vdb.
///   - directory: an existing directory of the test.
///   - body: the test.
/// - Throws: what `body` throws, with the guest's console behind it.
func withGuest(
  disks: [String], directory: String, _ body: (Guest) async throws -> Void
) async throws {
  guard let kernel = GuestSupport.kernel() else { throw FixtureError("no kernel for a guest") }
  let initramfs = "\(directory)/initramfs"
  if !FileManager.default.fileExists(atPath: initramfs) {
    try await GuestSupport.makeInitramfs(kernel, at: initramfs)
  }
  let guest = try Guest(
    kernel: try GuestSupport.image(kernel), initramfs: initramfs, disks: disks,
    directory: directory)
  defer { guest.cutPower() }
  do {
    try await guest.boot()
    try await body(guest)
  } catch {
    throw FixtureError("\(error)\n-- the guest's console:\n\(guest.console)")
  }
}

/// A running guest.
final class Guest {
  private let machine: BackgroundProcess
  private let consolePath: String

  fileprivate init(kernel: String, initramfs: String, disks: [String], directory: String) throws {
    consolePath = "\(directory)/console-\(UUID().uuidString)"
    machine = try BackgroundProcess(
      [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m",
        "256",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-serial", "file:\(consolePath)", "-serial", "stdio",
        "-kernel", kernel, "-initrd", initramfs,
        "-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable",
      ] + disks, directory: directory, conversation: true)
  }

  /// What the kernel has said so far, and the machine itself.
  var console: String {
    let said = FileManager.default.contents(atPath: consolePath) ?? Data()
    return String(decoding: said, as: UTF8.self) + machine.errors
  }

  fileprivate func boot() async throws {
    let line = try await machine.answer(seconds: 180)
    guard line == "ready" else { throw FixtureError("the guest began with \(line)") }
  }

  /// Runs a shell command in the guest; gives what it printed on both outputs, and its status.
  func run(_ command: String, seconds: Double = 60) async throws -> (status: Int, lines: [String]) {
    try machine.tell(command)
    var lines: [String] = []
    while true {
      let line = try await machine.answer(seconds: seconds)
      if line.hasPrefix("= "), let status = Int(line.dropFirst(2)) { return (status, lines) }
      lines.append(line)
    }
  }

  /// Runs a shell command that has to succeed; gives the lines that it printed.
  @discardableResult
  func must(_ command: String, seconds: Double = 60) async throws -> [String] {
    let (status, lines) = try await run(command, seconds: seconds)
    guard status == 0 else {
      throw FixtureError(
        "in the guest: `\(command)` -> \(status)\n\(lines.joined(separator: "\n"))")
    }
    return lines
  }

  /// Shuts the guest down and waits until the machine is off. Mounted file systems stay as they are.
  func powerOff() async throws {
    try machine.tell("poweroff -f")
    let result = try await machine.wait(seconds: 30)
    guard result.status == 0 else { throw FixtureError("the machine ended badly: \(result)") }
  }

  /// Ends the machine as a power loss would. What it sent to its disks has been sent.
  func cutPower() { machine.end() }
}
