// The words of `serve --read-policy`.

import ArgumentParser
import Base
import MirrorEngine
import MirrorFormat

/// What was asked for; a leg that is preferred is found once the PVs are known.
enum ReadPolicyOption: ExpressibleByArgument {
  case adaptive
  case roundRobin
  case leastPending
  /// A slot number, a leg id or a path.
  case prefer(String)

  init?(argument: String) {
    switch argument {
    case "adaptive": self = .adaptive
    case "round-robin": self = .roundRobin
    case "least-pending": self = .leastPending
    default:
      guard argument.hasPrefix("prefer="), argument != "prefer=" else { return nil }
      self = .prefer(String(argument.dropFirst("prefer=".count)))
    }
  }

  static var allValueStrings: [String] {
    ["adaptive", "round-robin", "least-pending", "prefer=LEG"]
  }

  var defaultValueDescription: String { "adaptive" }

  /// The policy for the mirror of `plan`, and what `status` shows.
  /// - Throws: `CommandFailure` if the mirror has no such leg.
  func policy(for plan: AssemblyPlan) throws -> (policy: ReadPolicy, text: String) {
    switch self {
    case .adaptive: return (.adaptive, "adaptive")
    case .roundRobin: return (.roundRobin, "round-robin")
    case .leastPending: return (.leastPending, "least-pending")
    case .prefer(let text):
      guard let slot = ReadPolicyOption.leg(text, in: plan) else {
        throw CommandFailure(
          "--read-policy prefer=\(text): the mirror has no such leg (give a slot, a leg id or a PV)"
        )
      }
      return (.prefer(slot), "prefer=\(slot)")
    }
  }

  /// The leg by path, by leg id, by slot, in this order.
  static func leg(_ text: String, in plan: AssemblyPlan) -> LegSlot? {
    for case let leg? in plan.legs where leg.path == text { return leg.slot }
    let legId = Identifier(parsing: text)
    for (index, member) in plan.members.enumerated() where member.state != .vacant {
      if member.legId == legId || Int(text) == index { return LegSlot(index) }
    }
    return nil
  }
}
