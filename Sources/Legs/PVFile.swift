// A PV that is open: a regular file or a block device, locked while it is writable.
//
// Blocking I/O: used at start and by the offline commands only. The server does its data I/O on
// `fileDescriptor` through its ring.
//
// Invariants:
//  1. A PV opened for writing is locked against every other nbdmirror: an OFD write lock, and
//     O_EXCL on a block device (which also keeps mounts away).
//  2. `isDirect` means that direct I/O works for offsets and lengths that are multiples of
//     `logicalBlockBytes` and memory aligned to 4096.
//  3. The descriptor stays open until the last reference goes.

import Base
import CLegs
import Glibc
import MirrorFormat

/// An open PV; owns its descriptor.
public final class PVFile: Sendable {
  /// What the opener wants to do.
  public enum Access: Sendable {
    /// Looking only, without a lock: works while a server runs.
    case readOnly
    /// Exclusive.
    case readWrite
  }

  /// How I/O should go.
  public enum Cache: Sendable {
    /// Past the page cache where that works, else through it.
    case direct
    /// Through the page cache.
    case buffered
  }

  /// The path as the administrator gave it.
  public let path: String
  /// The descriptor; its owner is this object.
  public let fileDescriptor: Int32
  /// Size of the file or device.
  public let legBytes: UInt64
  /// 512 or 4096 (or more on odd devices): what offsets and lengths must be multiples of.
  public let logicalBlockBytes: UInt32
  /// Whether it is a block device.
  public let isBlockDevice: Bool
  /// Whether I/O goes past the page cache.
  public let isDirect: Bool
  /// Whether a regular file has storage for all its bytes.
  let isFullyAllocated: Bool
  /// Equal for two paths of one file or device.
  let identity: Identity

  struct Identity: Equatable, Sendable {
    var device: UInt64
    var inode: UInt64
    var isBlockDevice: Bool
  }

  private init(
    path: String, fileDescriptor: Int32, geometry: nbdmirror_pv_geometry,
    logicalBlockBytes: UInt32, isDirect: Bool
  ) {
    self.path = path
    self.fileDescriptor = fileDescriptor
    self.legBytes = geometry.bytes
    self.logicalBlockBytes = logicalBlockBytes
    self.isBlockDevice = geometry.is_block != 0
    self.isDirect = isDirect
    self.isFullyAllocated = geometry.allocated_bytes >= geometry.bytes
    self.identity = Identity(
      device: geometry.device, inode: geometry.inode, isBlockDevice: geometry.is_block != 0)
  }

  deinit { close(fileDescriptor) }

  /// Whether both are the same file or device.
  public func isSame(as other: PVFile) -> Bool { identity == other.identity }

  /// How long `openWhenFree` waits for a PV that is in use, in milliseconds.
  ///
  /// After a server was killed the kernel takes its ring apart in the background; the files stay
  /// open, and locked, until the last I/O of the old server is over. A new server must wait for
  /// exactly that: a late write must not land on newer data.
  public static let lockMillisecondsMax = 3000

  /// As `open` for writing, but waits a while for a PV that is in use, and flushes it.
  ///
  /// The flush is part of trust: what a killed server wrote can be read and yet not be durable. An
  /// engine that takes a map page for durable because it was read would write data under an
  /// intent that a power cut takes away.
  public static func openWhenFree(path: String, cache: Cache) throws(PVError) -> PVFile {
    let file = try waitForFile(path: path, cache: cache)
    try file.flush()
    return file
  }

  private static func waitForFile(path: String, cache: Cache) throws(PVError) -> PVFile {
    let stepMilliseconds = 10
    var waited = 0
    while true {
      do throws(PVError) {
        return try open(path: path, access: .readWrite, cache: cache)
      } catch {
        guard case .inUse = error, waited < lockMillisecondsMax else { throw error }
      }
      usleep(UInt32(stepMilliseconds) * 1000)
      waited += stepMilliseconds
    }
  }

  /// Opens and, for writing, locks a PV that exists.
  public static func open(
    path: String, access: Access, cache: Cache = .direct
  ) throws(PVError) -> PVFile {
    var flags = Int32(0)
    if access == .readWrite { flags |= Int32(NBDMIRROR_PV_WRITABLE) }
    // Direct first: whether it is possible is known only by trying.
    if cache == .direct {
      let direct = try openDirect(path: path, access: access, flags: flags)
      if let direct { return direct }
    }
    let descriptor = try descriptor(path: path, access: access, flags: flags)
    let geometry = try geometry(of: descriptor, path: path)
    let block = geometry.is_block != 0 ? geometry.sector_bytes : 512
    return PVFile(
      path: path, fileDescriptor: descriptor, geometry: geometry, logicalBlockBytes: block,
      isDirect: false)
  }

  /// Makes a new regular file of `bytes`, sparse unless `isPreallocated`. It is removed again if
  /// that fails.
  public static func make(path: String, bytes: UInt64, isPreallocated: Bool) throws(PVError) {
    let flags = Int32(NBDMIRROR_PV_WRITABLE) | Int32(NBDMIRROR_PV_CREATE)
    // The C function copies nothing and keeps nothing of the path.
    let made = unsafe nbdmirror_pv_open(path, flags)
    guard made >= 0 else { throw .cannotOpen(path: path, errno: -made) }
    defer { close(made) }
    do throws(PVError) {
      try grow(made, path: path, bytes: bytes, isPreallocated: isPreallocated)
      try flushFolder(of: path)
    } catch {
      // The name was free a moment ago: the file is ours.
      unsafe unlink(path)
      throw error
    }
  }

