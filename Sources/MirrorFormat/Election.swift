// Which copies win.
//
// A PV has two copies of its label and two of every region map page. A write always goes to the
// copy that is not the newest valid one, so a torn write leaves the newest in place.

import Base

/// The label that a PV goes by.
public struct ElectedLabel: Equatable, Sendable {
  /// The label itself; its `sequence` is the higher valid one.
  public var label: Label
  /// The copy it was read from: 0 or 1.
  public var copy: Int
  /// Whether the other copy is valid too.
  public var isOtherCopyValid: Bool

  /// Describes the outcome of an election.
  public init(label: Label, copy: Int, isOtherCopyValid: Bool) {
    self.label = label
    self.copy = copy
    self.isOtherCopyValid = isOtherCopyValid
  }

  /// The copy to write next.
  public var nextCopy: Int { 1 - copy }

  /// The sequence to write next.
  public var nextSequence: UInt64 { label.sequence &+ 1 }
}

/// What was found of one copy of a page.
public enum PageCopy: Equatable, Sendable {
  /// Unreadable, torn, rotten, or of another set or page.
  case invalid
  /// Valid, with this sequence.
  case valid(sequence: UInt64)
}

/// Elections; no state.
public enum Election {
  /// The label that a PV with these two copies goes by.
  ///
  /// A copy of a later version is never bypassed in favour of an older copy that we understand. A
  /// label whose counters no mirror reaches is refused, though it can be read: what a start counts
  /// on from there has to be readable, too.
  public static func label(
    _ copyA: Result<Label, FormatError>, _ copyB: Result<Label, FormatError>
  ) -> Result<ElectedLabel, FormatError> {
    let newest = newestLabel(copyA, copyB)
    guard case .success(let elected) = newest else { return newest }
    let counters = [
      ("sequence", elected.label.sequence), ("generation", elected.label.lineage.current.counter),
    ]
    for (name, counter) in counters where counter >= Layout.counterStartLimit {
      return .failure(.invalidField("\(name) \(counter) leaves too few to count on"))
    }
    return newest
  }

  private static func newestLabel(
    _ copyA: Result<Label, FormatError>, _ copyB: Result<Label, FormatError>
  ) -> Result<ElectedLabel, FormatError> {
    switch (copyA, copyB) {
    case (.success(let first), .success(let second)):
      guard first.setId == second.setId, first.legId == second.legId else {
        return .failure(.copiesDisagree)
      }
      let copy = second.sequence > first.sequence ? 1 : 0
      return .success(
        ElectedLabel(label: copy == 0 ? first : second, copy: copy, isOtherCopyValid: true))
    case (.success(let label), .failure(let error)):
      if error.isFromLaterVersion { return .failure(error) }
      return .success(ElectedLabel(label: label, copy: 0, isOtherCopyValid: false))
    case (.failure(let error), .success(let label)):
      if error.isFromLaterVersion { return .failure(error) }
      return .success(ElectedLabel(label: label, copy: 1, isOtherCopyValid: false))
    case (.failure(let first), .failure(let second)):
      if first.isFromLaterVersion { return .failure(first) }
      // "No label" is the least that can be said of a PV: the other copy may know more.
      return .failure(first == .noLabel || second.isFromLaterVersion ? second : first)
    }
  }

  /// Which of a page's copies is the newest valid one on one leg; nil if none is valid.
  public static func page(_ copies: (PageCopy, PageCopy)) -> (copy: Int, sequence: UInt64)? {
    switch copies {
    case (.valid(let first), .valid(let second)):
      second > first ? (1, second) : (0, first)
    case (.valid(let first), .invalid): (0, first)
    case (.invalid, .valid(let second)): (1, second)
    case (.invalid, .invalid): nil
    }
  }
}
