#!/usr/bin/env bash
# The server under a sanitizer of the compiler: under fio, and under the prober.
#
#   Tests/sanitize.sh address|thread [--seconds N] [--filter SUITES]
#
# Builds into .build-address or .build-thread (their own, so that the usual build is left alone).
#   1. fio writes and verifies over six connections for N seconds (60), while legs fail and come back,
#      faults are armed, scrubs run, and every command that shows something is called.
#   2. The suites of `swift test` that match SUITES (the prober, the clients, TLS, starts and ends)
#      run against that server.
# A report of the sanitizer ends it with status 1 and is printed; so does a test that fails, or a scrub
# that finds a difference. Bounds of memory are not checked then (NBDMIRROR_SANITIZED). Needs what Tests/run.sh installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  echo "usage: Tests/sanitize.sh address|thread [--seconds N] [--filter SUITES]" >&2
  exit 2
}

sanitizer=${1:-}
[[ $sanitizer == address || $sanitizer == thread ]] || usage
shift
seconds=60 suites='Prober/|Interop/Encryption|Interop/Clients|Interop/Extension|Interop/Start'
while (($#)); do
  case $1 in
    --seconds) seconds=${2:?} && shift 2 ;;
    --filter) suites=${2:?} && shift 2 ;;
    *) usage ;;
  esac
done

say() { printf '\n== %s (at %d s)\n' "$1" "$SECONDS"; }

say "build with $sanitizer sanitizer"
build=(-c release --product nbdmirror --sanitize="$sanitizer" --scratch-path ".build-$sanitizer")
swift build "${build[@]}" </dev/null
NBDMIRROR_BIN=$(swift build "${build[@]}" --show-bin-path)/nbdmirror
export NBDMIRROR_BIN NBDMIRROR_SANITIZED=1

folder=$(mktemp -d)
server=
cleanup() {
  if [[ -n $server ]]; then kill -9 "$server" 2>/dev/null || true; fi
  rm -rf "$folder"
}
trap cleanup EXIT
export SWIFT_BACKTRACE=enable=no
# Leaks: at its end a server lets the kernel have what it holds.
export ASAN_OPTIONS="log_path=$folder/report:detect_leaks=0:abort_on_error=1:handle_abort=0"
export TSAN_OPTIONS="log_path=$folder/report:halt_on_error=0:exitcode=66:history_size=4"
TSAN_OPTIONS+=":suppressions=$PWD/Tests/Fixtures/thread_sanitizer.supp"

# Fails if there is a report.
check_reports() {
  local reports
  reports=$(find "$folder" -name 'report*')
  [[ -n $reports ]] || return 0
  say "the $sanitizer sanitizer reports"
  # shellcheck disable=SC2086
  head -n 120 $reports
  exit 1
}

admin() { "$NBDMIRROR_BIN" "$@" --control "$folder/control" </dev/null; }

# Until the mirror is whole.
settle() {
  admin fault clear >/dev/null
  for leg in 0 1 2; do admin leg readd "$leg" >/dev/null 2>&1 || true; done
  admin resync wait >/dev/null
}

say "fio for $seconds s"
"$NBDMIRROR_BIN" create lab "$folder"/{a,b,c}.pv --size 96M >/dev/null
"$NBDMIRROR_BIN" serve "$folder"/{a,b,c}.pv --socket "$folder/lab" --control "$folder/control" \
  --threads 2 --leg-timeout 10 >"$folder/server.log" 2>&1 &
server=$!
touch "$folder/server.log"
until grep -q '^ready' "$folder/server.log"; do
  kill -0 "$server" || { cat "$folder/server.log" && check_reports && exit 1; }
  sleep 0.1
done
fio --output="$folder/fio.log" --ioengine=nbd --uri="nbd+unix:///lab?socket=$folder/lab" \
  --size=16M --offset_increment=16M --rate_iops=200,200,200 --numjobs=6 --thread --iodepth=16 --rw=randrw \
  --bsrange=512-128k --blockalign=512 --trim_percentage=5 --fsync=50 \
  --verify=crc32c --verify_backlog=64 --verify_fatal=1 --verify_state_save=0 \
  --time_based --runtime="$seconds" \
  --name=verify >"$folder/fio.err" 2>&1 </dev/null &
fio=$!
round=0
while kill -0 "$fio" 2>/dev/null; do
  leg=$((round++ % 3))
  admin fault add "$leg" delay --op write --delay exp:3ms --for 2 >/dev/null
  admin fault add $(((leg + 1) % 3)) bad-sector --range 1M-1536K >/dev/null
  admin leg fail "$leg" >/dev/null
  for command in status legs connections metrics events 'fault list' 'scrub status' 'resync status'; do
    # shellcheck disable=SC2086
    admin $command >/dev/null
  done
  admin fault add $(((leg + 2) % 3)) error --op read --count 2 >/dev/null
  settle
  admin scrub repair --range 0-24M >/dev/null
  admin scrub wait --timeout 20 >/dev/null 2>&1 || true
  admin scrub stop >/dev/null 2>&1 || true
done
wait "$fio" || { cat "$folder"/fio.{log,err} && check_reports && exit 1; }
settle
admin scrub check >/dev/null
admin scrub wait
admin stop >/dev/null
wait "$server" || {
  cat "$folder/server.log"
  check_reports
  exit 1
}
server=
echo "$round rounds of failing, bringing back, scrubbing"
check_reports

say "tests: $suites"
swift build --build-tests </dev/null
swift test --skip-build --filter "$suites" </dev/null || {
  check_reports
  exit 1
}
check_reports
say "no report"
