// Where a benchmark runs: on which media, in which directory, with which server.
import ArgumentParser
import Glibc

/// Which media to run on.
enum LegsOn: String, CaseIterable, ExpressibleByArgument {
  case tmpfs
  case disk
  case both

  /// In the order of the report.
  var media: [Medium] {
    switch self {
    case .tmpfs: [.tmpfs]
    case .disk: [.disk]
    case .both: [.tmpfs, .disk]
    }
  }
}

/// The surroundings of a benchmark.
enum Place {
  /// The server under comparison: `named`, else the one that was built beside this program.
  static func serverBinary(_ named: String?) throws -> String {
    if let named { return named }
    // realpath allocates the result; it is copied and freed here.
    guard let resolved = unsafe realpath("/proc/self/exe", nil) else {
      throw BenchError("/proc/self/exe can't be read")
    }
    let own = unsafe String(cString: resolved)
    unsafe free(resolved)
    let path = own.split(separator: "/").dropLast().map { "/\($0)" }.joined() + "/nbdmirror"
    guard TextFile.exists(path) else {
      throw BenchError("no nbdmirror at \(path): build it, or name it with --server")
    }
    return path
  }

  /// A new directory on the medium; `onDisk`: where the disk is, nil for TMPDIR, else /tmp.
  static func makeDirectory(_ medium: Medium, onDisk: String?) throws -> String {
    let environment = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) }
    let parent = medium == .tmpfs ? "/dev/shm" : onDisk ?? environment ?? "/tmp"
    let path = "\(parent)/nbdmirror-bench-\(getpid())"
    // The system calls here and below read the path during the call.
    guard unsafe mkdir(path, 0o700) == 0 else {
      throw BenchError("can't make the directory \(path)")
    }
    return path
  }

  /// Removes a directory of `makeDirectory` with the files in it.
  static func remove(_ directory: String) {
    for name in TextFile.names(in: directory) { unsafe unlink("\(directory)/\(name)") }
    unsafe rmdir(directory)
  }

  /// Says on standard error what is done now.
  static func progress(_ text: String) {
    let line = Array("\(text)\n".utf8)
    // write reads at most the array's own bytes.
    _ = unsafe write(2, line, line.count)
  }
}
