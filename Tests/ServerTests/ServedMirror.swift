// A mirror that is served inside the test's process, on files of its own.

import Base
import Foundation
import Legs
import MirrorEngine
import MirrorFormat
import NBDProtocol
import Ring
import Server
import Synchronization
import TLS
import Testing

/// What went wrong before a test could begin.
struct FixtureError: Error {
  var text: String
}

/// A served mirror; `stop` ends it and deletes its files.
final class ServedMirror: MirrorObserver {
  let folder: String
  let server: MirrorServer
  let socketPath: String
  let layout: Layout
  let table = LegTable()
  private let files: [PVFile]
  private let paths: [String]
  private let outcome = Mutex<ServerOutcome?>(nil)
  private let ended = DispatchSemaphore(value: 0)

  /// Makes and serves a mirror with `legs` legs: on tmpfs if `isInMemory`, else where temporary
  /// files are. `configure` changes the configuration.
  init(
    legs: Int = 2, sizeBytes: UInt64 = 64 << 20, isInMemory: Bool = true,
    configure: (inout ServerConfiguration) -> Void = { _ in }
  ) throws {
    let parent = isInMemory ? "/dev/shm" : NSTemporaryDirectory()
    folder = parent + "/nbdmirror-test-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let folder = folder
    paths = (0..<legs).map { folder + "/leg\($0)" }
    var creation = PVCreation(name: "test", paths: paths)
    creation.sizeBytes = sizeBytes
    _ = try creation.run(createdSeconds: 1)
    // A child of another test that has not yet called exec may hold a copy of the creation's lock.
    files = try paths.map { try PVFile.openWhenFree(path: $0, cache: .direct) }
    let candidates = files.map {
      AssemblyCandidate(
        path: $0.path, label: $0.readLabel(), legBytes: $0.legBytes,
        logicalBlockBytes: $0.logicalBlockBytes)
    }
    guard case .success(let plan) = Assembly.plan(candidates) else {
      throw FixtureError(text: "the new mirror is not assembled")
    }
    layout = plan.layout
    var maps: [LegMap?] = Array(repeating: nil, count: LegSlot.count)
    for case let leg? in plan.legs {
      maps[leg.slot.index] = files[leg.candidate].readMap(layout: plan.layout, setId: plan.setId)
      table.attach(leg.slot, descriptor: files[leg.candidate].fileDescriptor)
    }
    let start = EngineStart(
      plan: plan, map: AssemblyMap.elect(plan: plan, maps: maps), seed: 1)
    var configuration = ServerConfiguration(
      export: ExportInfo(
        name: "test", sizeBytes: plan.layout.sizeBytes, minimumBlockBytes: 1),
      blockBytes: UInt64(plan.layout.blockBytes))
    socketPath = folder + "/socket"
    configuration.socketPaths = [socketPath]
    configure(&configuration)
    do throws(ServerError) {
      server = try MirrorServer(
        configuration,
        engine: Engine(start, now: Instant(nanoseconds: monotonicNanoseconds())), legs: table,
        faults: FaultDesk(
          seed: 1, dataOffset: layout.dataOffset, deviceBytes: layout.sizeBytes))
    } catch {
      try FileManager.default.removeItem(atPath: folder)
      throw error
    }
    let thread = Thread { [self] in
      do {
        let outcome = try server.run()
        self.outcome.withLock { $0 = outcome }
      } catch {
        Issue.record("the server does not run: \(error)")
      }
      ended.signal()
    }
    thread.start()
  }

  func observe(_ event: MirrorEvent) {}
  func clientChanged(_ connection: ConnectionInfo, isGone: Bool) {}
  func clientFailed(_ connection: ConnectionInfo, _ error: TLSError) {}
  func eventsDropped(_ count: UInt64) {}
  func legIsIdle(_ slot: LegSlot) {}

  /// Ends the server; nil if it does not end in time. Leaves the files.
  func end() -> ServerOutcome? {
    server.requestStop()
    guard ended.wait(timeout: .now() + 60) == .success else { return nil }
    return outcome.withLock { $0 }
  }

  /// Ends the server, checks that all legs hold the same data, deletes the files.
  func stop() throws {
    let outcome = end()
    #expect(outcome == .clean)
    try deleteAfterEnd()
  }

  /// Checks that all legs of an ended server hold the same data, deletes the files.
  func deleteAfterEnd() throws {
    let first = try data(ofLeg: 0)
    for leg in paths.indices.dropFirst() {
      let isSame = try data(ofLeg: leg) == first
      #expect(isSame, "leg \(leg) differs from leg 0")
    }
    try FileManager.default.removeItem(atPath: folder)
  }

  /// The exported device as it stands on a leg.
  func data(ofLeg leg: Int) throws -> Data {
    let whole = try Data(contentsOf: URL(fileURLWithPath: paths[leg]), options: .alwaysMapped)
    let start = Int(layout.dataOffset)
    return whole.subdata(in: start..<start + Int(layout.sizeBytes))
  }
}
