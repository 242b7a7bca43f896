// The rooms of the house: who may import whom. This table is the design's drawing in words; a new
// room, or a new arrow, is entered here by hand, and only downward.

/// What one target may import.
struct Room {
  /// Rooms below it.
  let rooms: Set<String>
  /// Modules of the system and of packages.
  let modules: Set<String>
  /// Whether it is a core: no I/O, no clock, no randomness, no await.
  let isCore: Bool

  init(_ rooms: Set<String>, modules: Set<String> = [], isCore: Bool = false) {
    self.rooms = rooms
    self.modules = modules
    self.isCore = isCore
  }
}

/// The table.
enum Rooms {
  private static let nio: Set<String> = ["NIOCore", "NIOHTTP1", "NIOPosix"]
  private static let system: Set<String> = ["Glibc", "Logging", "Synchronization"]

  /// By target name. Targets in C import nothing from here.
  static let table: [String: Room] = [
    "Base": Room(["CChecksum"], isCore: true),
    "NBDProtocol": Room(["Base"], isCore: true),
    "MirrorFormat": Room(["Base"], isCore: true),
    "MirrorEngine": Room(["Base", "MirrorFormat"], isCore: true),
    "Faults": Room(["Base"], isCore: true),
    "Netlink": Room(["Base"], isCore: true),
    "Simulator": Room(["Base", "Faults", "MirrorEngine", "MirrorFormat"], isCore: true),

    "Ring": Room(["Base", "CRing"], modules: system),
    "Legs": Room(["Base", "CLegs", "CLibNBD", "Faults", "MirrorFormat", "Ring"], modules: system),
    "TLS": Room(["Base", "CTLS"], modules: system),
    "Attach": Room(["Base", "CNetlink", "NBDProtocol", "Netlink", "Ring"], modules: system),
    "Server": Room(
      ["Base", "Faults", "Legs", "MirrorEngine", "MirrorFormat", "NBDProtocol", "Ring", "TLS"],
      modules: system),

    "ControlModel": Room([], modules: system.union(["FoundationEssentials"])),
    "ControlPlane": Room(
      ["ControlModel"], modules: system.union(nio).union(["FoundationEssentials"])),

    "nbdmirror": Room(
      [
        "Attach", "Base", "ControlModel", "ControlPlane", "Faults", "Legs", "MirrorEngine",
        "MirrorFormat", "NBDProtocol", "Ring", "Server", "TLS",
      ], modules: system.union(["ArgumentParser", "FoundationEssentials"])),
    "nbdmirror-sim": Room(
      ["Base", "Faults", "MirrorEngine", "MirrorFormat", "Simulator"],
      modules: system.union(["ArgumentParser"])),
    "nbdmirror-bench": Room(
      ["Base", "MirrorEngine", "MirrorFormat", "NBDProtocol", "Ring"],
      modules: system.union(["ArgumentParser", "FoundationEssentials"])),
  ]

  /// Support of tests: it stands outside the house.
  static let testSupport: Set<String> = ["Fixtures", "FuzzTargets", "nbdmirror-fuzz"]

  /// Targets without Swift: shims and module maps.
  static let shims: Set<String> = ["CChecksum", "CLegs", "CLibNBD", "CNetlink", "CRing", "CTLS"]
}
