// Goal: what people read is right and fits 80 columns. Method: golden texts, boundaries of every
// number format.
import ControlModel
import Testing

@testable import nbdmirror

@Suite("texts of the admin commands")
struct TextTests {
  @Test("a degraded mirror says what to do")
  func degraded() {
    #expect(
      StatusText.mirror(Samples.degraded) == """
        Name  State         Size  Cpy%Sync  Generation  Reads        Up
        vol0  degraded  5.00 GiB     87.50           7  round-robin  2h 3m

        Slot  State      Stale  Rd-err  Wr-err  Fixed  Path
           0  in-sync      0 B       0       0      0  /srv/a.img
           1  failed   640 MiB       0       3     12  /srv/b c.img

        Resync: idle; the last one copied 64.0 MiB of 64.0 MiB

        ! leg 1 failed: repair its disk, then 'nbdmirror leg readd 1'; for a new disk
          'nbdmirror leg replace 1 PV'

        """)
  }

  @Test("a syncing mirror shows a bar, a rate and an ETA")
  func syncing() {
    #expect(
      StatusText.mirror(Samples.syncing) == """
        Name  State        Size  Cpy%Sync  Generation  Reads        Up
        vol0  syncing  5.00 GiB     87.50           7  round-robin  2h 3m

        Slot  State      Stale  Rd-err  Wr-err  Fixed  Path
           0  in-sync      0 B       0       0      0  /srv/a.img
           1  syncing  640 MiB       0       0      0  /srv/b.img

        Resync: [=======>          ]   40.0%  1.20 GiB of 3.00 GiB  85.0 MiB/s  ETA 0:21

        """)
  }

  @Test("a healthy mirror gives no advice")
  func healthy() {
    #expect(StatusText.advice(Samples.healthy).isEmpty)
    #expect(!StatusText.mirror(Samples.healthy).contains("!"))
  }

  @Test("every line of every state fits 80 columns where the paths do")
  func width() {
    var worst = Samples.syncing
    worst.state = .failed
    worst.name = "a-mirror-18-letter"
    worst.generation = 1234
    worst.uptimeSeconds = 86400 * 400
    worst.unresolvedRegions = 262_144
    worst.resync.paused = true
    worst.scrub = ScrubStatus(
      mode: .check, running: true, bytesDone: 1 << 40, mismatches: 12345)
    worst.legs = LegStatus.State.allCases.enumerated().map { slot, state in
      LegStatus(
        slot: slot, id: "\(slot)", path: "/dev/disk/by-id/abcdef", state: state,
        staleBytes: 999 << 20, readErrors: 99999, writeErrors: 99999, repairedBlocks: 9999)
    }
    for line in StatusText.mirror(worst).split(separator: "\n") {
      #expect(line.count <= 80, "\(line)")
    }
    for sentence in ["leg 0 had", "leg 2 failed", "leg 3 is missing", "the mirror failed"] {
      #expect(StatusText.mirror(worst).contains("! " + sentence))
    }
  }

  @Test("the legs show their caches and latencies")
  func legs() {
    #expect(
      StatusText.legs(Samples.legs) == """
        Slot  State      Stale  Cache   Read us   Write us  Path
           0  in-sync      0 B  direct   82/410  9.50/1200  /srv/a.img
           1  failed   640 MiB  -             -          -  /srv/b c.img

        """)
  }

  @Test("a path cannot command the terminal or break the table")
  func hostilePath() {
    var legs = Samples.legs
    legs[0].path = "/srv/\u{1b}[2J\n\u{202e}gmi.a"
    let text = StatusText.legs(legs)
    #expect(text.contains("/srv/\\u{1b}[2J\\u{a}\\u{202e}gmi.a\n"))
    #expect(text.split(separator: "\n").count == 3)
  }

  @Test("sizes have three digits and binary units up to the largest number")
  func sizes() {
    let table: [(UInt64, String)] = [
      (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1025, "1.00 KiB"),
      (10 * 1024 - 6, "9.99 KiB"), (10 * 1024, "10.0 KiB"), (100 << 10, "100 KiB"),
      (102_340, "99.9 KiB"), (640 << 10, "640 KiB"), ((1 << 20) - 1, "1.00 MiB"),
      (1 << 20, "1.00 MiB"), (5 << 30, "5.00 GiB"), (1 << 40, "1.00 TiB"),
      (1 << 50, "1.00 PiB"), (1 << 60, "1.00 EiB"), (UInt64.max, "16.0 EiB"),
    ]
    for (count, text) in table { #expect(Quantity.bytes(count) == text) }
  }

  @Test("percents are rounded down, so 100 means all")
  func percents() {
    #expect(Quantity.percent(100, digits: 2) == "100.00")
    #expect(Quantity.percent(99.9999, digits: 2) == "99.99")
    #expect(Quantity.percent(5.05, digits: 1) == "5.0")
    #expect(Quantity.percent(0, digits: 0) == "0")
    #expect(Quantity.percent(-1, digits: 2) == "0.00")
    #expect(Quantity.percent(1e300, digits: 2) == "100.00")
    #expect(Quantity.percent(.nan, digits: 2) == "0.00")
  }

  @Test("durations read like a clock, uptimes in two units")
  func durations() {
    let clocks: [(UInt64, String)] = [
      (0, "0:00"), (59, "0:59"), (60, "1:00"), (3599, "59:59"), (3600, "1:00:00"),
      (86399, "23:59:59"), (86400, "1d 00:00:00"), (200_000, "2d 07:33:20"),
    ]
    for (seconds, text) in clocks { #expect(Quantity.clock(seconds: seconds) == text) }
    let spans: [(UInt64, String)] = [
      (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (3600, "1h 0m"), (86399, "23h 59m"),
      (86400, "1d 0h"),
    ]
    for (seconds, text) in spans { #expect(Quantity.span(seconds: seconds) == text) }
  }

  @Test("the bar is empty at 0, full at 100, and gives way where there is no room")
  func bar() {
    var resync = ResyncStatus(running: true, bytesTotal: 100)
    #expect(
      ProgressLine.text(resync, width: 60)
        == "[>               ]    0.0%  0 B of 100 B  0 B/s  ETA unknown")
    resync.bytesDone = 100
    #expect(
      ProgressLine.text(resync, width: 60)
        == "[==============]  100.0%  100 B of 100 B  0 B/s  ETA unknown")
    #expect(ProgressLine.text(resync, width: 40) == "100.0%  100 B of 100 B  0 B/s  ETA unknown")
    resync.bytesDone = 200
    #expect(ProgressLine.share(resync) == 1)
    resync.paused = true
    #expect(ProgressLine.numbers(resync) == "100.0%  200 B of 100 B  paused")
  }

  @Test("away from a terminal progress is at most a line a second, on one it is rewritten")
  func printer() {
    let begin = ContinuousClock.now
    for isTerminal in [false, true] {
      var text = ""
      let printer = ProgressPrinter(isTerminal: isTerminal, width: 80) { text += $0 }
      for tenth in 0...25 {
        let resync = ResyncStatus(
          running: true, bytesDone: UInt64(tenth), bytesTotal: 100, etaSeconds: 1)
        printer.show(resync, at: begin + .milliseconds(100 * tenth))
      }
      printer.finish()
      if isTerminal {
        #expect(text.split(separator: "\r").count == 26)
        #expect(text.hasSuffix("\u{1b}[K\n"))
        #expect(text.filter { $0 == "\n" }.count == 1)
      } else {
        #expect(
          text == """
              0.0%  0 B of 100 B  0 B/s  ETA 0:01
             10.0%  10 B of 100 B  0 B/s  ETA 0:01
             20.0%  20 B of 100 B  0 B/s  ETA 0:01

            """)
      }
    }
  }
}

