// From paths to an engine: PVs opened and locked, labels and maps read, the plan made.

import Base
import ControlModel
import Faults
import FoundationEssentials
import Glibc
import Legs
import MirrorEngine
import MirrorFormat
import Ring
import Server

/// A mirror whose PVs are open and whose plan is made; nothing is written yet.
final class OpenMirror {
  /// How it starts.
  let plan: AssemblyPlan
  /// Its open PVs, and who speaks for it on the control socket.
  let adapter: MirrorAdapter
  private let start: EngineStart

  /// Opens everything that `options` name.
  /// - Throws: `CommandFailure`, with the reasoning where assembly refuses.
  init(_ options: Serve) throws {
    var files: [PVFile] = []
    var candidates: [AssemblyCandidate] = []
    for path in options.pv {
      do throws(PVError) {
        let file =
          options.readOnly
          ? try PVFile.open(path: path, access: .readOnly, cache: options.pvCache)
          : try PVFile.openWhenFree(path: path, cache: options.pvCache)
        files.append(file)
        candidates.append(
          AssemblyCandidate(
            path: path, label: file.readLabel(), legBytes: file.legBytes,
            logicalBlockBytes: file.logicalBlockBytes))
      } catch .cannotOpen(let path, let errno) where options.degraded {
        // The absent leg that --degraded is for.
        let error = PVError.cannotOpen(path: path, errno: errno)
        Journal.write("\(error); starting without it")
      } catch {
        throw CommandFailure(error.description)
      }
    }
    guard !files.isEmpty else { throw CommandFailure("none of the PVs can be opened") }
    var plan: AssemblyPlan
    switch Assembly.plan(
      candidates,
      options: AssemblyOptions(
        isDegradedAllowed: options.degraded, chooseLeg: options.chooseLeg))
    {
    case .success(let made): plan = made
    case .failure(let refusal):
      // Both histories, for whoever has to decide with --choose-leg.
      if case .splitBrain = refusal.reason {
        for line in refusal.explanation { Journal.write(line) }
      }
      throw CommandFailure(refusal.description)
    }
    if options.readOnly { plan.isReadOnly = true }
    let map = OpenMirror.readMaps(plan, files)
    // Version bits of a UUID are fixed; both halves together have more than 64 random ones.
    let random = Identifier.random()
    let seed = random.high ^ (random.low << 32 | random.low >> 32)
    var start = EngineStart(plan: plan, map: map, seed: seed)
    start.isReadOnly = plan.isReadOnly
    start.wallSeconds = UInt64(max(0, time(nil)))
    let reads = try options.readPolicy.policy(for: plan)
    start.readPolicy = reads.policy
    start.legTimeoutNanoseconds = UInt64(options.legTimeout * 1e9)
    self.plan = plan
    self.start = start
    adapter = MirrorAdapter(
      facts: MirrorAdapter.Facts(
        name: plan.name, setId: plan.setId, layout: plan.layout,
        readPolicy: reads.text, cache: options.pvCache),
      files: LegFiles())
    if map.regionsWithoutSource > 0 {
      Journal.write(
        "\(map.regionsWithoutSource) regions have no good copy on the legs that are here: "
          + "reads there fail")
    }
    warnOfUnresolved(map)
    try attach(files)
  }

  /// A mirror that must not be written cannot be made equal, nor what a client reads be kept.
  private func warnOfUnresolved(_ map: AssemblyMap) {
    let online = plan.legs.count { $0?.role == .online }
    guard plan.isReadOnly, online > 1 else { return }
    let count = map.words.count { RegionWord(raw: $0).hasIntent }
    guard count > 0 else { return }
    Journal.write(
      "warning: \(count) \(count == 1 ? "region was" : "regions were") not made equal on all legs "
        + "since an unclean stop, and a read-only server cannot do it: a read there is answered by "
        + "one leg, and a later start may find what another leg holds")
  }

