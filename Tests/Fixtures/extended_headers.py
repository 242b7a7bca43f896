"""Speaks NBD with extended headers, which no client of Debian 12 does: requests beyond 32 bits, block status
in 64 bits and of named contexts, payloads where none belong.

Usage: extended_headers.py SOCKET
The export has at least 6 GiB and reads as zeros. Ends with status 0 if all is as it should be.
"""
import random
import socket
import struct
import sys

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST, PAYLOAD = (1 << bit for bit in range(6))
NONE, DATA, HOLE, STATUS_EXTENDED, ERROR = 0, 1, 2, 6, 0x8001
GiB = 1 << 30

sock = socket.socket(socket.AF_UNIX)
sock.settimeout(60)
sock.connect(sys.argv[1])


def exactly(count):
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(count - len(parts))
        assert part, "the connection ended"
        parts += part
    return bytes(parts)


def option(code, data=b""):
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", code, len(data)) + data)
    replies = []
    while True:
        magic, got, kind, count = struct.unpack(">QIII", exactly(20))
        assert magic == 0x3E889045565A9 and got == code
        replies.append((kind, exactly(count)))
        if kind == 1 or kind >> 31:
            return replies


def send(kind, offset=0, count=0, flags=0, payload=b""):
    global cookie
    cookie += 1
    sock.sendall(struct.pack(">IHHQQQ", 0x21E41C71, flags, kind, cookie, offset, count) + payload)
    return cookie


def chunks(name, offset):
    """The chunks of the reply to a request, as (type, payload)."""
    found = []
    while True:
        magic, flags, kind, got, at, count = struct.unpack(">IHHQQQ", exactly(32))
        assert magic == 0x6E8A278C and got == name and at == offset, (hex(magic), got, at)
        found.append((kind, exactly(count)))
        if flags & 1:
            return found


def ask(kind, offset=0, count=0, flags=0, payload=b""):
    return chunks(send(kind, offset, count, flags, payload), offset)


def done(*request, **more):
    reply = ask(*request, **more)
    assert reply == [(NONE, b"")], reply


def refused(error, *request, **more):
    ((kind, payload),) = ask(*request, **more)
    assert kind == ERROR and struct.unpack(">I", payload[:4]) == (error,), (kind, payload)


def read(offset, count):
    ((kind, payload),) = ask(READ, offset, count)
    assert struct.unpack(">Q", payload[:8]) == (offset,)
    if kind == HOLE:
        assert struct.unpack(">I", payload[8:]) == (count,)
        return bytes(count)
    assert kind == DATA and len(payload) == 8 + count
    return payload[8:]


def status(offset, count, flags=0, ids=None):
    """The extents of each context by its id."""
    if ids is None:
        reply = ask(STATUS, offset, count, flags)
    else:
        named = struct.pack(f">Q{len(ids)}I", count, *ids)
        reply = ask(STATUS, offset, len(named), flags | PAYLOAD, named)
    found = {}
    for kind, payload in reply:
        assert kind == STATUS_EXTENDED
        name, entries = struct.unpack(">II", payload[:8])
        assert len(payload) == 8 + 16 * entries and name not in found
        found[name] = list(struct.iter_unpack(">QQ", payload[8:]))
    return found


cookie = 0
exactly(18)
sock.sendall(struct.pack(">I", 3))
assert option(11) == [(1, b"")]
assert option(8)[0][0] == 0x8000000A, "structured replies are asked for in vain"
names = [b"base:allocation", b"x-nbdmirror:state"]
queries = b"".join(struct.pack(">I", len(name)) + name for name in names)
contexts = {
    payload[4:]: struct.unpack(">I", payload[:4])[0]
    for kind, payload in option(10, struct.pack(">II", 0, 2) + queries)
    if kind == 4
}
allocation, state = (contexts[name] for name in names)
info = option(7, struct.pack(">IH", 0, 0))
size, flags = struct.unpack(">QH", info[0][1][2:])
assert size >= 6 * GiB and flags & (1 << 11) and flags & (1 << 12), hex(flags)

# Nothing was written: one extent of more than 32 bits... as far as one answer looks.
(count, what), *_ = status(0, size)[allocation]
assert count >= 1 << 32 and what == 3, (count, what)

noise = random.Random(5)
marks = {offset: noise.randbytes(5000) for offset in (0, 4 * GiB - 2500, size - 5000)}
for offset, data in marks.items():
    done(WRITE, offset, len(data), PAYLOAD | FUA, data)
for offset, data in marks.items():
    assert read(offset, len(data)) == data
done(WRITE, 123456, 512, 0, b"q" * 512)
assert read(123456, 512) == b"q" * 512, "a write without PAYLOAD_LEN has its payload all the same"

# Contexts by name.
assert set(status(0, size)) == {allocation, state}
assert set(status(0, size, ids=[state])) == {state}
assert set(status(0, size, ids=[state, allocation])) == {allocation, state}
assert all(len(extents) == 1 for extents in status(0, size, REQ_ONE).values())
for bad in ([state, state], [99], [0]):
    refused(22, STATUS, 0, 8 + 4 * len(bad), PAYLOAD, struct.pack(f">Q{len(bad)}I", 4096, *bad))

# Ranges beyond 32 bits in one request.
done(CACHE, 0, size)
done(FLUSH)
done(ZEROES, 8192, size - 8192 - 5000, NO_HOLE)
assert read(0, 5000) == marks[0] and read(size - 5000, 5000) == marks[size - 5000]
assert read(4 * GiB - 2500, 5000) == bytes(5000) and read(123456, 512) == bytes(512)
done(TRIM, 0, size, FUA)
assert read(0, 5000) == bytes(5000) and read(size - 5000, 5000) == bytes(5000)
refused(22, TRIM, 4096, size)
refused(28, ZEROES, 4096, (1 << 64) - 1)
refused(75, READ, 0, size)

# A payload where none belongs is thrown away, and the next request is understood.
refused(22, READ, 0, 4096, PAYLOAD, bytes(4096))
refused(22, FLUSH, 0, 70000, PAYLOAD, bytes(70000))
refused(22, STATUS, 0, 20, PAYLOAD, bytes(20))
done(WRITE, 0, 4096, PAYLOAD, b"z" * 4096)
assert read(0, 4096) == b"z" * 4096

# The compact form has no place any more.
sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, READ, 1, 0, 512) + bytes(4))
assert sock.recv(1) == b""
