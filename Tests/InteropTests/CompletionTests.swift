// Goal: the completion scripts are scripts, and bash offers what the running mirror has.
import Fixtures
import Foundation
import Testing

extension Interop {
  struct Completion {
    /// What bash offers for the last of `words`.
    private func offers(_ words: [String], _ mirror: MirrorUnderTest) async throws -> [String] {
      let script = """
        PATH="$(dirname "$1"):$PATH"
        source <("$1" --generate-completion-script bash)
        shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        COMP_TYPE=9; COMP_KEY=9
        _nbdmirror nbdmirror "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
        """
      let result = try await must(
        ["bash", "-c", script, "bash", mirror.binary, "nbdmirror"] + words)
      return result.output.split(separator: "\n").map {
        $0.trimmingCharacters(in: .whitespaces)
      }
    }

    @Test("bash completes verbs, legs, kinds of faults and faults")
    func bash() async throws {
      try await withMirror(legs: 3, size: "16M") { mirror in
        try await mirror.serve()
        try await mirror.mustAdmin([
          "fault", "add", "1", "delay", "--delay", "1ms", "--name", "slow",
        ])
        let here = ["--control", mirror.control]
        #expect(try await offers(["le"], mirror).contains("leg"))
        #expect(
          try await offers(["leg", "fail"] + here + [""], mirror).filter { !$0.hasPrefix("-") } == [
            "0", "1", "2",
          ])
        #expect(
          try await offers(["fault", "add"] + here + ["0", "bad"], mirror) == ["bad-sector"])
        #expect(try await offers(["fault", "remove"] + here + ["s"], mirror) == ["slow"])
        try await mirror.stop()
        // Nobody answers: nothing is offered, and nothing is said.
        #expect(try await offers(["leg", "fail"] + here + ["0"], mirror).isEmpty)
      }
    }

    @Test("scripts for zsh and fish are made", arguments: ["zsh", "fish"])
    func others(shell: String) async throws {
      let result = try await must([try serverBinary(), "--generate-completion-script", shell])
      for verb in ["scrub", "replace", "power-cut"] { #expect(result.output.contains(verb)) }
    }
  }
}
