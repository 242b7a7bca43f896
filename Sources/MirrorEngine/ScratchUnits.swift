// Which parts of the scratch memory are lent out.
//
// A unit is a copy window (1 MiB) or a small unit (4 KiB: a metadata page, a block of
// read-modify-write). It is counted once for the engine's own use and once per I/O in flight, and
// is free again only at zero: a leg that hangs keeps what it was lent, and nobody writes into it.

struct ScratchUnits: ~Copyable {
  static let windowBytes = 1 << 20
  static let windowCount = 16
  static let smallBytes = 4096
  static let smallCount = 320
  static let count = windowCount + smallCount
  /// Small units that only commits may use: a block of read-modify-write can wait for a log
  /// commit, so it must never hold the last unit that the commit needs.
  static let smallReserved = 96
  static let totalBytes = windowBytes * windowCount + smallBytes * smallCount

  private var users = [Int32](repeating: 0, count: windowCount + smallCount)
  private var freeWindows: [Int32] = (0..<Int32(windowCount)).reversed()
  private var freeSmall: [Int32] =
    (Int32(windowCount)..<Int32(windowCount + smallCount)).reversed()

  var smallFree: Int { freeSmall.count }
  var windowsFree: Int { freeWindows.count }

  static func offset(_ unit: Int32) -> Int {
    let index = Int(unit)
    return index < windowCount
      ? index * windowBytes : windowCount * windowBytes + (index - windowCount) * smallBytes
  }

  /// A free window, counted once; nil if all are lent out.
  mutating func takeWindow() -> Int32? {
    guard let unit = freeWindows.popLast() else { return nil }
    users[Int(unit)] = 1
    return unit
  }

  /// A free small unit, counted once; nil if all are lent out.
  mutating func takeSmall() -> Int32? {
    guard let unit = freeSmall.popLast() else { return nil }
    users[Int(unit)] = 1
    return unit
  }

  mutating func retain(_ unit: Int32) {
    precondition(users[Int(unit)] > 0, "a free unit cannot be lent")
    users[Int(unit)] += 1
  }

  mutating func release(_ unit: Int32) {
    precondition(users[Int(unit)] > 0, "a unit is given back once per use")
    users[Int(unit)] -= 1
    guard users[Int(unit)] == 0 else { return }
    if Int(unit) < ScratchUnits.windowCount {
      freeWindows.append(unit)
    } else {
      freeSmall.append(unit)
    }
  }
}
