#!/usr/bin/env bash
# The life of a mirror in five minutes, for real: a file system is copied into a two-leg mirror, a
# leg fails under load and comes back, the server is killed under load and recovers, and in the end
# the file system is whole and both legs are the same, byte by byte.
#
#   Examples/quickstart.sh
#
# Works in a directory of its own, which it deletes, with the server on a unix socket in it. Needs
# root (or sudo) only if a Debian package is missing. NBDMIRROR_BIN=PATH skips the build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(liburing-dev libnbd-dev libgnutls28-dev pkg-config libnbd-bin fio e2fsprogs jq)

step=0
say() { step=$((step + 1)); printf '\n%d. %s\n' "$step" "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
  printf '\nquickstart: %s\n' "$*" >&2
  exit 1
}

# What has to be undone at the end, however it comes.
work=
server=
load=
attached=
mounted=
# Invoked by the trap.
# shellcheck disable=SC2317
cleanup() {
  local status=$?
  trap - EXIT INT TERM
  set +e
  [[ -n $mounted ]] && umount "$work/mnt"
  [[ -n $attached ]] && nbd-client -d /dev/nbd0 >/dev/null
  for pid in $load $server; do
    { kill -9 "$pid" && wait "$pid"; } 2>/dev/null
  done
  if [[ -n $work ]]; then
    ((status != 0)) && tail -n 20 "$work"/*.log >&2
    rm -rf "$work"
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "What is needed"
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  [[ $status == ii* ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  note "installing ${missing[*]}"
  as_root=()
  if ((EUID != 0)); then as_root=(sudo); fi
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -q </dev/null >/dev/null
  "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi
if [[ -z ${NBDMIRROR_BIN:-} ]]; then
  note "building the release binary (a few minutes the first time)"
  release=(-c release --static-swift-stdlib)
  swift build "${release[@]}" --product nbdmirror </dev/null >/dev/null
  NBDMIRROR_BIN=$(swift build "${release[@]}" --show-bin-path)/nbdmirror
fi
note "the server: $(du -h --apparent-size "$NBDMIRROR_BIN" | cut -f1) in one file"

work=$(mktemp -d "${TMPDIR:-/tmp}/quickstart.XXXXXX")
legs=("$work/leg0.pv" "$work/leg1.pv")
uri="nbd+unix:///?socket=$work/nbd.sock"

# admin VERB...: an admin command on this mirror.
admin() { "$NBDMIRROR_BIN" "$@" --control "$work/ctl.sock"; }
# field JQ: a field of the status.
field() { admin status --json | jq -r "$1"; }
# eventually SECONDS COMMAND...: waits until the command succeeds.
eventually() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || die "waited too long for: $*"
    sleep 0.02
  done
}
is_ready() {
  grep -qx ready "$work/server.log" && return
  kill -0 "$server" 2>/dev/null || die "the server ended"
  return 1
}
is_recovered() { [[ $(field .unresolvedRegions) == 0 ]]; }
is_settled() { [[ $(field .dirtyRegions) == 0 ]]; }
is_written_to() { [[ $(field .dirtyRegions) != 0 ]]; }
misses_something() { [[ $(field '.legs[1].staleBytes') != 0 ]]; }
serve() {
  : >"$work/server.log"
  "$NBDMIRROR_BIN" serve "${legs[@]}" --socket "$work/nbd.sock" --control "$work/ctl.sock" \
    "$@" </dev/null >"$work/server.log" 2>&1 &
  server=$!
  eventually 30 is_ready
}
# begin_load SECONDS: verified random reads and writes on the second half of the mirror.
begin_load() {
  fio --name=load --ioengine=nbd --uri="$uri" --rw=randrw --bs=4k --iodepth=16 --offset=128m \
    --size=32m --verify=crc32c --verify_fatal=1 --verify_state_save=0 --time_based \
    --runtime="$1" --rate_iops=2000,2000 </dev/null >"$work/fio.log" 2>&1 &
  load=$!
  eventually 20 is_written_to
}

say "An ext4 file system full of files, as an image of 128 MiB"
mkdir "$work/tree" "$work/mnt"
cp -r Package.swift Sources "$work/tree"
for i in $(seq 20); do head -c 2M /dev/urandom >"$work/tree/random$i"; done
(cd "$work/tree" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$work/sums"
truncate -s 128M "$work/image"
mke2fs -q -F -t ext4 -d "$work/tree" "$work/image"
note "$(wc -l <"$work/sums") files"

say "A mirror of 256 MiB over two legs, served on a unix socket"
"$NBDMIRROR_BIN" create quickstart "${legs[@]}" --size 256M
serve
admin status

say "nbdcopy puts the image in"
nbdcopy --flush "$work/image" "$uri"
note "waiting until the mirror has settled: what was written in the last seconds before a leg fails"
note "counts as missed, because the leg's cache may have died with it"
eventually 30 is_settled

say "Leg 1 fails while fio writes and verifies; fio must not notice"
begin_load 4
admin leg fail 1
eventually 20 misses_something
admin status
wait "$load" || die "fio saw an error while a leg was failed"
load=
note "fio verified everything; state: $(field .state)"
[[ $(field .state) == degraded ]] || die "a mirror with a failed leg should be degraded"

say "Leg 1 comes back and gets only what it missed"
admin leg readd 1
admin resync status
admin resync wait
admin status
copied=$(field .resync.bytesDone)
size=$(field .size)
[[ $(field .state) == healthy ]] || die "the mirror should be healthy again"
note "copied $((copied >> 20)) MiB of $((size >> 20)) MiB"
((copied > 0 && copied < size / 2)) || die "a partial resync should copy less than that"

say "kill -9 under load, and a new start"
begin_load 60
{ kill -9 "$server" && wait "$server"; } 2>/dev/null || true
server=
{ wait "$load"; } 2>/dev/null || true # Its server is gone: this time fio does notice.
load=
serve
eventually 60 is_recovered
admin status

say "The image comes out as it went in"
nbdcopy "$uri" "$work/back"
truncate -s 128M "$work/back"
cmp "$work/image" "$work/back"
e2fsck -fn "$work/back" 2>&1 | tail -n 1 | sed 's/^/   /'

if [[ -b /dev/nbd0 ]] && ((EUID == 0)) && command -v nbd-client >/dev/null; then
  say "The kernel attaches it as /dev/nbd0 and mounts it"
  nbd-client -unix "$work/nbd.sock" /dev/nbd0 >/dev/null
  attached=yes
  mount /dev/nbd0 "$work/mnt"
  mounted=yes
  (cd "$work/mnt" && sha256sum --quiet -c "$work/sums")
  note "$(wc -l <"$work/sums") files have the right checksums"
  umount "$work/mnt"
  mounted=
  nbd-client -d /dev/nbd0 >/dev/null
  attached=
else
  say "Skipped: mounting through the kernel (needs root, nbd-client and /dev/nbd0: modprobe nbd)"
fi

say "A clean stop; both legs byte by byte"
admin stop
wait "$server" || die "the server should stop with exit status 0"
server=
offset0=$("$NBDMIRROR_BIN" examine --json "${legs[0]}" | jq .dataOffset)
offset1=$("$NBDMIRROR_BIN" examine --json "${legs[1]}" | jq .dataOffset)
cmp --ignore-initial="$offset0:$offset1" --bytes="$size" "${legs[@]}"
note "$size bytes are equal"

printf '\nDone in %d s.\n' "$SECONDS"
