// Metadata contexts: what block status can say about a range.
//
// The name of our own has the prefix `x-`, as the specification asks of names that nobody has
// registered.
//
// Source: proto.md, "Metadata querying", "The base: metadata namespace".

/// Contexts that this server knows; a connection selects some of them.
public struct MetaContexts: OptionSet, Equatable, Sendable, BitwiseCopyable {
  /// Bit n: the context with id n + 1.
  public let rawValue: UInt8
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// `base:allocation`: holes and zeros, bits of `AllocationStatus`.
  @inlinable public static var allocation: Self { Self(rawValue: 1 << 0) }
  /// `x-nbdmirror:state`: what the mirror has to make good, bits of the engine's `RegionStatus`.
  @inlinable public static var state: Self { Self(rawValue: 1 << 1) }
  /// All contexts in the order of their ids.
  static let each: [MetaContexts] = [.allocation, .state]

  /// The id of a single context on a connection that selected it.
  @inlinable public var id: UInt32 { UInt32(rawValue.trailingZeroBitCount + 1) }

  /// The name of a single context.
  public var name: String { self == .allocation ? "base:allocation" : "x-nbdmirror:state" }

  /// What a query of `NBD_OPT_SET_META_CONTEXT` selects: a context by its whole name. A
  /// namespace alone selects nothing.
  static func selected(by query: ArraySlice<UInt8>) -> MetaContexts {
    each.first { $0.name.utf8.elementsEqual(query) } ?? []
  }

  /// What a query of `NBD_OPT_LIST_META_CONTEXT` finds: a context, or all of a namespace.
  static func found(by query: ArraySlice<UInt8>) -> MetaContexts {
    guard query.last == UInt8(ascii: ":") else { return selected(by: query) }
    return each.first { $0.name.utf8.starts(with: query) } ?? []
  }
}

/// Bits of `base:allocation`. None set, "there may be data", is always true.
public struct AllocationStatus: OptionSet, Sendable, BitwiseCopyable {
  /// The bits on the wire.
  public let rawValue: UInt32
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// `NBD_STATE_HOLE`: no storage is allocated, a write may find none.
  @inlinable public static var hole: Self { Self(rawValue: 1 << 0) }
  /// `NBD_STATE_ZERO`: reads as zeros.
  @inlinable public static var zero: Self { Self(rawValue: 1 << 1) }
}
