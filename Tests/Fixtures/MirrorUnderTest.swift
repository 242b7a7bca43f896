// A mirror on PVs of its own, served by the built `nbdmirror`, for one test.
//
// The server is a black box: the tests know its command line, its control socket and the data areas
// of its PVs, nothing else. NBDMIRROR_BIN names the binary (Tests/run.sh sets the release build);
// without it the one that `swift build` left beside the test runner is taken.
//
// Invariants
//  1. `withMirror` ends the server and deletes every file, whatever the test throws.
//  2. A server that ends without being asked to fails the test with what it said.
import Foundation

/// The path of the binary under test.
public func serverBinary() throws -> String {
  if let path = ProcessInfo.processInfo.environment["NBDMIRROR_BIN"], !path.isEmpty {
    guard FileManager.default.isExecutableFile(atPath: path) else {
      throw FixtureError("NBDMIRROR_BIN=\(path) is not an executable file")
    }
    return path
  }
  let runner = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
  let path = URL(fileURLWithPath: runner).deletingLastPathComponent().path + "/nbdmirror"
  guard FileManager.default.isExecutableFile(atPath: path) else {
    throw FixtureError("no server to test at \(path): build it, or set NBDMIRROR_BIN")
  }
  return path
}

/// Makes a mirror of files in a directory of its own, runs `body`, cleans up.
///
/// - Parameters:
///   - legs: how many PVs.
///   - size: the exported size, as `create --size` takes it.
///   - options: more options of `create`.
///   - parent: where the directory goes; by default TMPDIR or /tmp.
///   - body: the test. The server is not started yet.
/// - Throws: what `body` throws; `FixtureError` when `create` fails.
public func withMirror(
  legs: Int = 2, size: String = "64M", options: [String] = [], parent: String? = nil,
  _ body: (MirrorUnderTest) async throws -> Void
) async throws {
  let directory = try TemporaryDirectory(parent: parent)
  defer { directory.remove() }
  let paths = (0..<legs).map { "\(directory.path)/leg\($0).pv" }
  try await withMirror(
    on: paths, size: size, options: options, directory: directory.path, body)
}

/// Makes a mirror on the PVs in `paths`, runs `body`, ends the server.
///
/// - Parameters:
///   - paths: the PVs; a path without a file becomes a sparse file.
///   - size: the exported size, as `create --size` takes it; nil: what the smallest PV holds.
///   - options: more for `create`.
///   - directory: an existing directory for the sockets and logs.
///   - body: the test. The server is not started yet.
/// - Throws: what `body` throws; `FixtureError` when `create` fails.
public func withMirror(
  on paths: [String], size: String?, options: [String] = [], directory: String,
  _ body: (MirrorUnderTest) async throws -> Void
) async throws {
  let mirror = try MirrorUnderTest(paths: paths, directory: directory)
  defer { mirror.end() }
  let sizes = size.map { ["--size", $0] } ?? []
  let created = try await run(
    [mirror.binary, "create", mirror.name] + paths + sizes + options)
  guard created.status == 0 else { throw FixtureError("create failed: \(created)") }
  try await body(mirror)
}

/// A mirror and its server.
public final class MirrorUnderTest {
  /// The binary under test.
  public let binary: String
  /// The mirror's name.
  public let name = "lab"
  /// The PVs, in slot order.
  public let paths: [String]
  /// A directory that is deleted after the test.
  public let directory: String
  /// The NBD socket.
  public let socket: String
  /// The control socket.
  public let control: String
  /// The server, once started.
  public private(set) var server: BackgroundProcess?

  fileprivate init(paths: [String], directory: String) throws {
    binary = try serverBinary()
    self.paths = paths
    self.directory = directory
    socket = "\(directory)/nbd.sock"
    control = "\(directory)/ctl.sock"
  }

  /// The URI of the export.
  public var uri: String { "nbd+unix:///?socket=\(socket)" }

  /// Starts the server and waits until it says `ready`.
  ///
  /// - Parameters:
  ///   - options: added to the command line.
  ///   - wrapper: put in front of it, such as `strace ...`.
  ///   - pvs: the PVs to serve, by default all.
  ///   - seconds: the deadline.
  /// - Throws: `FixtureError` when the server ends or is not ready in time.
  public func serve(
    _ options: [String] = [], wrapper: [String] = [], pvs: [String]? = nil, seconds: Double = 30
  ) async throws {
    let started = try start(options, wrapper: wrapper, pvs: pvs)
    try await eventually("the server says `ready`", within: seconds) {
      guard started.isRunning else {
        throw FixtureError("the server ended: \(try await started.wait(seconds: 1))")
      }
      return started.output.split(separator: "\n").contains("ready")
    }
  }

  /// Starts the server and waits for it to refuse.
  public func serveRefused(
    _ options: [String] = [], wrapper: [String] = [], pvs: [String]? = nil
  ) async throws -> CommandResult {
    let directory = try TemporaryDirectory()
    defer { directory.remove() }
    let process = try BackgroundProcess(
      wrapper + [binary, "serve"] + (pvs ?? paths)
        + ["--socket", "\(directory.path)/nbd.sock", "--control", "\(directory.path)/ctl.sock"]
        + options,
      directory: directory.path)
    return try await process.wait(seconds: 30)
  }

