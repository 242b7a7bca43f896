"""A load over libnbd that knows what every block may hold, also after its server was killed.

Usage: verifying_load.py URI SEED BLOCKS CONNECTIONS
Commands on standard input, answers on standard output (`bad ...` when something is wrong):
  load    connect (`working`), then work until the
          server goes away:                            `dead OPS FLUSHES`
  work N  connect, work, leave after N requests:       `done OPS FLUSHES`
  verify  connect, read every block and check it:      `good BLOCKS`
  lost    connect after a power loss, check every
          sector, write every block anew, flush:       `good SECTORS LOST`
  quit    end

The model. The export is BLOCKS blocks of 4 KiB. Each write (also zeroes and trims, which leave zeros)
is one version of every block it covers: it has the times at which it was issued and answered on a
logical clock, and the answer time is open as long as no answer came. A block may hold version v
unless some answered write w of that block was issued after v was answered: then w came after v
for certain. So an answered write survives any kill of the server (the page cache outlives the
process; only a power loss may take back what no flush covered), overlapping writes in flight may
end in either order, and a write without an answer may have happened or not.

Reads narrow that down (no later read takes back what a read returned): when a read that was issued
at t returns v, every other version that was answered before t is older than v from then on. A
write without an answer counts as answered when its connection is known to be dead. A version that
is ruled out while a read is in flight stays possible for that read.

A power loss may take back what no flush covered, sector by sector. A sector may then hold version v
unless some safe write w of that block was issued after v was answered; a write is safe if it was
answered before a flush was issued that was answered, or is itself an answered FUA write. What reads
returned does not count.

Every block of a write carries the write's number and the block's own number in each of its 512-byte
sectors, so that a block in the wrong place or a mixture of two writes is noticed.
"""

import errno
import os
import random
import select
import struct
import sys

import nbd

BLOCK = 4096
OPEN = float("inf")


class Version:
    __slots__ = ("number", "issued", "answered")

    def __init__(self, number, issued, answered=OPEN):
        self.number, self.issued, self.answered = number, issued, answered


def content(number, block):
    """The bytes of a block in a version; version 0 is zeros."""
    if number == 0:
        return bytes(BLOCK)
    sector = struct.pack("<QQ", number, block) * 32
    return sector * 8


class Bad(Exception):
    pass


