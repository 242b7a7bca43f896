// Goal: the verbs of `fault` send what was typed and show what is. Method: they run as processes
// against a control server over a fake mirror.
@testable import ControlModel
import Foundation
import Testing

@testable import nbdmirror

@Suite("fault commands")
struct FaultVerbTests {
  @Test("add sends leg, kind and options, and prints the name")
  func add() throws {
    let server = try TestServer()
    let control = ["--control", server.path]
    let added = try CommandTests.run(
      ["fault", "add", "1", "error", "--op", "write", "--probability", "0.01", "--for", "2s"]
        + control)
    #expect(added.output == "error-1\n")
    let named = try CommandTests.run(
      ["fault", "add", "0", "delay", "--delay", "5ms", "--name", "slow"] + control)
    #expect(named.output == "slow\n")
    #expect(
      server.mirror.calls == [
        "fault 1 error for=2s op=write probability=0.01", "fault 0 delay delay=5ms name=slow",
      ])
    let shown = try CommandTests.run(["fault", "list"] + control)
    #expect(
      shown.output == """
        Name     Leg  State  Matched  Fired  Fault
        error-1    1  armed        7      3  error --op write
        slow       0  armed        7      3  delay --op write

        """)
    let json = try CommandTests.run(["fault", "list", "--json"] + control)
    let list = try JSONSerialization.jsonObject(with: Data(json.output.utf8))
    let faults = try #require(list as? [[String: Any]])
    #expect(
      Set(try #require(faults.first).keys) == [
        "name", "leg", "kind", "words", "state", "matched", "fired", "badBytes",
      ])
  }

  @Test("remove, release and clear name the fault; the server's refusal is exit status 1")
  func remove() throws {
    let server = try TestServer()
    let control = ["--control", server.path]
    #expect(try CommandTests.run(["fault", "remove", "slow"] + control).status == 0)
    #expect(try CommandTests.run(["fault", "clear"] + control).status == 0)
    let released = try CommandTests.run(["fault", "release", "x"] + control)
    #expect(released.status == 1)
    #expect(released.error == "nbdmirror: there is no fault named 'x'\n")
    #expect(
      server.mirror.calls == ["fault remove slow", "fault clear", "fault release x"])
  }

  @Test("numbers in a request become the text that the command line has")
  func numbers() throws {
    let request = try ControlJSON.decode(
      AddFaultRequest.self,
      from: Array(
        #"{"leg": 1, "kind": "error", "probability": 0.000001, "count": 5, "seed": 18446744073709551615, "nth": 2.0}"#
          .utf8))
    #expect(
      request
        == AddFaultRequest(
          leg: "1", kind: "error",
          options: [
            "probability": "0.000001", "count": "5", "seed": "18446744073709551615", "nth": "2",
          ]))
    #expect(AddFaultRequest.decimal(-0.25) == "-0.25")
    #expect(AddFaultRequest.decimal(1e300) == "1e+300")
  }
}