  private func start(
    _ options: [String], wrapper: [String], pvs: [String]?
  ) throws -> BackgroundProcess {
    server?.end()
    let started = try BackgroundProcess(
      wrapper + [binary, "serve"] + (pvs ?? paths)
        + ["--socket", socket, "--control", control] + options,
      directory: directory)
    server = started
    return started
  }

  /// Runs an admin command on this mirror's control socket.
  public func admin(_ arguments: [String], seconds: Double = 120) async throws -> CommandResult {
    try await run([binary] + arguments + ["--control", control], seconds: seconds)
  }

  /// Starts an admin command in the background.
  public func beginAdmin(_ arguments: [String]) throws -> BackgroundProcess {
    try BackgroundProcess(
      [binary] + arguments + ["--control", control], directory: directory)
  }

  /// Runs an admin command that has to succeed.
  public func mustAdmin(_ arguments: [String], seconds: Double = 120) async throws {
    let result = try await admin(arguments, seconds: seconds)
    guard result.status == 0 else { throw FixtureError("\(result)") }
  }

  /// What `status --json` says.
  public func status() async throws -> StatusReport {
    let result = try await admin(["status", "--json"])
    guard result.status == 0 else { throw FixtureError("\(result)") }
    return try JSONDecoder().decode(StatusReport.self, from: Data(result.output.utf8))
  }

  /// What `examine --json` says about a PV.
  public func examine(_ path: String) async throws -> ExamineReport {
    let result = try await run([binary, "examine", "--json", path])
    guard result.status == 0 else { throw FixtureError("\(result)") }
    return try JSONDecoder().decode(ExamineReport.self, from: Data(result.output.utf8))
  }

  /// Stops the server with `nbdmirror stop` and waits for a clean end.
  public func stop() async throws {
    guard let server else { throw FixtureError("stop: no server was started") }
    try await mustAdmin(["stop"])
    let result = try await server.wait(seconds: 60)
    self.server = nil
    guard result.status == 0 else { throw FixtureError("the server stopped badly: \(result)") }
  }

  /// Ends the server with SIGKILL: the crash of a test.
  public func crash() {
    server?.end()
    server = nil
  }

  /// Waits until no region is unresolved since the last crash.
  public func waitForRecovery(seconds: Double = 60) async throws {
    try await eventually("no region is unresolved", within: seconds, every: 0.02) {
      try await status().unresolvedRegions == 0
    }
  }

  /// Waits until no region counts as written to: what comes after is the only thing a leg can miss.
  public func waitUntilSettled(seconds: Double = 30) async throws {
    try await eventually("no region is dirty", within: seconds, every: 0.05) {
      try await status().dirtyRegions == 0
    }
  }

  /// Compares data areas byte by byte; the server must be stopped.
  ///
  /// - Parameter some: the PVs, by default all that the mirror was made with.
  /// - Returns: nil if they are equal, else which differ and the first offset in the export.
  /// - Throws: when a PV can't be read or examined.
  public func firstDifference(among some: [String]? = nil) async throws -> String? {
    let paths = some ?? self.paths
    let size = try await examine(paths[0]).size
    for path in paths.dropFirst() {
      guard try await examine(path).size == size else { return "the sizes of the PVs differ" }
      let (first, other) = (try await dataArea(paths[0]), try await dataArea(path))
      if let at = try firstDifference(first, other, size: size) {
        return "\(paths[0]) and \(path) differ first at \(at)"
      }
    }
    return nil
  }

  /// Compares data areas with a plain file byte by byte; the server must be stopped.
  ///
  /// - Parameters:
  ///   - file: a file as long as the export.
  ///   - some: the PVs, by default all that the mirror was made with.
  /// - Returns: nil if they are equal, else which PV differs and the first offset in the export.
  /// - Throws: when a PV or the file can't be read.
  public func firstDifference(from file: String, among some: [String]? = nil) async throws
    -> String?
  {
    for path in some ?? paths {
      let plain = try FileHandle(forReadingFrom: URL(fileURLWithPath: file))
      let size = try await examine(path).size
      if let at = try firstDifference(plain, try await dataArea(path), size: size) {
        return "\(path) differs from the plain file first at \(at)"
      }
    }
    return nil
  }

  /// The first offset at which two files differ from where they stand on; nil if they don't.
  private func firstDifference(
    _ first: FileHandle, _ other: FileHandle, size: UInt64
  ) throws -> UInt64? {
    var offset: UInt64 = 0
    while offset < size {
      let length = Int(min(size - offset, 4 << 20))
      let left = try first.read(upToCount: length) ?? Data()
      let right = try other.read(upToCount: length) ?? Data()
      guard left.count == length, right.count == length else {
        throw FixtureError("a data area ends before \(offset + UInt64(length)) of \(size) bytes")
      }
      if left != right {
        let at = zip(left, right).enumerated().first { $1.0 != $1.1 }?.offset ?? 0
        return offset + UInt64(at)
      }
      offset += UInt64(length)
    }
    return nil
  }

  /// A PV opened at the begin of its data area.
  private func dataArea(_ path: String) async throws -> FileHandle {
    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
    try file.seek(toOffset: try await examine(path).dataOffset)
    return file
  }

  /// Stops the server and says how the PVs differ, nil if they don't.
  public func stopAndCompare() async throws -> String? {
    try await stop()
    return try await firstDifference()
  }

  fileprivate func end() { server?.end() }
}
