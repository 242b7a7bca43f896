#!/usr/bin/env bash
# Drill: both legs were started separately and went on alone; the administrator decides.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tell "A mirror of two disks; then the machines that see them lose sight of each other."
try nbdmirror create data a.pv b.pv --size 64M
begin a.pv b.pv
put common-history-- 0
end
tell "Somebody starts leg a alone, and it is written to ..."
begin a.pv --degraded
put written-on-leg-a 1048576
end
tell "... and somebody else starts leg b alone, and it is written to as well."
begin b.pv --degraded
put written-on-leg-b 1048576
end

tell "Together they cannot be served: no machine knows whose data counts. Both histories are told."
refused nbdmirror serve a.pv b.pv --socket data.nbd --control data.ctl
try nbdmirror explain a.pv b.pv

tell "The administrator looks at what each leg has. First b, without writing anything to it:"
cp b.pv b.pv.kept
begin b.pv --degraded --read-only
expect "leg b has its own write" has written-on-leg-b 1048576
end
tell "Leg a is kept; b is overwritten with it (a copy of b was made before, in b.pv.kept)."
begin a.pv b.pv --choose-leg a.pv
admin resync wait --timeout 60
wait_until status_has '"state":"healthy"'
admin status
expect "the common history is there" has common-history-- 0
expect "what was written on a is there" has written-on-leg-a 1048576
end
tell "The choice is recorded: the next start does not ask again."
begin a.pv b.pv
expect "leg a's history is served" has written-on-leg-a 1048576
admin scrub check
admin scrub wait
end
done_well
