// Goal: the server is a service as systemd knows them: it takes a listening socket, says when it is
// ready and when it stops. Method: a Python process plays systemd with plain sockets.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct Service {
    @Test("takes systemd's socket, says READY=1 and STOPPING=1, and ends with 0")
    func activation() async throws {
      try await withMirror { mirror in
        let script = """
          import os, socket, subprocess, sys
          binary, folder, pvs = sys.argv[1], sys.argv[2], sys.argv[3:]
          control = folder + "/ctl.sock"
          notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
          notify.bind(folder + "/notify")
          notify.settimeout(30)
          listener = socket.socket(socket.AF_UNIX)
          listener.bind(folder + "/inherited")
          listener.listen(5)
          pid = os.fork()
          if pid == 0:
              os.dup2(listener.fileno(), 3)
              os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
              os.environ["NOTIFY_SOCKET"] = folder + "/notify"
              os.dup2(2, 1)
              os.execv(binary, [binary, "serve", *pvs, "--control", control])
          listener.close()
          try:
              assert notify.recv(100) == b"READY=1"
              uri = "nbd+unix:///?socket=" + folder + "/inherited"
              size = subprocess.run(["nbdinfo", "--size", uri], capture_output=True, check=True)
              assert size.stdout.strip() == b"67108864", size
              subprocess.run([binary, "stop", "--control", control], check=True)
              assert notify.recv(100) == b"STOPPING=1"
              status = os.waitpid(pid, 0)[1]
              pid = 0
              assert status == 0, status
          finally:
              if pid:
                  os.kill(pid, 9)
          """
        try await must(
          ["/usr/bin/python3", "-c", script, mirror.binary, mirror.directory] + mirror.paths)
      }
    }

    @Test("gives signs of life while its engine and reactors live, and none when it is stopped")
    func watchdog() async throws {
      try await withMirror { mirror in
        let script = """
          import os, signal, socket, subprocess, sys, time
          binary, folder, pvs = sys.argv[1], sys.argv[2], sys.argv[3:]
          notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
          notify.bind(folder + "/notify")
          notify.settimeout(30)
          environment = dict(os.environ, NOTIFY_SOCKET=folder + "/notify", WATCHDOG_USEC="1500000")
          server = subprocess.Popen(
              [binary, "serve", *pvs, "--threads", "2", "--socket", folder + "/nbd", "--control",
               folder + "/ctl"], env=environment, stdout=subprocess.DEVNULL)
          try:
              heard = [notify.recv(100) for _ in range(4)]
              assert sorted(heard) == [b"READY=1"] + 3 * [b"WATCHDOG=1"], heard
              os.kill(server.pid, signal.SIGSTOP)
              notify.settimeout(2)
              silent = 0
              try:
                  # What was under way may still come.
                  while silent < 3:
                      notify.recv(100)
                      silent += 1
              except TimeoutError:
                  pass
              assert silent < 2, silent
              os.kill(server.pid, signal.SIGCONT)
              subprocess.run([binary, "stop", "--control", folder + "/ctl"], check=True)
              assert server.wait(60) == 0
          finally:
              server.kill()
          """
        try await must(
          ["/usr/bin/python3", "-c", script, mirror.binary, mirror.directory] + mirror.paths)
      }
    }

    @Test(
      "--lock-memory: pages in use are locked, the OOM killer spares it, every thread flushes I/O")
    func lockedMemory() async throws {
      try await withMirror { mirror in
        try await mirror.serve(["--lock-memory", "--threads", "2"])
        let server = try #require(mirror.server)
        let process = "/proc/\(server.pid)"
        let status = try String(contentsOfFile: process + "/status", encoding: .utf8)
        func field(_ name: String) throws -> Substring {
          let line = try #require(status.split(separator: "\n").first { $0.hasPrefix(name + ":") })
          return try #require(line.split(whereSeparator: \.isWhitespace).dropFirst().first)
        }
        #expect(try field("VmLck") != "0")
        // CAP_SYS_RESOURCE: without it the rest is refused, and that is said.
        let isAllowed = try #require(UInt64(try field("CapEff"), radix: 16)) & 1 << 24 != 0
        let warnings = server.errors.components(separatedBy: "warning: ").count - 1
        #expect(warnings == (isAllowed ? 0 : 2), "\(server.errors)")
        let adjustment = try String(contentsOfFile: process + "/oom_score_adj", encoding: .utf8)
        #expect((adjustment == "-1000\n") == isAllowed)
        // PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, in the ninth field. Source: linux/sched.h.
        for thread in try FileManager.default.contentsOfDirectory(atPath: process + "/task") {
          let stat = try String(contentsOfFile: "\(process)/task/\(thread)/stat", encoding: .utf8)
          let fields = stat.split(separator: ")").last?.split(separator: " ") ?? []
          let flags = try #require(UInt64(fields[6]))
          #expect((flags & 0x0018_0000 == 0x0018_0000) == isAllowed, "thread \(thread): \(stat)")
        }
        try await mirror.expectEqualLegsAfterStop()
      }
    }

    @Test("systemd takes the units, and calls their exposure OK")
    func units() async throws {
      try await withMirror(size: "16M") { mirror in
        let units =
          URL(fileURLWithPath: #filePath).deletingLastPathComponent()
          .deletingLastPathComponent().deletingLastPathComponent().path + "/Examples/systemd"
        var files: [String] = []
        for unit in ["nbdmirror@.service", "nbdmirror@.socket", "nbdmirror-attach@.service"] {
          let text = try String(contentsOfFile: "\(units)/\(unit)", encoding: .utf8)
          let instance = unit.replacingOccurrences(of: "@.", with: "@lab.")
          let file = "\(mirror.directory)/\(instance)"
          try text.replacingOccurrences(of: "/usr/bin/nbdmirror", with: mirror.binary)
            .write(toFile: file, atomically: true, encoding: .utf8)
          files.append(file)
        }
        let verified = try await must(["systemd-analyze", "verify"] + files)
        #expect(verified.output.isEmpty && verified.errors.isEmpty, "\(verified)")
        for file in files where file.hasSuffix(".service") {
          try await must([
            "systemd-analyze", "security", "--offline=yes", "--threshold=30", file,
          ])
        }
      }
    }
  }
}
