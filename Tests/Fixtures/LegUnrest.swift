// Legs that leave and return by command: which command comes next, and which refusals are in order.
import Foundation

/// Draws leg commands that fit what `status` says.
public struct LegUnrest {
  /// Refusals that an administrator who acts at random meets: the leg holds data that no other has,
  /// or what `status` said is no longer so.
  private static let refusals = [
    "holds the only good copy", "it is online", "it is not online", "has not yet answered",
  ]
  /// Whether a command ended as one may: done, or refused for one of these reasons.
  public static func isInOrder(_ result: CommandResult) -> Bool {
    if result.status == 0 { return true }
    return result.status == 1 && refusals.contains { result.errors.contains($0) }
  }

  /// How many commands were done.
  public private(set) var done = 0
  private var random: SplitMix

  /// Commands that follow from `seed` and what the legs do.
  public init(seed: UInt64) { random = SplitMix(seed: seed) }

  /// The next command; nil if none fits.
  public mutating func next(_ status: StatusReport) -> [String]? {
    let online = status.legs.filter { $0.state == "in-sync" || $0.state == "syncing" }
    // A removed leg's PV may carry another leg by now.
    let away = status.legs.filter { leg in
      !leg.path.isEmpty
        && !status.legs.contains {
          $0.path == leg.path && $0.slot != leg.slot && leg.state == "removed"
        }
        && !online.contains { $0.slot == leg.slot }
    }
    if let leg = random.pick(away), online.count < 2 || random.chance(60) {
      return random.chance(70) ? ["leg", "readd", "\(leg.slot)"] : ["leg", "add", leg.path]
    }
    guard online.count > 1, let leg = random.pick(online) else { return nil }
    return ["leg", random.chance(80) ? "fail" : "remove", "\(leg.slot)"]
  }

  /// Counts a command that ended; throws if it ended as none may.
  public mutating func judge(_ result: CommandResult) throws {
    guard LegUnrest.isInOrder(result) else { throw FixtureError("\(result)") }
    if result.status == 0 { done += 1 }
  }

  /// Runs one command to its end.
  public mutating func act(on mirror: MirrorUnderTest) async throws {
    guard let command = next(try await mirror.status()) else { return }
    try judge(try await mirror.admin(command))
  }
}

extension MirrorUnderTest {
  /// Brings every PV's leg back that is away, and waits until all are in sync.
  public func bringAllBack(seconds: Double = 60) async throws {
    try await eventually("all legs are in sync", within: seconds, every: 0.02) {
      let legs = try await status().legs.filter { ["in-sync", "syncing"].contains($0.state) }
      for path in paths where !legs.contains(where: { $0.path == path }) {
        let result = try await admin(["leg", "add", path])
        guard LegUnrest.isInOrder(result) else { throw FixtureError("\(result)") }
      }
      return legs.count == paths.count && legs.allSatisfy { $0.state == "in-sync" }
    }
  }
}
