// An export that is attached as /dev/nbdX, and the watch over its connections.
//
//   begin: CONNECT, or (attached already with the same identity) RECONFIGURE
//     -> watching --a connection died--> reconnecting --all there--> watching
//            |                               |--the dead timeout passed--> gaveUp (detached)
//            |--somebody detached it--> detachedElsewhere
//            |--SIGTERM, SIGINT--> signalled
//
// The kernel holds the sockets, so the device works on while nobody watches; a watcher that was
// ended, or killed, is replaced by the next one that begins.
//
// Invariants
//  1. No socket is handed over before its export was found to be the one that was attached.
//  2. Every round offers as many sockets as the device has connections: the kernel takes those it
//     needs, the rest is closed.
//  3. `watch` returns at most `handshakeNanosecondsMax` after a signal.

import Base
import Glibc
import NBDProtocol
import Netlink
import Ring

/// How to attach.
public struct AttachOptions: Sendable {
  /// The device.
  public var device: DeviceFiles
  /// The export.
  public var uri: ExportURI
  /// Connections; nil: 4 if the server takes several, else 1.
  public var connections: Int?
  /// The device's logical block; a power of two from 512 to 4096.
  public var blockBytes: UInt32
  /// Seconds after which a request is sent again.
  public var requestTimeoutSeconds: UInt64
  /// Seconds that I/O waits for a server.
  public var deadTimeoutSeconds: UInt64

  /// Describes a wish.
  public init(
    device: DeviceFiles, uri: ExportURI, connections: Int?, blockBytes: UInt32,
    requestTimeoutSeconds: UInt64, deadTimeoutSeconds: UInt64
  ) {
    self.device = device
    self.uri = uri
    self.connections = connections
    self.blockBytes = blockBytes
    self.requestTimeoutSeconds = requestTimeoutSeconds
    self.deadTimeoutSeconds = deadTimeoutSeconds
  }
}

/// What happens while it is watched.
public enum AttachNews: Equatable, Sendable {
  /// A connection died.
  case lost
  /// A try failed, and not for the reason of the one before.
  case retrying(String)
  /// The kernel took so many new sockets, so long after the loss.
  case restored(connections: Int, nanoseconds: UInt64)
}

/// How a watch ends.
public enum AttachEnd: Equatable, Sendable {
  /// By this signal; the device is still attached.
  case signalled
  /// Somebody else detached the device.
  case detachedElsewhere
  /// No server came within the dead timeout. The device is detached, its I/O fails.
  case gaveUp
}

/// An attached export.
public final class Attachment {
  /// Nanoseconds that one try to connect may take.
  static let handshakeNanosecondsMax = 5 * Nanoseconds.second

  /// What is attached.
  public let identity: ExportIdentity
  /// Connections of the device.
  public let connections: Int
  /// Whether the device was attached already, and is only watched from now on.
  public let wasAttached: Bool
  /// The device.
  public let device: DeviceFiles

  private let driver: KernelDriver
  /// Whether the kernel keeps the identifier; old ones do not.
  private let keepsIdentifier: Bool
  private let uri: ExportURI
  private let configuration: DeviceConfiguration
  private var schedule: ReconnectSchedule
  private var complaint: String?

  /// Attaches.
  public init(_ options: AttachOptions) throws(AttachError) {
    device = options.device
    uri = options.uri
    driver = try KernelDriver()
    let first = try ServerConnection.open(
      uri, nanoseconds: Attachment.handshakeNanosecondsMax)
    let export = first.export
    identity = ExportIdentity(export, askedAs: uri.exportName)
    connections = options.connections ?? (export.flags.contains(.canMultiConn) ? 4 : 1)
    try Attachment.check(export, options, connections)
    configuration = DeviceConfiguration(
      index: device.index, sizeBytes: export.sizeBytes, blockBytes: UInt64(options.blockBytes),
      serverFlags: export.flags.rawValue, requestTimeoutSeconds: options.requestTimeoutSeconds,
      deadTimeoutSeconds: options.deadTimeoutSeconds, identifier: identity.identifier)
    schedule = ReconnectSchedule(
      timeoutNanoseconds: options.deadTimeoutSeconds * Nanoseconds.second)
    let rest = try Attachment.open(
      connections - 1, uri, identity, nanoseconds: Attachment.handshakeNanosecondsMax)
    wasAttached = try Attachment.handOver(
      [first] + rest, driver, options.device, configuration)
    keepsIdentifier = options.device.identifier != nil
    guard isOurs else {
      throw AttachError("\(device.path) is not what was attached: somebody detached it meanwhile")
    }
  }

  /// Attaches, or takes over a device that is attached to the same export: whether it did that.
  private static func handOver(
    _ opened: [ServerConnection], _ driver: KernelDriver, _ device: DeviceFiles,
    _ configuration: DeviceConfiguration
  ) throws(AttachError) -> Bool {
    // The descriptors are open until the kernel has taken them.
    try withExtendedLifetime(opened) { () throws(AttachError) in
      let sockets = opened.map(\.descriptor)
      let error = try driver.connect(configuration, sockets)
      if error == EBUSY {
        try takeOver(driver, device, configuration, sockets)
        return true
      }
      guard error == 0 else { throw KernelDriver.refusal("attach \(device.path)", error) }
      return false
    }
  }

