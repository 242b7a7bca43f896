// What is said to the kernel's NBD driver, and what it says, as netlink messages.
//
// The driver is a generic netlink family called `nbd`. Its number, and the number of the group that
// hears of dead connections, are asked for by name (`GenericFamily`). Every request is acknowledged:
// 0 or an errno. What a caller has to know about the driver:
//
//  1. CONNECT takes the descriptors of connections that are past their handshake; the driver keeps
//     the sockets, the caller may close its descriptors.
//  2. With a dead connection timeout, I/O waits when no connection is left, until RECONFIGURE brings
//     one; after the timeout it fails, and so does everything that follows.
//  3. RECONFIGURE puts sockets in the place of dead ones, in order. Sockets that are too many are
//     left alone, and that is no error.
//  4. A request that was under way on a connection that died is sent again when its own timeout
//     (`requestTimeoutSeconds`) has passed, not before.
//  5. A device that was connected with an identifier takes a RECONFIGURE with the same one only.
//
// Source: Linux include/uapi/linux/nbd-netlink.h and drivers/block/nbd.c.

/// The number of a generic netlink family and of one of its groups.
public struct GenericFamily: Equatable, Sendable {
  /// The family.
  public let id: UInt16
  /// Its groups of listeners, by name.
  public let groups: [String: UInt32]

  private static let controller: UInt16 = 0x10
  private static let getFamily: UInt8 = 3
  private static let newFamily: UInt8 = 1

  private enum Attribute {
    static let id: UInt16 = 1
    static let name: UInt16 = 2
    static let groups: UInt16 = 7
    static let groupName: UInt16 = 1
    static let groupId: UInt16 = 2
  }

  /// Asks the kernel for the family `name`. ENOENT: there is none.
  public static func request(name: String, sequence: UInt32) -> [UInt8] {
    var request = NetlinkRequest(
      family: controller, command: getFamily, version: 1, sequence: sequence)
    request.add(Attribute.name, name)
    return request.encoded()
  }

  /// Understands the answer; nil: it is another message.
  public init?(_ message: NetlinkMessage) throws(NetlinkError) {
    guard message.type == GenericFamily.controller else { return nil }
    let (command, attributes) = try message.generic()
    guard command == GenericFamily.newFamily else { return nil }
    guard let id = attributes.first(where: { $0.type == Attribute.id })?.uint16 else {
      throw .malformed
    }
    self.id = id
    var groups: [String: UInt32] = [:]
    for list in attributes where list.type == Attribute.groups {
      for entry in try NetlinkAttribute.decode(list.payload) {
        let fields = try NetlinkAttribute.decode(entry.payload)
        guard let name = fields.first(where: { $0.type == Attribute.groupName }),
          let group = fields.first(where: { $0.type == Attribute.groupId })?.uint32
        else { throw .malformed }
        groups[name.text] = group
      }
    }
    self.groups = groups
  }
}

/// What CONNECT tells the driver about a device.
public struct DeviceConfiguration: Equatable, Sendable {
  /// X of /dev/nbdX.
  public var index: UInt32
  /// Size in bytes, a multiple of the block size.
  public var sizeBytes: UInt64
  /// Logical block, a power of two from 512 to the size of a page.
  public var blockBytes: UInt64
  /// The transmission flags of the handshake.
  public var serverFlags: UInt16
  /// Seconds after which a request is sent again.
  public var requestTimeoutSeconds: UInt64
  /// Seconds that I/O waits when there is no connection.
  public var deadTimeoutSeconds: UInt64
  /// What has to be the same at each RECONFIGURE.
  public var identifier: String

  /// Describes a device.
  public init(
    index: UInt32, sizeBytes: UInt64, blockBytes: UInt64, serverFlags: UInt16,
    requestTimeoutSeconds: UInt64, deadTimeoutSeconds: UInt64, identifier: String
  ) {
    self.index = index
    self.sizeBytes = sizeBytes
    self.blockBytes = blockBytes
    self.serverFlags = serverFlags
    self.requestTimeoutSeconds = requestTimeoutSeconds
    self.deadTimeoutSeconds = deadTimeoutSeconds
    self.identifier = identifier
  }
}

/// The driver's requests and its one announcement.
public enum NBDDriver {
  /// The name of the family.
  public static let familyName = "nbd"
  /// The name of the group that hears of dead connections.
  public static let groupName = "nbd_mc_group"

  private static let version: UInt8 = 1

  private enum Command {
    static let connect: UInt8 = 1
    static let disconnect: UInt8 = 2
    static let reconfigure: UInt8 = 3
    static let linkDead: UInt8 = 4
  }

  private enum Attribute {
    static let index: UInt16 = 1
    static let sizeBytes: UInt16 = 2
    static let blockBytes: UInt16 = 3
    static let timeout: UInt16 = 4
    static let serverFlags: UInt16 = 5
    static let sockets: UInt16 = 7
    static let deadTimeout: UInt16 = 8
    static let identifier: UInt16 = 10
    static let socketItem: UInt16 = 1
    static let socketDescriptor: UInt16 = 1
  }

  /// `NBD_CMD_CONNECT`. EBUSY: the device is attached already.
  public static func connect(
    _ device: DeviceConfiguration, sockets: [Int32], family: UInt16, sequence: UInt32
  ) -> [UInt8] {
    var request = NetlinkRequest(
      family: family, command: Command.connect, version: version, sequence: sequence)
    request.add(Attribute.index, device.index)
    request.add(Attribute.sizeBytes, device.sizeBytes)
    request.add(Attribute.blockBytes, device.blockBytes)
    request.add(Attribute.serverFlags, UInt64(device.serverFlags))
    addCommon(device, sockets, to: &request)
    return request.encoded()
  }

  /// `NBD_CMD_RECONFIGURE`: sockets for dead ones. No size goes along, so none can change.
  /// EINVAL: the device is not attached, or with another identifier.
  public static func reconfigure(
    _ device: DeviceConfiguration, sockets: [Int32], family: UInt16, sequence: UInt32
  ) -> [UInt8] {
    var request = NetlinkRequest(
      family: family, command: Command.reconfigure, version: version, sequence: sequence)
    request.add(Attribute.index, device.index)
    addCommon(device, sockets, to: &request)
    return request.encoded()
  }

  /// `NBD_CMD_DISCONNECT`. Done also if the device is not attached.
  public static func disconnect(index: UInt32, family: UInt16, sequence: UInt32) -> [UInt8] {
    var request = NetlinkRequest(
      family: family, command: Command.disconnect, version: version, sequence: sequence)
    request.add(Attribute.index, index)
    return request.encoded()
  }

  /// The device of which `message` says that a connection died; nil: it says something else.
  public static func deadLink(
    _ message: NetlinkMessage, family: UInt16
  ) throws(NetlinkError) -> UInt32? {
    guard message.type == family else { return nil }
    let (command, attributes) = try message.generic()
    guard command == Command.linkDead else { return nil }
    guard let index = attributes.first(where: { $0.type == Attribute.index })?.uint32 else {
      throw .malformed
    }
    return index
  }

  private static func addCommon(
    _ device: DeviceConfiguration, _ sockets: [Int32], to request: inout NetlinkRequest
  ) {
    request.add(Attribute.timeout, device.requestTimeoutSeconds)
    request.add(Attribute.deadTimeout, device.deadTimeoutSeconds)
    request.add(Attribute.identifier, device.identifier)
    request.nest(Attribute.sockets) { list in
      for socket in sockets {
        list.nest(Attribute.socketItem) { item in
          item.add(Attribute.socketDescriptor, UInt32(bitPattern: socket))
        }
      }
    }
  }
}
