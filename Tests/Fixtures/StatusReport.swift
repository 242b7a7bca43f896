// What the tests read of `nbdmirror status --json` and `nbdmirror examine --json`: the contract, so
// that a renamed field breaks a test and not a user.
import Foundation

/// `nbdmirror status --json`.
public struct StatusReport: Decodable, Sendable {
  /// A leg, as `status` shows it.
  public struct Leg: Decodable, Sendable {
    /// The slot number.
    public let slot: Int
    /// The leg id.
    public let id: String
    /// The PV's path.
    public let path: String
    /// `in-sync`, `syncing`, `failed`, `missing`, `removed` or `spare`.
    public let state: String
    /// Bytes that the leg lacks.
    public let staleBytes: UInt64
    /// Failed reads.
    public let readErrors: UInt64
    /// Failed writes.
    public let writeErrors: UInt64
  }
  /// The running resync, else the last one.
  public struct Resync: Decodable, Sendable {
    /// Whether it runs now.
    public let running: Bool
    /// Bytes copied so far.
    public let bytesDone: UInt64
    /// Bytes that had to be copied.
    public let bytesTotal: UInt64
  }
  /// The mirror's name.
  public let name: String
  /// The set id.
  public let setId: String
  /// The exported size in bytes.
  public let size: UInt64
  /// `healthy`, `syncing`, `degraded` or `failed`.
  public let state: String
  /// The share of bytes that every configured leg has in sync, 0 to 100.
  public let syncPercent: Double
  /// The region size in bytes.
  public let regionSize: UInt64
  /// Regions with intent.
  public let dirtyRegions: UInt64
  /// Regions whose legs may differ since a crash.
  public let unresolvedRegions: UInt64
  /// Bytes that were never written.
  public let unwrittenBytes: UInt64
  /// The configured legs.
  public let legs: [Leg]
  /// The resync.
  public let resync: Resync

  /// The leg in a slot.
  public func leg(_ slot: Int) throws -> Leg {
    guard let leg = legs.first(where: { $0.slot == slot }) else {
      throw FixtureError("status shows no leg in slot \(slot)")
    }
    return leg
  }
}

/// `nbdmirror examine --json PV`.
public struct ExamineReport: Decodable, Sendable {
  /// A line of the member table.
  public struct Member: Decodable, Sendable {
    /// The slot number.
    public let slot: Int
    /// `online`, `missing`, `failed`, `removed` or `spare`.
    public let state: String
    /// Whether the leg is online and lacks something.
    public let syncing: Bool
  }
  /// The mirror's name.
  public let name: String
  /// The set id.
  public let setId: String
  /// The leg id.
  public let legId: String
  /// The slot number.
  public let slot: Int
  /// The exported size in bytes.
  public let size: UInt64
  /// Where the data begins on the PV, in bytes.
  public let dataOffset: UInt64
  /// The region size in bytes.
  public let regionSize: UInt64
  /// The block size in bytes.
  public let blockSize: Int
  /// The generation's counter.
  public let generation: UInt64
  /// The generation's id.
  public let generationId: String
  /// The member table.
  public let members: [Member]
}
