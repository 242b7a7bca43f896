// The range lock: overlapping writes never run at the same time, in arrival order.
//
// 1. An entry is shared (reads) or exclusive (writes, zeroes, copies). Two entries conflict if they
//    overlap and one is exclusive.
// 2. An entry is granted when no *earlier* conflicting entry is left, whether that one holds the
//    lock or waits: first in, first out, so nobody starves and no cycle can form.
// 3. `blockers` of an operation is the number of earlier conflicting entries, at every moment.
//
// Entries are found by stripes of 1 MiB in a hash table; a chunk of at most 4 MiB stands in up to
// five chains. Longer chunks (zeroes, trims) stand in one list of wide entries which everybody
// scans; it is nearly always empty. A pair that meets in several stripes counts only in the stripe
// where the later of the two begins.

import Base

struct RangeLock: ~Copyable {
  static let stripeShift: UInt64 = 20
  static let stripesPerEntryMax = 5
  static let bucketCount = 1024
  /// Bucket of the wide entries.
  static let wideBucket = bucketCount

  /// A place of an operation in one chain.
  struct Node: BitwiseCopyable {
    var stripe: UInt64 = 0
    var bucket: Int32 = -1
    var previous: Int32 = -1
    var next: Int32 = -1
  }

  /// First node of each chain, then of the wide list.
  private var heads: [Int32]
  private var nodes: [Node]
  private var nextSequence: UInt64 = 1
  /// First and last of all entries, in arrival order, linked through the operations.
  private(set) var first: Int32 = -1
  private var last: Int32 = -1
  private(set) var wideCount = 0
  /// Tests only: nobody waits (`Barrier.rangeLock`, `Barrier.copyUnderLock`).
  var isOpen = false

  init(operations: Int) {
    heads = Array(repeating: -1, count: RangeLock.bucketCount + 1)
    nodes = Array(repeating: Node(), count: operations * RangeLock.stripesPerEntryMax)
  }

  private static func isWide(_ range: ByteRange) -> Bool {
    let stripes = ((range.end - 1) >> stripeShift) - (range.offset >> stripeShift) + 1
    return stripes > UInt64(stripesPerEntryMax)
  }

  private static func bucket(of stripe: UInt64) -> Int {
    // Multiplicative hash: neighbouring stripes go to different chains.
    Int((stripe &* 0x9e37_79b9_7f4a_7c15) >> 54)
  }

  /// Enters operation `index` for its chunk; it is granted at once if this returns true.
  mutating func enter(_ index: Int32, _ operations: inout [Operation]) -> Bool {
    let slot = Int(index)
    let range = operations[slot].chunk
    precondition(range.count > 0, "an empty range cannot be locked")
    if isOpen { return true }
    operations[slot].lockSequence = nextSequence
    nextSequence += 1
    operations[slot].blockers = 0
    operations[slot].previousLocked = last
    operations[slot].nextLocked = -1

    var blockers: Int32 = 0
    if RangeLock.isWide(range) {
      var other = first
      while other >= 0 {
        if RangeLock.conflict(operations[Int(other)], operations[slot]) { blockers += 1 }
        other = operations[Int(other)].nextLocked
      }
      link(index, node: 0, bucket: RangeLock.wideBucket, stripe: 0)
      wideCount += 1
    } else {
      if wideCount > 0 {
        var node = heads[RangeLock.wideBucket]
        while node >= 0 {
          let other = Int(node) / RangeLock.stripesPerEntryMax
          if RangeLock.conflict(operations[other], operations[slot]) { blockers += 1 }
          node = nodes[Int(node)].next
        }
      }
      var stripe = range.offset >> RangeLock.stripeShift
      let end = (range.end - 1) >> RangeLock.stripeShift
      var part = 0
      while stripe <= end {
        let bucket = RangeLock.bucket(of: stripe)
        var node = heads[bucket]
        while node >= 0 {
          let other = Int(node) / RangeLock.stripesPerEntryMax
          if nodes[Int(node)].stripe == stripe, other != slot,
            RangeLock.conflict(operations[other], operations[slot]),
            RangeLock.meets(operations[other].chunk, range, in: stripe)
          {
            blockers += 1
          }
          node = nodes[Int(node)].next
        }
        link(index, node: part, bucket: bucket, stripe: stripe)
        part += 1
        stripe += 1
      }
    }
    if last >= 0 { operations[Int(last)].nextLocked = index } else { first = index }
    last = index
    operations[slot].blockers = blockers
    return blockers == 0
  }

