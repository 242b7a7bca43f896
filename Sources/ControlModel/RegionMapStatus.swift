// The region map as `watch` draws it.

/// The region map at a glance.
public struct RegionMapStatus: Codable, Equatable, Sendable {
  /// Most characters of `map`.
  public static let cellsMax = 512

  /// Regions of the mirror.
  public var regions: Int
  /// Regions that one character stands for; the last may stand for fewer.
  public var regionsPerCell: Int
  /// A character for each run of regions, for the worst of them: `_` never written, `.` equal on
  /// all legs, `w` written lately, `?` the legs may differ since a crash, `S` a leg lacks it.
  public var map: String

  /// Describes a map.
  public init(regions: Int, regionsPerCell: Int, map: String) {
    self.regions = regions
    self.regionsPerCell = regionsPerCell
    self.map = map
  }
}
