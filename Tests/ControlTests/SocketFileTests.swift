// Goal: the control socket is private, never taken from a live server or a foreign file, and
// leaves nothing behind. Method: real files in a temporary folder.
import ControlModel
import ControlPlane
import Foundation
import Testing

@Suite("control socket file")
struct SocketFileTests {
  private func serve(_ path: String) throws -> ControlServer {
    try ControlServer.start(path: path, controller: FakeMirror())
  }

  @Test("the socket is mode 0600 and is gone after stop")
  func mode() throws {
    let path = try temporaryFolder() + "/x.ctl"
    let server = try serve(path)
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    #expect(attributes[.type] as? FileAttributeType == .typeSocket)
    server.stop()
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test("a bound socket is private before anybody listens")
  func privateFromBind() throws {
    let path = try temporaryFolder() + "/x.ctl"
    let socket = try UnixSocket.bind(to: path)
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    #expect(throws: SystemError(code: ECONNREFUSED)) {
      _ = try UnixSocket.connect(to: path, deadline: .now)
    }
    close(socket.release())
  }

  @Test("a socket that nobody listens on is replaced")
  func stale() throws {
    let path = try temporaryFolder() + "/x.ctl"
    close(try UnixSocket.bind(to: path).release())
    let server = try serve(path)
    #expect(try ControlClient(path: path).mirror().name == "vol0")
    server.stop()
  }

  @Test("a socket that a server listens on is left alone")
  func inUse() throws {
    let path = try temporaryFolder() + "/x.ctl"
    let server = try serve(path)
    #expect(throws: ControlServerError.inUse(path)) { try serve(path) }
    #expect(try ControlClient(path: path).mirror().name == "vol0")
    server.stop()
  }

  @Test("a file, a link to a file, and a folder are left alone")
  func foreign() throws {
    let folder = try temporaryFolder()
    let file = folder + "/file"
    #expect(FileManager.default.createFile(atPath: file, contents: Data("keep".utf8)))
    try FileManager.default.createSymbolicLink(
      atPath: folder + "/link", withDestinationPath: file)
    for path in [file, folder + "/link", folder] {
      #expect(throws: ControlServerError.notASocket(path)) { try serve(path) }
    }
    #expect(FileManager.default.contents(atPath: file) == Data("keep".utf8))
  }

  @Test("stop does not remove the socket of the server that came after it")
  func successor() throws {
    let path = try temporaryFolder() + "/x.ctl"
    let first = try serve(path)
    try FileManager.default.removeItem(atPath: path)
    let second = try serve(path)
    first.stop()
    #expect(try ControlClient(path: path).mirror().name == "vol0")
    second.stop()
  }

  @Test("a path that cannot be a socket is a sentence that names it")
  func impossible() throws {
    let folder = try temporaryFolder()
    let limit = UnixSocket.pathBytesMax
    let fits = folder + "/" + String(repeating: "a", count: limit - folder.utf8.count - 1)
    try serve(fits).stop()
    #expect(throws: ControlServerError.pathTooLong(fits + "a")) { try serve(fits + "a") }
    let missing = folder + "/no/x.ctl"
    #expect(throws: ControlServerError.system(path: missing, SystemError(code: ENOENT))) {
      try serve(missing)
    }
    #expect("\(ControlServerError.inUse(missing))".contains(missing))
  }
}