  /// Takes operation `index` out; those that can go on now are pushed to `granted`.
  mutating func leave(
    _ index: Int32, _ operations: inout [Operation], granted: inout FixedFIFO<Int32>
  ) {
    if isOpen { return }
    let slot = Int(index)
    let range = operations[slot].chunk
    if RangeLock.isWide(range) {
      unlink(index, node: 0)
      wideCount -= 1
      var other = operations[slot].nextLocked
      while other >= 0 {
        RangeLock.unblock(other, by: slot, &operations, &granted)
        other = operations[Int(other)].nextLocked
      }
    } else {
      if wideCount > 0 {
        var node = heads[RangeLock.wideBucket]
        while node >= 0 {
          let other = node / Int32(RangeLock.stripesPerEntryMax)
          RangeLock.unblock(other, by: slot, &operations, &granted)
          node = nodes[Int(node)].next
        }
      }
      let firstStripe = range.offset >> RangeLock.stripeShift
      let lastStripe = (range.end - 1) >> RangeLock.stripeShift
      for part in 0...Int(lastStripe - firstStripe) {
        unlink(index, node: part)
        let stripe = firstStripe + UInt64(part)
        var node = heads[RangeLock.bucket(of: stripe)]
        while node >= 0 {
          let other = node / Int32(RangeLock.stripesPerEntryMax)
          if nodes[Int(node)].stripe == stripe,
            RangeLock.meets(operations[Int(other)].chunk, range, in: stripe)
          {
            RangeLock.unblock(other, by: slot, &operations, &granted)
          }
          node = nodes[Int(node)].next
        }
      }
    }
    let previous = operations[slot].previousLocked
    let next = operations[slot].nextLocked
    if previous >= 0 { operations[Int(previous)].nextLocked = next } else { first = next }
    if next >= 0 { operations[Int(next)].previousLocked = previous } else { last = previous }
    operations[slot].previousLocked = -1
    operations[slot].nextLocked = -1
  }

  private static func conflict(_ left: Operation, _ right: Operation) -> Bool {
    (left.isExclusive || right.isExclusive) && left.chunk.overlaps(right.chunk)
  }

  /// Whether `stripe` is the one in which this overlapping pair counts.
  private static func meets(_ left: ByteRange, _ right: ByteRange, in stripe: UInt64) -> Bool {
    max(left.offset, right.offset) >> stripeShift == stripe
  }

  private static func unblock(
    _ other: Int32, by slot: Int, _ operations: inout [Operation],
    _ granted: inout FixedFIFO<Int32>
  ) {
    let index = Int(other)
    guard operations[index].lockSequence > operations[slot].lockSequence,
      conflict(operations[index], operations[slot])
    else { return }
    precondition(operations[index].blockers > 0, "a blocked entry must count its blocker")
    operations[index].blockers -= 1
    if operations[index].blockers == 0 { granted.push(other) }
  }

  private mutating func link(_ index: Int32, node part: Int, bucket: Int, stripe: UInt64) {
    let id = Int(index) * RangeLock.stripesPerEntryMax + part
    let head = heads[bucket]
    nodes[id] = Node(stripe: stripe, bucket: Int32(bucket), previous: -1, next: head)
    if head >= 0 { nodes[Int(head)].previous = Int32(id) }
    heads[bucket] = Int32(id)
  }

  private mutating func unlink(_ index: Int32, node part: Int) {
    let id = Int(index) * RangeLock.stripesPerEntryMax + part
    let node = nodes[id]
    precondition(node.bucket >= 0, "a lock entry is released once")
    if node.previous >= 0 {
      nodes[Int(node.previous)].next = node.next
    } else {
      heads[Int(node.bucket)] = node.next
    }
    if node.next >= 0 { nodes[Int(node.next)].previous = node.previous }
    nodes[id].bucket = -1
  }
}
