// Goal: sizes and offsets are what DESIGN says, and nothing overlaps. Method: boundaries of every
// limit, one below and one above; random sizes.
import Base
import Testing

@testable import MirrorFormat

@Suite("Layout")
struct LayoutTests {
  private func plan(
    _ size: UInt64, region: UInt64? = nil, block: UInt32 = 512
  ) -> Result<Layout, FormatError> {
    do throws(FormatError) {
      return .success(try Layout.plan(sizeBytes: size, regionBytes: region, blockBytes: block))
    } catch {
      return .failure(error)
    }
  }

  @Test("chooses the smallest region of at least 1 MiB with at most 262,144 regions")
  func defaultRegion() throws {
    for (size, region) in [
      (512, Bytes.mebi), (256 * Bytes.gibi, Bytes.mebi), (256 * Bytes.gibi + 512, 2 * Bytes.mebi),
      (512 * Bytes.gibi, 2 * Bytes.mebi), (512 * Bytes.gibi + 512, 4 * Bytes.mebi),
      (Bytes.tebi, 4 * Bytes.mebi), (256 * Bytes.tebi, Bytes.gibi),
      (256 * Bytes.tebi + 512, Bytes.gibi), (1 << 54, Bytes.gibi),
    ] {
      #expect(try plan(size).get().regionBytes == region, "size \(size)")
    }
  }

  @Test("takes region sizes from 64 KiB to 1 GiB that are powers of two")
  func regionLimits() {
    for region in [64 * Bytes.kibi, Bytes.mebi, Bytes.gibi] {
      #expect(plan(Bytes.gibi, region: region).isSuccess)
      #expect(!plan(Bytes.gibi, region: region - 1).isSuccess)
      #expect(!plan(Bytes.gibi, region: region + 1).isSuccess)
    }
    #expect(!plan(Bytes.gibi, region: 32 * Bytes.kibi).isSuccess)
    #expect(!plan(Bytes.gibi, region: 2 * Bytes.gibi).isSuccess)
    #expect(!plan(Bytes.gibi, region: 0).isSuccess)
  }

  @Test("takes sizes that are whole blocks, up to 16,777,216 regions")
  func sizeLimits() {
    #expect(!plan(0).isSuccess)
    #expect(plan(512).isSuccess)
    #expect(!plan(511).isSuccess)
    #expect(!plan(513).isSuccess)
    #expect(!plan(4608, block: 4096).isSuccess)
    #expect(!plan(4096, block: 1024).isSuccess)
    #expect(plan(Bytes.tebi, region: 64 * Bytes.kibi).isSuccess)
    #expect(!plan(Bytes.tebi + 512, region: 64 * Bytes.kibi).isSuccess)
    #expect(!plan((1 << 54) + 512).isSuccess)
    #expect(!plan(UInt64.max & ~511).isSuccess)
    #expect(!plan(1 << 63).isSuccess)
  }

  @Test("puts labels, both copies of every page and the data where nothing overlaps")
  func disjoint() throws {
    var random = PRNG(seed: 21)
    for _ in 0..<200 {
      let size = 4096 * (1 + random.below(1 << UInt64(random.int(in: 1...22))))
      let layout = try plan(size, region: random.chance(1, in: 2) ? nil : 64 * Bytes.kibi).get()
      var ranges = [ByteRange(offset: 0, count: 4096)]
      for copy in 0..<2 {
        ranges.append(ByteRange(offset: Layout.labelOffset(copy: copy), count: 4096))
      }
      for copy in 0..<2 {
        for page in 0..<layout.pageCount {
          ranges.append(
            ByteRange(offset: layout.pageOffset(page: page, copy: copy), count: 4096))
        }
      }
      ranges.append(ByteRange(offset: layout.dataOffset, count: size))
      ranges.sort { $0.offset < $1.offset }
      for (first, second) in zip(ranges, ranges.dropFirst()) {
        #expect(first.end <= second.offset)
      }
      #expect(ranges.last?.end == layout.pvBytes)
      #expect(layout.dataOffset.isMultiple(of: Bytes.mebi))
      #expect(UInt64(layout.regionCount) * layout.regionBytes >= size)
      #expect(UInt64(layout.regionCount - 1) * layout.regionBytes < size)
      #expect(layout.pageCount * Layout.wordsPerPage >= layout.regionCount)
    }
  }

  @Test("finds a problem in offsets that run into each other")
  func problems() throws {
    let good = try plan(Bytes.gibi).get()
    #expect(good.problem == nil)
    for (map, data) in [
      (0, good.dataOffset), (512 * Bytes.kibi, good.dataOffset),
      (good.mapOffset + 1, good.dataOffset),
      (good.mapOffset, good.mapOffset), (good.mapOffset, good.dataOffset + 512),
      (UInt64.max & ~4095, good.dataOffset), (good.mapOffset, UInt64.max & ~(Bytes.mebi - 1)),
    ] {
      var bad = good
      bad.mapOffset = map
      bad.dataOffset = data
      #expect(bad.problem != nil, "map at \(map), data at \(data)")
    }
  }
}