@Suite("waiting for a resync")
struct ResyncWatchTests {
  private let begin = ContinuousClock.now

  @Test("a mirror with nothing to copy is done; offline legs are named, not waited for")
  func done() {
    var watch = ResyncWatch()
    #expect(
      watch.judge(Samples.degraded, at: begin) == .done("in sync, 64.0 MiB copied; leg 1 is failed")
    )
    var never = Samples.healthy
    never.resync = ResyncStatus()
    #expect(watch.judge(never, at: begin) == .done("in sync"))
  }

  @Test("a running resync, a syncing leg, and regions to recover are waited for")
  func working() {
    var watch = ResyncWatch()
    #expect(watch.judge(Samples.syncing, at: begin) == .working)
    var starting = Samples.syncing
    starting.resync.running = false
    #expect(watch.judge(starting, at: begin) == .working)
    var recovering = Samples.healthy
    recovering.unresolvedRegions = 1
    #expect(watch.judge(recovering, at: begin) == .working)
  }

  @Test("a failed mirror ends the wait")
  func failed() {
    var watch = ResyncWatch()
    var status = Samples.syncing
    status.state = .failed
    #expect(watch.judge(status, at: begin) == .failed("the mirror failed: see 'nbdmirror status'"))
  }

  @Test("stale regions that nobody copies end the wait after a while, progress prolongs it")
  func stuck() {
    var watch = ResyncWatch()
    var status = Samples.syncing
    status.resync.running = false
    #expect(watch.judge(status, at: begin) == .working)
    #expect(watch.judge(status, at: begin + .seconds(1)) == .working)
    #expect(watch.judge(status, at: begin + .seconds(5)) == .working)
    status.legs[1].staleBytes -= 1
    #expect(watch.judge(status, at: begin + .seconds(6)) == .working)
    #expect(watch.judge(status, at: begin + .seconds(7)) == .working)
    #expect(watch.judge(status, at: begin + .milliseconds(11_999)) == .working)
    #expect(
      watch.judge(status, at: begin + .seconds(12))
        == .failed("no resync runs, and not all is in sync: leg 1 has 640 MiB stale"))
  }

  @Test("a paused resync is waited for")
  func paused() {
    var watch = ResyncWatch()
    var status = Samples.syncing
    status.resync.paused = true
    for second in 0..<100 {
      #expect(watch.judge(status, at: begin + .seconds(second)) == .working)
    }
  }
}