  /// Makes the name of a new file durable.
  private static func flushFolder(of path: String) throws(PVError) {
    var folder = "."
    if let slash = path.lastIndex(of: "/") {
      folder = slash == path.startIndex ? "/" : String(path[..<slash])
    }
    // The C function copies nothing and keeps nothing of the path.
    let descriptor = unsafe nbdmirror_pv_open(folder, 0)
    guard descriptor >= 0 else { throw .cannotOpen(path: folder, errno: -descriptor) }
    defer { close(descriptor) }
    // EINVAL: a file system that has no such thing.
    guard fsync(descriptor) == 0 || errno == EINVAL else {
      throw .io(path: folder, operation: "flush the folder", offset: 0, errno: errno)
    }
  }

  /// Gives an empty regular file its size. This object still knows the old one: open it again.
  public func grow(to bytes: UInt64, isPreallocated: Bool) throws(PVError) {
    try PVFile.grow(fileDescriptor, path: path, bytes: bytes, isPreallocated: isPreallocated)
  }

  private static func grow(
    _ descriptor: Int32, path: String, bytes: UInt64, isPreallocated: Bool
  ) throws(PVError) {
    var result = ftruncate(descriptor, off_t(clamping: bytes)) < 0 ? errno : 0
    if result == 0 && isPreallocated { result = -nbdmirror_pv_allocate(descriptor, 0, bytes) }
    guard result == 0 else {
      throw .io(path: path, operation: "make \(bytes) bytes of room", offset: 0, errno: result)
    }
  }

  /// The PV with direct I/O; nil if that does not work here.
  private static func openDirect(
    path: String, access: Access, flags: Int32
  ) throws(PVError) -> PVFile? {
    let directFlags = flags | Int32(NBDMIRROR_PV_DIRECT)
    // The C function copies nothing and keeps nothing of the path.
    let trial = unsafe nbdmirror_pv_open(path, directFlags)
    if trial == -EINVAL || trial == -EOPNOTSUPP { return nil }
    if trial >= 0 { close(trial) }
    let descriptor = try descriptor(path: path, access: access, flags: directFlags)
    let geometry = try geometry(of: descriptor, path: path)
    guard let block = directBlockBytes(descriptor, geometry) else {
      close(descriptor)
      return nil
    }
    return PVFile(
      path: path, fileDescriptor: descriptor, geometry: geometry, logicalBlockBytes: block,
      isDirect: true)
  }

  /// A locked (for writing) descriptor of a regular file or block device.
  private static func descriptor(
    path: String, access: Access, flags: Int32
  ) throws(PVError) -> Int32 {
    // The C functions copy nothing and keep nothing of the path.
    var descriptor = unsafe nbdmirror_pv_open(path, flags)
    guard descriptor >= 0 else { throw PVFile.openError(path, -descriptor) }
    var status = try geometry(of: descriptor, path: path)
    if access == .readWrite && status.is_block != 0 {
      close(descriptor)
      descriptor = unsafe nbdmirror_pv_open(path, flags | Int32(NBDMIRROR_PV_EXCLUSIVE))
      guard descriptor >= 0 else { throw PVFile.openError(path, -descriptor) }
      status = try geometry(of: descriptor, path: path)
    }
    guard access == .readWrite else { return descriptor }
    let locked = nbdmirror_pv_lock(descriptor)
    guard locked == 0 else {
      close(descriptor)
      if locked == -EAGAIN || locked == -EACCES { throw .inUse(path: path) }
      throw .io(path: path, operation: "lock", offset: 0, errno: -locked)
    }
    return descriptor
  }

  private static func openError(_ path: String, _ code: Int32) -> PVError {
    code == EBUSY ? .inUse(path: path) : .cannotOpen(path: path, errno: code)
  }

  /// Size and kind of an open descriptor; closes it on failure.
  private static func geometry(
    of descriptor: Int32, path: String
  ) throws(PVError) -> nbdmirror_pv_geometry {
    var geometry = nbdmirror_pv_geometry()
    // The C function fills the struct and keeps nothing of it.
    let result = unsafe nbdmirror_pv_geometry(descriptor, &geometry)
    guard result == 0 else {
      close(descriptor)
      throw .cannotOpen(path: path, errno: -result)
    }
    guard geometry.is_regular != 0 || geometry.is_block != 0 else {
      close(descriptor)
      throw .notFileOrDevice(path: path)
    }
    return geometry
  }

  /// What direct I/O must be a multiple of here; nil if it does not work.
  private static func directBlockBytes(
    _ descriptor: Int32, _ geometry: nbdmirror_pv_geometry
  ) -> UInt32? {
    if geometry.direct_bytes == 0 { return nil }
    let stated = geometry.direct_bytes == UInt32.max ? geometry.sector_bytes : geometry.direct_bytes
    let buffer = PVBuffer(count: 4096)
    for block in [UInt32(512), 4096] where block >= stated {
      // Reads into the buffer, which outlives the call.
      let got = unsafe pread(descriptor, buffer.address, Int(block), off_t(block))
      if got >= 0 { return block }
      if errno != EINVAL { return max(block, stated) }  // Sick, but direct: the caller will see.
    }
    return nil
  }
}
