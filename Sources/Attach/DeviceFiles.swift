// One /dev/nbdX as the kernel shows it: its number, and what stands in /sys about it.
//
// Source: Linux drivers/block/nbd.c: `pid` is there while the device is attached, `backend` holds the
// identifier it was attached with (if any, and if the kernel knows identifiers); `size` counts in
// 512 bytes, as for every block device.

import Glibc

/// A device of the NBD driver.
public struct DeviceFiles: Equatable, Sendable {
  /// X of /dev/nbdX.
  public let index: UInt32

  /// The device X.
  public init(index: UInt32) { self.index = index }

  /// The device with this path or name; nil if it is not one of the NBD driver.
  public init?(_ text: String) {
    let name = text.hasPrefix("/dev/") ? text.dropFirst(5) : text[...]
    let digits = name.dropFirst(3)
    // The driver numbers minors in 20 bits, of which partitions take some.
    guard name.hasPrefix("nbd"), let index = UInt32(digits), index < 1 << 20,
      digits == "\(index)"
    else { return nil }
    self.index = index
  }

  /// Its path.
  public var path: String { "/dev/nbd\(index)" }
  /// Its name in the kernel's log and in /sys.
  public var name: String { "nbd\(index)" }

  /// Whether it is attached, by whomever.
  public var isAttached: Bool { read("pid") != nil }

  /// What it was attached with; nil if nothing was said, or the kernel does not keep it.
  public var identifier: String? { read("backend") }

  /// Its size in bytes, 0 while nothing is attached.
  public var sizeBytes: UInt64 { (read("size").flatMap { UInt64($0) } ?? 0) * 512 }

  /// Whether somebody uses it: it is mounted, or another device is built on it.
  public var isInUse: Bool {
    let descriptor = unsafe open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { return errno == EBUSY }
    close(descriptor)
    return false
  }

  /// Writes to the export what the kernel still holds in its cache. Waits for it.
  public func flush() throws(AttachError) {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw .system("cannot open \(path)", errno) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw .system("cannot flush \(path)", errno) }
  }

  /// The first line of a file in /sys; nil if it is not there.
  private func read(_ file: String) -> String? {
    let descriptor = unsafe open("/sys/block/\(name)/\(file)", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = unsafe bytes.withUnsafeMutableBytes { buffer in
      // The kernel writes at most `count` bytes into the array, which lives through the call.
      unsafe Glibc.read(descriptor, buffer.baseAddress, buffer.count)
    }
    guard count >= 0 else { return nil }
    return String(decoding: bytes.prefix(count).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
  }
}
