// Goal: words become the fault that they say, senseless ones a sentence. Method: every refusal has
// one example; every kind survives the way to text and back.
import Base
import Faults
import Testing

@Suite("Words of faults")
struct FaultWordsTests {
  private func parse(_ words: String) throws -> Fault {
    try Fault.parse(words.split(separator: " ").map(String.init), leg: LegSlot(2))
  }

  @Test("say everything that a fault is")
  func everything() throws {
    let fault = try parse(
      "error --op write --probability 0.01 --range 1G-2G --count 5 --errno ENOSPC --name flaky "
        + "--for 1.5 --seed 9")
    #expect(
      fault
        == Fault(
          name: "flaky", leg: LegSlot(2), operations: .write,
          area: .range(ByteRange(offset: 1 << 30, count: 1 << 30)),
          trigger: .probability(millionths: 10_000), countMax: 5,
          durationNanoseconds: 1_500_000_000, seed: 9, action: .error(errno: 28)))
    #expect(try parse("error --op=read,flush --errno=121").operations == [.read, .flush])
    #expect(try parse("throttle --iops 10 --rate 3M").action.kind == .throttle)
  }

  @Test(
    "come back from the fault that they made",
    arguments: [
      "error --errno EIO", "error --range 512-1K --op write --errno 4000 --probability 0.000001",
      "delay --delay 20ms --probability 1", "delay --delay 10us-1s --nth 3 --count 2",
      "delay --delay exp:1500us --area metadata", "hang --op write --area data --for 60s",
      "bad-sector --range 0-64K --for 1s", "corrupt --op read --bits 3 --seed 7",
      "torn", "torn --sectors 0 --errno EIO", "drop --op flush", "drop --area data",
      "misdirect --to 1M", "misdirect --range 0-4K --op read", "stale-read",
      "full --nth 9 --op write",
      "throttle --iops 5 --rate 64K", "offline --for 2s", "volatile-cache",
    ])
  func roundTrip(words: String) throws {
    let fault = try parse(words)
    #expect(try parse(fault.words) == fault)
  }

  @Test(
    "that make no sense are refused with a sentence",
    arguments: [
      ("", "the kind of the fault is missing"), ("explode", "no fault of kind 'explode'"),
      ("torn --op read", "torn cannot hit a read"), ("drop --op read", "drop cannot hit a read"),
      ("misdirect --op flush", "misdirect cannot hit a flush"),
      ("corrupt --op zero", "corrupt cannot hit a zero"),
      ("error --op trim", "--op 'trim' is no kind of I/O"),
      ("error --probability 1.1", "no number of 0 to 1"),
      ("error --probability -0.1", "no number of 0 to 1"),
      ("error --probability 0", "it never fires"),
      ("error --probability x", "no number of 0 to 1"),
      ("delay --delay 1s --errno EIO", "--errno makes no sense for delay"),
      ("delay", "delay needs --delay"), ("delay --delay 0", "is no delay"),
      ("delay --delay 5ms-5ms", "is no delay"), ("delay --delay 2d", "is no delay"),
      ("delay --delay 90000", "is no delay"),
      ("error --errno EFOO", "is no error of a disk"),
      ("error --errno 11", "is no error of a disk"),
      ("error --errno 4096", "is no error of a disk"),
      ("error --range 5-5", "is no range"), ("error --range 1G", "is no range"),
      ("error --op flush --range 0-1M", "a flush has no place"),
      ("drop --op flush --area data", "a flush has no place"),
      ("error --range 0-1M --area data", "--area beside it"),
      ("error --area labels", "is no area"), ("error --nth 0", "whole number of 1 or more"),
      ("error --count 0", "whole number of 1 or more"),
      ("error --nth 2 --probability 0.5", "exclude each other"),
      ("error --for 0", "is no time"), ("error --for soon", "is no time"),
      ("error --seed -1", "--seed '-1'"), ("error --name a/b", "is no name"),
      ("error --name .", "is no name"), ("error --name", "--name needs a value"),
      ("error --name a --name b", "is given twice"), ("error write", "'write' is not expected"),
      ("error --speed 5", "no option --speed"), ("bad-sector", "needs --range"),
      ("bad-sector --range 0-1K --op write", "bad-sector cannot hit a write"),
      ("bad-sector --range 0-1K --count 3", "--count makes no sense"),
      ("hang --delay 5s", "--delay makes no sense for hang"),
      ("full --op read", "full cannot hit a read"), ("offline --op read", "--op makes no sense"),
      ("offline --range 0-1M", "--range makes no sense for offline"),
      ("misdirect --to 100", "no multiple of 4096"), ("misdirect --area metadata", "no sense"),
      ("corrupt --bits 0", "whole number"), ("corrupt --bits 70000", "at most 65535"),
      ("torn --sectors -1", "no number of sectors"), ("throttle", "needs --iops"),
      ("throttle --rate 0", "is no speed"), ("throttle --iops 0", "whole number"),
      ("volatile-cache --probability 0.5", "makes no sense for volatile-cache"),
      ("error --range 99999999999P-1G", "is no range"),
      // In capitals this letter is two.
      ("error --range 1ß-2G", "is no range"), ("throttle --rate 1ŉ", "is no number of bytes"),
    ])
  func refusals(words: String, sentence: String) {
    do {
      let fault = try parse(words)
      Issue.record("'\(words)' became \(fault)")
    } catch let error as FaultSyntaxError {
      #expect(error.description.contains(sentence), "'\(words)': \(error.description)")
    } catch {
      Issue.record("\(error)")
    }
  }

  @Test("in a file stand one on a line, with comments and a seed")
  func file() throws {
    let file = try FaultFile(
      text: """
        # a bad day
        seed 42

        0 error --op read --count 1   # once
        /srv/b.pv \tdelay --delay 5ms\r
        """)
    #expect(file.seed == 42)
    #expect(file.lines.map(\.leg) == ["0", "/srv/b.pv"])
    #expect(file.lines.map(\.number) == [4, 5])
    #expect(file.lines[0].words == ["error", "--op", "read", "--count", "1"])
    #expect(file.lines[1].words == ["delay", "--delay", "5ms"])
    for (text, sentence) in [
      ("0 error\n1 torn --op read", "line 2: torn cannot hit a read"),
      ("seed x", "line 1: 'seed NUMBER'"), ("seed 1\nseed 2", "line 2"), ("0", "line 1: the kind"),
    ] {
      do {
        _ = try FaultFile(text: text)
        Issue.record("'\(text)' was read")
      } catch {
        #expect(error.description.contains(sentence), "\(error.description)")
      }
    }
  }
}
