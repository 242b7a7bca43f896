"""A seeded trace, done both to an NBD export and to a plain file, which have to stay equal.

Usage: differential.py URI FILE SEED BLOCK CONNECTIONS
BLOCK is the mirror's block size in bytes; FILE is as long as the export and holds what it holds.
Commands on standard input, one answer each on standard output (`done ...`, or `bad ...` and why):
  trace N    N random requests, many at once:  `done BYTES_READ_AND_COMPARED`
  race N     N rounds of overlapping requests: `done REQUESTS`
  compare    reads the whole export twice:     `done BYTES`
  selftest   the judge of the races is judged: `done HISTORIES`
  quit       end

The trace. The requests follow from the seed alone, whatever the server's speed: reads, writes,
zeroes, trims, flushes, FUA, block status, of any size and alignment. A request waits until nothing
that it overlaps is in flight (reads may overlap reads), so the file says exactly what a read has to
return. Two requests in one block that share no byte do run at once: neither may undo the other.
A trim takes whole blocks only; the rest of its range keeps its data.

The races. A few requests that overlap are sent at once over all connections. Afterwards each
stretch of bytes that no request divides is judged alone: some order of the requests that cover it,
which agrees with who was answered before whom was sent, has to explain every read and what the
stretch holds in the end (Wing and Gong's search). Where all requests consist of whole blocks of one
region, one order of the writes has to explain the end of all stretches. Then the file takes over
what the export holds.
"""

import os
import random
import select
import sys

import nbd

DEPTH = 8
MiB = 1 << 20


class Bad(Exception):
    pass


def first_difference(got, expected):
    return next(i for i, (a, b) in enumerate(zip(got, expected)) if a != b)


def explained(history, before):
    """Whether some order explains a stretch.

    history: (issued, answered, is_read, value) of each request; before: what the stretch held.
    """
    count = len(history)
    tried = set()

    def search(done, value):
        if done == (1 << count) - 1:
            return True
        if (done, value) in tried:
            return False
        tried.add((done, value))
        left = [i for i in range(count) if not done >> i & 1]
        soonest = min(history[i][1] for i in left)
        for i in left:
            issued, _, is_read, new = history[i]
            # Someone who is still to come was answered before this one was sent.
            if issued > soonest or is_read and new != value:
                continue
            if search(done | 1 << i, value if is_read else new):
                return True
        return False

    return search(0, before)


def ordered(edges, count):
    """Whether `edges` (earlier, later) of `count` requests have no cycle."""
    waiting = [0] * count
    after = [[] for _ in range(count)]
    for earlier, later in set(edges):
        waiting[later] += 1
        after[earlier].append(later)
    free = [i for i in range(count) if waiting[i] == 0]
    for one in free:
        for later in after[one]:
            waiting[later] -= 1
            if waiting[later] == 0:
                free.append(later)
    return len(free) == count


class Request:
    """A request of a race. `low..<high` is what it changes: less than its range for a trim."""

    def __init__(self, kind, at, data, low, high):
        self.kind, self.at, self.data, self.low, self.high = kind, at, data, low, high
        self.issued = self.answered = None

    def value(self, low, high):
        return bytes(self.data[low - self.at:high - self.at])


