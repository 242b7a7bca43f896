// The figures: medians with their median absolute deviations (MAD) over the rounds, and ratios of
// medians. The median and the MAD are not moved by one disturbed round.

/// All samples of one workload on one server.
struct Series: Codable {
  let medium: Medium
  let workload: String
  let contender: Contender
  var samples: [Sample] = []

  /// The median of a figure and the median distance from it.
  func spread(_ figure: (Sample) -> Double) -> (median: Double, mad: Double) {
    let values = samples.map(figure)
    let middle = Self.median(values)
    return (middle, Self.median(values.map { ($0 - middle).magnitude }))
  }

  static func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return .nan }
    let half = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
  }
}

/// Markdown tables of the series of one medium.
enum Report {
  static func markdown(_ series: [Series], medium: Medium, rounds: Int, seconds: Int) -> String {
    let mine = series.filter { $0.medium == medium }
    var lines = [
      "## Legs on \(medium.rawValue): medians of \(rounds) rounds of \(seconds) s (± MAD)", "",
      "| workload | "
        + Contender.allCases.map { "\($0.title): IOPS" }.joined(separator: " | ")
        + " | MB/s | to nbdkit | to qemu |",
      "|---|" + String(repeating: "---:|", count: Contender.allCases.count + 3),
    ]
    for workload in Workload.all {
      let row = rowOf(workload, mine)
      let cells = row.map { series in
        let (median, mad) = series.spread(\.iops)
        return "\(whole(median)) ± \(whole(mad))"
      }
      let megabytes = row.map { whole($0.spread(\.bytesPerSecond).median / 1e6) }
      lines.append(
        "| \(workload.name) | " + cells.joined(separator: " | ")
          + " | \(megabytes.joined(separator: " / ")) | \(ratios(row, \.iops)) |")
    }
    lines += [
      "", "CPU of the server per request, in microseconds (lower is better):", "",
      "| workload | " + Contender.allCases.map(\.title).joined(separator: " | ")
        + " | to nbdkit | to qemu |",
      "|---|" + String(repeating: "---:|", count: Contender.allCases.count + 2),
    ]
    for workload in Workload.all {
      let row = rowOf(workload, mine)
      let cells = row.map { series in
        let (median, mad) = series.spread(\.cpuMicrosecondsPerRequest)
        return "\(fixed(median)) ± \(fixed(mad))"
      }
      lines.append(
        "| \(workload.name) | " + cells.joined(separator: " | ")
          + " | \(ratios(row, \.cpuMicrosecondsPerRequest)) |")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// A row for two servers: both rates, and the first over the other. Ratios are taken within each
  /// round, where both ran one after the other: what the machine did meanwhile they shared.
  static func pairRow(_ name: String, _ first: Series, _ other: Series) -> String {
    let cells = [first, other].map { series in
      let (median, mad) = series.spread(\.iops)
      return "\(whole(median)) ± \(whole(mad))"
    }
    let paired = [\Sample.iops, \.cpuMicrosecondsPerRequest].map { figure in
      let ratios = zip(first.samples, other.samples).map {
        $0[keyPath: figure] / $1[keyPath: figure]
      }
      let middle = Series.median(ratios)
      let mad = Series.median(ratios.map { ($0 - middle).magnitude })
      return "\(fixed(middle))x ± \(fixed(mad))"
    }
    return "| \(name) | \((cells + paired).joined(separator: " | ")) |"
  }

  /// The workload's series in the order of the columns.
  private static func rowOf(_ workload: Workload, _ series: [Series]) -> [Series] {
    Contender.allCases.compactMap { contender in
      series.first { $0.workload == workload.name && $0.contender == contender }
    }
  }

  /// nbdmirror's median over each peer's.
  private static func ratios(_ row: [Series], _ figure: (Sample) -> Double) -> String {
    let medians = row.map { $0.spread(figure).median }
    return medians.dropFirst().map { fixed(medians[0] / $0) + "x" }.joined(separator: " | ")
  }

  private static func whole(_ value: Double) -> String {
    value.isFinite ? "\(Int(value.rounded()))" : "-"
  }

  /// Two decimals.
  private static func fixed(_ value: Double) -> String {
    guard value.isFinite else { return "-" }
    let hundredths = Int((value * 100).rounded())
    let fraction = hundredths % 100
    return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)"
  }
}
