// Goal: the house rules hold in every file, today and after the next commit. Method: the checks of
// this folder run over the repository's own files; CounterTests shows that each of them can fail.
import Foundation
import Testing

@Suite("Tidy")
struct TidyTests {
  private func expectNone(_ findings: [Finding]) {
    for finding in findings { Issue.record("\(finding)") }
  }

  @Test("the repository is found, and every folder of Sources is a room or a shim")
  func rooms() throws {
    #expect(Repository.exists("Package.swift"))
    #expect(try Repository.sources().count > 10)
    let folders = Set(
      try Repository.paths(below: "Sources").compactMap {
        $0.split(separator: "/").dropFirst().first
      }
      .map(String.init))
    #expect(folders.subtracting(Rooms.table.keys).subtracting(Rooms.shims) == [])
    #expect(folders.isSuperset(of: ["Base", "MirrorEngine", "MirrorFormat", "NBDProtocol"]))
  }

  @Test("no arrow of the table points up")
  func noCycle() {
    var done = Rooms.shims
    var left = Rooms.table
    while let next = left.keys.sorted().first(where: { name in
      left[name].map { $0.rooms.isSubset(of: done) } ?? false
    }) {
      done.insert(next)
      left[next] = nil
    }
    #expect(left.keys.sorted() == [])
  }

  @Test("imports point downward only")
  func imports() throws {
    expectNone(try Repository.sources().flatMap { CodeChecks.imports($0) })
  }

  @Test("the manifest declares no dependency that is not drawn")
  func manifest() throws {
    let manifest = try Repository.file("Package.swift")
    #expect(ManifestChecks.targets(manifest).count > 10)
    expectNone(ManifestChecks.dependencies(manifest))
  }

  @Test("the cores have no clock, no randomness, no I/O and no await")
  func cores() throws {
    expectNone(try Repository.sources().flatMap { CodeChecks.coreWords($0) })
  }

  @Test("sources have no forced try or cast, no crash without a sentence, no whole Foundation")
  func forbidden() throws {
    expectNone(try Repository.sources().flatMap(CodeChecks.forbiddenCode))
  }

  @Test("sources have no notes to oneself")
  func notes() throws {
    let files = try Repository.files(in: ["Sources"], endings: [".swift", ".c", ".h"])
    expectNone(files.flatMap(CodeChecks.notes))
  }

  @Test("files have at most 500 lines, functions at most 70")
  func lengths() throws {
    let files = try Repository.files(in: ["Sources", "Tests"], endings: [".swift"])
    expectNone(files.flatMap(CodeChecks.fileLength))
    expectNone(files.flatMap(CodeChecks.functionLength))
  }

  @Test("there are no tabs and no white space at the ends of lines")
  func whitespace() throws {
    let endings = [".swift", ".c", ".h", ".md", ".sh", ".py", ".yaml", ".modulemap"]
    let files = try Repository.files(
      in: ["Sources", "Tests", "Examples", "docs", ".ci"], endings: endings)
    let top = try ["Package.swift", "README.md"].filter(Repository.exists).map(Repository.file)
    expectNone((files + top).flatMap(CodeChecks.whitespace))
  }

  @Test("relative links in the documents lead somewhere")
  func links() throws {
    for document in try Repository.documents() {
      expectNone(
        try DocumentChecks.deadLinks(
          document, exists: Repository.exists, read: Repository.file))
    }
  }

  @Test("every promise names tests, and they are there")
  func promises() throws {
    let document = try Repository.file("docs/promises.md")
    expectNone(
      PromiseChecks.findings(document) { path in
        Repository.exists(path) ? (try? Repository.file(path))?.text : nil
      })
  }

  @Test("every client of the interop matrix names tests, and they are there")
  func clients() throws {
    expectNone(
      TestTableChecks.findings(try Repository.file("docs/clients.md")) { path in
        Repository.exists(path) ? (try? Repository.file(path))?.text : nil
      })
  }

  @Test("every option of the command line is documented")
  func options() throws {
    let documents = try Repository.documents()
    let commands = try Repository.sources().filter { $0.path.hasPrefix("Sources/nbdmirror") }
    expectNone(commands.flatMap { OptionChecks.undocumented($0, documents: documents) })
  }

  @Test("shell scripts are read by bash without complaint")
  func shellScripts() throws {
    for path in try shellScriptPaths() {
      let complaint = try complaintOfBash(Repository.root.appendingPathComponent(path).path)
      #expect(complaint == nil, "\(path)")
    }
  }

  private func shellScriptPaths() throws -> [String] {
    try ["Sources", "Tests", "Examples", "docs", ".ci"].flatMap(Repository.paths).filter { path in
      if path.hasSuffix(".sh") { return true }
      let name = path.split(separator: "/").last ?? ""
      guard !name.contains("."), let file = try? Repository.file(path) else { return false }
      return file.text.hasPrefix("#!") && (file.lines.first?.hasSuffix("sh") ?? false)
    }
  }
}

/// What `bash -n` says about a script; nil: nothing.
func complaintOfBash(_ path: String) throws -> String? {
  let process = Process()
  let output = Pipe()
  process.executableURL = URL(fileURLWithPath: "/bin/bash")
  process.arguments = ["-n", path]
  process.standardError = output
  try process.run()
  let text = output.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  return process.terminationStatus == 0 && text.isEmpty
    ? nil : String(decoding: text, as: UTF8.self)
}
