// swift-tools-version: 6.2
// The rooms of nbdmirror as targets. Dependencies point downward only; TidyTests checks that the
// imports in the sources agree with what is written here.
import PackageDescription

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
  _ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []
) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
}

let package = Package(
  name: "nbdmirror",
  targets: [
    // The cores: no I/O, no clock, no randomness, no await.
    .target(name: "CChecksum", cSettings: cStrict),
    room("Base", ["CChecksum"]),
    room("NBDProtocol", ["Base"]),
    room("MirrorFormat", ["Base"]),
    room("MirrorEngine", ["Base", "MirrorFormat"]),
    room("Faults", ["Base"]),

    // I/O.
    .target(name: "CRing", cSettings: cStrict, linkerSettings: [.linkedLibrary("uring")]),
    .systemLibrary(name: "CLibNBD", pkgConfig: "libnbd", providers: [.apt(["libnbd-dev"])]),
    room("Ring", ["Base", "CRing"]),
    .target(name: "CLegs", cSettings: cStrict),
    room("Legs", ["Base", "CLegs", "Faults", "MirrorFormat", "Ring"]),
    .target(name: "CTLS", cSettings: cStrict, linkerSettings: [.linkedLibrary("gnutls")]),
    room("TLS", ["CTLS"]),
    room("Server", ["Base", "Legs", "MirrorEngine", "MirrorFormat", "NBDProtocol", "Ring", "TLS"]),

    // Control.
    room("ControlModel"),
    room("ControlPlane", ["ControlModel"]),

    // The simulator drives the same engine.
    room("Simulator", ["Base", "Faults", "MirrorEngine", "MirrorFormat"]),

    tests("BaseTests", ["Base"]),
    tests("MirrorEngineTests", ["Base", "MirrorEngine", "MirrorFormat"]),
    tests("NBDProtocolTests", ["Base", "NBDProtocol"]),
    tests("TLSTests", ["Base", "TLS"]),
    tests("TidyTests", []),
  ]
)
