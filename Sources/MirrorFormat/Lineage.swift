// Generations: the history of who was online.
//
// A new generation is made at every change of the online set and at every degraded start, and is
// durable before the first write acked under it. Two labels that are neither equal nor in each
// other's ancestry took writes the other never saw: that is a split brain.

/// One state of the online set.
public struct Generation: BitwiseCopyable, Hashable, Sendable {
  /// 1 at creation, one more with every successor; orders generations of one line only.
  public var counter: UInt64
  /// Random: two servers that go on separately make different ones.
  public var id: Identifier

  /// Describes a generation.
  @inlinable
  public init(counter: UInt64, id: Identifier) {
    self.counter = counter
    self.id = id
  }
}

/// A generation and where it comes from.
public struct Lineage: Equatable, Hashable, Sendable {
  /// How many ancestors a label remembers.
  public static let parentCountMax = 16

  /// The generation itself.
  public var current: Generation
  /// Its ancestors, newest first, at most `parentCountMax`.
  public var parents: [Identifier]

  /// Describes a lineage.
  /// - Precondition: at most `parentCountMax` parents.
  public init(current: Generation, parents: [Identifier]) {
    precondition(parents.count <= Lineage.parentCountMax, "a label holds 16 ancestors")
    self.current = current
    self.parents = parents
  }

  /// The lineage after the next change; `id` is fresh and random.
  public func successor(id: Identifier) -> Lineage {
    var line = [current.id]
    line.append(contentsOf: parents.prefix(Lineage.parentCountMax - 1))
    return Lineage(current: Generation(counter: current.counter &+ 1, id: id), parents: line)
  }

  /// Whether the generation `id` is one of the remembered ancestors.
  public func isDescendant(of id: Identifier) -> Bool { parents.contains(id) }
}
