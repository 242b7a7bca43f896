// The file of the control socket: made privately, replaced if nobody listens, removed at the end.
//
// Invariants: a file that somebody listens on, or that is no socket, is never touched. At the end
// only the file that was made here is removed, not one that has taken its place since.

import ControlModel
import Glibc

/// Why the control plane did not start: `description` is a sentence for people.
public enum ControlServerError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The path does not fit a socket address.
  case pathTooLong(String)
  /// Somebody listens there.
  case inUse(String)
  /// The path is a file that is not a socket.
  case notASocket(String)
  /// A system call failed.
  case system(path: String, SystemError)
  /// A TCP address cannot be listened on.
  case tcp(String, String)
  /// The event loop failed.
  case loop(String)

  /// A sentence that names the path.
  public var description: String {
    switch self {
    case .pathTooLong(let path):
      "the control socket's path has more than \(UnixSocket.pathBytesMax) bytes: \(path)"
    case .inUse(let path): "another server listens on the control socket \(path)"
    case .notASocket(let path): "the control socket's path is taken by another file: \(path)"
    case .system(let path, let error): "cannot make the control socket \(path): \(error)"
    case .tcp(let address, let text): "cannot listen for control on \(address): \(text)"
    case .loop(let text): "the control plane cannot start: \(text)"
    }
  }
}

/// The file of a bound socket.
struct SocketFile: Sendable {
  /// Where it is.
  let path: String
  private let device: dev_t
  private let inode: ino_t

  /// Binds a socket at `path`, mode 0600, not yet listening.
  /// - Returns: the file, and the descriptor, which the caller owns.
  static func make(at path: String) throws(ControlServerError) -> (SocketFile, Int32) {
    try clear(path)
    do throws(SystemError) {
      let descriptor = try UnixSocket.bind(to: path).release()
      guard let status = status(of: path) else {
        close(descriptor)
        throw SystemError(code: ENOENT)
      }
      return (SocketFile(path: path, device: status.st_dev, inode: status.st_ino), descriptor)
    } catch {
      switch error.code {
      case ENAMETOOLONG where path.utf8.count > UnixSocket.pathBytesMax: throw .pathTooLong(path)
      case EADDRINUSE: throw .inUse(path)
      default: throw .system(path: path, error)
      }
    }
  }

  /// Removes the file if it is still the one that was made.
  func remove() {
    guard let status = SocketFile.status(of: path), status.st_dev == device,
      status.st_ino == inode
    else { return }
    unsafe unlink(path)
  }

  /// Removes a socket that nobody listens on.
  private static func clear(_ path: String) throws(ControlServerError) {
    guard let status = status(of: path) else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path) }
    do {
      _ = try UnixSocket.connect(to: path, deadline: .now)
      throw ControlServerError.inUse(path)
    } catch let error as SystemError {
      switch error.code {
      case ECONNREFUSED:
        guard unsafe unlink(path) == 0 || errno == ENOENT else {
          throw .system(path: path, SystemError(code: errno))
        }
      case ENOENT: return
      // A full queue also means that somebody listens.
      case ETIMEDOUT: throw .inUse(path)
      case ENAMETOOLONG: throw .pathTooLong(path)
      default: throw .system(path: path, error)
      }
    } catch {
      throw .inUse(path)
    }
  }

  private static func status(of path: String) -> stat? {
    var status = stat()
    // The kernel fills a plain struct.
    return unsafe lstat(path, &status) == 0 ? status : nil
  }
}