class Trace:
    def __init__(self, uri, path, seed, block, connections):
        self.uri, self.block, self.connections = uri, block, connections
        self.rng = random.Random(seed)
        self.file = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.file).st_size
        self.in_flight = []
        self.failure = None
        self.clock = 0
        self.compared = 0

    # What the plain file says.

    def held(self, at, count):
        data = os.pread(self.file, count, at)
        if len(data) != count:
            raise Bad(f"the plain file ends at {at + len(data)}")
        return data

    def hold(self, at, data):
        if os.pwrite(self.file, data, at) != len(data):
            raise Bad("the plain file takes no more")

    def trimmed(self, at, count):
        """The whole blocks of a range."""
        low, high = -(-at // self.block) * self.block, (at + count) // self.block * self.block
        return (low, high) if low < high else (at, at)

    # Connections.

    def connect(self):
        handles = []
        for _ in range(self.connections):
            handle = nbd.NBD()
            handle.set_strict_mode(0)
            handle.add_meta_context("base:allocation")
            handle.connect_uri(self.uri)
            if handle.get_size() != self.size:
                raise Bad(f"the export has {handle.get_size()} bytes, the file {self.size}")
            handles.append(handle)
        # Where the server has no block status a read takes its place in the trace.
        self.tells_status = handles[0].can_meta_context("base:allocation")
        return handles

    def pump(self, handles):
        """Lets the connections send and receive once."""
        poll = select.poll()
        for handle in handles:
            if handle.aio_is_dead() or handle.aio_is_closed():
                raise Bad("the server hung up")
            events = handle.aio_get_direction()
            poll.register(handle.aio_get_fd(), (
                select.POLLIN if events & nbd.AIO_DIRECTION_READ else 0) | (
                select.POLLOUT if events & nbd.AIO_DIRECTION_WRITE else 0))
        ready = dict(poll.poll(60000))
        if not ready:
            raise Bad("no request was answered for a minute")
        for handle in handles:
            events = ready.get(handle.aio_get_fd(), 0)
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                handle.aio_notify_read()
            elif events & select.POLLOUT:
                handle.aio_notify_write()
        if self.failure is not None:
            raise Bad(self.failure)

    def completion(self, what, body):
        """Calls `body` at the answer; an exception in a callback would only be printed."""
        def run(error):
            try:
                if error.value != 0:
                    raise Bad(f"{what} failed: {os.strerror(error.value)}")
                body()
            except Bad as bad:
                self.failure = self.failure or str(bad)
            return 1
        return run

    # The trace.

    def draw_range(self):
        rng, block = self.rng, self.block
        shape = rng.random()
        if shape < 0.55:
            count = rng.choice((1, 1, 2, 8, 8, 16, 31)) * block
        elif shape < 0.95:
            count = rng.randint(1, 3 * block + 700)
        elif shape < 0.995:
            count = rng.randint(1, MiB)
        else:
            count = rng.randint(MiB, 6 * MiB)
        # Half of the requests share a twentieth of the export.
        room = self.size // 20 if rng.random() < 0.5 and count < self.size // 20 else self.size
        at = rng.randrange(room - count + 1)
        if rng.random() < 0.6:
            at -= at % block
        return at, count

    def draw(self):
        kind = self.rng.choices(
            ("read", "write", "zero", "trim", "flush", "status"), (30, 42, 8, 8, 6, 6))[0]
        if kind == "flush":
            return kind, 0, 0, 0, b""
        at, count = self.draw_range()
        flags = 0
        if kind in ("write", "zero", "trim") and self.rng.random() < 0.1:
            flags |= nbd.CMD_FLAG_FUA
        if kind == "zero" and self.rng.random() < 0.5:
            flags |= nbd.CMD_FLAG_NO_HOLE
        return kind, at, count, flags, self.rng.randbytes(count) if kind == "write" else b""

    def collides(self, kind, at, count):
        is_read = kind in ("read", "status")
        return any(
            low < at + count and at < high and not (is_read and other_is_read)
            for low, high, other_is_read in self.in_flight)

    def issue(self, handle, request):
        kind, at, count, flags, data = request
        entry = (at, at + count, kind in ("read", "status"))
        self.in_flight.append(entry)
        what = f"{kind} of {count} bytes at {at}"

        def done(body=lambda: None):
            def run():
                self.in_flight.remove(entry)
                body()
            return self.completion(what, run)
        if kind == "read" or kind == "status" and not self.tells_status:
            buffer = nbd.Buffer(count)

            def check():
                self.check(what, at, bytes(buffer.to_bytearray()))
            handle.aio_pread(buffer, at, completion=done(check))
        elif kind == "write":
            self.hold(at, data)
            handle.aio_pwrite(
                nbd.Buffer.from_bytearray(bytearray(data)), at, completion=done(), flags=flags)
        elif kind == "zero":
            self.hold(at, bytes(count))
            handle.aio_zero(count, at, completion=done(), flags=flags)
        elif kind == "trim":
            low, high = self.trimmed(at, count)
            self.hold(low, bytes(high - low))
            handle.aio_trim(count, at, completion=done(), flags=flags)
        elif kind == "status" and self.tells_status:
            handle.aio_block_status(
                count, at, lambda *told: self.check_status(at, count, *told), completion=done())
        else:
            handle.aio_flush(completion=done())

    def check(self, what, at, got):
        expected = self.held(at, len(got))
        self.compared += len(got)
        if got != expected:
            byte = first_difference(got, expected)
            raise Bad(f"{what}: byte {at + byte} is {got[byte]:#x}, the file's {expected[byte]:#x}")

    def check_status(self, at, count, context, offset, entries, error):
        position = offset
        for length, state in zip(entries[::2], entries[1::2]):
            end = min(position + length, at + count)
            if context == "base:allocation" and state & nbd.STATE_ZERO and end > position:
                if any(self.held(position, end - position)):
                    self.failure = f"block status: {position} to {end} is not zeros"
            position += length
        return 0

    def trace(self, requests):
        handles = self.connect()
        self.compared = 0
        for number in range(requests):
            request = self.draw()
            handle = handles[number % len(handles)]
            while handle.aio_in_flight() >= DEPTH or self.collides(*request[:3]):
                self.pump(handles)
            self.issue(handle, request)
        while self.in_flight:
            self.pump(handles)
        self.close(handles)
        return f"done {self.compared}"

    def close(self, handles):
        for handle in handles:
            handle.shutdown()

    # The races.

    def tick(self):
        self.clock += 1
        return self.clock

    def draw_race(self, low, high, is_whole):
        """Requests in `low..<high`; of whole blocks, or of any bytes."""
        rng, requests = self.rng, []
        fills = rng.sample(range(1, 256), 16)
        unit = self.block if is_whole else 1
        for number in range(rng.randint(4, 10)):
            kind = rng.choices(("write", "read", "zero", "trim"), (60, 26, 7, 7))[0]
            at = low + rng.randrange((high - low) // unit) * unit
            count = min(rng.randint(1, (high - low) // unit) * unit, high - at)
            first, end = self.trimmed(at, count) if kind == "trim" else (at, at + count)
            # No two writes of a race have the same byte at the same place.
            data = bytes(count)
            if kind == "write":
                ramp = bytes((fills[number] + i // 16) % 256 for i in range(high - low))
                data = ramp[at - low:at - low + count]
            requests.append(Request(kind, at, data, first, end))
        return requests

    def send(self, handle, request):
        def answered():
            request.answered = self.tick()
        done = self.completion(f"a racing {request.kind}", answered)
        at, count = request.at, len(request.data)
        request.issued = self.tick()
        if request.kind == "write":
            buffer = nbd.Buffer.from_bytearray(bytearray(request.data))
            handle.aio_pwrite(buffer, at, completion=done)
        elif request.kind == "zero":
            handle.aio_zero(count, at, completion=done)
        elif request.kind == "trim":
            handle.aio_trim(count, at, completion=done)
        else:
            request.buffer = nbd.Buffer(count)
            handle.aio_pread(request.buffer, at, completion=done)

    def finish(self, handles, requests):
        while any(r.answered is None for r in requests):
            self.pump(handles)
        for request in requests:
            if request.kind == "read":
                request.data = bytes(request.buffer.to_bytearray())

    def race(self, rounds):
        handles = self.connect()
        sent = 0
        for _ in range(rounds):
            # A stretch of 16 blocks at most, inside one region of 64 KiB.
            low = self.rng.randrange(self.size // 65536) * 65536
            low += self.rng.randrange(65536 // self.block) // 16 * 16 * self.block
            high = low + min(16 * self.block, 65536)
            is_whole = self.rng.random() < 0.6
            requests = self.draw_race(low, high, is_whole)
            for request in requests:
                self.send(self.rng.choice(handles), request)
            self.finish(handles, requests)
            ends = [Request("read", low, bytes(high - low), low, high) for _ in range(3)]
            for request in ends:
                self.send(self.rng.choice(handles), request)
            self.finish(handles, ends)
            self.judge(requests, ends, self.held(low, high - low), low, high, is_whole)
            self.hold(low, ends[0].data)
            sent += len(requests)
        self.close(handles)
        return f"done {sent}"

    def judge(self, requests, ends, before, low, high, is_whole):
        marks = {low, high}
        for request in requests:
            marks.update((request.low, request.high))
        # A block is what is written at once: nothing larger is promised.
        marks.update(range(low, high, self.block))
        marks = sorted(marks)
        edges = [(i, j) for i, a in enumerate(requests) for j, b in enumerate(requests)
                 if a.answered < b.issued]
        for start, end in zip(marks, marks[1:]):
            covering = [i for i, r in enumerate(requests) if r.low <= start and end <= r.high]
            history = [
                (r.issued, r.answered, r.kind == "read", r.value(start, end))
                for r in [requests[i] for i in covering] + ends]
            if not explained(history, before[start - low:end - low]):
                raise Bad(f"no order explains bytes {start} to {end}: before "
                          f"{before[start - low]:#x}, then " + ", ".join(
                              f"{'read' if is_read else 'written'} {value[0]:#x} [{i}, {a}]"
                              for i, a, is_read, value in history))
            writers = [i for i in covering if requests[i].kind != "read"]
            last = [i for i in writers
                    if requests[i].value(start, end) == ends[0].value(start, end)]
            # Zeroes and trims leave the same bytes: where two could be last nothing is said.
            if is_whole and len(last) == 1:
                edges += [(i, last[0]) for i in writers if i != last[0]]
        if is_whole and not ordered(edges, len(requests)):
            raise Bad(f"no one order explains what the writes left between {low} and {high}")

    # Comparing.

    def compare(self):
        handles = self.connect()
        self.compared = 0
        step = 512 << 10
        for at in range(0, self.size, step):
            count = min(step, self.size - at)
            # Twice, so that a policy that takes the legs in turn shows both.
            for handle in handles[:2]:
                self.check("comparison", at, handle.pread(count, at))
        self.close(handles)
        return f"done {self.compared}"

    def selftest(self):
        """The judge has to tell right histories from wrong ones."""
        a, b, old = b"a", b"b", b"o"
        right = [
            [(1, 4, False, a), (2, 3, False, b), (5, 6, True, a)],
            [(1, 4, False, a), (2, 3, False, b), (5, 6, True, b)],
            [(1, 9, False, a), (2, 3, True, old), (4, 5, True, a), (6, 7, True, a)],
        ]
        wrong = [
            [(1, 2, False, a), (3, 4, False, b), (5, 6, True, a)],  # a later write is undone
            [(1, 2, False, a), (3, 4, True, old)],  # an answered write is not there
            [(1, 9, False, a), (2, 3, True, a), (4, 5, True, old)],  # a read is taken back
            [(1, 4, False, a), (2, 3, False, b), (5, 6, True, a), (7, 8, True, b)],  # legs differ
            [(1, 4, False, a), (2, 3, False, b), (5, 6, True, b"c")],  # from nowhere
        ]
        for history in right:
            if not explained(history, old):
                raise Bad(f"refuses {history}")
        for history in wrong:
            if explained(history, old):
                raise Bad(f"accepts {history}")
        if not ordered([(0, 1), (1, 2), (0, 2)], 3) or ordered([(0, 1), (1, 2), (2, 0)], 3):
            raise Bad("takes a cycle for an order")
        return f"done {len(right) + len(wrong)}"


def main():
    uri, path, *numbers = sys.argv[1:]
    trace = Trace(uri, path, *map(int, numbers))
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb == "quit":
            return
        call = {"trace": trace.trace, "race": trace.race, "compare": trace.compare,
                "selftest": trace.selftest}[verb]
        try:
            print(call(*map(int, arguments)), flush=True)
        except (Bad, nbd.Error) as problem:
            print(f"bad {problem}", flush=True)


main()
