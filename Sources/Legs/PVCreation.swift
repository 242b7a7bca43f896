// A mirror is made: from paths and wishes to labelled PVs.
//
// Invariants:
//  1. Nothing is written before every PV is open, locked, different from the others, large enough
//     and (without force) empty of anything known.
//  2. Files that were made here are removed again if the creation fails before the first label.
//  3. Labels are written last (PVInitialization).

import Base
import CLegs
import Glibc
import MirrorFormat

/// What the data of fresh legs is, and so what is stale.
public enum PVInitialContent: String, CaseIterable, Sendable {
  /// Zeros where they cost nothing (new files, holes), else as `lazy`.
  case auto
  /// Slot 0 is the source; every region of the others is stale.
  case sync
  /// Zeros on all legs, written where that is the only way.
  case zero
  /// The device reads as zeros; the server zeroes a region at its first write.
  case lazy
  /// All legs are equal already: the administrator says so.
  case assumeClean = "assume-clean"
}

/// Makes PVs into the legs of a new mirror.
public struct PVCreation: Sendable {
  /// The mirror's name.
  public var name: String
  /// 1 to 8 paths, in the order of the slots; what does not exist becomes a file.
  public var paths: [String]
  /// Size of the device; nil: as much as the smallest existing PV holds.
  public var sizeBytes: UInt64?
  /// Region size; nil: by the size.
  public var regionBytes: UInt64?
  /// Where the region map lives.
  public var logKind = LogKind.disk
  /// What the legs' data is.
  public var content = PVInitialContent.auto
  /// New files get their storage at once.
  public var isPreallocated = false
  /// Whatever stands on the PVs is overwritten.
  public var isForced = false
  /// How the PVs' I/O goes while they are made.
  public var cache = PVFile.Cache.direct

  /// A creation with the defaults.
  public init(name: String, paths: [String]) {
    self.name = name
    self.paths = paths
  }

  /// Why a creation did not happen.
  public enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
    /// The wish cannot be: name, size, region size, number of PVs.
    case wish(String)
    /// A PV cannot be used.
    case pv(PVError)