class Load:
    def __init__(self, uri, seed, blocks, connections):
        self.uri, self.blocks, self.connections = uri, blocks, connections
        self.rng = random.Random(seed)
        self.clock = 0
        self.number = 0
        zero = Version(0, 0, 0)
        self.may_hold = [[zero] for _ in range(blocks)]
        # What a block may hold after a power loss.
        self.may_return = [[zero] for _ in range(blocks)]
        self.readers = [0] * blocks
        self.ruled_out = {}
        self.operations = self.flushes = 0
        self.in_flight = {}

    def tick(self):
        self.clock += 1
        return self.clock

    def issue(self, first, count, zeros):
        if not zeros:
            self.number += 1
        version = Version(0 if zeros else self.number, self.tick())
        for block in range(first, first + count):
            self.may_hold[block].append(version)
            self.may_return[block].append(version)
        self.in_flight[version] = (first, count)
        return version

    def answer(self, version, is_safe):
        version.answered = self.tick()
        first, count = self.in_flight.pop(version)
        for block in range(first, first + count):
            self.rule_out(block, lambda v: v.answered < version.issued)
            if is_safe:
                self.keep(block, version.issued)

    def keep(self, block, issued):
        """A write of the block that was issued at `issued` survives a power loss."""
        self.may_return[block] = [v for v in self.may_return[block] if v.answered >= issued]

    def flushed(self, issued):
        """A flush that was issued at `issued` is answered."""
        for block, versions in enumerate(self.may_return):
            if len(versions) > 1:
                self.keep(block, max(
                    (v.issued for v in versions if v.answered < issued), default=0))

    def rule_out(self, block, older):
        """Forgets the versions that are older for certain, but not for reads in flight."""
        if self.readers[block] > 0:
            now = self.tick()
            late = self.ruled_out.setdefault(block, [])
            late.extend((v, now) for v in self.may_hold[block] if older(v))
        self.may_hold[block] = [v for v in self.may_hold[block] if not older(v)]

    def reads(self, first, count, change):
        for block in range(first, first + count):
            self.readers[block] += change
            if self.readers[block] == 0:
                self.ruled_out.pop(block, None)

    def seen(self, block, data, issued):
        number = struct.unpack_from("<Q", data)[0]
        if data != content(number, block):
            raise Bad(f"block {block} holds a mixture: {bytes(data[::512][:8]).hex()} "
                      f"version {number}, may hold {self.names(block)}")
        late = [v for v, when in self.ruled_out.get(block, ()) if when > issued]
        if not any(v.number == number for v in self.may_hold[block] + late):
            raise Bad(f"block {block} holds version {number}, may hold {self.names(block)}")
        self.rule_out(block, lambda v: v.number != number and v.answered < issued)

    def names(self, block):
        return sorted(v.number for v in self.may_hold[block])

    def connect(self):
        handle = nbd.NBD()
        handle.connect_uri(self.uri)
        return handle

    def start_one(self, handle):
        """Issues one random request; its completion does the book-keeping."""
        rng = self.rng
        kind = rng.random()
        # A quarter of the requests goes to 64 blocks, so that many overlap.
        span = 64 if rng.random() < 0.25 else self.blocks
        count = rng.choice((1, 1, 1, 2, 3, 8, 32))
        first = rng.randrange(span - count + 1)
        if kind < 0.25:
            buffer, issued = nbd.Buffer(count * BLOCK), self.tick()
            self.reads(first, count, 1)

            def read(answered):
                if answered:
                    self.check(first, count, buffer.to_bytearray(), issued)
                self.reads(first, count, -1)
            handle.aio_pread(buffer, first * BLOCK, completion=self.completion("read", read))
            return
        if kind < 0.30:
            begun = self.tick()

            def flushed(answered):
                self.flushes += answered
                if answered:
                    self.flushed(begun)
            handle.aio_flush(completion=self.completion("flush", flushed))
            return
        zeros = kind < 0.40
        fua = nbd.CMD_FLAG_FUA if rng.random() < 0.1 else 0
        version = self.issue(first, count, zeros)

        def written(answered):
            if answered:
                self.answer(version, is_safe=fua != 0)
        completion = self.completion("write", written)
        if zeros and kind < 0.35:
            handle.aio_trim(count * BLOCK, first * BLOCK, completion=completion, flags=fua)
        elif zeros:
            handle.aio_zero(count * BLOCK, first * BLOCK, completion=completion, flags=fua)
        else:
            data = bytearray(b"".join(
                content(version.number, b) for b in range(first, first + count)))
            handle.aio_pwrite(
                nbd.Buffer.from_bytearray(data), first * BLOCK, completion=completion, flags=fua)

    def completion(self, what, body):
        """Calls `body` with whether there was an answer; an exception would only be printed."""
        def run(error):
            try:
                self.operations += 1
                if error.value not in (0, errno.ENOTCONN):
                    raise Bad(f"a {what} failed: {os.strerror(error.value)}")
                body(error.value == 0)
            except Bad as bad:
                self.failure = str(bad)
            return 1
        return run

    def check(self, first, count, data, issued):
        for i in range(count):
            self.seen(first + i, bytes(data[i * BLOCK:(i + 1) * BLOCK]), issued)

    def load(self, requests=OPEN):
        """Works until the server is gone, or until so many requests are answered."""
        self.failure = None
        self.operations = self.flushes = 0
        handles = [self.connect() for _ in range(self.connections)]
        if requests == OPEN:
            print("working", flush=True)

        def dead(handle):
            return handle.aio_is_dead() or handle.aio_is_closed()

        def any_dead():
            return any(dead(h) for h in handles)

        def is_enough():
            return self.operations >= requests

        def is_over():
            return is_enough() and not any(h.aio_in_flight() for h in handles)
        try:
            while not any_dead() and self.failure is None and not is_over():
                poll = select.poll()
                for handle in handles:
                    while handle.aio_in_flight() < 8 and not dead(handle) and not is_enough():
                        self.start_one(handle)
                    events = handle.aio_get_direction()
                    mask = (select.POLLIN if events & nbd.AIO_DIRECTION_READ else 0) | (
                        select.POLLOUT if events & nbd.AIO_DIRECTION_WRITE else 0)
                    if not dead(handle):
                        poll.register(handle.aio_get_fd(), mask)
                ready = dict(poll.poll(1000))
                for handle in handles:
                    if dead(handle):
                        continue
                    events = ready.get(handle.aio_get_fd(), 0)
                    if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                        handle.aio_notify_read()
                    elif events & select.POLLOUT:
                        handle.aio_notify_write()
        except nbd.Error:
            if self.failure is None and not any_dead():
                raise
        if self.failure is None and not any_dead() and is_over():
            for handle in handles:
                handle.shutdown()
            return f"done {self.operations} {self.flushes}"
        if requests != OPEN and self.failure is None:
            self.failure = "the server hung up"
        # What the dead connections had been told already counts; the rest stays open until here.
        for handle in handles:
            try:
                while not dead(handle):
                    handle.poll(1000)
            except nbd.Error:
                pass
        del handles, handle
        if self.failure is not None:
            raise Bad(self.failure)
        now = self.tick()
        for version in list(self.in_flight):
            version.answered = now
        self.in_flight.clear()
        return f"dead {self.operations} {self.flushes}"

    def verify(self):
        handle = self.connect()
        step = 256
        for first in range(0, self.blocks, step):
            count = min(step, self.blocks - first)
            issued = self.tick()
            data = handle.pread(count * BLOCK, first * BLOCK)
            self.check(first, count, data, issued)
        handle.shutdown()
        return f"good {self.blocks}"

    def lost(self):
        handle = self.connect()
        lost = 0
        for block in range(self.blocks):
            data = handle.pread(BLOCK, block * BLOCK)
            for offset in range(0, BLOCK, 512):
                sector = data[offset:offset + 512]
                number = struct.unpack_from("<Q", sector)[0]
                if sector != content(number, block)[offset:offset + 512]:
                    raise Bad(f"block {block} has a sector of nobody: {sector[:16].hex()}")
                if not any(v.number == number for v in self.may_return[block]):
                    raise Bad(
                        f"block {block} holds version {number} at {offset} after a power loss, may "
                        f"hold {sorted(v.number for v in self.may_return[block])}")
                lost += not any(v.number == number for v in self.may_hold[block])
        for block in range(self.blocks):
            version = self.issue(block, 1, False)
            handle.pwrite(content(version.number, block), block * BLOCK)
            self.answer(version, is_safe=False)
        begun = self.tick()
        handle.flush()
        self.flushed(begun)
        handle.shutdown()
        return f"good {self.blocks * (BLOCK // 512)} {lost}"


def main():
    uri, seed, blocks, connections = sys.argv[1], *map(int, sys.argv[2:5])
    load = Load(uri, seed, blocks, connections)
    verbs = {"load": load.load, "work": load.load, "verify": load.verify,
             "lost": load.lost}
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb == "quit":
            return
        try:
            print(verbs[verb](*map(int, arguments)), flush=True)
        except (Bad, nbd.Error) as problem:
            print(f"bad {problem}", flush=True)


main()
