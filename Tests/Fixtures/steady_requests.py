"""A client whose batches are all the same: 16 reads and 16 writes of 4 KiB, answered before the next.

    steady_requests.py SOCKET COUNT_FILE

Says how many allocations the server made (COUNT_FILE, see count_allocations.c) during 100,000 requests
after a warm-up that lasts until the server's timers have run.
"""
import socket
import struct
import sys
import time

REQUESTS = 100_000
BLOCK = 4096


def exactly(stream, count):
    parts = []
    while count:
        part = stream.recv(count)
        if not part:
            raise SystemExit("the server closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def connect(path):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    exactly(stream, 18)
    # Fixed newstyle without zeroes, then EXPORT_NAME of the default export.
    stream.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
    exactly(stream, 10)
    return stream


def main():
    stream = connect(sys.argv[1])

    def allocations():
        with open(sys.argv[2], "rb") as file:
            return struct.unpack("=Q", file.read(8))[0]

    batch = b""
    for number in range(32):
        is_write = number % 2
        offset = number * 37 % 512 * BLOCK
        batch += struct.pack(">IHHQQI", 0x25609513, 0, is_write, number, offset, BLOCK)
        if is_write:
            batch += bytes([number]) * BLOCK
    reply = 16 * (16 + BLOCK) + 16 * 16

    def run(batches):
        for _ in range(batches):
            stream.sendall(batch)
            answer = exactly(stream, reply)
            if answer[:4] != b"\x67\x44\x66\x98":
                raise SystemExit("no simple reply came")

    warm = time.monotonic() + 1.5
    while time.monotonic() < warm:
        run(50)
    before = allocations()
    if before == 0:
        raise SystemExit("the counter counts nothing")
    run(REQUESTS // 32)
    print(allocations() - before)


main()
