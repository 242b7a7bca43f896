// The words of faults: `error --op write --probability 0.01 --range 1G-2G --count 5 --errno EIO`.
//
// One parser for the command line, the control socket, fault files and the simulator. What makes no
// sense is refused with a sentence that says why.

import Base

/// Why words are no fault.
public struct FaultSyntaxError: Error, Equatable, CustomStringConvertible {
  /// A sentence.
  public var description: String

  init(_ description: String) { self.description = description }
}

/// Options of a fault, by the names they have on the command line (without the dashes).
public enum FaultOption: String, CaseIterable, Sendable {
  /// Kinds of I/O, comma separated: `read`, `write`, `flush`, `zero`, `all`.
  case op
  /// `all`, `data` or `metadata`.
  case area
  /// Bytes of the exported device, `FIRST-END`.
  case range
  /// 0 to 1.
  case probability
  /// The nth I/O, from 1.
  case nth
  /// How often at most.
  case count
  /// For so long.
  case `for`
  /// Seed of what is drawn.
  case seed
  /// Name.
  case name
  /// Error, torn: name or number.
  case errno
  /// Delay: `20ms`, `10ms-50ms`, `exp:20ms`.
  case delay
  /// Corrupt: number of bits.
  case bits
  /// Torn: leading sectors that reach the leg.
  case sectors
  /// Misdirect: offset in the exported device.
  case to
  /// Throttle: operations per second.
  case iops
  /// Throttle: bytes per second.
  case rate

  /// The option of this name.
  public static func named(_ name: String) throws(FaultSyntaxError) -> FaultOption {
    guard let option = FaultOption(rawValue: name) else {
      throw FaultSyntaxError("faults have no option --\(name.prefix(64))")
    }
    return option
  }

  /// Whether faults of this kind take the option.
  public func suits(_ kind: FaultKind) -> Bool {
    switch self {
    case .name: true
    case .op: kind != .offline && kind != .volatileCache
    case .area: kind != .volatileCache && kind != .offline && !kind.isOfDataOnly
    case .range: kind != .volatileCache && kind != .offline
    case .probability, .nth, .count: kind != .volatileCache && kind != .badSector
    case .seed: kind != .volatileCache
    case .for: kind != .volatileCache
    case .errno: kind == .error || kind == .torn
    case .delay: kind == .delay
    case .bits: kind == .corrupt
    case .sectors: kind == .torn
    case .to: kind == .misdirect
    case .iops, .rate: kind == .throttle
    }
  }
}

extension Fault {
  /// Reads a fault from the words after the leg: the kind, then options.
  public static func parse(
    _ words: [String], leg: LegSlot
  ) throws(FaultSyntaxError) -> Fault {
    guard let first = words.first else {
      throw FaultSyntaxError("the kind of the fault is missing: one of \(FaultKind.list)")
    }
    var options: [(FaultOption, String)] = []
    var index = 1
    while index < words.count {
      var word = words[index][...]
      guard word.hasPrefix("--") else {
        throw FaultSyntaxError("'\(word)' is not expected here: options begin with --")
      }
      word = word.dropFirst(2)
      var value: String?
      if let equals = word.firstIndex(of: "=") {
        value = String(word[word.index(after: equals)...])
        word = word[..<equals]
      } else if index + 1 < words.count {
        index += 1
        value = words[index]
      }
      let option = try FaultOption.named(String(word))
      guard let value else { throw FaultSyntaxError("--\(word) needs a value") }
      options.append((option, value))
      index += 1
    }
    return try parse(kind: first, options: options, leg: leg)
  }

  /// Reads a fault from its kind and its options.
  public static func parse(
    kind word: String, options: [(FaultOption, String)], leg: LegSlot
  ) throws(FaultSyntaxError) -> Fault {
    guard let kind = FaultKind(rawValue: word) else {
      throw FaultSyntaxError("there is no fault of kind '\(word)': it is one of \(FaultKind.list)")
    }
    var values = FaultValues(kind: kind)
    for (option, text) in options { try values.set(option, text) }
    return try values.fault(leg: leg)
  }
}

