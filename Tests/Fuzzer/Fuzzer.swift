// The fuzzer: libFuzzer around one of the targets.
//
// libFuzzer brings a `main`, and the package manager wants an executable to have one of its own.
// Whichever the linker takes (Tests/fuzz.sh allows both) runs libFuzzer's driver.
//
//   NBDMIRROR_FUZZ_TARGET   which target: a name of `FuzzTarget`
//
// Built by Tests/fuzz.sh only: Package.swift knows it if NBDMIRROR_FUZZ is set.

import FuzzTargets
import Glibc

/// The target that the environment names.
private let target: FuzzTarget = {
  let name = unsafe getenv("NBDMIRROR_FUZZ_TARGET").map { unsafe String(cString: $0) }
  guard let target = name.flatMap(FuzzTarget.init) else {
    fatalError("NBDMIRROR_FUZZ_TARGET is none of \(FuzzTarget.allCases.map(\.rawValue))")
  }
  return target
}()

/// libFuzzer's driver.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ count: UnsafeMutablePointer<Int32>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ testOneInput: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
) -> Int32

/// Tries one input; libFuzzer keeps inputs that end the process.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  // libFuzzer lends `count` bytes for the time of the call.
  let input = unsafe Array(UnsafeBufferPointer(start: start, count: count))
  do throws(FuzzProblem) {
    try target.run(input)
  } catch {
    fatalError("\(target.rawValue): \(error)")
  }
  return 0
}

@main
struct Fuzzer {
  static func main() {
    var count = CommandLine.argc
    var arguments = unsafe CommandLine.unsafeArgv
    // Both live as long as the driver runs.
    exit(unsafe runDriver(&count, &arguments) { unsafe testOneInput($0, $1) })
  }
}
