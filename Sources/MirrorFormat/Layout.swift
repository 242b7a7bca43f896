// Where things stand on a PV.
//
//   0                 boot area, 4 KiB: left alone, or one line of text for people
//   4 KiB, 512 KiB    label copies A and B, 4 KiB each
//   mapOffset         region map copy A: pageCount pages of 4 KiB; then copy B, as long
//   dataOffset        the data, sizeBytes long; 1 MiB aligned
//
// Invariants of every Layout that `plan` or `Label.decode` returns:
//  1. blockBytes is 512 or 4096; sizeBytes is a multiple of it and not 0.
//  2. regionBytes is a power of two, 64 KiB to 1 GiB; regionCount is at most regionCountMax.
//  3. label copy B ends <= mapOffset; the map's end <= dataOffset; nothing overflows 2^63.

import Base

/// The places of labels, map and data on a PV; computed once, then stored in the label.
public struct Layout: BitwiseCopyable, Hashable, Sendable {
  /// Size of the exported device.
  public var sizeBytes: UInt64
  /// Size of a region; a power of two.
  public var regionBytes: UInt64
  /// Block size of the exported device: 512 or 4096.
  public var blockBytes: UInt32
  /// First byte of the region map.
  public var mapOffset: UInt64
  /// First byte of the data.
  public var dataOffset: UInt64

  /// Composes a layout without checking it; see `problem`.
  public init(
    sizeBytes: UInt64, regionBytes: UInt64, blockBytes: UInt32, mapOffset: UInt64,
    dataOffset: UInt64
  ) {
    self.sizeBytes = sizeBytes
    self.regionBytes = regionBytes
    self.blockBytes = blockBytes
    self.mapOffset = mapOffset
    self.dataOffset = dataOffset
  }

  /// Bytes of a page of the region map.
  @inlinable public static var pageBytes: Int { 4096 }
  /// Region words in a page.
  @inlinable public static var wordsPerPage: Int { 2032 }
  /// Sequences and generation counters are below this: what goes up by one at a time never gets
  /// there, and whoever reads one can count on.
  @inlinable public static var counterLimit: UInt64 { 1 << 63 }
  /// Whoever starts from a label has as many again before the limit.
  @inlinable public static var counterStartLimit: UInt64 { counterLimit / 2 }
  /// Copies of every label and of every page.
  @inlinable public static var copyCount: Int { 2 }
  /// Smallest region.
  public static let regionBytesMin: UInt64 = 64 * Bytes.kibi
  /// Largest region.
  public static let regionBytesMax: UInt64 = Bytes.gibi
  /// Most regions of a mirror: 32 MiB of words in memory. With 1 GiB regions: 16 PiB.
  public static let regionCountMax = 1 << 24
  /// Most regions that the default region size leads to.
  public static let regionCountDefaultMax = 1 << 18
  /// Where `plan` puts the region map.
  public static let mapOffsetDefault: UInt64 = Bytes.mebi
  /// What the data offset is a multiple of.
  public static let dataAlignment: UInt64 = Bytes.mebi

  /// Offset on the PV of label copy 0 or 1.
  /// - Precondition: `copy` is 0 or 1.
  public static func labelOffset(copy: Int) -> UInt64 {
    precondition(copy == 0 || copy == 1, "a PV has label copies 0 and 1")
    return copy == 0 ? 4 * Bytes.kibi : 512 * Bytes.kibi
  }

  /// Lays out a device of `sizeBytes`.
  ///
  /// Without `regionBytes` the region is the smallest power of two of at least 1 MiB that keeps
  /// the map at or below 262,144 regions.
  public static func plan(
    sizeBytes: UInt64, regionBytes: UInt64?, blockBytes: UInt32
  ) throws(FormatError) -> Layout {
    var region = regionBytes ?? Bytes.mebi
    if regionBytes == nil {
      while region < regionBytesMax && (sizeBytes >> 1) / region >= regionCountDefaultMax / 2
        && (sizeBytes - 1) / region + 1 > regionCountDefaultMax
      {
        region <<= 1
      }
    }
    var layout = Layout(
      sizeBytes: sizeBytes, regionBytes: region, blockBytes: blockBytes,
      mapOffset: mapOffsetDefault, dataOffset: 0)
    if let problem = layout.geometryProblem { throw problem }
    layout.dataOffset = Bytes.alignUp(layout.mapEnd, to: dataAlignment)
    if let problem = layout.problem { throw problem }
    return layout
  }

  /// Number of regions; the last may be shorter.
  @inlinable public var regionCount: Int {
    sizeBytes == 0 ? 0 : Int((sizeBytes - 1) / regionBytes) + 1
  }

  /// Number of pages in each copy of the region map.
  @inlinable public var pageCount: Int {
    (regionCount + Layout.wordsPerPage - 1) / Layout.wordsPerPage
  }

  /// First byte after the region map.
  public var mapEnd: UInt64 {
    mapOffset + UInt64(Layout.copyCount * pageCount * Layout.pageBytes)
  }

  /// Bytes that a PV must have.
  @inlinable public var pvBytes: UInt64 { dataOffset + sizeBytes }

  /// Offset on the PV of copy 0 or 1 of a page: all copies 0 stand together, then all copies 1.
  /// - Precondition: the page exists, `copy` is 0 or 1.
  @inlinable
  public func pageOffset(page: Int, copy: Int) -> UInt64 {
    precondition(page >= 0 && page < pageCount, "a page outside the region map")
    precondition(copy == 0 || copy == 1, "a page has copies 0 and 1")
    return mapOffset + UInt64((copy * pageCount + page) * Layout.pageBytes)
  }

  /// What is wrong with size, block and region, whatever the offsets are.
  private var geometryProblem: FormatError? {
    guard blockBytes == 512 || blockBytes == 4096 else {
      return .badSize("a block of \(blockBytes) bytes is neither 512 nor 4096")
    }
    guard sizeBytes > 0 else { return .badSize("a mirror of 0 bytes is of no use") }
    guard sizeBytes.isMultiple(of: UInt64(blockBytes)) else {
      return .badSize("\(sizeBytes) bytes are not a multiple of the block of \(blockBytes) bytes")
    }
    guard
      regionBytes.nonzeroBitCount == 1, regionBytes >= Layout.regionBytesMin,
      regionBytes <= Layout.regionBytesMax
    else {
      return .badRegionSize(
        "a region of \(regionBytes) bytes is not a power of two from 64 KiB to 1 GiB")
    }
    guard (sizeBytes - 1) / regionBytes < UInt64(Layout.regionCountMax) else {
      return regionBytes == Layout.regionBytesMax
        ? .badSize("\(sizeBytes) bytes are more than the 16 PiB that a mirror can have")
        : .badRegionSize(
          "regions of \(regionBytes) bytes are too small for \(sizeBytes) bytes: at most "
            + "\(Layout.regionCountMax) regions")
    }
    return nil
  }

  /// Which invariant of the file header does not hold; nil if all do. Never traps.
  public var problem: FormatError? {
    if let problem = geometryProblem { return problem }
    let pageBytes = UInt64(Layout.pageBytes)
    let firstFree = Layout.labelOffset(copy: 1) + pageBytes
    let offsetMax: UInt64 = 1 << 56
    guard
      mapOffset >= firstFree, mapOffset < offsetMax, mapOffset.isMultiple(of: pageBytes),
      dataOffset >= mapEnd, dataOffset < offsetMax,
      dataOffset.isMultiple(of: Layout.dataAlignment)
    else {
      return .invalidField("map at \(mapOffset) and data at \(dataOffset) do not fit")
    }
    return nil
  }
}
