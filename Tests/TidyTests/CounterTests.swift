// Goal: a check that finds nothing has looked. Method: every check on a sample that breaks its rule,
// and on one that only looks like it.
import Foundation
import Testing

private func swift(_ text: String, at path: String = "Sources/MirrorEngine/X.swift") -> TextFile {
  TextFile(path: path, text: text)
}

private func lines(_ findings: [Finding]) -> [Int] { findings.map(\.line) }

@Suite("Tidy checks can fail")
struct CounterTests {
  @Test("comments and strings are not code, what is interpolated is")
  func blanking() {
    let code = blanked(
      ##"""
      a // b
      /* c /* d */ e */ f
      "g \(h + "i" + k(1)) j" l
      #"m \(n) \#(o)"# "\"p" q
      """##, strings: true)
    let words = code.split { !$0.isLetter }.map(String.init)
    #expect(words == ["a", "f", "h", "k", "l", "o", "q"])
    #expect(code.filter { $0 == "\n" }.count == 3)
    let multi = blanked("x \"\"\"\n await \"y\" \n\"\"\" z // \"\nw", strings: true)
    #expect(multi.split { !$0.isLetter }.map(String.init) == ["x", "z", "w"])
  }

  @Test("an import that points up or aside is found, in every spelling")
  func imports() {
    let bad = [
      "import Server", "import struct Ring.Ring", "@_exported import NIOCore",
      "@preconcurrency internal import Legs", "import Glibc", "import func Glibc.read",
    ]
    for line in bad {
      #expect(lines(CodeChecks.imports(swift("import Base\n\(line)\n"))) == [2], "\(line)")
    }
    let good = "// import Server\nimport MirrorFormat\nlet a = \"import Ring\"\nimportant()\n"
    #expect(CodeChecks.imports(swift(good)) == [])
    #expect(lines(CodeChecks.imports(swift("", at: "Sources/Cellar/X.swift"))) == [1])
    #expect(lines(CodeChecks.imports(swift("import NIOCore", at: "Sources/Server/X.swift"))) == [1])
  }

  @Test("a clock, randomness, I/O and suspension are found in a core, and only there")
  func cores() {
    let bad = [
      "ContinuousClock().now", "SuspendingClock()", "clock_gettime(0, &t)", "Int.random(in: 0...1)",
      "SystemRandomNumberGenerator()", "import Glibc", "import NIOCore", "import Dispatch",
      "import Foundation", "import FoundationEssentials", "await x()", "Task { }", "a.shuffled()",
      "func f() async {",
    ]
    for line in bad {
      #expect(lines(CodeChecks.coreWords(swift("\n\(line)\n"))) == [2], "\(line)")
      #expect(CodeChecks.coreWords(swift(line, at: "Sources/ControlPlane/X.swift")) == [])
    }
    #expect(CodeChecks.coreWords(swift("// await the end\nawaited(); random.below(3)")) == [])
  }

  @Test("forced tries and casts, crashes without a sentence and whole Foundation are found")
  func forbidden() {
    let bad = [
      "try! f()", "x as! Y", "fatalError()", "preconditionFailure()", "import Foundation",
      "import struct Foundation.URL",
    ]
    for line in bad {
      #expect(lines(CodeChecks.forbiddenCode(swift("\(line)\n"))) == [1], "\(line)")
    }
    let good = "fatalError(\"why\")\n// try! this\nimport FoundationEssentials\nprint(\"as!\")\n"
    #expect(CodeChecks.forbiddenCode(swift(good)) == [])
  }

  @Test("notes to oneself are found, in comments too")
  func notes() {
    for note in ["// TODO: x", "// FIXME", "/* XXX */", "let TODO = 1"] {
      #expect(lines(CodeChecks.notes(swift("a\n\(note)\n"))) == [2], "\(note)")
    }
    #expect(CodeChecks.notes(swift("mkstemp(\"/a/XXXXXX\") // todos, myTODOs")) == [])
  }

  @Test("500 lines are a file, 501 are too many")
  func fileLength() {
    let line = "let a = 1\n"
    #expect(CodeChecks.fileLength(swift(String(repeating: line, count: 500))) == [])
    #expect(lines(CodeChecks.fileLength(swift(String(repeating: line, count: 501)))) == [501])
  }

  @Test("70 lines are a function, 71 are too many, wherever the braces stand")
  func functionLength() {
    func function(_ head: String, lines: Int) -> String {
      let inner = (0..<(lines - 1 - head.filter { $0 == "\n" }.count - 1)).map { _ in
        "    if x { y(\"}\") } // }"
      }
      return "struct S {\n  \(head)\n\(inner.joined(separator: "\n"))\n  }\n  var z = 1\n}\n"
    }
    let heads = [
      "func f() {", "public static func f<T>(_ a: T) -> [Int: T] {", "init?(_ a: Int) {",
      "@inlinable\n  mutating func f(\n    _ a: () -> Void = { }\n  ) throws(E)\n    where A: B\n  {",
      "deinit {", "private subscript(a: Int) -> Int {", "@Test(\"x\") func f() async throws {",
    ]
    for head in heads {
      let lead = head.hasPrefix("@inlinable\n") ? 1 : 0
      #expect(CodeChecks.functionLength(swift(function(head, lines: 70 + lead))) == [], "\(head)")
      let long = CodeChecks.functionLength(swift(function(head, lines: 71 + lead)))
      #expect(lines(long) == [2 + lead], "\(head)")
    }
    let requirement = "protocol P {\n  func f()\n  func g() -> Int\n}\nstruct S {\n"
    let many = String(repeating: "  var a: Int { 1 }\n", count: 90)
    #expect(CodeChecks.functionLength(swift(requirement + many + "}\n")) == [])
  }

  @Test("tabs, blanks at line ends and a missing last line end are found")
  func whitespace() {
    #expect(lines(CodeChecks.whitespace(swift("a\n\tb\nc \nd\r\n"))) == [2, 3, 4])
    #expect(lines(CodeChecks.whitespace(swift("a\nb"))) == [2])
    #expect(CodeChecks.whitespace(swift("a b\n  c\n")) == [])
  }

  @Test("a dependency that is not drawn and a target that is no room are found in the manifest")
  func manifest() {
    let text = """
      // room("Base", ["Server"]),
      func room(_ name: String) {}
      targets: [
        room("Base", ["CChecksum"]),
        .target(name: "CChecksum", cSettings: cStrict),
        room(
          "MirrorEngine",
          [
            "Base", .product(name: "NIOCore", package: "swift-nio"),
            "Ring",
          ]),
        room("Cellar", ["Base"]),
        .executableTarget(name: "nbdmirror", dependencies: ["Server", "Simulator"]),
      ]
      """
    let findings = ManifestChecks.dependencies(TextFile(path: "Package.swift", text: text))
    #expect(
      findings.map(\.what)
        == [
          "MirrorEngine depends on Ring", "Cellar: no such room",
          "nbdmirror depends on Simulator",
        ])
    #expect(lines(findings) == [6, 12, 13])
  }

  @Test("dead links and missing headings are found")
  func links() {
    let text = """
      # A title: with `code`
      [a](b.md) [c](missing.md) [d](../README.md#usage "title") [e](b.md#two-words)
      [f](https://example.org/x.md) `[g](nothing.md)` [h](#a-title-with-code) [i](#nope)
      ```
      [j](in-code.md)
      ```
      ![k](missing.png) [l](b.md#none) [m](../Examples) [n](mailto:x@y)
      """
    let other = TextFile(path: "docs/b.md", text: "# One\n## Two words\n```\n# none\n```\n")
    let readme = TextFile(path: "README.md", text: "# Usage\n")
    let findings = DocumentChecks.deadLinks(
      TextFile(path: "docs/a.md", text: text),
      exists: { ["docs/a.md", "docs/b.md", "README.md", "Examples"].contains($0) },
      read: { $0 == "README.md" ? readme : other })
    #expect(
      findings.map(\.what)
        == [
          "dead link missing.md", "no heading #nope", "dead link missing.png",
          "no heading b.md#none",
        ])
    #expect(lines(findings) == [2, 3, 7, 7])
  }

  @Test("promises without a test and tests that are gone are found")
  func promises() {
    let rows = (2...10).map { "| P\($0) | x | [a](../Tests/A.swift): \"there\", \"gone \($0)\" |" }
    let document = TextFile(
      path: "docs/promises.md",
      text: "# P\n\n| | promise | tests |\n|---|---|---|\n" + rows.joined(separator: "\n"))
    #expect(PromiseChecks.references(document).count == 18)
    let findings = PromiseChecks.findings(document) { path in
      path == "Tests/A.swift" ? "@Test(\"there\") @Test(\"gone 2\")" : nil
    }
    #expect(findings.count == 9)
    #expect(findings.first?.what == "P1 has no test")
    #expect(findings.dropFirst().first?.what == "no test \"gone 3\" in Tests/A.swift")
  }

  @Test("rows of a table of tests that name none, or one that is gone, are found")
  func testTables() {
    let text = """
      | a | b |
      |---|---|
      | x | no tests are asked for here |

      | client | trim | tests |
      |---|:-:|---|
      | one | yes | [a](../Tests/A.swift): "there" |
      | two | yes | [a](../Tests/A.swift) |
      | three | | [a](../Tests/A.swift): "there", "gone"; [b](b.swift): "there" |
      """
    let findings = TestTableChecks.findings(TextFile(path: "docs/clients.md", text: text)) { path in
      path == "Tests/A.swift" ? "@Test(\"there\")" : nil
    }
    #expect(
      findings.map(\.what)
        == [
          "two has no test", "no test \"gone\" in Tests/A.swift",
          "no test \"there\" in docs/b.swift",
        ])
    #expect(findings.map(\.line) == [8, 9, 9])
    let empty = TestTableChecks.findings(TextFile(path: "docs/clients.md", text: "")) { _ in nil }
    #expect(empty.map(\.what) == ["no table of tests"])
  }

  @Test("options that no document mentions are found, by the names users type")
  func options() {
    let source = """
      struct Serve {
        @Option var size: Int
        @Option(name: .long, help: "a (b) --legTimeout") var legTimeout = 8
        @Flag(name: [.short, .customLong("read-only")], help: "x")
        var isReadOnly = false
        @Option(name: .shortAndLong) var name: String
        @Option(name: .short) var quiet: Int
        // @Option var commented: Int
        @Flag(help: .hidden) var secret = false
        @Flag(
          name: [.customLong("json"), .long],
          help: ArgumentHelp("say \\"(\\" so"))
        var asText = false
        @OptionGroup var common: Common
      }
      """
    let file = TextFile(path: "Sources/nbdmirror/Serve.swift", text: source)
    let names = OptionChecks.longNames(file).sorted { $0.name < $1.name }
    #expect(
      names.map(\.name) == ["as-text", "json", "leg-timeout", "name", "read-only", "size"])
    let document = TextFile(
      path: "README.md", text: "--size N, `--read-only`; --leg-timeouts, --name\n--json")
    let findings = OptionChecks.undocumented(file, documents: [document])
    #expect(
      findings.map(\.what).sorted()
        == ["--as-text is not documented", "--leg-timeout is not documented"])
    #expect(lines(findings).sorted() == [3, 10])
  }

  @Test("bash complains about a broken script and not about a good one")
  func shellScripts() throws {
    let folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("tidy-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let script = folder.appendingPathComponent("x.sh")
    try "if true; then echo\n".write(to: script, atomically: true, encoding: .utf8)
    let bad = try complaintOfBash(script.path)
    #expect(bad != nil)
    try "if true; then echo; fi\n".write(to: script, atomically: true, encoding: .utf8)
    let good = try complaintOfBash(script.path)
    #expect(good == nil)
  }
}
