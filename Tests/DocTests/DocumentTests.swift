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
