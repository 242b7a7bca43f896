// Goal: what README.md and docs/ tell people to type works as it stands there.
//
// Method: the shell blocks that follow a line `<!-- run -->` are run in order, per document in one
// shell with errors fatal, in an empty directory, with the built `nbdmirror` first in PATH.
import Fixtures
import Foundation
import Testing

/// The documents with blocks to run.
private let documents = ["README.md", "docs/lvm.md"]

/// The repository's root.
private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent().path

/// The marked shell blocks of a document.
private func blocks(of text: String) -> [String] {
  var blocks: [String] = []
  var current: [Substring]?
  var isMarked = false
  for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
    if let lines = current {
      if line == "```" {
        blocks.append(lines.joined(separator: "\n"))
        current = nil
      } else {
        current = lines + [line]
      }
    } else if line == "```sh", isMarked {
      current = []
      isMarked = false
    } else {
      isMarked = line == "<!-- run -->"
    }
  }
  return blocks
}

@Suite(.serialized)
struct Documents {
  @Test("every example of a fault in docs/faults.md is armed as it stands there")
  func faultExamples() async throws {
    let text = try String(contentsOfFile: "\(root)/docs/faults.md", encoding: .utf8)
    let examples = text.split(separator: "`").filter { $0.hasPrefix("fault add 1 ") }
    let kinds = Set(examples.map { $0.split(separator: " ")[3] })
    #expect(
      kinds == [
        "error", "delay", "hang", "bad-sector", "corrupt", "torn", "drop", "misdirect",
        "stale-read", "full", "throttle", "offline", "volatile-cache",
      ])
    // The lines of the example of a file: those that are indented and begin with a slot or `seed`.
    let file = text.split(separator: "\n").filter {
      $0.hasPrefix("    # ") || $0.hasPrefix("    seed ") || $0.hasPrefix("    0 ")
        || $0.hasPrefix("    1 ")
    }
    #expect(file.count == 5)
    try await withMirror { mirror in
      let path = "\(mirror.directory)/faults"
      try file.joined(separator: "\n").write(toFile: path, atomically: true, encoding: .utf8)
      try await mirror.serve(["--faults", path])
      try await mirror.mustAdmin(["fault", "clear"])
      for example in examples {
        try await mirror.mustAdmin(example.split(separator: " ").map(String.init))
      }
      let list = try await mirror.admin(["fault", "list"]).output
      #expect(list.split(separator: "\n").count == examples.count + 1, "\(list)")
      // `stuck` holds nothing: no client wrote.
      try await mirror.mustAdmin(["fault", "release", "stuck"])
      try await mirror.mustAdmin(["fault", "clear"])
      try await mirror.stop()
    }
  }

  @Test("the marked commands of a document work", .timeLimit(.minutes(5)), arguments: documents)
  func commandsWork(_ document: String) async throws {
    let text = try String(contentsOfFile: "\(root)/\(document)", encoding: .utf8)
    let blocks = blocks(of: text)
    try #require(!blocks.isEmpty, "\(document) has no marked block")
    let directory = try TemporaryDirectory()
    defer { directory.remove() }
    let script = """
      set -euo pipefail
      trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
      cd "\(directory.path)"
      mkdir bin && ln -s "\(try serverBinary())" bin/nbdmirror
      # Debian's nbdsh belongs to Debian's Python.
      printf '#!/bin/sh\\nexec /usr/bin/python3 -m nbd "$@"\\n' >bin/nbdsh && chmod +x bin/nbdsh
      PATH="$PWD/bin:$PATH"
      set -x

      """
    let result = try await run(
      ["bash", "-c", script + blocks.joined(separator: "\n")], seconds: 120)
    #expect(result.status == 0, "\(result)")
  }
}