  private static func readMaps(_ plan: AssemblyPlan, _ files: [PVFile]) -> AssemblyMap {
    var maps: [LegMap?] = Array(repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs {
      maps[leg.slot.index] = files[leg.candidate].readMap(layout: plan.layout, setId: plan.setId)
    }
    return AssemblyMap.elect(plan: plan, maps: maps)
  }

  private func attach(_ files: [PVFile]) throws {
    for case let leg? in plan.legs {
      switch leg.role {
      case .online, .returning, .diverged, .spare:
        adapter.files.attach(files[leg.candidate], to: leg.slot)
      case .offline:
        adapter.files.note(path: leg.path, of: leg.slot)
      }
    }
  }

  /// The engine of the plan.
  func makeEngine() -> sending Engine {
    Engine(start, now: Instant(nanoseconds: monotonicNanoseconds()))
  }

  /// Tells how the start was decided, and what faults it has.
  func tellAssembly() {
    for line in plan.explanation { adapter.tell(EventRecord(.assembly, line)) }
    for fault in adapter.faults() {
      adapter.tell(
        EventRecord(
          .faultAdded, "fault '\(fault.name)' is armed on leg \(fault.leg): \(fault.words)",
          leg: fault.leg, name: fault.name))
    }
  }

  /// The faults of the file that `options` name, armed.
  /// - Throws: `CommandFailure` with the line that is wrong.
  func makeFaults(_ options: Serve) throws -> FaultDesk {
    let layout = plan.layout
    guard let path = options.faults else {
      return FaultDesk(
        seed: 1, dataOffset: layout.dataOffset, deviceBytes: layout.sizeBytes)
    }
    let text: String
    do { text = try String(contentsOf: URL(filePath: path), encoding: .utf8) } catch {
      throw CommandFailure("the faults in \(path) cannot be read: is it a file of text?")
    }
    do {
      let file = try FaultFile(text: text)
      let desk = FaultDesk(
        seed: file.seed ?? 1, dataOffset: layout.dataOffset, deviceBytes: layout.sizeBytes)
      for line in file.lines {
        guard let slot = ReadPolicyOption.leg(line.leg, in: plan) else {
          throw CommandFailure("\(path), line \(line.number): no leg '\(line.leg)'")
        }
        let fault = try Fault.parse(line.words, leg: slot)
        if let problem = FaultText.problem(fault, sizeBytes: layout.sizeBytes) {
          throw CommandFailure("\(path), line \(line.number): \(problem)")
        }
        _ = try desk.add(fault, now: Instant(nanoseconds: monotonicNanoseconds()))
      }
      return desk
    } catch let error as FaultSyntaxError {
      throw CommandFailure("\(path): \(error)")
    } catch let error as FaultSetError {
      throw CommandFailure("\(path): \(error)")
    }
  }

  /// Legs that are there again after they were missing come in by themselves.
  func bringReturningLegsIn(_ server: MirrorServer) {
    guard !plan.isReadOnly else { return }
    for case let leg? in plan.legs where leg.role == .returning || leg.role == .diverged {
      var returning = ReturningLeg(leg)
      do throws(ControlError) {
        // Its own history is given up: neither its label nor its map may count again.
        if leg.role == .diverged, let file = adapter.files.file(of: leg.slot) {
          try adapter.empty(file, &returning, leg.slot)
        }
      } catch {
        Journal.write("leg \(leg.slot) (\(leg.path)) cannot come back: \(error.message)")
        adapter.files.close(leg.slot)
        continue
      }
      let now = Instant(nanoseconds: monotonicNanoseconds())
      let ready = returning
      let refusal = server.withEngine { engine -> CommandError? in
        do throws(CommandError) {
          try engine.readd(ready, to: leg.slot, now: now)
          return nil
        } catch {
          return error
        }
      }
      if let refusal {
        let what = "leg \(leg.slot) (\(leg.path)) cannot come back"
        Journal.write(CommandText.error(what, refusal).message)
        adapter.files.close(leg.slot)
      }
    }
  }
}