extension FaultKind {
  /// All kinds, for messages.
  public static var list: String { allCases.map(\.rawValue).joined(separator: ", ") }
}

/// The values of options on their way to a fault.
private struct FaultValues {
  let kind: FaultKind
  var texts: [FaultOption: String] = [:]

  init(kind: FaultKind) { self.kind = kind }

  mutating func set(_ option: FaultOption, _ text: String) throws(FaultSyntaxError) {
    guard option.suits(kind) else {
      throw FaultSyntaxError("--\(option.rawValue) makes no sense for \(kind.rawValue)")
    }
    guard texts.updateValue(text, forKey: option) == nil else {
      throw FaultSyntaxError("--\(option.rawValue) is given twice")
    }
  }

  func fault(leg: LegSlot) throws(FaultSyntaxError) -> Fault {
    var fault = Fault(leg: leg, action: try action())
    fault.name = try name()
    fault.operations = try operations()
    fault.area = try area(fault.operations)
    if case .everywhere = fault.area {
    } else {
      fault.operations.remove(.flush)
    }
    fault.trigger = try trigger()
    fault.countMax = try positive(.count)
    if let text = texts[.for] {
      guard let time = FaultQuantity.nanoseconds(text), time > 0 else {
        throw FaultSyntaxError("--for '\(text)' is no time: seconds, or a number with ms or s")
      }
      fault.durationNanoseconds = time
    }
    if let text = texts[.seed] {
      guard let seed = UInt64(text) else {
        throw FaultSyntaxError("--seed '\(text)' is no number of 0 to 2^64 - 1")
      }
      fault.seed = seed
    }
    return fault
  }

  private func name() throws(FaultSyntaxError) -> String {
    guard let name = texts[.name] else { return "" }
    guard FaultWords.isName(name) else {
      throw FaultSyntaxError(
        "--name '\(name)' is no name: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', not '.' first")
    }
    return name
  }

  private func operations() throws(FaultSyntaxError) -> FaultOperations {
    guard let text = texts[.op] else { return kind.operations }
    var result: FaultOperations = []
    for word in text.split(separator: ",", omittingEmptySubsequences: false) {
      if word == "all" {
        result.formUnion(kind.operations)
        continue
      }
      guard let operation = FaultOperation.allCases.first(where: { $0.word == word }) else {
        throw FaultSyntaxError(
          "--op '\(word)' is no kind of I/O: it is read, write, flush, zero or all")
      }
      guard kind.operations.contains(FaultOperations(operation)) else {
        throw FaultSyntaxError("\(kind.rawValue) cannot hit a \(operation.word)")
      }
      result.insert(FaultOperations(operation))
    }
    return result
  }

  private func area(_ operations: FaultOperations) throws(FaultSyntaxError) -> FaultArea {
    if texts[.range] != nil, texts[.area] != nil {
      throw FaultSyntaxError("--range is of the data: --area beside it makes no sense")
    }
    if let text = texts[.range] {
      guard let range = FaultQuantity.range(text) else {
        throw FaultSyntaxError(
          "--range '\(text)' is no range: FIRST-END in bytes, END after FIRST, as in 1G-2G")
      }
      try refuseFlushAlone(operations, "--range")
      return .range(range)
    }
    if kind == .badSector {
      throw FaultSyntaxError("bad-sector needs --range: the sectors that are bad")
    }
    switch texts[.area] {
    case nil, "all": return .everywhere
    case "data":
      try refuseFlushAlone(operations, "--area")
      return .data
    case "metadata":
      try refuseFlushAlone(operations, "--area")
      return .metadata
    case .some(let text):
      throw FaultSyntaxError("--area '\(text)' is no area: it is all, data or metadata")
    }
  }

  private func refuseFlushAlone(
    _ operations: FaultOperations, _ option: String
  ) throws(FaultSyntaxError) {
    if operations == .flush {
      throw FaultSyntaxError("a flush has no place: \(option) makes no sense for --op flush")
    }
  }

