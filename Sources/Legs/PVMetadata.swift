// Labels and region map of an open PV, by blocking I/O.
//
// Every transfer is 4 KiB or a multiple, at a multiple of 4 KiB, from aligned memory: right for
// direct and buffered I/O alike. A sector that cannot be read counts as an invalid copy: the
// other copy, or another leg, may have what is needed.

import Base
import Glibc
import MirrorFormat

extension PVFile {
  private static let chunkBytes = 1 << 20

  /// Reads both label copies and elects; the failure says why there is no label to go by.
  public func readLabel() -> Result<ElectedLabel, FormatError> {
    Election.label(readLabel(copy: 0), readLabel(copy: 1))
  }

  /// Reads one label copy.
  /// - Precondition: `copy` is 0 or 1.
  public func readLabel(copy: Int) -> Result<Label, FormatError> {
    var buffer = PVBuffer(count: Label.byteCount)
    let offset = Layout.labelOffset(copy: copy)
    let got = read(into: &buffer, count: Label.byteCount, offset: offset)
    guard got >= 0 else { return .failure(.unreadable(errno: -Int32(got))) }
    return buffer.withBytes(0..<got) { bytes in
      do throws(FormatError) {
        return .success(try Label.decode(bytes))
      } catch {
        return .failure(error)
      }
    }
  }

  /// Reads all pages of the region map, both copies.
  public func readMap(layout: Layout, setId: Identifier) -> LegMap {
    var map = LegMap(layout: layout)
    var buffer = PVBuffer(count: PVFile.chunkBytes)
    let pagesPerChunk = PVFile.chunkBytes / Layout.pageBytes
    for copy in 0..<Layout.copyCount {
      var first = 0
      while first < layout.pageCount {
        let pages = min(pagesPerChunk, layout.pageCount - first)
        readPages(first..<(first + pages), copy: copy, layout, setId, &buffer, into: &map)
        first += pages
      }
    }
    return map
  }

  private func readPages(
    _ pages: Range<Int>, copy: Int, _ layout: Layout, _ setId: Identifier,
    _ buffer: inout PVBuffer, into map: inout LegMap
  ) {
    let count = pages.count * Layout.pageBytes
    let offset = layout.pageOffset(page: pages.lowerBound, copy: copy)
    if read(into: &buffer, count: count, offset: offset) == count {
      for page in pages {
        let start = (page - pages.lowerBound) * Layout.pageBytes
        buffer.withBytes(start..<(start + Layout.pageBytes)) {
          map.read(page: page, copy: copy, bytes: $0, setId: setId)
        }
      }
      return
    }
    // A bad sector somewhere: page by page.
    for page in pages {
      let offset = layout.pageOffset(page: page, copy: copy)
      guard
        read(into: &buffer, count: Layout.pageBytes, offset: offset) == Layout.pageBytes
      else { continue }
      buffer.withBytes(0..<Layout.pageBytes) {
        map.read(page: page, copy: copy, bytes: $0, setId: setId)
      }
    }
  }

  /// Writes a label copy and makes it durable.
  /// - Precondition: opened for writing; `copy` is 0 or 1.
  public func write(label: Label, copy: Int) throws(PVError) {
    var buffer = PVBuffer(count: Label.byteCount)
    buffer.withMutableBytes(0..<Label.byteCount) { label.encode(into: &$0) }
    try write(buffer, count: Label.byteCount, offset: Layout.labelOffset(copy: copy))
    try flush()
  }

  /// Writes the whole region map, every word being `word`: copy 1 with sequence 1, copy 0 with
  /// sequence 2. Not durable before `flush`.
  /// - Precondition: opened for writing.
  public func writeMap(
    layout: Layout, setId: Identifier, word: UInt16
  ) throws(PVError) {
    let words = Array(repeating: word, count: layout.regionCount)
    var buffer = PVBuffer(count: PVFile.chunkBytes)
    for copy in 0..<Layout.copyCount {
      var page = 0
      while page < layout.pageCount {
        let first = page
        var used = 0
        while page < layout.pageCount && used < PVFile.chunkBytes {
          buffer.withMutableBytes(used..<(used + Layout.pageBytes)) {
            RegionMapPage.encode(
              page: page, sequence: UInt64(2 - copy), setId: setId, words: words,
              firstWord: page * Layout.wordsPerPage, into: &$0)
          }
          used += Layout.pageBytes
          page += 1
        }
        try write(buffer, count: used, offset: layout.pageOffset(page: first, copy: copy))
      }
    }
  }

  /// fdatasync.
  public func flush() throws(PVError) {
    guard fdatasync(fileDescriptor) == 0 else {
      throw .io(path: path, operation: "flush", offset: 0, errno: errno)
    }
  }

  /// Reads up to `count` bytes into the buffer's start; fewer at the end of the PV. A negative
  /// result is an errno.
  func read(into buffer: inout PVBuffer, count: Int, offset: UInt64) -> Int {
    precondition(count <= buffer.count, "a read beyond its buffer")
    var done = 0
    while done < count {
      // Reads into the buffer's own memory, inside its bounds.
      let got = unsafe pread(
        fileDescriptor, buffer.address + done, count - done, off_t(offset) + off_t(done))
      if got == 0 { break }
      if got < 0 {
        if errno == EINTR { continue }
        return -Int(errno)
      }
      done += got
      // A direct read that ended short of its block ended at the end of the file.
      if !done.isMultiple(of: 512) { break }
    }
    return done
  }

  /// Writes the buffer's first `count` bytes.
  func write(_ buffer: borrowing PVBuffer, count: Int, offset: UInt64) throws(PVError) {
    precondition(count <= buffer.count, "a write beyond its buffer")
    var done = 0
    while done < count {
      // Writes from the buffer's own memory, inside its bounds.
      let put = unsafe pwrite(
        fileDescriptor, buffer.address + done, count - done, off_t(offset) + off_t(done))
      if put < 0 && errno == EINTR { continue }
      guard put > 0 else {
        let code = put == 0 ? ENOSPC : errno
        throw .io(
          path: path, operation: "write", offset: offset + UInt64(done), errno: code)
      }
      done += put
    }
  }
}
