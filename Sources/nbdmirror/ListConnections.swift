// `nbdmirror connections`: who is attached.

import ArgumentParser
import ControlModel

/// The verb `connections`.
struct ListConnections: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "connections",
    abstract: "Show the clients' connections to a running mirror.")

  @OptionGroup var mirror: MirrorOptions

  @Flag(help: "Print JSON, as GET /v1/connections on the control socket.")
  var json = false

  func run() throws {
    let connections = try mirror.client().connections()
    Terminal.write(
      try json ? ControlJSON.text(connections) : ListConnections.text(connections))
  }

  /// A table, or a line that says that there is nobody.
  static func text(_ connections: [ConnectionStatus]) -> String {
    guard !connections.isEmpty else { return "no client is connected\n" }
    var table = Table([
      ("No", .right), ("Transport", .left), ("Phase", .left), ("In flight", .right),
      ("Requests", .right), ("Read", .right), ("Written", .right), ("Replies", .left),
      ("TLS", .left),
    ])
    for connection in connections {
      table.add([
        "\(connection.number)", connection.transport.rawValue, connection.phase.rawValue,
        "\(connection.requestsInFlight)", "\(connection.requests)",
        Quantity.bytes(connection.readBytes), Quantity.bytes(connection.writtenBytes),
        connection.structuredReplies ? "structured" : "simple", connection.tls ? "yes" : "no",
      ])
    }
    return table.rendered()
  }
}
