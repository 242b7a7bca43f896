// Goal: the server is a service as systemd knows them: it takes a listening socket, says when it is
// ready and when it stops. Method: a Python process plays systemd with plain sockets.
import Fixtures
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
  }
}
