// The region map as one leg has it: what assembly elects from.

import Base

/// All pages of one leg's region map.
public struct LegMap: Equatable, Sendable {
  /// What copy 0 of each page is.
  public private(set) var copy0: [PageCopy]
  /// What copy 1 of each page is.
  public private(set) var copy1: [PageCopy]
  /// The words of each page's newest valid copy; 0 where none is valid.
  public private(set) var words: [UInt16]

  /// Pages of which a valid copy, the newest or the other one, has an unwritten region.
  public private(set) var unwrittenPages: [Bool]

  /// Tests only: the older of two valid copies counts.
  private let electsOldest: Bool

  /// A map of which nothing was read yet; tests may have the older copies elected.
  public init(layout: Layout, electsOldest: Bool = false) {
    self.electsOldest = electsOldest
    copy0 = Array(repeating: .invalid, count: layout.pageCount)
    copy1 = copy0
    unwrittenPages = Array(repeating: false, count: layout.pageCount)
    words = Array(repeating: 0, count: layout.regionCount)
  }

  /// Number of pages.
  public var pageCount: Int { copy0.count }

  /// Both copies of a page.
  public func copies(page: Int) -> (PageCopy, PageCopy) { (copy0[page], copy1[page]) }

  /// Whether both copies of a page are valid.
  public func hasBothCopies(page: Int) -> Bool {
    if case (.valid, .valid) = copies(page: page) { true } else { false }
  }

  /// The newest valid copy of a page and its sequence; nil if neither is valid.
  public func newest(page: Int) -> (copy: Int, sequence: UInt64)? {
    if electsOldest, case (.valid(let first), .valid(let second)) = copies(page: page) {
      return first < second ? (0, first) : (1, second)
    }
    return Election.page(copies(page: page))
  }

  /// Takes in the bytes of a copy; anything that is not this page counts as invalid.
  /// - Precondition: the page exists; `copy` is 0 or 1.
  public mutating func read(page: Int, copy: Int, bytes: RawSpan, setId: Identifier) {
    precondition(copy == 0 || copy == 1, "a page has copies 0 and 1")
    guard let sequence = RegionMapPage.decodeHeader(bytes, page: page, setId: setId) else {
      return
    }
    if copy == 0 {
      copy0[page] = .valid(sequence: sequence)
    } else {
      copy1[page] = .valid(sequence: sequence)
    }
    if RegionMapPage.hasUnwritten(bytes) { unwrittenPages[page] = true }
    guard let after = newest(page: page), after.copy == copy else { return }
    RegionMapPage.readWords(bytes, into: &words, firstWord: page * Layout.wordsPerPage)
  }
}
