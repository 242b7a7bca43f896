// CPU time of a server as the kernel counts it: user and system time of a process with all its
// threads, io_uring's workers among them, and of the processes below it. Source: proc(5).
import Glibc

/// CPU time of process trees.
enum ProcessTimes {
  /// The fields of /proc/PID/stat after the command name, which may hold anything.
  private static func fields(_ pid: pid_t) -> [Substring]? {
    guard let text = TextFile.read("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else {
      return nil
    }
    return text[text.index(after: end)...].split(separator: " ")
  }

  /// Microseconds of CPU that the process and its descendants have used; granularity one tick.
  static func microseconds(tree root: pid_t) throws -> Double {
    var parents: [(pid: pid_t, parent: pid_t)] = []
    for name in TextFile.names(in: "/proc") {
      if let pid = pid_t(name), let stat = fields(pid), let parent = pid_t(stat[1]) {
        parents.append((pid, parent))
      }
    }
    var tree = [root]
    var next = 0
    while next < tree.count {
      tree += parents.filter { $0.parent == tree[next] }.map(\.pid)
      next += 1
    }
    var ticks = 0.0
    for pid in tree {
      // Fields 14 and 15 of proc(5), counted from 1 with the name as the second.
      guard let stat = fields(pid), let user = Double(stat[11]), let system = Double(stat[12])
      else {
        if pid == root { throw BenchError("process \(root) is gone") }
        continue
      }
      ticks += user + system
    }
    return ticks * 1_000_000 / Double(sysconf(Int32(_SC_CLK_TCK)))
  }
}
