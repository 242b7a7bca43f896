// The label's bytes; the table is in Label.swift.

import Base

extension Label {
  private static let magic = Array("nbdmirror label\n".utf8)
  private static let cleanFlag: UInt32 = 1
  private static let pausedFlag: UInt32 = 2
  private static let writeMostlyFlag: UInt8 = 1
  private static let syncingFlag: UInt8 = 2
  private static let givenUpFlag: UInt8 = 4
  private static let parentsOffset = 192
  private static let membersOffset = 448
  private static let memberBytes = 32
  private static let nameOffset = 706
  private static let offeredOffset = 1024
  private static let saltOffsets = [1016, 1528, 2040, 2552, 3064, 3576, 4080]
  private static let checksumOffset = 4092

  /// Writes the label's 4096 bytes.
  /// - Precondition: 4096 bytes; 8 members; name and layout without a problem.
  public func encode(into bytes: inout MutableRawSpan) {
    precondition(bytes.byteCount == Label.byteCount, "a label has 4096 bytes")
    precondition(members.count == LegSlot.count, "a label has 8 members")
    precondition(Label.nameProblem(name) == nil, "a mirror with an impossible name")
    precondition(layout.problem == nil, "a label with an impossible layout")
    for offset in stride(from: 0, to: Label.byteCount, by: 8) {
      bytes.store(littleEndian: 0 as UInt64, at: offset)
    }
    bytes.store(Label.magic, at: 0)
    bytes.store(littleEndian: Label.versionMajor, at: 16)
    bytes.store(littleEndian: Label.versionMinor, at: 18)
    bytes.store(littleEndian: UInt32(Label.byteCount), at: 20)
    bytes.store(littleEndian: features.compatible & Features.known.compatible, at: 24)
    bytes.store(littleEndian: features.readOnlyCompatible, at: 28)
    bytes.store(littleEndian: features.incompatible, at: 32)
    let clean = isClean ? Label.cleanFlag : 0
    bytes.store(littleEndian: clean | (isResyncPaused ? Label.pausedFlag : 0), at: 36)
    bytes.store(littleEndian: sequence, at: 40)
    bytes.store(identifier: setId, at: 48)
    bytes.store(identifier: legId, at: 64)
    bytes.store(slot.raw, at: 80)
    bytes.store(logKind.rawValue, at: 81)
    bytes.store(littleEndian: layout.blockBytes, at: 84)
    bytes.store(littleEndian: layout.sizeBytes, at: 88)
    bytes.store(littleEndian: layout.regionBytes, at: 96)
    bytes.store(littleEndian: layout.mapOffset, at: 104)
    bytes.store(littleEndian: layout.dataOffset, at: 112)
    bytes.store(littleEndian: createdSeconds, at: 128)
    bytes.store(littleEndian: resyncMinBytesPerSecond, at: 136)
    bytes.store(littleEndian: resyncMaxBytesPerSecond, at: 144)
    bytes.store(littleEndian: writtenSeconds, at: 152)
    encodeHistory(into: &bytes)
    let name = Array(name.utf8)
    bytes.store(littleEndian: UInt16(name.count), at: 704)
    bytes.store(name, at: Label.nameOffset)
    for offset in Label.saltOffsets { bytes.store(littleEndian: salt, at: offset) }
    let checksum = bytes.crc32c(of: 0..<Label.checksumOffset)
    bytes.store(littleEndian: checksum, at: Label.checksumOffset)
  }

