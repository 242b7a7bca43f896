// Goal: the JSON is the contract of the design, key by key, and survives a round trip. Method:
// encoded samples are read back with an independent JSON parser (Foundation's) and their key sets
// compared; the words of the enumerations are spelled out.
@testable import ControlModel
@testable import ControlPlane
import Foundation
import Testing

@Suite("JSON schema")
struct SchemaTests {
  private func object(_ value: some Encodable) throws -> [String: Any] {
    let json = try JSONSerialization.jsonObject(with: Data(ControlJSON.encode(value)))
    return try #require(json as? [String: Any])
  }

  @Test("a mirror has exactly the documented keys, unknown values are null")
  func mirrorKeys() throws {
    let mirror = try object(Samples.degraded)
    #expect(
      Set(mirror.keys) == [
        "name", "setId", "size", "state", "syncPercent", "revision", "generation", "regionSize",
        "dirtyRegions", "unresolvedRegions", "unwrittenBytes", "readPolicy", "uptimeSeconds",
        "legs", "resync",
        "scrub",
      ])
    let resync = try #require(mirror["resync"] as? [String: Any])
    #expect(
      Set(resync.keys) == [
        "running", "paused", "bytesDone", "bytesTotal", "bytesPerSecond", "etaSeconds",
        "minBytesPerSecond", "maxBytesPerSecond",
      ])
    #expect(resync["etaSeconds"] is NSNull)
    #expect(resync["maxBytesPerSecond"] is NSNull)
    let scrub = try #require(mirror["scrub"] as? [String: Any])
    #expect(Set(scrub.keys) == ["mode", "running", "bytesDone", "mismatches"])
    #expect(scrub["mode"] is NSNull)
    #expect(mirror["state"] as? String == "degraded")
    #expect(mirror["size"] as? UInt64 == 5 << 30)
  }

  @Test("a leg has exactly the documented keys, unknown values are null")
  func legKeys() throws {
    let leg = try object(Samples.legs[1])
    #expect(
      Set(leg.keys) == [
        "slot", "id", "path", "state", "staleBytes", "readErrors", "writeErrors",
        "repairedBlocks", "replaces", "writeMostly", "cache", "unusedBytes", "latency",
      ])
    #expect(leg["replaces"] is NSNull)
    #expect(leg["cache"] is NSNull)
    #expect(leg["unusedBytes"] is NSNull)
    let latency = try #require(leg["latency"] as? [String: Any])
    #expect(Set(latency.keys) == ["read", "write"])
    let read = try #require(latency["read"] as? [String: Any])
    #expect(Set(read.keys) == ["p50Microseconds", "p99Microseconds"])
    #expect(read["p50Microseconds"] is NSNull)
  }

  @Test("/openapi.yaml is docs/control-api.yaml, and describes every path that a document names")
  func description() throws {
    let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "docs")
    let file = try String(contentsOf: page.appending(path: "control-api.yaml"), encoding: .utf8)
    let response = Responder(controller: FakeMirror()).respond(to: .description, body: [])
    #expect(String(decoding: response.body, as: UTF8.self) == file)
    let control = try String(contentsOf: page.appending(path: "control.md"), encoding: .utf8)
    for match in control.matches(of: /`(?:GET|POST|PATCH|DELETE) (\/[a-z0-9\/{}.-]+)`/) {
      #expect(file.contains("\n  \(match.1):\n"), "\(match.1) is not described")
    }
  }

  @Test("every kind of event stands in docs/events.md, and no other")
  func eventKinds() throws {
    let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "docs/events.md")
    let text = try String(contentsOf: page, encoding: .utf8)
    let table = try #require(text.components(separatedBy: "## Kinds").last)
    let rows = table.components(separatedBy: "## Stream")[0].split(separator: "\n")
      .filter { $0.hasPrefix("| `") }
    let words = rows.flatMap { row in
      row.split(separator: "|")[0].split(separator: ",").map { $0.filter { !"` ".contains($0) } }
    }
    #expect(Set(words) == Set(EventKind.allCases.map(\.rawValue)))
  }

  @Test("the states are the words of the design")
  func words() {
    #expect(
      MirrorStatus.State.allCases.map(\.rawValue) == ["healthy", "syncing", "degraded", "failed"])
    #expect(
      LegStatus.State.allCases.map(\.rawValue)
        == ["in-sync", "syncing", "failed", "missing", "removed", "spare"])
  }

  @Test("what is encoded decodes to the same value")
  func roundTrip() throws {
    var mirror = Samples.syncing
    mirror.size = UInt64.max
    mirror.scrub = ScrubStatus(mode: .repair, running: true, bytesDone: 1, mismatches: 2)
    #expect(try ControlJSON.decode(MirrorStatus.self, from: ControlJSON.encode(mirror)) == mirror)
  }

  @Test("a number that JSON cannot hold is an error, not a crash")
  func notANumber() {
    var mirror = Samples.healthy
    mirror.syncPercent = .nan
    #expect(throws: ControlJSON.Failure.self) { try ControlJSON.encode(mirror) }
  }

  @Test(
    "bad request bodies are refused with a reason",
    arguments: [
      ("", "this is not JSON"), ("{", "this is not JSON"), ("[]", "a JSON object is expected"),
      ("null", "a JSON object is expected"), ("{}", "the member 'path' is missing"),
      ("{\"path\":1}", "the member 'path' has the wrong type"),
      ("{\"path\":null}", "the member 'path' has the wrong type"),
      ("{\"path\":\"a\",\"hot\":true}", "unknown member 'hot'"),
      ("{\"path\":\"a\",\"spare\":1}", "the member 'spare' has the wrong type"),
      ("\u{0}\u{1}", "this is not JSON"),
    ])
  func badBodies(body: String, reason: String) {
    #expect(throws: ControlJSON.Failure(message: reason)) {
      try ControlJSON.decode(AddLegRequest.self, from: Array(body.utf8))
    }
  }

  @Test("JSON of any depth is refused without using up the stack")
  func deep() {
    let deep = Array(String(repeating: "[", count: 1 << 20).utf8)
    #expect(throws: ControlJSON.Failure(message: "this is not JSON")) {
      try ControlJSON.decode(AddLegRequest.self, from: deep)
    }
  }

  @Test("a leg goes by its slot, its id in any case, and its path")
  func references() {
    let legs = Samples.legs
    #expect(LegStatus.find("1", in: legs)?.slot == 1)
    #expect(LegStatus.find("01", in: legs)?.slot == 1)
    #expect(LegStatus.find(legs[1].id.lowercased(), in: legs)?.slot == 1)
    #expect(LegStatus.find("/srv/b c.img", in: legs)?.slot == 1)
    for unknown in ["2", "", "-1", "/srv", "99999999999999999999", "１"] {
      #expect(LegStatus.find(unknown, in: legs) == nil)
    }
  }

  @Test("a PV that was removed and added again is its live leg")
  func readdedPath() {
    var legs = Samples.legs
    legs[0].state = .removed
    legs[1].path = legs[0].path
    #expect(LegStatus.find("/srv/a.img", in: legs)?.slot == 1)
    legs[0].state = .inSync
    #expect(LegStatus.find("/srv/a.img", in: legs) == nil)
  }

  @Test("percent-encoding of a path segment is undone, and bad encodings are refused")
  func percentEncoding() {
    for text in ["/dev/disk/by-id/x:1", "ä €", "a%2Fb", "..", "~-_.", "", "\u{1}"] {
      let encoded = PercentEncoding.encode(text)
      #expect(!encoded.contains("/"))
      #expect(PercentEncoding.decode(encoded[...]) == text)
    }
    for bad in ["%", "%4", "%g0", "%00", "%ff", "%c3"] {
      #expect(PercentEncoding.decode(bad[...]) == nil)
    }
  }
}
