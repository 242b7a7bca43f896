// Goal: every operation of the HTTP interface is found, and nothing else. Method: the routing
// table as data, then what must be refused.
import Testing

@testable import ControlPlane

@Suite("routes")
struct RouteTests {
  @Test("every documented method and path names its operation")
  func operations() throws {
    let table: [(String, String, Route)] = [
      ("GET", "/v1/mirror", .mirror), ("HEAD", "/v1/mirror", .mirror),
      ("GET", "/v1/mirror?pretty=1", .mirror), ("GET", "/v1/legs", .legs),
      ("GET", "/openapi.yaml", .description),
      ("GET", "/v1/connections", .connections), ("GET", "/v1/regions", .regions),
      ("GET", "/v1/resync", .resync), ("POST", "/v1/legs", .addLeg),
      ("POST", "/v1/legs/1/fail", .failLeg("1")), ("POST", "/v1/legs/1/readd", .readdLeg("1")),
      ("DELETE", "/v1/legs/1", .removeLeg("1")), ("POST", "/v1/shutdown", .shutdown),
      ("DELETE", "/v1/legs/%2Fsrv%2Fa%20b.img", .removeLeg("/srv/a b.img")),
      ("POST", "/v1/legs/%c3%a4/fail", .failLeg("ä")),
      ("POST", "/v1/legs/1/replace", .replaceLeg("1")),
      ("POST", "/v1/legs/1/refresh", .refreshLeg("1")), ("PATCH", "/v1/legs/1", .setLeg("1")),
      ("PATCH", "/v1/resync", .changeResync),
      ("GET", "/v1/scrub", .scrub), ("POST", "/v1/scrub", .startScrub),
      ("DELETE", "/v1/scrub", .stopScrub), ("GET", "/v1/faults", .fault(.list)),
      ("POST", "/v1/faults", .fault(.add)), ("DELETE", "/v1/faults", .fault(.clear)),
      ("DELETE", "/v1/faults/flaky", .fault(.remove("flaky"))),
      ("POST", "/v1/faults/flaky/release", .fault(.release("flaky"))),
      ("POST", "/v1/power-cut", .fault(.powerCut)), ("GET", "/v1/events", .events),
      ("GET", "/v1/events?after=7", .events), ("GET", "/metrics", .metrics),
    ]
    for (method, target, route) in table {
      #expect(try Route.find(method: method, target: target) == route)
    }
  }

  @Test(
    "a path that is not in the table is not found",
    arguments: [
      "/", "/v1", "/v1/", "/v2/mirror", "/v1/mirror/", "/v1/legs/", "/v1/legs//fail",
      "/v1/legs/1/", "/v1/legs/1/fail/", "/v1/legs/1/explode", "/v1/scrub/", "/metrics/",
      "/v1/metrics",
      "/v1/faults/", "/v1/power-cut/1", "/V1/mirror", "//v1/mirror", "/v1%2Fmirror",
    ])
  func unknown(target: String) {
    #expect(throws: Route.Refusal.notFound) { try Route.find(method: "GET", target: target) }
  }

  @Test("a wrong method is told the right ones")
  func methods() {
    #expect(throws: Route.Refusal.badMethod(allowed: ["GET", "HEAD"])) {
      try Route.find(method: "PUT", target: "/v1/mirror")
    }
    #expect(throws: Route.Refusal.badMethod(allowed: ["GET", "HEAD", "POST"])) {
      try Route.find(method: "DELETE", target: "/v1/legs")
    }
    #expect(throws: Route.Refusal.badMethod(allowed: ["PATCH", "DELETE"])) {
      try Route.find(method: "GET", target: "/v1/legs/0")
    }
    #expect(throws: Route.Refusal.badMethod(allowed: ["POST"])) {
      try Route.find(method: "GET", target: "/v1/shutdown")
    }
  }

  @Test(
    "a target that is no path, or badly encoded, is refused",
    arguments: [
      "*", "", "http://host/v1/mirror", "/v1/legs/%", "/v1/legs/%2", "/v1/legs/%zz",
      "/v1/legs/%00", "/v1/legs/%ff",
    ])
  func badTargets(target: String) {
    #expect(throws: Route.Refusal.badTarget) { try Route.find(method: "DELETE", target: target) }
  }
}
