// Goal: a URI names one export or is refused with a reason.
import NBDProtocol
import Testing

@Suite("ExportURI")
struct ExportURITests {
  @Test("places and names are taken apart, percent signs and brackets included")
  func good() throws {
    let good: [(String, ExportURI.Place, String)] = [
      ("nbd+unix:///?socket=/run/a.nbd", .unix(path: "/run/a.nbd"), ""),
      ("nbd+unix:///disk?socket=%2Frun%2Fa%20b", .unix(path: "/run/a b"), "disk"),
      ("NBD+UNIX:///a/b%3F?socket=s", .unix(path: "s"), "a/b?"),
      ("nbd://localhost", .tcp(host: "localhost", port: 10809), ""),
      ("nbd://localhost/", .tcp(host: "localhost", port: 10809), ""),
      ("nbd://10.0.0.1:1/disk", .tcp(host: "10.0.0.1", port: 1), "disk"),
      ("nbd://[::1]:65535//x", .tcp(host: "::1", port: 65535), "/x"),
      ("nbd://[::1]/%C3%A4", .tcp(host: "::1", port: 10809), "ä"),
    ]
    for (text, place, name) in good {
      #expect(try ExportURI(text) == ExportURI(place: place, exportName: name), "\(text)")
    }
  }

  @Test(
    "what names no export is refused",
    arguments: [
      "", "nbd", "nbd:", "/run/a.nbd", "http://localhost/", "nbds://localhost/",
      "nbds+unix:///?socket=a", "nbd://", "nbd:///disk", "nbd://:10809/", "nbd://h:0/",
      "nbd://h:65536/", "nbd://h:1x/", "nbd://h:-1/", "nbd://[::1/", "nbd://[::1]1/",
      "nbd://me@h/", "nbd://h/?socket=a", "nbd+unix://h/?socket=a", "nbd+unix:///",
      "nbd+unix:///?socket=", "nbd+unix:///?socket", "nbd+unix:///?path=a",
      "nbd+unix:///?socket=a&tls=1", "nbd://h/%", "nbd://h/%4", "nbd://h/%zz", "nbd://h/%00",
      "nbd://h/%ff", "nbd+unix:///?socket=%00",
    ])
  func bad(text: String) {
    #expect(throws: ExportURIError.self) { try ExportURI(text) }
  }
}
