// Plain memory of the simulated world: images of legs and buffers of requests.

import MirrorEngine

/// A fixed number of bytes. Every access is checked.
///
/// One world uses it from one thread; what copies into or out of the engine's scratch memory does so
/// while an effect lends that part of it.
@safe
final class Memory {
  private let base: UnsafeMutableRawPointer
  let count: Int

  convenience init(count: Int) {
    self.init(unfilled: count)
    fill(0, at: 0, count: count)
  }

  /// Holds anything until it is written, for who reads back what it wrote only.
  init(unfilled count: Int) {
    self.count = count
    unsafe base = UnsafeMutableRawPointer.allocate(byteCount: max(count, 8), alignment: 64)
  }

  deinit { unsafe base.deallocate() }

  @inline(__always)
  private func check(_ offset: Int, _ count: Int) {
    precondition(
      offset >= 0 && count >= 0 && offset <= self.count - count, "outside simulated memory")
  }

  func fill(_ byte: UInt8, at offset: Int, count: Int) {
    check(offset, count)
    _ = unsafe (base + offset).initializeMemory(as: UInt8.self, repeating: byte, count: count)
  }

  func copy(from source: Memory, at sourceOffset: Int, to offset: Int, count: Int) {
    source.check(sourceOffset, count)
    check(offset, count)
    unsafe (base + offset).copyMemory(from: source.base + sourceOffset, byteCount: count)
  }

  func copy(from scratch: Scratch, at scratchOffset: Int, to offset: Int, count: Int) {
    check(offset, count)
    precondition(
      scratchOffset >= 0 && scratchOffset <= scratch.count - count, "outside the scratch")
    unsafe (base + offset).copyMemory(from: scratch.base + scratchOffset, byteCount: count)
  }

  func copy(at offset: Int, to scratch: Scratch, at scratchOffset: Int, count: Int) {
    check(offset, count)
    precondition(
      scratchOffset >= 0 && scratchOffset <= scratch.count - count, "outside the scratch")
    unsafe (scratch.base + scratchOffset).copyMemory(from: base + offset, byteCount: count)
  }

  func word(at offset: Int) -> UInt64 {
    check(offset, 8)
    return unsafe base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
  }

  func setWord(_ word: UInt64, at offset: Int) {
    check(offset, 8)
    unsafe base.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
  }

  func byte(at offset: Int) -> UInt8 {
    check(offset, 1)
    return unsafe base.load(fromByteOffset: offset, as: UInt8.self)
  }

  func flip(_ mask: UInt8, at offset: Int) {
    let byte = byte(at: offset)
    unsafe base.storeBytes(of: byte ^ mask, toByteOffset: offset, as: UInt8.self)
  }

  /// Every word of `count` bytes is `word`.
  func isFilled(with word: UInt64, at offset: Int, count: Int) -> Bool {
    check(offset, count)
    var differences: UInt64 = 0
    var position = offset
    let end = offset + count
    while position < end {
      differences |=
        unsafe base.loadUnaligned(fromByteOffset: position, as: UInt64.self) ^ word
      position += 8
    }
    return differences == 0
  }

  /// Writes `word` over `count` bytes.
  func fill(word: UInt64, at offset: Int, count: Int) {
    check(offset, count)
    var position = offset
    let end = offset + count
    while position < end {
      unsafe base.storeBytes(of: word, toByteOffset: position, as: UInt64.self)
      position += 8
    }
  }

  /// A sum over the first word of every `step` bytes.
  func checksum(count: Int, step: Int) -> UInt64 {
    var sum: UInt64 = 0
    for offset in stride(from: 0, to: count, by: step) { sum = sum &* 31 &+ word(at: offset) }
    return sum
  }

  /// Whether both hold the same `count` bytes, a multiple of 8, at `offset`.
  func isEqual(_ other: Memory, at offset: Int, count: Int) -> Bool {
    check(offset, count)
    other.check(offset, count)
    precondition(count & 7 == 0, "whole words")
    // A page at a time: what differs mostly does so at once.
    var begin = offset
    while begin < offset + count {
      let end = min(begin + 4096, offset + count)
      var differences: UInt64 = 0
      for position in stride(from: begin, to: end, by: 8) {
        differences |=
          unsafe base.loadUnaligned(fromByteOffset: position, as: UInt64.self)
          ^ other.base.loadUnaligned(fromByteOffset: position, as: UInt64.self)
      }
      if differences != 0 { return false }
      begin = end
    }
    return true
  }

  func withBytes<Result>(at offset: Int, count: Int, _ body: (RawSpan) -> Result) -> Result {
    check(offset, count)
    // The memory lives as long as `self`, and nobody else uses it meanwhile.
    return body(unsafe RawSpan(_unsafeStart: base + offset, byteCount: count))
  }

  func withMutableBytes(at offset: Int, count: Int, _ body: (inout MutableRawSpan) -> Void) {
    check(offset, count)
    var span = unsafe MutableRawSpan(_unsafeStart: base + offset, byteCount: count)
    body(&span)
  }
}

/// Where the bytes of a write come from.
enum ByteSource {
  case memory(Memory, at: Int)
  case scratch(Scratch, at: Int)
  case zeros

  /// The same bytes from `count` bytes further on.
  func advanced(by count: Int) -> ByteSource {
    switch self {
    case .memory(let memory, let offset): .memory(memory, at: offset + count)
    case .scratch(let scratch, let offset): .scratch(scratch, at: offset + count)
    case .zeros: .zeros
    }
  }

  func copy(to target: Memory, at offset: Int, count: Int) {
    switch self {
    case .memory(let memory, let source):
      target.copy(from: memory, at: source, to: offset, count: count)
    case .scratch(let scratch, let source):
      target.copy(from: scratch, at: source, to: offset, count: count)
    case .zeros: target.fill(0, at: offset, count: count)
    }
  }
}
