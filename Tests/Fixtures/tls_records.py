"""Speaks NBD over TLS in ways that no client does by itself.

Usage: tls_records.py PORT FOLDER VERSION
FOLDER has the authority's ca-cert.pem; VERSION is 1.2 or 1.3. Ends with status 0 if all is as it should be.
"""
import random
import select
import socket
import ssl
import struct
import sys

PORT, FOLDER, VERSION = int(sys.argv[1]), sys.argv[2], sys.argv[3]
STARTTLS, STRUCTURED, GO = 5, 8, 7
READ, WRITE, DISC = 0, 1, 2


def option(code, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", code, len(data)) + data


def request(kind, cookie, offset=0, count=0):
    return struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie, offset, count)


def exactly(sock, count):
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(min(count - len(parts), 1 << 20))
        assert part, f"the connection ended after {len(parts)} of {count} bytes"
        parts += part
    return bytes(parts)


def reply_to(sock, code):
    magic, option_code, kind, count = struct.unpack(">QIII", exactly(sock, 20))
    assert magic == 0x3E889045565A9 and option_code == code, (hex(magic), option_code)
    return kind, exactly(sock, count)


def greeted():
    plain = socket.create_connection(("localhost", PORT), timeout=60)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    exactly(plain, 18)
    plain.sendall(struct.pack(">I", 3))
    return plain


def encrypted():
    plain = greeted()
    plain.sendall(option(STARTTLS))
    assert reply_to(plain, STARTTLS) == (1, b"")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(f"{FOLDER}/ca-cert.pem")
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[VERSION]
    context.minimum_version = context.maximum_version = version
    tls = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
    assert tls.version() == f"TLSv{VERSION}" and "GCM" in tls.cipher()[0], tls.cipher()
    return tls


def attached(by_byte=False):
    tls = encrypted()
    send(tls, option(GO, struct.pack(">I3sH", 3, b"lab", 0)), by_byte)
    while True:
        kind, _ = reply_to(tls, GO)
        if kind == 1:
            return tls
        assert kind == 3, hex(kind)


def send(sock, data, by_byte=False):
    if not by_byte:
        return sock.sendall(data)
    for index in range(len(data)):
        sock.sendall(data[index : index + 1])


def simple(sock, cookie, count=0):
    magic, error, got = struct.unpack(">IIQ", exactly(sock, 16))
    assert (magic, error, got) == (0x67446698, 0, cookie), (hex(magic), error, got)
    return exactly(sock, count)


def ended(sock):
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def conversation(tls, data, answers, answer_bytes):
    """Sends `data` while it receives so many answers, in one thread."""
    unsent, got = memoryview(data), bytearray()
    tls.setblocking(False)
    while len(got) < answers * answer_bytes:
        waits = ([], [])
        try:
            got += tls.recv(min(answers * answer_bytes - len(got), 1 << 20)) or end()
            continue
        except ssl.SSLWantReadError:
            waits[0].append(tls)
        try:
            while unsent:
                unsent = unsent[tls.send(unsent[:65536]) :]
        except ssl.SSLWantWriteError:
            waits[1].append(tls)
        assert any(select.select(*waits, [], 60)), "nothing moves"
    tls.settimeout(60)
    assert not unsent
    for index in range(answers):
        yield bytes(got[index * answer_bytes : (index + 1) * answer_bytes])


def end():
    raise AssertionError("the connection ended")


noise = random.Random(int(VERSION[2:]))

# A record for every byte: options, headers, payload.
tls = attached(by_byte=True)
data = noise.randbytes(4096)
send(tls, request(WRITE, 1, 8192, 4096) + data, by_byte=True)
simple(tls, 1)
send(tls, request(READ, 2, 8192, 4096), by_byte=True)
assert simple(tls, 2, 4096) == data

# Payloads that begin and end anywhere in records of any length.
for cookie, count in enumerate([1, 511, 16384, 32767, 32768, 65537, 33 << 20], 10):
    data = noise.randbytes(count)
    rest = memoryview(request(WRITE, cookie, 3, count) + data)
    while rest:
        piece = noise.choice([1, 27, 28, 29, 4096, 16384, 16385, 100000, 1 << 20])
        tls.sendall(rest[:piece])
        rest = rest[piece:]
    simple(tls, cookie)
    tls.sendall(request(READ, cookie, 3, count))
    assert simple(tls, cookie, count) == data, f"{count} bytes differ"

# A thousand requests in one breath, answered in any order; then goodbye, said properly. One thread: two
# that use a session of OpenSSL at once take each other's errors for their own.
batch = b"".join(request(READ, 1000 + index, 4096 * index, 4096) for index in range(1000))
cookies = set()
for answer in conversation(tls, batch + request(DISC, 0), 1000, 16 + 4096):
    magic, error, cookie = struct.unpack(">IIQ", answer[:16])
    assert magic == 0x67446698 and error == 0
    cookies.add(cookie)
assert len(cookies) == 1000
# Without close_notify this would raise.
assert tls.recv(1) == b""
tls.close()

# Plain text in the same breath as STARTTLS was put there by somebody else.
plain = greeted()
plain.sendall(option(STARTTLS) + option(STRUCTURED))
data = b""
while True:
    part = b"" if ended(plain) else b"x"
    if not part:
        break
    data += part
    assert len(data) <= 20, "more than the reply to STARTTLS came"

# No TLS where it was promised.
plain = greeted()
plain.sendall(option(STARTTLS))
reply_to(plain, STARTTLS)
plain.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
data = b""
while not data.endswith(b"!"):
    try:
        part = plain.recv(100)
    except ConnectionResetError:
        break
    if not part:
        break
    data += part
    assert len(data) < 100

# A write that is cut off writes nothing.
tls = attached()
tls.sendall(request(WRITE, 1, 0, 1 << 20) + b"\xee" * 500000)
tls.close()
tls = attached()
tls.sendall(request(READ, 2, 0, 1 << 20))
assert b"\xee" * 16 not in simple(tls, 2, 1 << 20)
tls.close()
