// What is fuzzed: one entry for each place where bytes of others come in.
//
// The same entries are called by the fuzzer (`Tests/fuzz.sh`), with the sanitizers, and by FuzzTests,
// which replays the corpus in every test run. Each asserts properties, not only that nothing
// traps; a property that does not hold is thrown as a sentence.
//
// Invariants of every entry
// 1. The outcome depends on the input only: no clock, no randomness that is not seeded by the input,
//    nothing kept from one call to the next (`control` keeps its server, which keeps nothing).
// 2. Any input means something: what is missing at its end counts as zeros.

/// A property that does not hold for an input.
public struct FuzzProblem: Error, CustomStringConvertible {
  /// Which, as a sentence.
  public let description: String

  init(_ description: String) { self.description = description }
}

/// The entries.
public enum FuzzTarget: String, CaseIterable, Sendable {
  /// The server's side of the handshake, and the requests that follow it.
  case handshake
  /// Requests under any agreement, and their replies.
  case transmission
  /// The client's side: handshake and replies of a server that may lie.
  case client
  /// One label, and the election between two copies.
  case label
  /// A page of the region map, and the election between two copies.
  case regionMap = "region-map"
  /// Labels and maps of several PVs: assembled or refused, and the engine started.
  case assembly
  /// The language of faults, as in a file.
  case faults
  /// What a client of the control socket receives.
  case response
  /// What the control socket receives, through a real server.
  case control

  /// Tries one input.
  /// - Throws: the property that does not hold.
  public func run(_ input: [UInt8]) throws(FuzzProblem) {
    switch self {
    case .handshake: try HandshakeFuzz.run(input)
    case .transmission: try TransmissionFuzz.run(input)
    case .client: try ClientFuzz.run(input)
    case .label: try LabelFuzz.run(input)
    case .regionMap: try RegionMapFuzz.run(input)
    case .assembly: try AssemblyFuzz.run(input)
    case .faults: try FaultFuzz.run(input)
    case .response: try ResponseFuzz.run(input)
    case .control: try ControlFuzz.run(input)
    }
  }
}

/// Throws `text` unless `condition` holds.
func require(
  _ condition: Bool, _ text: @autoclosure () -> String
) throws(FuzzProblem) {
  if !condition { throw FuzzProblem(text()) }
}
