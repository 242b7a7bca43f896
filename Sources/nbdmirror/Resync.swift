// `nbdmirror resync [status]` and `resync wait`; what changes a resync is in ResyncControl.

import ArgumentParser
import ControlModel

/// The verbs of `resync`.
struct Resync: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show, steer or await the copying of stale regions.",
    subcommands: [
      ResyncShow.self, ResyncPause.self, ResyncResume.self, ResyncLimit.self, ResyncWait.self,
    ],
    defaultSubcommand: ResyncShow.self)
}

/// The verb `resync status`.
struct ResyncShow: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Show how far the resync is.")

  @OptionGroup var mirror: MirrorOptions

  @Flag(help: "Print JSON, as GET /v1/resync on the control socket.")
  var json = false

  func run() throws {
    let resync = try mirror.client().resync()
    Terminal.write(
      try json
        ? ControlJSON.text(resync)
        : StatusText.resync(resync.status, Terminal.width) + StatusText.unreadable(resync))
  }
}

/// The verb `resync wait`.
struct ResyncWait: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wait",
    abstract: "Wait until nothing is left to copy.",
    discussion: """
      Done when every leg that is online is in sync; legs that are offline are not waited for. \
      Fails if the mirror fails, if the server goes away, or after the timeout.
      """)

  @OptionGroup var mirror: MirrorOptions

  @Option(help: "Seconds to wait at most; by default as long as it takes.")
  var timeout: Double?

  func validate() throws {
    if let timeout, !(timeout >= 0 && timeout < 1e9) {
      throw ValidationError("--timeout takes a number of seconds.")
    }
  }

  func run() async throws {
    let client = try mirror.client()
    let printer = ProgressPrinter(isTerminal: Terminal.isPresent, width: Terminal.width)
    do {
      Terminal.write(try await wait(client, printer) + "\n")
    } catch {
      printer.finish()
      throw error
    }
  }

  private func wait(_ client: ControlClient, _ printer: ProgressPrinter) async throws -> String {
    let deadline = timeout.map { ContinuousClock.now + .seconds($0) }
    var watch = ResyncWatch()
    var isPauseTold = false
    while true {
      let status = try read(client)
      let now = ContinuousClock.now
      switch watch.judge(status, at: now) {
      case .done(let sentence):
        printer.finish()
        return sentence
      case .failed(let sentence): throw CommandFailure(sentence)
      case .working: printer.show(status.resync, at: now)
      }
      if status.resync.paused, !isPauseTold {
        Journal.write("the resync is paused: it goes on after 'nbdmirror resync resume'")
        isPauseTold = true
      }
      if let deadline, now >= deadline {
        throw CommandFailure("not in sync yet: \(ProgressLine.numbers(status.resync).trimmed)")
      }
      try await Task.sleep(for: .milliseconds(200))
    }
  }

  private func read(_ client: ControlClient) throws -> MirrorStatus {
    do {
      return try client.mirror()
    } catch {
      guard error.isServerGone else { throw error }
      throw CommandFailure("the server is gone: \(error)")
    }
  }
}

/// Judges from one status to the next whether a resync is done, goes on, or never will be.
struct ResyncWatch {
  /// What to make of a status.
  enum Verdict: Equatable {
    /// Nothing is left to copy.
    case done(String)
    /// It will not come to an end.
    case failed(String)
    /// Go on waiting.
    case working
  }

  /// How long stale regions that nobody copies are waited for: a resync starts within that time.
  static let patience = Duration.seconds(5)

  private var stuckSince: ContinuousClock.Instant?
  private var stale: UInt64?

  /// Judges a status.
  mutating func judge(_ status: MirrorStatus, at now: ContinuousClock.Instant) -> Verdict {
    if status.state == .failed { return .failed("the mirror failed: see 'nbdmirror status'") }
    let syncing = status.legs.filter { $0.state == .syncing }
    if !status.resync.running && syncing.isEmpty && status.unresolvedRegions == 0 {
      return .done(summary(status))
    }
    let left = syncing.reduce(status.unresolvedRegions) { $0 &+ $1.staleBytes }
    if status.resync.running || left != stale {
      stuckSince = nil
      stale = left
    } else if let since = stuckSince {
      if now - since >= ResyncWatch.patience { return .failed(stuck(syncing)) }
    } else {
      stuckSince = now
    }
    return .working
  }

  private func summary(_ status: MirrorStatus) -> String {
    let offline = status.legs.filter { $0.state == .failed || $0.state == .missing }
    var text = "in sync"
    if status.resync.bytesTotal > 0 {
      text += ", \(Quantity.bytes(status.resync.bytesDone)) copied"
    }
    for leg in offline { text += "; leg \(leg.slot) is \(leg.state.rawValue)" }
    return text
  }

  private func stuck(_ syncing: [LegStatus]) -> String {
    let legs = syncing.map { "leg \($0.slot) has \(Quantity.bytes($0.staleBytes)) stale" }
    return "no resync runs, and not all is in sync"
      + (legs.isEmpty ? "" : ": " + legs.joined(separator: ", "))
  }
}

extension String {
  /// Without spaces at the beginning.
  fileprivate var trimmed: String { String(drop { $0 == " " }) }
}
