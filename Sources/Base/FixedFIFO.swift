// Queues with a stated bound: memory is taken once, at creation.

/// A first-in first-out queue of at most `capacity` elements in one allocation.
///
/// Use it where the bound is part of the design; pushing into a full queue is our mistake and
/// traps. Not for queues that clients can fill: those need back-pressure first.
public struct FixedFIFO<Element: BitwiseCopyable>: ~Copyable {
  @usableFromInline internal var storage: [Element]
  @usableFromInline internal var head = 0

  /// Number of elements waiting.
  @inlinable public var count: Int { used }
  @usableFromInline internal var used = 0

  /// Room for `capacity` elements; `filler` is what empty places hold.
  public init(capacity: Int, filler: Element) {
    precondition(capacity > 0, "a queue needs room")
    storage = Array(repeating: filler, count: capacity)
  }

  /// The bound.
  @inlinable public var capacity: Int { storage.count }

  /// Whether nothing waits.
  @inlinable public var isEmpty: Bool { used == 0 }

  /// Whether the bound is reached.
  @inlinable public var isFull: Bool { used == storage.count }

  /// Appends an element.
  /// - Precondition: the queue is not full.
  @inlinable
  public mutating func push(_ element: Element) {
    precondition(used < storage.count, "a bounded queue overflows")
    var tail = head + used
    if tail >= storage.count { tail -= storage.count }
    storage[tail] = element
    used += 1
  }

  /// Takes the oldest element out.
  @inlinable
  public mutating func pop() -> Element? {
    guard used > 0 else { return nil }
    let element = storage[head]
    head += 1
    if head == storage.count { head = 0 }
    used -= 1
    // A queue that is emptied again and again stays in the same few cache lines.
    if used == 0 { head = 0 }
    return element
  }
}