    /// One sentence without a full stop.
    public var description: String {
      switch self {
      case .wish(let text): text
      case .pv(let error): error.description
      }
    }
  }

  /// What was made.
  public struct Outcome: Equatable, Sendable {
    /// The labels, by slot.
    public var labels: [Label]
    /// Slots whose regions are all stale.
    public var stale: LegSet
    /// No region counts as written: they read as zeros whatever the PVs hold.
    public var isUnwritten: Bool
    /// By slot: bytes of the PV beyond what the mirror uses.
    public var unusedBytes: [UInt64]
    /// Paths of files that did not exist before.
    public var newFiles: [String]
  }

  /// A PV on its way to become a leg.
  private struct Part {
    var path: String
    var pv: PVFile?
    var isNew: Bool
    var foreign: [PVForeign] = []
  }

  /// Makes the mirror; see the invariants. `createdSeconds` is the time since 1970.
  public func run(createdSeconds: UInt64) throws(Failure) -> Outcome {
    guard (1...LegSlot.count).contains(paths.count) else {
      throw .wish("a mirror has 1 to 8 PVs, not \(paths.count)")
    }
    if let problem = Label.nameProblem(name) { throw .wish(problem.description) }
    guard content != .lazy || !isPreallocated else {
      throw .wish(
        "--preallocate and --init lazy exclude each other: what is preallocated reads as zeros "
          + "already, and the first writes to a lazy mirror would give the storage back")
    }
    var parts = try openExisting()
    do throws(Failure) {
      let size = try chooseSize(parts)
      try makeFiles(&parts, sizeBytes: size)
      let layout = try plan(size, blockBytes(parts))
      return try initialize(parts, layout, createdSeconds)
    } catch {
      for part in parts where part.isNew && part.pv != nil {
        // Made by us a moment ago, and not a leg yet.
        unsafe unlink(part.path)
      }
      throw error
    }
  }

  private func openExisting() throws(Failure) -> [Part] {
    var parts: [Part] = []
    for (index, path) in paths.enumerated() {
      if let other = paths[..<index].first(where: { $0 == path }) {
        throw .wish("PV \(other) is named twice")
      }
      do throws(PVError) {
        let pv = try PVFile.openWhenFree(path: path, cache: cache)
        for part in parts {
          if let other = part.pv, other.isSame(as: pv) {
            throw .samePV(path: path, other: other.path)
          }
        }
        let foreign = try pv.findForeign()
        if let first = foreign.first, !isForced {
          throw .foreign(path: path, what: first.what)
        }
        parts.append(Part(path: path, pv: pv, isNew: false, foreign: foreign))
      } catch .cannotOpen(_, ENOENT) {
        parts.append(Part(path: path, pv: nil, isNew: true))
      } catch .inUse(let locked) {
        // Our own lock, through another path of the same file?
        throw .pv(samePath(locked, parts) ?? .inUse(path: locked))
      } catch {
        throw .pv(error)
      }
    }
    return parts
  }

  /// The error if `path` is locked by ourselves.
  private func samePath(_ path: String, _ parts: [Part]) -> PVError? {
    do throws(PVError) {
      let pv = try PVFile.open(path: path, access: .readOnly, cache: .buffered)
      for part in parts {
        if let other = part.pv, other.isSame(as: pv) {
          return .samePV(path: path, other: other.path)
        }
      }
      return nil
    } catch {
      return nil  // Then the first error is the better one.
    }
  }

  /// Whether the part is a file that grows to what is needed.
  private func grows(_ part: Part) -> Bool {
    guard let pv = part.pv else { return true }
    return !pv.isBlockDevice && pv.legBytes == 0
  }

  private func blockBytes(_ parts: [Part]) throws(Failure) -> UInt32 {
    var block: UInt32 = 512
    for part in parts {
      guard let pv = part.pv else { continue }
      guard pv.logicalBlockBytes <= 4096 else {
        throw .wish(
          "PV \(part.path) has sectors of \(pv.logicalBlockBytes) bytes, at most 4096 are "
            + "supported")
      }
      block = max(block, pv.logicalBlockBytes)
    }
    return block
  }

  private func plan(_ size: UInt64, _ block: UInt32) throws(Failure) -> Layout {
    do throws(FormatError) {
      return try Layout.plan(sizeBytes: size, regionBytes: regionBytes, blockBytes: block)
    } catch {
      throw .wish(error.description)
    }
  }

  /// The size wished for, else what fits on the smallest PV.
  private func chooseSize(_ parts: [Part]) throws(Failure) -> UInt64 {
    if let sizeBytes { return sizeBytes }
    var smallest: PVFile?
    for part in parts where !grows(part) {
      guard let pv = part.pv else { continue }
      if let found = smallest, found.legBytes <= pv.legBytes { continue }
      smallest = pv
    }
    guard let smallest else {
      throw .wish("--size is needed: none of the PVs has a size yet")
    }
    let minimum = try plan(4096, 4096).pvBytes
    guard smallest.legBytes >= minimum else {
      throw .pv(
        .tooSmall(path: smallest.path, bytes: smallest.legBytes, neededBytes: minimum))
    }
    var size = Bytes.alignDown(smallest.legBytes - Layout.mapOffsetDefault, to: 4096)
    while true {
      let layout = try plan(size, 4096)
      if layout.pvBytes <= smallest.legBytes { return size }
      // Falls at every round: the layout is larger than the PV, and data offsets are whole MiB.
      size = Bytes.alignDown(smallest.legBytes - layout.dataOffset, to: 4096)
    }
  }

  private func makeFiles(_ parts: inout [Part], sizeBytes: UInt64) throws(Failure) {
    let layout = try plan(sizeBytes, blockBytes(parts))
    for part in parts where !grows(part) {
      guard let pv = part.pv, pv.legBytes < layout.pvBytes else { continue }
      throw .pv(
        .tooSmall(path: pv.path, bytes: pv.legBytes, neededBytes: layout.pvBytes))
    }
    for index in parts.indices where grows(parts[index]) {
      do throws(PVError) {
        if let pv = parts[index].pv {
          try pv.grow(to: layout.pvBytes, isPreallocated: isPreallocated)
          parts[index].pv = nil  // Closed, to be opened with its new size.
        } else {
          try PVFile.make(
            path: parts[index].path, bytes: layout.pvBytes, isPreallocated: isPreallocated)
        }
        parts[index].pv = try PVFile.open(
          path: parts[index].path, access: .readWrite, cache: cache)
      } catch {
        throw .pv(error)
      }
    }
  }

  private func initialize(
    _ parts: [Part], _ layout: Layout, _ createdSeconds: UInt64
  ) throws(Failure) -> Outcome {
    let setId = Identifier.random()
    let legIds = parts.map { _ in Identifier.random() }
    let lineage = Lineage(current: Generation(counter: 1, id: .random()), parents: [])
    do throws(PVError) {
      for (index, part) in parts.enumerated() {
        guard let pv = part.pv else { continue }
        try pv.wipe(part.foreign, layout: layout)
        try pv.writeBootText(
          "nbdmirror: leg \(index) of the mirror \(name), set \(setId). "
            + "See it with: nbdmirror examine\n")
      }
      let (stale, isUnwritten) = try fill(parts, layout)
      let word = isUnwritten ? RegionWord.unwritten : UInt16(stale.bits)
      let members = (0..<LegSlot.count).map { index in
        index < parts.count
          ? Member(
            legId: legIds[index], state: .online, isSyncing: stale.contains(LegSlot(index)))
          : .vacant
      }
      for part in parts {
        guard let pv = part.pv else { continue }
        try pv.writeMap(layout: layout, setId: setId, word: word)
        try pv.flush()
      }
      var labels: [Label] = []
      for (index, part) in parts.enumerated() {
        guard let pv = part.pv else { continue }
        let label = Label(
          sequence: 1, setId: setId, name: name, legId: legIds[index], slot: LegSlot(index),
          lineage: lineage, members: members, layout: layout, logKind: logKind,
          createdSeconds: createdSeconds)
        labels.append(try pv.writeFirstLabels(label))
      }
      return Outcome(
        labels: labels, stale: stale, isUnwritten: isUnwritten,
        unusedBytes: parts.map { ($0.pv?.legBytes ?? layout.pvBytes) - layout.pvBytes },
        newFiles: parts.filter(\.isNew).map(\.path))
    } catch {
      throw .pv(error)
    }
  }

  /// Brings the data areas into the state that was wished for: which slots are stale then, and
  /// whether every region counts as unwritten instead.
  private func fill(
    _ parts: [Part], _ layout: Layout
  ) throws(PVError) -> (stale: LegSet, isUnwritten: Bool) {
    let data = ByteRange(offset: layout.dataOffset, count: layout.sizeBytes)
    var zeroed = LegSet.none
    for (index, part) in parts.enumerated() {
      guard let pv = part.pv else { continue }
      var isZero = part.isNew
      switch content {
      case .auto:
        if !isZero { isZero = try pv.clear(data) }
      case .zero:
        if !isZero { try pv.zero(data) }
        isZero = true
      case .sync, .assumeClean, .lazy:
        isZero = false
      }
      if isZero { zeroed.insert(LegSlot(index)) }
    }
    switch content {
    case .assumeClean, .zero: return (.none, false)
    case .lazy: return (.none, true)
    case .auto: return (.none, zeroed.count < parts.count)
    case .sync: break
    }
    // Slot 0 is the source; what is zero is equal to it only if it is zero itself.
    var stale = LegSet.none
    for index in 1..<max(parts.count, 1) {
      let slot = LegSlot(index)
      if !(zeroed.contains(LegSlot(0)) && zeroed.contains(slot)) { stale.insert(slot) }
    }
    return (stale, false)
  }
}
