# What the drills share: a directory of their own, the server, and how the story is told. Sourced.
#
# NBDMIRROR_BIN=PATH names the program; without it `nbdmirror` is taken from PATH.
set -euo pipefail

NBDMIRROR_BIN=${NBDMIRROR_BIN:-$(command -v nbdmirror || true)}
if [[ ! -x $NBDMIRROR_BIN ]]; then
  echo "drill: no nbdmirror in PATH: name it with NBDMIRROR_BIN" >&2
  exit 2
fi
nbdmirror() { "$NBDMIRROR_BIN" "$@"; }

work=$(mktemp -d)
server=
loops=()
# A drill that has more to undo redefines this.
undo() { :; }
# Invoked by the trap.
# shellcheck disable=SC2317
cleanup() {
  local status=$?
  trap - EXIT INT TERM
  set +e
  undo
  if [[ -n $server ]]; then { kill -9 "$server" && wait "$server"; } 2>/dev/null; fi
  for loop in "${loops[@]}"; do losetup -d "$loop"; done
  ((status == 0)) || tail -n 20 "$work"/*.log >&2
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"
uri="nbd+unix:///?socket=$work/data.nbd"

# tell TEXT: the story goes on. try COMMAND...: shows and runs it; its failure ends the drill.
tell() { printf '\n%s\n' "$*" | fold -s -w 78; }
try() {
  printf '  $ %s\n' "${*//$work\//}"
  "$@" 2>&1 | sed 's/^/    /'
}
# refused COMMAND...: shows and runs what has to fail.
refused() {
  printf '  $ %s\n' "${*//$work\//}"
  if "$@" >refusal.txt 2>&1; then
    echo "drill: this should have failed" >&2
    return 1
  fi
  sed 's/^/    /' refusal.txt
}
# expect WHAT COMMAND...: a check, told in one line.
expect() {
  local what=$1
  shift
  if "$@" >check.log 2>&1; then
    printf '  [ok] %s\n' "$what"
  else
    printf '  [FAILED] %s\n' "$what"
    exit 1
  fi
}
done_well() { printf '\nDrill passed.\n'; }

# admin VERB...: an admin command, shown as it is typed.
admin() { try nbdmirror "$@" --control data.ctl; }
status_has() { nbdmirror status --control data.ctl --json | tr -d ' \n' | grep -q "$1"; }
wait_until() {
  local deadline=$((SECONDS + 30))
  until "$@"; do
    ((SECONDS < deadline)) || { echo "drill: waited in vain for: $*" >&2; return 1; }
    sleep 0.1
  done
}
# begin PV... [OPTION...]: serves in the background until `end`.
begin() {
  printf '  $ nbdmirror serve %s --socket data.nbd --control data.ctl &\n' "${*//$work\//}"
  : >serve.log  # Here: the child may be late, and the last server's `ready` still stand there.
  # Not by the function: the process id has to be the server's.
  "$NBDMIRROR_BIN" serve "$@" --socket "$work/data.nbd" --control "$work/data.ctl" \
    >serve.log 2>>journal.log &
  server=$!
  wait_until is_ready
}
is_ready() {
  kill -0 "$server" 2>/dev/null || { echo "drill: the server ended" >&2; exit 1; }
  grep -qx ready serve.log
}
end() {
  admin stop
  wait "$server"
  server=
}
# What clients see now, in a file.
copy_out() { rm -f "$1" && nbdcopy "$uri" "$1"; }
# Debian's nbdsh belongs to Debian's Python.
nbdsh() { /usr/bin/python3 -m nbd "$@"; }
# put TEXT OFFSET: a client writes 4 KiB of a text of 16 bytes. has TEXT OFFSET: whether it is there.
put() { try nbdsh -u "$uri" -c "h.pwrite(b'$1' * 256, $2); h.flush()"; }
has() { nbdsh -u "$uri" -c "assert h.pread(4096, $2) == b'$1' * 256"; }

# disk FILE BYTES: a block device over a file, which can be cut off and plugged in again; in $disk.
disk() {
  truncate -s "$2" "$1"
  disk=$(losetup --find --show "$1")
  loops+=("$disk")
}
cut_off() {
  cp --sparse=always "$1" "$1.kept"
  truncate -s 0 "$1"
  losetup -c "$disk"
}
plug_in() {
  cp --sparse=always "$1.kept" "$1"
  losetup -c "$disk"
}