  private func encodeHistory(into bytes: inout MutableRawSpan) {
    bytes.store(littleEndian: lineage.current.counter, at: 160)
    bytes.store(identifier: lineage.current.id, at: 168)
    let parents = lineage.parents.prefix(Lineage.parentCountMax)
    bytes.store(UInt8(parents.count), at: 184)
    for (index, parent) in parents.enumerated() {
      bytes.store(identifier: parent, at: Label.parentsOffset + Identifier.byteCount * index)
    }
    for (index, member) in members.enumerated() {
      let base = Label.membersOffset + Label.memberBytes * index
      bytes.store(identifier: member.legId, at: base)
      bytes.store(member.state.rawValue, at: base + 16)
      let writeMostly = member.isWriteMostly ? Label.writeMostlyFlag : 0
      let syncing = member.isSyncing ? Label.syncingFlag : 0
      let givenUp = member.isGivenUp ? Label.givenUpFlag : 0
      bytes.store(writeMostly | syncing | givenUp, at: base + 17)
      bytes.store(member.replaces.map { $0.raw + 1 } ?? 0, at: base + 18)
      bytes.store(littleEndian: member.offlineSince, at: base + 24)
      bytes.store(
        identifier: member.offeredId, at: Label.offeredOffset + Identifier.byteCount * index)
    }
  }

  /// Reads a label; whatever the bytes are, it returns or throws.
  public static func decode(_ bytes: RawSpan) throws(FormatError) -> Label {
    guard bytes.byteCount >= magic.count else { throw .truncated(byteCount: bytes.byteCount) }
    for (index, byte) in magic.enumerated() where bytes.uint8(at: index) != byte {
      throw .noLabel
    }
    guard bytes.byteCount == byteCount else { throw .truncated(byteCount: bytes.byteCount) }
    guard
      bytes.littleEndianUInt32(at: checksumOffset)
        == bytes.extracting(0..<checksumOffset).crc32c()
    else { throw .checksum }
    let major = bytes.littleEndianUInt16(at: 16)
    guard major == versionMajor else {
      throw .version(major: major, minor: bytes.littleEndianUInt16(at: 18))
    }
    let features = Features(
      compatible: bytes.littleEndianUInt32(at: 24),
      readOnlyCompatible: bytes.littleEndianUInt32(at: 28),
      incompatible: bytes.littleEndianUInt32(at: 32))
    let unknown = features.incompatible & ~Features.known.incompatible
    guard unknown == 0 else { throw .unknownFeatures(unknown) }
    guard bytes.littleEndianUInt32(at: 20) == UInt32(byteCount) else {
      throw .invalidField("its length is not 4096")
    }
    let slot = bytes.uint8(at: 80)
    guard slot < LegSlot.count else { throw .invalidField("slot \(slot) does not exist") }
    guard let logKind = LogKind(rawValue: bytes.uint8(at: 81)) else {
      throw .invalidField("log kind \(bytes.uint8(at: 81)) does not exist")
    }
    let sequence = bytes.littleEndianUInt64(at: 40)
    guard sequence < Layout.counterLimit else { throw .invalidField("sequence \(sequence)") }
    var label = Label(
      sequence: sequence,
      setId: bytes.identifier(at: 48),
      name: try decodeName(bytes),
      legId: try decodeLegId(bytes),
      slot: LegSlot(Int(slot)),
      lineage: try decodeLineage(bytes),
      members: try decodeMembers(bytes),
      layout: try decodeLayout(bytes),
      logKind: logKind,
      isClean: bytes.littleEndianUInt32(at: 36) & cleanFlag != 0,
      createdSeconds: bytes.littleEndianUInt64(at: 128),
      resyncMinBytesPerSecond: bytes.littleEndianUInt64(at: 136),
      resyncMaxBytesPerSecond: bytes.littleEndianUInt64(at: 144),
      features: features)
    label.isResyncPaused = bytes.littleEndianUInt32(at: 36) & pausedFlag != 0
    label.writtenSeconds = bytes.littleEndianUInt64(at: 152)
    label.salt = bytes.littleEndianUInt64(at: saltOffsets[0])
    return label
  }

