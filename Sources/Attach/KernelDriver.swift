// The kernel's NBD driver, spoken to over two netlink sockets: one for requests and their answers,
// one that hears of dead connections. What the messages mean stands in Netlink's `NBDDriver`.
//
// One thread at a time. A request has been acted on when its call returns.

import CNetlink
import Glibc
import Netlink

/// The driver.
public final class KernelDriver {
  private let requests: Int32
  private let events: Int32
  private let family: UInt16
  private var sequence: UInt32 = 0
  private var buffer = [UInt8](repeating: 0, count: 64 << 10)

  /// Finds the driver and listens to it from now on.
  /// - Throws: a sentence that says `modprobe nbd` if the kernel has no such driver.
  public init() throws(AttachError) {
    let requests = try KernelDriver.open()
    let events: Int32
    do throws(AttachError) {
      events = try KernelDriver.open()
    } catch {
      close(requests)
      throw error
    }
    self.requests = requests
    self.events = events
    do throws(AttachError) {
      let found = try KernelDriver.find(requests, &buffer)
      family = found.id
      guard let group = found.groups[NBDDriver.groupName] else {
        throw AttachError("this kernel's NBD driver does not tell of dead connections")
      }
      let joined = nbdmirror_netlink_join(events, group)
      guard joined == 0 else { throw .system("cannot listen to the NBD driver", -joined) }
    } catch {
      close(requests)
      close(events)
      throw error
    }
  }

  deinit {
    close(requests)
    close(events)
  }

  /// A descriptor that is readable when `deadLinks` has something to tell.
  public var eventDescriptor: Int32 { events }

  /// Attaches a device: 0, or the errno.
  func connect(_ device: DeviceConfiguration, _ sockets: [Int32]) throws(AttachError) -> Int32 {
    try perform(
      NBDDriver.connect(device, sockets: sockets, family: family, sequence: nextSequence()))
  }

  /// Gives a device sockets for its dead ones: 0, or the errno.
  func reconfigure(_ device: DeviceConfiguration, _ sockets: [Int32]) throws(AttachError) -> Int32 {
    try perform(
      NBDDriver.reconfigure(device, sockets: sockets, family: family, sequence: nextSequence()))
  }

  /// Detaches a device, whoever attached it. Who still has it open gets errors from now on.
  public func disconnect(_ device: DeviceFiles) throws(AttachError) {
    let error = try perform(
      NBDDriver.disconnect(index: device.index, family: family, sequence: nextSequence()))
    guard error == 0 else { throw KernelDriver.refusal("detach \(device.path)", error) }
  }

  /// How many connections of `device` died since the last call; at least 1 if news were lost.
  func deadLinks(_ device: DeviceFiles) throws(AttachError) -> Int {
    var count = 0
    while true {
      let length = receive(events, wait: false)
      if length == -Int64(EAGAIN) { return count }
      if length == -Int64(ENOBUFS) {
        count += 1
        continue
      }
      guard length >= 0 else { throw .system("cannot hear the NBD driver", Int32(-length)) }
      do throws(NetlinkError) {
        for message in try messages(length)
        where try NBDDriver.deadLink(message, family: family) == device.index {
          count += 1
        }
      } catch {
        throw AttachError("the kernel's message is not understood")
      }
    }
  }

  /// A sentence for an errno of the driver.
  static func refusal(_ what: String, _ code: Int32) -> AttachError {
    code == EPERM
      ? AttachError("cannot \(what): that takes root (CAP_SYS_ADMIN)")
      : .system("cannot \(what)", code)
  }

  // MARK: Messages

  private static func open() throws(AttachError) -> Int32 {
    let descriptor = nbdmirror_netlink_open()
    guard descriptor >= 0 else { throw .system("cannot speak to the kernel", -descriptor) }
    return descriptor
  }

  private func nextSequence() -> UInt32 {
    sequence &+= 1
    return sequence
  }

  private func perform(_ request: [UInt8]) throws(AttachError) -> Int32 {
    try KernelDriver.exchange(requests, request, sequence, &buffer) { _ in }
  }

  private func receive(_ descriptor: Int32, wait: Bool) -> Int64 {
    KernelDriver.receive(descriptor, &buffer, wait: wait)
  }

  private func messages(_ length: Int64) throws(NetlinkError) -> [NetlinkMessage] {
    try KernelDriver.decode(buffer, length)
  }

  private static func decode(
    _ buffer: [UInt8], _ length: Int64
  ) throws(NetlinkError) -> [NetlinkMessage] {
    try Array(buffer[..<Int(length)]).withRawSpan { span throws(NetlinkError) in
      try NetlinkMessage.decode(span)
    }
  }

  private static func find(
    _ descriptor: Int32, _ buffer: inout [UInt8]
  ) throws(AttachError) -> GenericFamily {
    var family: GenericFamily?
    let request = GenericFamily.request(name: NBDDriver.familyName, sequence: 0)
    let error = try exchange(descriptor, request, 0, &buffer) { message throws(NetlinkError) in
      family = try GenericFamily(message) ?? family
    }
    if error == ENOENT {
      throw AttachError("this kernel has no NBD driver (or not here, in a container): modprobe nbd")
    }
    guard error == 0, let family else { throw .system("cannot find the NBD driver", error) }
    return family
  }

  /// Sends a request, shows its answers to `see` and returns what it was acknowledged with.
  private static func exchange(
    _ descriptor: Int32, _ request: [UInt8], _ sequence: UInt32, _ buffer: inout [UInt8],
    _ see: (NetlinkMessage) throws(NetlinkError) -> Void
  ) throws(AttachError) -> Int32 {
    let sent = unsafe request.withUnsafeBytes { bytes in
      // The array lives through the call.
      unsafe nbdmirror_netlink_send(descriptor, bytes.baseAddress, UInt32(bytes.count))
    }
    guard sent == 0 else { throw .system("cannot speak to the kernel", -sent) }
    while true {
      let length = receive(descriptor, &buffer, wait: true)
      guard length >= 0 else { throw .system("the kernel does not answer", Int32(-length)) }
      do throws(NetlinkError) {
        for message in try decode(buffer, length) where message.sequence == sequence {
          if let error = try message.acknowledgement() { return error }
          try see(message)
        }
      } catch {
        throw AttachError("the kernel's answer is not understood")
      }
    }
  }

  private static func receive(
    _ descriptor: Int32, _ buffer: inout [UInt8], wait: Bool
  ) -> Int64 {
    unsafe buffer.withUnsafeMutableBytes { bytes in
      // The kernel writes at most `count` bytes into the array, which lives through the call.
      unsafe nbdmirror_netlink_receive(
        descriptor, bytes.baseAddress, UInt32(bytes.count), wait ? 1 : 0)
    }
  }
}
