// Promises broken on purpose: proof that the oracle can see them. Tests only.
//
// A mutation changes what the world does with the engine's effects, so that the engine, unchanged,
// runs over a world in which one of its barriers does not exist.

/// A barrier that is taken away.
public enum Mutation: UInt8, CaseIterable, Sendable {
  /// Writes are acked when they are asked for.
  case ackBeforeWrite
  /// Region map pages never reach the leg, and are said to have.
  case dropLogPages
  /// Labels never reach the leg, and are said to have.
  case dropLabels
  /// Flushes succeed and persist nothing.
  case skipFlush
  /// Durable writes stay in the cache.
  case ignoreDurable
  /// Reads of an in-sync leg go to another leg, stale or not.
  case readAnyLeg
  /// Half of the data writes to the second leg are lost.
  case dropWrites
  /// The blocks of read-modify-write are written as they were read.
  case dropMerges
  /// At a start nothing is unresolved: intent is thrown away.
  case forgetIntent
  /// At a start stale bits are thrown away.
  case forgetStale
  /// A request is answered twice.
  case replyTwice
  /// Now and then a request is never answered.
  case loseReply
}
