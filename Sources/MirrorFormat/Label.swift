// The label: what a PV says of itself and of its mirror. 4096 bytes, little endian; identifiers in
// UUID byte order. Two copies (`Layout.labelOffset`), the one with the higher sequence wins.
//
//    offset  bytes  what
//         0     16  magic "nbdmirror label\n"
//        16      2  format version, major: who knows only a lower one must not use the PV
//        18      2  format version, minor: for people
//        20      4  bytes of the label: 4096
//        24      4  features, compatible
//        28      4  features, read-only-compatible
//        32      4  features, incompatible
//        36      4  flags: bit 0 clean (stopped after a flush, no region has intent), bit 1 resync paused
//        40      8  sequence of this label on this PV
//        48     16  set id
//        64     16  leg id
//        80      1  slot, 0...7
//        81      1  log kind: 0 disk, 1 core
//        82      2  0
//        84      4  block size: 512 or 4096
//        88      8  size of the exported device
//        96      8  region size
//       104      8  offset of the region map
//       112      8  offset of the data
//       120      8  0 (for the offset of block checksums)
//       128      8  time of creation, seconds since 1970
//       136      8  resync minimum, bytes per second
//       144      8  resync maximum, bytes per second; 0: unlimited
//       152      8  time of writing, seconds since 1970; 0: unknown. For people only
//       160      8  generation counter
//       168     16  generation id
//       184      1  number of parents, 0...16
//       185      7  0
//       192    256  16 parent ids, newest first; unused ones 0
//       448    256  8 members of 32 bytes:
//                     +0 16 leg id   +16 1 state
//                     +17 1 flags: bit 0 write-mostly, bit 1 syncing, bit 2 given up
//                     +18 1 slot + 1 of the leg that it is to replace; 0: none
//                     +19 5 0
//                     +24 8 one above the counter of the newest label that it is known to hold
//       704      2  bytes of the name, 1...255
//       706    255  name, UTF-8; the rest 0
//       961     55  0
//      1016      8  salt, again at 1528, 2040, 2552, 3064, 3576 and 4080: once in each sector but the first
//      1024    128  8 ids of 16 bytes, by slot: the newest generation whose label went to it
//      1152   2940  0, but for the salt
//      4092      4  CRC32C of bytes 0...4091
//
// The salt is another one in every label that is written. A label that was torn by a crash stands there until
// the next write of that copy; were that torn, too, sectors that are the same in both would complete
// the first one, and a label that nobody wrote to its end would be valid.
//
// How a label is committed (the writer's duty; `Election` relies on it): write the copy that
// `ElectedLabel.nextCopy` names, with a sequence one higher, and flush: now it is durable. Then
// write the same label, again one higher, to the other copy. So a rotten sector never takes the
// newest generation with it, and a torn write only takes a label that nothing relied on yet.

import Base

/// The metadata of one PV.
public struct Label: Equatable, Sendable {
  /// Bytes on disk.
  @inlinable public static var byteCount: Int { 4096 }
  /// Longest name in UTF-8 bytes.
  public static let nameBytesMax = 255
  /// Format version: higher ones are refused.
  public static let versionMajor: UInt16 = 1
  /// Format version, for people.
  public static let versionMinor: UInt16 = 0
  /// The default of `resyncMinBytesPerSecond`.
  public static let resyncMinDefault: UInt64 = Bytes.mebi

  /// Of two copies the higher wins; counts the labels of this PV only.
  public var sequence: UInt64
  /// The mirror.
  public var setId: Identifier
  /// The mirror's name: the export's name; 1 to 255 bytes of UTF-8 (see `nameProblem`).
  public var name: String
  /// The leg this PV is.
  public var legId: Identifier
  /// The leg's place.
  public var slot: LegSlot
  /// The generation of the online set, with its ancestors.
  public var lineage: Lineage
  /// All 8 slots.
  public var members: [Member]
  /// Where things stand on the PV.
  public var layout: Layout
  /// Where the region map lives.
  public var logKind: LogKind
  /// Stopped after a flush of all legs, no region with intent.
  public var isClean: Bool
  /// When the mirror was created, seconds since 1970.
  public var createdSeconds: UInt64
  /// When this label was written, seconds since 1970 by that server's clock; 0: unknown. For people
  /// who have to decide about a split brain; nothing else looks at it.
  public var writtenSeconds: UInt64 = 0
  /// Resync: what it takes even under load.
  public var resyncMinBytesPerSecond: UInt64
  /// Resync: what it never exceeds; 0 means unlimited.
  public var resyncMaxBytesPerSecond: UInt64
  /// Copying was paused by command, and stays so at the next start.
  public var isResyncPaused = false
  /// Another number in every label that a server writes: no sector but the first is the same in two.
  public var salt: UInt64 = 0
  /// Feature bits. Encoding drops compatible ones that this version does not know.
  public var features: Features

  /// Composes a label.
  public init(
    sequence: UInt64, setId: Identifier, name: String, legId: Identifier, slot: LegSlot,
    lineage: Lineage, members: [Member], layout: Layout, logKind: LogKind = .disk,
    isClean: Bool = true, createdSeconds: UInt64 = 0,
    resyncMinBytesPerSecond: UInt64 = Label.resyncMinDefault,
    resyncMaxBytesPerSecond: UInt64 = 0, features: Features = Features()
  ) {
    self.sequence = sequence
    self.setId = setId
    self.name = name
    self.legId = legId
    self.slot = slot
    self.lineage = lineage
    self.members = members
    self.layout = layout
    self.logKind = logKind
    self.isClean = isClean
    self.createdSeconds = createdSeconds
    self.resyncMinBytesPerSecond = resyncMinBytesPerSecond
    self.resyncMaxBytesPerSecond = resyncMaxBytesPerSecond
    self.features = features
  }

  /// Whether it is the label of a PV that is being added: it speaks for nobody.
  public var isOfAddedPV: Bool { ownState == .adding }

  /// Whether it is the label of a spare: a witness of the mirror's history without data.
  public var isOfSpare: Bool { ownState == .spare }

  /// Whether the PV had no data when this was written.
  public var holdsNothing: Bool { isOfAddedPV || isOfSpare }

  private var ownState: MemberState? {
    let own = members[slot.index]
    return own.legId == legId ? own.state : nil
  }

  /// Why a mirror cannot have this name; nil if it can.
  ///
  /// Names become file names and parts of URIs: no `/`, no control characters, not starting
  /// with `.` or `-`.
  public static func nameProblem(_ name: String) -> FormatError? {
    let bytes = Array(name.utf8)
    guard let first = bytes.first else { return .badName("a mirror needs a name") }
    guard bytes.count <= nameBytesMax else {
      return .badName("the name has \(bytes.count) bytes, at most \(nameBytesMax) are possible")
    }
    guard first != UInt8(ascii: "."), first != UInt8(ascii: "-") else {
      return .badName("the name must not start with '.' or '-'")
    }
    for byte in bytes where byte < 0x20 || byte == 0x7f || byte == UInt8(ascii: "/") {
      return .badName("the name must not contain '/' or control characters")
    }
    return nil
  }
}