  private func trigger() throws(FaultSyntaxError) -> FaultTrigger {
    if texts[.nth] != nil, texts[.probability] != nil {
      throw FaultSyntaxError("--nth and --probability exclude each other")
    }
    if let number = try positive(.nth) { return .nth(number) }
    guard let text = texts[.probability] else { return .always }
    guard let millionths = FaultQuantity.millionths(text), millionths <= 1_000_000 else {
      throw FaultSyntaxError("--probability '\(text)' is no number of 0 to 1")
    }
    guard millionths > 0 else {
      throw FaultSyntaxError("--probability '\(text)': below one in a million it never fires")
    }
    return .probability(millionths: UInt32(millionths))
  }

  private func positive(_ option: FaultOption) throws(FaultSyntaxError) -> UInt64? {
    guard let text = texts[option] else { return nil }
    guard let number = UInt64(text), number > 0 else {
      throw FaultSyntaxError("--\(option.rawValue) '\(text)' is no whole number of 1 or more")
    }
    return number
  }

  private func size(_ option: FaultOption) throws(FaultSyntaxError) -> UInt64? {
    guard let text = texts[option] else { return nil }
    guard let bytes = FaultQuantity.bytes(text) else {
      throw FaultSyntaxError(
        "--\(option.rawValue) '\(text)' is no number of bytes: digits, then K, M, G, T or nothing")
    }
    return bytes
  }

  private func errno() throws(FaultSyntaxError) -> Int32? {
    guard let text = texts[.errno] else { return nil }
    guard let number = ErrnoNames.number(text) else {
      throw FaultSyntaxError(
        "--errno '\(text)' is no error of a disk: a name such as EIO or ENOSPC, or a number of 1 "
          + "to 4095; EINTR and EAGAIN only mean that the I/O is to be done again")
    }
    return number
  }

  private func action() throws(FaultSyntaxError) -> FaultAction {
    switch kind {
    case .error: return .error(errno: try errno() ?? FaultErrno.io)
    case .hang: return .hang
    case .badSector: return .badSector
    case .drop: return .drop
    case .staleRead: return .staleRead
    case .full: return .full
    case .offline: return .offline
    case .volatileCache: return .volatileCache
    case .delay:
      guard let text = texts[.delay] else {
        throw FaultSyntaxError("delay needs --delay: how long, as in 20ms, 10ms-50ms or exp:20ms")
      }
      guard let delay = FaultQuantity.delay(text) else {
        throw FaultSyntaxError(
          "--delay '\(text)' is no delay: a time (20ms, 0.5s), a range (10ms-50ms) or exp:MEAN, "
            + "more than 0 and at most a day")
      }
      return .delay(delay)
    case .corrupt:
      let bits = try positive(.bits) ?? 1
      guard let bits = UInt16(exactly: bits) else {
        throw FaultSyntaxError("--bits is at most 65535")
      }
      return .corrupt(bits: bits)
    case .torn:
      guard let text = texts[.sectors] else {
        return .torn(sectors: nil, errno: try errno() ?? 0)
      }
      guard let sectors = UInt32(text) else {
        throw FaultSyntaxError("--sectors '\(text)' is no number of sectors")
      }
      return .torn(sectors: sectors, errno: try errno() ?? 0)
    case .misdirect:
      let target = try size(.to)
      if let target, target % 4096 != 0 {
        throw FaultSyntaxError("--to \(target) is no multiple of 4096")
      }
      return .misdirect(to: target)
    case .throttle:
      let operations = try positive(.iops)
      let bytes = try size(.rate)
      if operations == nil, bytes == nil {
        throw FaultSyntaxError("throttle needs --iops, --rate (bytes per second), or both")
      }
      if bytes == 0 { throw FaultSyntaxError("--rate 0 is no speed: take hang for that") }
      return .throttle(operationsPerSecond: operations, bytesPerSecond: bytes)
    }
  }
}