  private static func decodeName(_ bytes: RawSpan) throws(FormatError) -> String {
    let count = Int(bytes.littleEndianUInt16(at: 704))
    guard count >= 1, count <= nameBytesMax else {
      throw .invalidField("a name of \(count) bytes")
    }
    let utf8 = bytes.copied(nameOffset..<(nameOffset + count))
    guard let name = String(validating: utf8, as: UTF8.self), nameProblem(name) == nil else {
      throw .invalidField("a name with impossible characters")
    }
    return name
  }

  private static func decodeLegId(_ bytes: RawSpan) throws(FormatError) -> Identifier {
    let legId = bytes.identifier(at: 64)
    guard !legId.isZero else { throw .invalidField("a leg id of zero") }
    return legId
  }

  private static func decodeLayout(_ bytes: RawSpan) throws(FormatError) -> Layout {
    let layout = Layout(
      sizeBytes: bytes.littleEndianUInt64(at: 88),
      regionBytes: bytes.littleEndianUInt64(at: 96),
      blockBytes: bytes.littleEndianUInt32(at: 84),
      mapOffset: bytes.littleEndianUInt64(at: 104),
      dataOffset: bytes.littleEndianUInt64(at: 112))
    if let problem = layout.problem { throw .invalidField(problem.description) }
    return layout
  }

  private static func decodeLineage(_ bytes: RawSpan) throws(FormatError) -> Lineage {
    let count = Int(bytes.uint8(at: 184))
    guard count <= Lineage.parentCountMax else { throw .invalidField("\(count) parents") }
    let generation = Generation(
      counter: bytes.littleEndianUInt64(at: 160), id: bytes.identifier(at: 168))
    guard !generation.id.isZero else { throw .invalidField("a generation id of zero") }
    guard generation.counter < Layout.counterLimit else {
      throw .invalidField("generation \(generation.counter)")
    }
    return Lineage(
      current: generation,
      parents: (0..<count).map { index in
        bytes.identifier(at: parentsOffset + Identifier.byteCount * index)
      })
  }

  private static func decodeMembers(_ bytes: RawSpan) throws(FormatError) -> [Member] {
    var members: [Member] = []
    members.reserveCapacity(LegSlot.count)
    for index in 0..<LegSlot.count {
      let base = membersOffset + memberBytes * index
      guard let state = MemberState(rawValue: bytes.uint8(at: base + 16)) else {
        throw .invalidField("member \(index) has the state \(bytes.uint8(at: base + 16))")
      }
      let legId = bytes.identifier(at: base)
      guard legId.isZero == (state == .vacant) else {
        throw .invalidField("member \(index) has a leg id that does not go with its state")
      }
      for other in members where other.state != .vacant && other.legId == legId {
        throw .invalidField("member \(index) is listed twice")
      }
      let replaces = bytes.uint8(at: base + 18)
      guard replaces <= LegSlot.count, Int(replaces) != index + 1 else {
        throw .invalidField("member \(index) is in the place of slot \(Int(replaces) - 1)")
      }
      let flags = bytes.uint8(at: base + 17)
      members.append(
        Member(
          legId: legId, state: state,
          isWriteMostly: flags & writeMostlyFlag != 0, isSyncing: flags & syncingFlag != 0,
          isGivenUp: flags & givenUpFlag != 0,
          replaces: replaces == 0 ? nil : LegSlot(Int(replaces) - 1),
          offlineSince: bytes.littleEndianUInt64(at: base + 24),
          offeredId: bytes.identifier(at: offeredOffset + Identifier.byteCount * index)))
    }
    return try checkReplaced(members)
  }

  /// A member is in the place of one that is there, and of none that is in two places.
  private static func checkReplaced(_ members: [Member]) throws(FormatError) -> [Member] {
    var replaced: [LegSlot] = []
    for (index, member) in members.enumerated() {
      guard let slot = member.replaces else { continue }
      guard member.state != .vacant, members[slot.index].state != .vacant,
        !replaced.contains(slot)
      else { throw .invalidField("member \(index) cannot be in the place of slot \(slot)") }
      replaced.append(slot)
    }
    return members
  }
}
