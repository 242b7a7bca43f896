// Fixed memory for the hot path: no growth, no reference counts, bounds checked.

/// `count` elements in one allocation that never moves.
///
/// Elements are changed in place through the subscript. The table has one owner (a reactor, or
/// whoever holds the engine's lock); it is what an array would be if it could not grow or be shared.
@safe
struct FixedTable<Element>: ~Copyable {
  // Owned; every access below checks the index against `count`.
  private let base: UnsafeMutablePointer<Element>
  let count: Int

  /// A table whose elements are `filler`.
  init(count: Int, filler: Element) {
    precondition(count > 0, "a table has elements")
    self.count = count
    unsafe base = .allocate(capacity: count)
    unsafe base.initialize(repeating: filler, count: count)
  }

  deinit {
    unsafe base.deinitialize(count: count)
    unsafe base.deallocate()
  }

  subscript(index: Int) -> Element {
    @inline(__always)
    unsafeAddress { return unsafe address(of: index) }
    @inline(__always)
    nonmutating unsafeMutableAddress { return unsafe mutableAddress(of: index) }
  }

  /// For the subscripts of tables that wrap this one.
  @inline(__always)
  func address(of index: Int) -> UnsafePointer<Element> {
    unsafe UnsafePointer(mutableAddress(of: index))
  }

  /// For the subscripts of tables that wrap this one.
  @inline(__always)
  func mutableAddress(of index: Int) -> UnsafeMutablePointer<Element> {
    precondition(index >= 0 && index < count, "outside a fixed table")
    return unsafe base + index
  }
}

/// A list of at most `capacity` elements that is filled, worked off from the front, and filled
/// again from the start of its memory, so that a short list stays in the same cache lines.
struct FixedList<Element>: ~Copyable {
  private let elements: FixedTable<Element>
  private var head = 0
  private var tail = 0

  /// Room for `capacity` elements between two moments of emptiness.
  init(capacity: Int, filler: Element) { elements = FixedTable(count: capacity, filler: filler) }

  /// Whether nothing is listed.
  var isEmpty: Bool { head == tail }
  /// Number of elements listed.
  var count: Int { tail - head }
  /// Elements that can be appended before the list has to be emptied.
  var room: Int { elements.count - tail }

  /// Appends an element.
  /// - Precondition: `room` is not 0.
  @inline(__always)
  mutating func append(_ element: Element) {
    elements[tail] = element
    tail += 1
  }

  /// The oldest element.
  /// - Precondition: the list is not empty.
  var first: Element {
    precondition(head < tail, "an empty list has no first")
    return elements[head]
  }

  /// Takes the oldest element out.
  @inline(__always)
  mutating func pop() -> Element? {
    guard head < tail else { return nil }
    let element = elements[head]
    head += 1
    if head == tail {
      head = 0
      tail = 0
    }
    return element
  }

  /// Moves what is listed to the start of the memory, to make room.
  mutating func compact() {
    guard head > 0 else { return }
    for index in head..<tail { elements[index - head] = elements[index] }
    tail -= head
    head = 0
  }
}
