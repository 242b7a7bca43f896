// A fault back into words, and files of faults.

import Base

extension FaultOperation {
  /// The word for `--op`.
  public var word: String {
    switch self {
    case .read: "read"
    case .write: "write"
    case .flush: "flush"
    case .zero: "zero"
    }
  }
}

/// Words of faults.
public enum FaultWords {
  /// Whether this can be the name of a fault: it stands in commands and in addresses.
  public static func isName(_ text: String) -> Bool {
    guard !text.isEmpty, text.utf8.count <= 64, text.first != "." else { return false }
    return text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: "-"):
        true
      default: false
      }
    }
  }
}

extension Fault {
  /// The words that `parse` reads as this fault, but for the name.
  public var words: String {
    var words = [action.kind.rawValue]
    func add(_ option: FaultOption, _ value: String) {
      words.append("--\(option.rawValue) \(value)")
    }
    let kind = action.kind
    switch area {
    case .everywhere: break
    case .data: if !kind.isOfDataOnly { add(.area, "data") }
    case .metadata: add(.area, "metadata")
    case .range(let range):
      add(.range, "\(FaultQuantity.text(range.offset))-\(FaultQuantity.text(range.end))")
    }
    var whole = kind.operations
    if area != .everywhere { whole.remove(.flush) }
    let mine = operations.intersection(kind.operations)
    if FaultOption.op.suits(kind), mine != whole {
      let names = FaultOperation.allCases.filter { mine.contains(FaultOperations($0)) }
      add(.op, names.map(\.word).joined(separator: ","))
    }
    addAction(add)
    switch trigger {
    case .always: break
    case .probability(let millionths): add(.probability, FaultQuantity.text(millionths: millionths))
    case .nth(let number): add(.nth, "\(number)")
    }
    if let countMax { add(.count, "\(countMax)") }
    if let durationNanoseconds { add(.for, FaultQuantity.text(nanoseconds: durationNanoseconds)) }
    if let seed { add(.seed, "\(seed)") }
    return words.joined(separator: " ")
  }

  private func addAction(_ add: (FaultOption, String) -> Void) {
    switch action {
    case .error(let errno): add(.errno, ErrnoNames.text(errno))
    case .delay(.fixed(let time)): add(.delay, FaultQuantity.text(nanoseconds: time))
    case .delay(.uniform(let least, let most)):
      add(
        .delay,
        FaultQuantity.text(nanoseconds: least) + "-" + FaultQuantity.text(nanoseconds: most))
    case .delay(.exponential(let mean)): add(.delay, "exp:" + FaultQuantity.text(nanoseconds: mean))
    case .corrupt(let bits): add(.bits, "\(bits)")
    case .torn(let sectors, let errno):
      if let sectors { add(.sectors, "\(sectors)") }
      if errno != 0 { add(.errno, ErrnoNames.text(errno)) }
    case .misdirect(let target): if let target { add(.to, FaultQuantity.text(target)) }
    case .throttle(let operations, let bytes):
      if let operations { add(.iops, "\(operations)") }
      if let bytes { add(.rate, FaultQuantity.text(bytes)) }
    case .hang, .badSector, .drop, .staleRead, .full, .offline, .volatileCache: break
    }
  }
}

/// A file of faults: one on a line, as after `fault add`; `#` begins a comment; `seed NUMBER` sets
/// the seed of all faults that have none of their own.
public struct FaultFile: Equatable, Sendable {
  /// A fault, its leg still as it was written.
  public struct Line: Equatable, Sendable {
    /// Line of the file, from 1.
    public var number: Int
    /// Slot, leg id or path.
    public var leg: String
    /// Kind and options.
    public var words: [String]
  }

  /// The seed, if the file sets one.
  public var seed: UInt64?
  /// The faults in order.
  public var lines: [Line]

  /// Reads a file's text; every line is checked as far as it can be without a mirror.
  public init(text: String) throws(FaultSyntaxError) {
    lines = []
    var number = 0
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      number += 1
      let words = line.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" || $0 == "\r" }
        .map(String.init)
      guard let first = words.first else { continue }
      if first == "seed" {
        guard words.count == 2, let value = UInt64(words[1]), seed == nil else {
          throw FaultSyntaxError("line \(number): 'seed NUMBER' stands once in a file")
        }
        seed = value
        continue
      }
      let rest = Array(words.dropFirst())
      do {
        _ = try Fault.parse(rest, leg: LegSlot(0))
      } catch {
        throw FaultSyntaxError("line \(number): \(error.description)")
      }
      lines.append(Line(number: number, leg: first, words: rest))
    }
  }
}
