#!/usr/bin/env bash
# Fuzzes what takes in bytes of others, with AddressSanitizer.
#
#   Tests/fuzz.sh TARGET [--seconds N] [--seed S] [--merge]
#   Tests/fuzz.sh TARGET --input FILE
#
# TARGET: a folder of Tests/Fixtures/corpus. Builds into .build-fuzz (its own, so that the usual build
# is left alone), then fuzzes for N seconds (60). The seeds are read from the corpus and not written;
# what is new is kept in .build-fuzz/corpus/TARGET and goes on from there the next time. --merge adds
# to the corpus the smallest inputs that reach something new. An input that breaks a property, traps,
# is caught by the sanitizer, or takes too much time or memory, is kept as
# .build-fuzz/TARGET-crash-*, and the exit status is not 0; --input tries one again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

corpus=Tests/Fixtures/corpus
usage() {
  echo "usage: Tests/fuzz.sh TARGET [--seconds N] [--seed S] [--merge] [--input FILE]" >&2
  echo "targets:" $(ls "$corpus") >&2
  exit 2
}

target=${1:-}
[[ -n $target && -d $corpus/$target ]] || usage
shift
seconds=60 seed=0 merge=false input=
while (($#)); do
  case $1 in
    --seconds) seconds=${2:?} && shift 2 ;;
    --seed) seed=${2:?} && shift 2 ;;
    --input) input=${2:?} && shift 2 ;;
    --merge) merge=true && shift ;;
    *) usage ;;
  esac
done

export NBDMIRROR_FUZZ=1 NBDMIRROR_FUZZ_TARGET=$target
build=(-c release --product nbdmirror-fuzz --scratch-path .build-fuzz
  --sanitize=address -Xswiftc -sanitize=fuzzer -Xlinker -z -Xlinker muldefs)
swift build "${build[@]}" </dev/null
fuzzer=$(swift build "${build[@]}" --show-bin-path)/nbdmirror-fuzz

# A trap of Swift is no error of memory: libFuzzer takes it as it is.
export SWIFT_BACKTRACE=enable=no
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=1:detect_leaks=0:handle_abort=0}
limits=(-timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=64 -max_len=1280)
if [[ -n $input ]]; then exec "$fuzzer" "${limits[@]}" "$input"; fi

found=.build-fuzz/corpus/$target
mkdir -p "$found"
"$fuzzer" "${limits[@]}" "-max_total_time=$seconds" "-seed=$seed" -use_value_profile=1 \
  "-dict=Tests/Fixtures/dictionaries/$target.dict" "-artifact_prefix=.build-fuzz/$target-" \
  -print_final_stats=1 "$found" "$corpus/$target" </dev/null

if $merge; then
  before=$(find "$corpus/$target" -type f | wc -l)
  "$fuzzer" "${limits[@]}" -set_cover_merge=1 -use_counters=0 "$corpus/$target" "$found" </dev/null
  after=$(find "$corpus/$target" -type f | wc -l)
  echo "$corpus/$target: $before inputs before, $after now"
fi
