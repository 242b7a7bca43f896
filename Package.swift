// swift-tools-version: 6.2
// The rooms of nbdmirror as targets. Dependencies point downward only; TidyTests checks that the
// imports in the sources agree with what is written here.
import PackageDescription

/// Tests/fuzz.sh sets this: libFuzzer's `main` is linked with sanitizers only.
let isFuzzing = Context.environment["NBDMIRROR_FUZZ"] != nil

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
]
let cStrict: [CSetting] = [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]

/// A room: a library target with the strict settings.
func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

/// A test target named after what it tests.
func tests(
  _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = [],
  resources: [Resource] = []
) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, exclude: exclude, resources: resources,
    swiftSettings: strict)
}

/// What several test targets share; no room of the house.
func testSupport(
  _ name: String, _ dependencies: [Target.Dependency] = [], path: String, exclude: [String] = []
) -> Target {
  .target(
    name: name, dependencies: dependencies, path: path, exclude: exclude, swiftSettings: strict)
}

/// The fuzzer, whose `main` libFuzzer brings along.
let fuzzer: [Target] = [
  .executableTarget(
    name: "nbdmirror-fuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzzer",
    swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])])
]

let package = Package(
  name: "nbdmirror",
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
  ],
  targets: [
    // The cores: no I/O, no clock, no randomness, no await.
    .target(name: "CChecksum", cSettings: cStrict),
    room("Base", ["CChecksum"]),
    room("NBDProtocol", ["Base"]),
    room("MirrorFormat", ["Base"]),
    room("MirrorEngine", ["Base", "MirrorFormat"]),
    room("Faults", ["Base"]),
    room("Netlink", ["Base"]),

    // I/O.
    .target(name: "CRing", cSettings: cStrict, linkerSettings: [.linkedLibrary("uring")]),
    .systemLibrary(name: "CLibNBD", pkgConfig: "libnbd", providers: [.apt(["libnbd-dev"])]),
    room("Ring", ["Base", "CRing"]),
    .target(name: "CLegs", cSettings: cStrict),
    room("Legs", ["Base", "CLegs", "Faults", "MirrorFormat", "Ring"]),
    .target(name: "CTLS", cSettings: cStrict, linkerSettings: [.linkedLibrary("gnutls")]),
    room("TLS", ["CTLS"]),
    room(
      "Server",
      ["Base", "Faults", "Legs", "MirrorEngine", "MirrorFormat", "NBDProtocol", "Ring", "TLS"]),

    // The kernel as a client.
    .target(name: "CNetlink", cSettings: cStrict),
    room("Attach", ["Base", "CNetlink", "NBDProtocol", "Netlink", "Ring"]),

    // Control.
    room("ControlModel"),
    room(
      "ControlPlane",
      [
        "ControlModel",
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ]),

    // The commands.
    .executableTarget(
      name: "nbdmirror",
      dependencies: [
        "Attach", "Base", "ControlModel", "ControlPlane", "Faults", "Legs", "MirrorEngine",
        "MirrorFormat", "NBDProtocol", "Ring", "Server", "TLS",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: strict),

    // The simulator drives the same engine.
    room("Simulator", ["Base", "Faults", "MirrorEngine", "MirrorFormat"]),
    .executableTarget(
      name: "nbdmirror-sim",
      dependencies: [
        "MirrorEngine", "Simulator",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: strict),

    // Compares this server with others in one run; knows it only by its command line.
    .executableTarget(
      name: "nbdmirror-bench",
      dependencies: [.product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: strict),

    tests("BaseTests", ["Base"]),
    tests("FaultsTests", ["Base", "Faults"]),
    tests("SimulationTests", ["MirrorEngine", "Simulator"]),
    tests("MirrorFormatTests", ["Base", "MirrorFormat"]),
    tests("AssemblyTests", ["Base", "MirrorEngine", "MirrorFormat"]),
    tests("PVTests", ["Base", "Legs", "MirrorEngine", "MirrorFormat", "nbdmirror"]),
    tests("RingTests", ["Base", "CRing", "Ring"]),
    tests(
      "ServerTests",
      [
        "Base", "Faults", "Legs", "MirrorEngine", "MirrorFormat", "NBDProtocol", "Ring", "Server",
        "TLS",
      ]),
    tests("MirrorEngineTests", ["Base", "MirrorEngine", "MirrorFormat"]),
    tests("NBDProtocolTests", ["Base", "NBDProtocol"]),
    tests("NetlinkTests", ["Base", "Netlink"]),
    tests("TLSTests", ["Base", "Fixtures", "TLS"]),
    tests("TidyTests", []),
    tests("ControlTests", ["Base", "ControlModel", "ControlPlane", "nbdmirror"]),

    // Black-box tests: the built server, real clients, real kills, real full disks.
    testSupport(
      "Fixtures", path: "Tests/Fixtures",
      exclude: [
        "corpus", "count_allocations.c", "dictionaries", "differential.py", "extended_headers.py",
        "steady_requests.py", "thread_sanitizer.supp", "tls_records.py", "verifying_load.py",
      ]),
    tests("InteropTests", ["Fixtures"]),
    tests("CrashTests", ["Fixtures"]),
    tests("KernelTests", ["Fixtures"], exclude: ["guest.sh", "large_state.c"]),
    tests("DocTests", ["Fixtures"]),
    tests("ProberTests", ["Base", "Fixtures", "TLS"]),
    .testTarget(
      name: "VMTests", dependencies: ["Fixtures"],
      exclude: ["guest-init.sh", "make-initramfs.sh"], swiftSettings: strict),

    // Properties of whatever takes in bytes of others: for the fuzzer, and over its corpus.
    testSupport(
      "FuzzTargets",
      [
        "Base", "ControlModel", "ControlPlane", "Faults", "MirrorEngine", "MirrorFormat",
        "NBDProtocol",
      ], path: "Tests/FuzzTargets"),
    tests("FuzzTests", ["FuzzTargets"]),
  ] + (isFuzzing ? fuzzer : [])
)