  private static func check(
    _ export: ClientExport, _ options: AttachOptions, _ connections: Int
  ) throws(AttachError) {
    guard export.sizeBytes > 0 else { throw AttachError("the export is empty") }
    guard connections == 1 || export.flags.contains(.canMultiConn) else {
      throw AttachError("the server takes one connection to an export, not \(connections)")
    }
    guard options.blockBytes >= export.minimumBlockBytes else {
      throw AttachError(
        "the server's blocks are \(export.minimumBlockBytes) bytes, not \(options.blockBytes)")
    }
    guard export.sizeBytes % UInt64(options.blockBytes) == 0 else {
      throw AttachError(
        "the export's \(export.sizeBytes) bytes are not whole blocks of \(options.blockBytes)")
    }
  }

  /// The device is attached: fine if it is with the same export, whose watcher is gone.
  private static func takeOver(
    _ driver: KernelDriver, _ device: DeviceFiles, _ configuration: DeviceConfiguration,
    _ sockets: [Int32]
  ) throws(AttachError) {
    guard device.isAttached else {
      throw AttachError("\(device.path) is busy: a program still has it open")
    }
    guard device.identifier == configuration.identifier,
      device.sizeBytes == configuration.sizeBytes
    else { throw AttachError("\(device.path) is attached already, and not to this export") }
    let error = try driver.reconfigure(configuration, sockets)
    guard error == 0 else { throw KernelDriver.refusal("take over \(device.path)", error) }
  }

  private static func open(
    _ count: Int, _ uri: ExportURI, _ identity: ExportIdentity, nanoseconds: UInt64
  ) throws(AttachError) -> [ServerConnection] {
    let deadline = monotonicNanoseconds() + nanoseconds
    var opened: [ServerConnection] = []
    for _ in 0..<count {
      let now = monotonicNanoseconds()
      guard now < deadline else { throw AttachError("the server is too slow to answer") }
      let connection = try ServerConnection.open(uri, nanoseconds: deadline - now)
      let found = ExportIdentity(connection.export, askedAs: uri.exportName)
      if let difference = identity.difference(found) {
        throw AttachError("the server has another export: \(difference)")
      }
      opened.append(connection)
    }
    return opened
  }

  /// Whether the device is attached with what this attached.
  private var isOurs: Bool {
    guard device.isAttached, device.sizeBytes == configuration.sizeBytes else { return false }
    return !keepsIdentifier || device.identifier == configuration.identifier
  }

  // MARK: Watching

  /// Watches until there is nothing left to watch, or a signal comes in on `signals`.
  public func watch(
    signals: Int32, tell: (AttachNews) -> Void
  ) throws(AttachError) -> AttachEnd {
    while true {
      sleep(signals)
      if SignalCalls.take(signals) != 0 { return .signalled }
      let dead = try driver.deadLinks(device)
      guard isOurs else { return .detachedElsewhere }
      if dead > 0 && !schedule.isLost {
        complaint = nil
        schedule.lost(now)
        tell(.lost)
      }
      if schedule.isDue(now) { try reconnect(tell) }
      if schedule.isOver(now) {
        try driver.disconnect(device)
        return .gaveUp
      }
    }
  }

  /// Detaches. Who still has the device open gets errors from now on.
  public func detach() throws(AttachError) { try driver.disconnect(device) }

  private var now: Instant { Instant(nanoseconds: monotonicNanoseconds()) }

  /// Until there is news, a try is due, or a second has passed: nobody tells of a detached device.
  private func sleep(_ signals: Int32) {
    let nanoseconds = min(schedule.wait(now) ?? Nanoseconds.second, Nanoseconds.second)
    var polled = [
      pollfd(fd: driver.eventDescriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
    ]
    let milliseconds = (nanoseconds + Nanoseconds.millisecond - 1) / Nanoseconds.millisecond
    // The array lives through the call. An interrupted sleep is a short one.
    unsafe poll(&polled, nfds_t(polled.count), Int32(milliseconds))
  }

  /// One try. Trouble with the server is told and tried again, trouble with the kernel ends it.
  private func reconnect(_ tell: (AttachNews) -> Void) throws(AttachError) {
    let opened: [ServerConnection]
    do throws(AttachError) {
      opened = try Attachment.open(
        connections, uri, identity,
        nanoseconds: min(
          Attachment.handshakeNanosecondsMax, max(schedule.remaining(now) ?? 0, 1_000_000)))
    } catch {
      schedule.failed(now)
      if complaint != error.description { tell(.retrying(error.description)) }
      complaint = error.description
      return
    }
    // It may have been detached, and attached to something else, while the server answered.
    guard isOurs else { return }
    let error = try driver.reconfigure(configuration, opened.map(\.descriptor))
    guard error == 0 else { throw KernelDriver.refusal("reconnect \(device.path)", error) }
    let taken = opened.count { $0.isTaken }
    tell(.restored(connections: taken, nanoseconds: schedule.restored(now)))
  }
}
