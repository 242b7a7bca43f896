// A program in a process group of its own, its output in a file.
//
// Invariants
//  1. A child is waited for exactly once; `end` may be called any number of times.
//  2. A signal from the terminal reaches this process only: it sets `Interruption.requested`, every
//     wait looks at that and throws, and the children are ended on the way out.
import Glibc
import Synchronization

/// SIGINT, SIGTERM and SIGHUP as a flag.
enum Interruption {
  private static let flag = Atomic<Bool>(false)

  /// Whether a signal asked this process to stop.
  static var requested: Bool { flag.load(ordering: .relaxed) }

  /// Makes the signals set the flag instead of ending the process.
  static func watch() {
    for number in [SIGINT, SIGTERM, SIGHUP] {
      // A signal handler may do nothing but store into an atomic.
      signal(number) { _ in Interruption.flag.store(true, ordering: .relaxed) }
    }
  }
}

/// A child process.
final class ChildProcess {
  let command: [String]
  let pid: pid_t
  private let logPath: String
  private var status: Int32?

  /// Starts `command`, its first word looked up in PATH; standard input is /dev/null, both outputs
  /// go to the file `log`.
  init(_ command: [String], log: String) throws {
    self.command = command
    logPath = log
    // The C structures live in this function only, between their init and destroy calls.
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    unsafe posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    unsafe posix_spawn_file_actions_adddup2(&actions, 1, 2)
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
    // posix_spawn wants a null-terminated array of C strings that live until it returns.
    var words: [UnsafeMutablePointer<CChar>?] = unsafe command.map { unsafe strdup($0) }
    unsafe words.append(nil)
    defer { unsafe words.forEach { unsafe free($0) } }
    var child: pid_t = 0
    let code = unsafe posix_spawnp(&child, command[0], &actions, &attributes, words, environ)
    guard code == 0 else {
      throw BenchError("can't start \(command[0]): \(unsafe String(cString: strerror(code)))")
    }
    pid = child
  }

  /// What the program has printed so far.
  var log: String { TextFile.read(logPath) ?? "" }

  /// Whether it still runs.
  var isRunning: Bool {
    guard status == nil else { return false }
    var code: Int32 = 0
    // waitpid writes the status into `code` and keeps no pointer.
    if unsafe waitpid(pid, &code, WNOHANG) == pid { status = code }
    return status == nil
  }

  /// Waits for its end; throws when a signal came, the deadline passed, or it failed.
  func succeed(seconds: Double) throws {
    try waitUntil("\(command[0]) ends", seconds: seconds) { !isRunning }
    guard status == 0 else { throw BenchError("\(command.joined(separator: " ")) failed:\n\(log)") }
  }

  /// Ends it: SIGTERM, and SIGKILL when ten seconds were not enough.
  func end() {
    guard isRunning else { return }
    kill(pid, SIGTERM)
    for _ in 0..<2000 where isRunning { usleep(5000) }
    guard isRunning else { return }
    kill(-pid, SIGKILL)
    while isRunning { usleep(5000) }
  }
}

/// Waits for a condition of the world outside; throws on a signal and at the deadline.
func waitUntil(_ what: String, seconds: Double, _ condition: () throws -> Bool) throws {
  for _ in 0...Int(seconds * 200) {
    if Interruption.requested { throw BenchError("interrupted") }
    if try condition() { return }
    usleep(5000)
  }
  throw BenchError("not within \(seconds) s: \(what)")
}

/// Small text files.
enum TextFile {
  /// The contents, nil if it can't be read.
  static func read(_ path: String) -> String? {
    // open copies the path.
    let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
      let room = chunk.count
      // read fills at most the array's own bytes.
      let count = unsafe Glibc.read(file, &chunk, room)
      guard count > 0 else { break }
      bytes.append(contentsOf: chunk[..<count])
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Whether there is something at a path.
  static func exists(_ path: String) -> Bool {
    // access reads the string during the call.
    unsafe access(path, F_OK) == 0
  }

  /// The names in a directory, none if it can't be read.
  static func names(in path: String) -> [String] {
    // readdir's entry is valid until the next call; the name is copied before that.
    guard let directory = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
        unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }
}
