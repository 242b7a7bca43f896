// LIST_META_CONTEXT and SET_META_CONTEXT.
//
// Any SET replaces what was selected before, also one that fails: whoever asked for something else
// does not want the old contexts. What it selects holds for the export it named, and there is one
// export: a GO to it by either of its names keeps them.

import Base

extension ServerSession {
  /// Whether the option being read is one of the two.
  var isMetaOption: Bool {
    option == OptionCode.listMetaContext.rawValue || option == OptionCode.setMetaContext.rawValue
  }

  /// A name's length and a number of queries, both zero.
  private static let metaBytesMin = 8

  mutating func beginMetaOption() {
    if option == OptionCode.setMetaContext.rawValue { contexts = [] }
    found = []
    stage = isStructured && optionBytesLeft >= Self.metaBytesMin ? .nameLength : .drain(.invalid)
  }

  /// Second piece: keeps the name, compares the number of queries with what is left.
  mutating func readQueryCount(_ output: inout [UInt8]) -> Progress {
    queriesLeft = buffer.withRawSpan { $0.bigEndianUInt32(at: buffer.count - 4) }
    guard UInt64(queriesLeft) * 4 <= UInt64(optionBytesLeft) else { return reject() }
    name = Array(buffer[4..<(4 + nameBytes)])
    buffer.removeAll(keepingCapacity: true)
    guard !name.contains(0) else { return reject() }
    if queriesLeft == 0, option == OptionCode.listMetaContext.rawValue {
      found = [.allocation, .state]
    }
    return nextQuery(&output)
  }

  private mutating func nextQuery(_ output: inout [UInt8]) -> Progress {
    if queriesLeft > 0 {
      // The number was judged by the shortest queries: those before may have taken their bytes.
      guard UInt64(queriesLeft) * 4 <= UInt64(optionBytesLeft) else { return reject() }
      stage = .queryLength
      return .next
    }
    guard optionBytesLeft == 0 else { return reject() }
    stage = .optionHeader
    return finishMeta(&output)
  }

  /// Compares a query's length with what the option holds.
  mutating func readQueryLength() -> Progress {
    let count = buffer.withRawSpan { $0.bigEndianUInt32(at: 0) }
    buffer.removeAll(keepingCapacity: true)
    guard count <= Limits.stringBytesMax, Int(count) <= optionBytesLeft else { return reject() }
    nameBytes = Int(count)
    stage = .query
    return .next
  }

  /// Looks at a query; what nobody here knows finds nothing.
  mutating func readQuery(_ output: inout [UInt8]) -> Progress {
    let query = buffer[...]
    found.formUnion(
      option == OptionCode.setMetaContext.rawValue
        ? MetaContexts.selected(by: query) : MetaContexts.found(by: query))
    buffer.removeAll(keepingCapacity: true)
    queriesLeft -= 1
    return nextQuery(&output)
  }

  private mutating func finishMeta(_ output: inout [UInt8]) -> Progress {
    guard !isShuttingDown else {
      appendReply(.shuttingDown, to: &output)
      return .next
    }
    guard selectsExport(name) else {
      appendReply(.unknownExport, to: &output)
      return .next
    }
    let selects = option == OptionCode.setMetaContext.rawValue
    for context in MetaContexts.each where found.contains(context) {
      var payload: [UInt8] = []
      payload.append(bigEndian: selects ? context.id : UInt32(0))
      appendReply(.metaContext, payload + context.name.utf8, to: &output)
    }
    if selects { contexts = found }
    appendReply(.ack, to: &output)
    return .next
  }
}
