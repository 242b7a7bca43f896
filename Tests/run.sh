#!/usr/bin/env bash
# Everything that a change has to pass, from a fresh clone: packages, format, build, tests.
#
#   Tests/run.sh [arguments of `swift test`, such as --filter InteropTests]
#
# Needs root (or sudo) to install missing Debian packages, and root for the tests that attach loop
# devices. The black-box tests run the release binary; NBDMIRROR_BIN names another one. The output
# ends with the test runner's own summary, and the exit status is the first failure's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# To build: the C libraries. To test: the clients and tools that the server is tried with.
packages=(
  liburing-dev libnbd-dev libgnutls28-dev pkg-config
  libnbd-bin python3-libnbd fio nbdkit qemu-utils nbd-client
  e2fsprogs mount util-linux strace curl gnutls-bin python3-venv systemd
  qemu-system-x86 busybox-static fuse3 libxml2-utils
  user-mode-linux xfsprogs kmod
)

# say TEXT: a heading with the seconds since the begin.
say() { printf '\n== %s (at %d s)\n' "$1" "$SECONDS"; }

as_root=()
if ((EUID != 0)); then as_root=(sudo); fi
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  [[ $status == ii* ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  say "install ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -q </dev/null
  "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
fi

# Not in Debian: it fuzzes the control socket after its own description.
schemathesis=$PWD/.build/schemathesis
if [[ ! -x $schemathesis/bin/schemathesis ]]; then
  say "install schemathesis from PyPI"
  rm -rf "$schemathesis"
  python3 -m venv "$schemathesis"
  "$schemathesis/bin/pip" install -q --disable-pip-version-check 'schemathesis==4.32.5' </dev/null
fi
export NBDMIRROR_SCHEMATHESIS=$schemathesis/bin/schemathesis

# unpack FOLDER PACKAGE: what is in a Debian package, in .build/FOLDER. Nothing of it is installed, and
# nothing started.
unpack() {
  local folder=$PWD/.build/$1 package=$2
  say "unpack $package"
  rm -rf "$folder" "$folder.new"
  mkdir -p "$folder.new"
  (
    cd "$folder.new"
    apt-get download -q "$package" </dev/null || {
      "${as_root[@]}" apt-get update -q </dev/null
      apt-get download -q "$package" </dev/null
    }
    dpkg-deb -x ./*.deb .
    rm ./*.deb
  )
  mv "$folder.new" "$folder"
}

# The package would start a server; only its promtool is wanted.
[[ -x .build/prometheus/usr/bin/promtool ]] || unpack prometheus prometheus
export PROMTOOL=$PWD/.build/prometheus/usr/bin/promtool
# The schemas that virt-xml-validate uses.
[[ -d .build/libvirt ]] || unpack libvirt libvirt0
# A kernel for guests. Installed, it would be this machine's, too.
if [[ ! -d .build/linux ]]; then
  # Old kernels leave the archive: the list of packages has to be new.
  "${as_root[@]}" apt-get update -q </dev/null
  unpack linux "$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" {print $2}')"
fi

say "format"
dirs=()
for dir in Sources Tests Examples; do
  if [[ -n $(find "$dir" -name '*.swift' -print -quit 2>/dev/null) ]]; then dirs+=("$dir"); fi
done
swift format lint --strict -r "${dirs[@]}" Package.swift

say "build, debug, with tests"
swift build --build-tests </dev/null

release=(-c release --static-swift-stdlib)
if [[ -z ${NBDMIRROR_BIN:-} ]]; then
  say "build, release, Swift library linked statically"
  swift build "${release[@]}" --product nbdmirror </dev/null
  NBDMIRROR_BIN=$(swift build "${release[@]}" --show-bin-path)/nbdmirror
fi
export NBDMIRROR_BIN

# Who asks for some of the tests does not want to wait for this.
if (($# == 0)); then
  say "simulate: fresh seeds for 90 s, then without each barrier of the engine in turn"
  swift build "${release[@]}" --product nbdmirror-sim </dev/null
  simulator=$(swift build "${release[@]}" --show-bin-path)/nbdmirror-sim
  "$simulator" --minutes 1.5
  "$simulator" --barriers
fi

say "test"
swift test --skip-build "$@" </dev/null
