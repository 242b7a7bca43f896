// What a shell offers where a leg, a fault or a mirror is named.
//
//   nbdmirror --generate-completion-script bash|zsh|fish

import ArgumentParser
import ControlModel
import Faults

/// Completions that ask the running mirror; silent when there is none.
enum Completions {
  /// Slots of the legs.
  static let legs = CompletionKind.custom { words, _, _ in
    ask(words) { client in try client.legs().map { "\($0.slot)" } }
  }

  /// Names of the faults.
  static let faults = CompletionKind.custom { words, _, _ in
    ask(words) { client in try client.faults().map(\.name) }
  }

  /// Names of the mirrors that run.
  static let mirrors = CompletionKind.custom { _, _, _ in ControlEndpoint.current.names }

  /// Kinds of faults.
  static let kinds = CompletionKind.list(
    FaultKind.list.split(separator: ",").map { $0.filter { $0 != " " } })

  /// What the mirror that `words` names answers. A shell waits for it: not for long.
  private static func ask(
    _ words: [String], _ question: (ControlClient) throws -> [String]
  ) -> [String] {
    do {
      let path =
        if let control = value(of: "--control", in: words) {
          control
        } else {
          try ControlEndpoint.current.find(name: value(of: "--name", in: words))
        }
      return try question(ControlClient(path: path, timeoutMilliseconds: 1000))
    } catch {
      return []
    }
  }

  private static func value(of option: String, in words: [String]) -> String? {
    if let index = words.firstIndex(of: option), index + 1 < words.count { return words[index + 1] }
    return words.first { $0.hasPrefix(option + "=") }.map { String($0.dropFirst(option.count + 1)) }
  }
}
